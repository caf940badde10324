# SPDX-License-Identifier: BSD-3-Clause
"""Debian's Chromium without a screen, driven through its DevTools protocol: what a page does in a real browser."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)

_PATIENCE = 120  # seconds


class Page:
    """A tab, and all that it has complained of."""

    def __init__(self, commands: IO[bytes], answers: IO[bytes]) -> None:
        self._commands, self._answers = commands, answers
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self._read_ahead = b""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    @property
    def complaints(self) -> list[str]:
        """What the console got: errors, warnings, exceptions, and everything that was asked of another machine."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        asked = [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]
        elsewhere = [address for address in asked if not address.startswith(("file:", "data:"))]
        return [json.dumps(event) for kind in kinds for event in self._of(kind)] + elsewhere

    def open(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Show a file in a window of that width, in pixels, and wait until it is there."""
        self.visit(path.resolve().as_uri(), width=width, dark=dark)

    def visit(self, address: str, *, width: int, dark: bool = False) -> None:
        """Show what lies at an address, as `open` does."""
        self._events.clear()
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Page.navigate", url=address)
        while not self._of("Page.loadEventFired"):
            self._events.append(self._read())

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def type(self, text: str) -> None:
        """Write text where the cursor is."""
        self._ask("Input.insertText", text=text)

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(picture))

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event.get("method") == kind]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        message: dict[str, Any] = {"id": next(self._numbers), "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != message["id"]:
            self._events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._read_ahead:
            ready, _, _ = select.select([self._answers], [], [], _PATIENCE)
            assert ready, f"Chromium has said nothing for {_PATIENCE} s"
            text = os.read(self._answers.fileno(), 1 << 20)
            assert text, "Chromium has ended"
            self._read_ahead += text
        text, _, self._read_ahead = self._read_ahead.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


@contextmanager
def browse(profile: Path) -> Iterator[Page]:
    """A page of a new Chromium, which keeps its own files in `profile`; skips the test where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here")
    (for_chromium, commands), (answers, from_chromium) = os.pipe(), os.pipe()

    # Chromium reads commands from file 3 and writes answers to file 4.
    start = f'exec "$0" "$@" 3<&{for_chromium} 4>&{from_chromium}'
    process = subprocess.Popen(
        ["bash", "-c", start, program, *_OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
        pass_fds=(for_chromium, from_chromium),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(for_chromium)
    os.close(from_chromium)
    try:
        with os.fdopen(commands, "wb") as to, os.fdopen(answers, "rb", buffering=0) as back:
            yield Page(to, back)
    finally:
        process.terminate()
        process.wait()
