# SPDX-License-Identifier: BSD-3-Clause
"""The command in terminals of all kinds: without UTF-8, closed by who reads, interrupted."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import make_lists
from videos import moving_frames, write_video

import twostream_ext
from twostream_ext.cli import main
from twostream_ext.engine import save_scores

PACKAGE = Path(twostream_ext.__file__).parent
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*arguments: str, folder: Path, **more: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path if each)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"}
    return subprocess.Popen(
        [sys.executable, "-m", "twostream_ext", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": path, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A pytest that was started in the background may have handed on that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_names_that_are_utf_8_are_read_whatever_the_locale(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "Ñandú" / "größe.avi", moving_frames(3))
    with command("extract", "videos", "flow", "--method", "dis", folder=tmp_path, **ASCII) as program:
        output, errors = program.communicate(timeout=100)
    assert program.returncode == 0, errors
    assert output == b"1 videos in flow\n"
    assert (tmp_path / "flow" / "Ñandú" / "größe.safetensors").exists()


def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    save_scores(tmp_path / "größe", ["a", "b"], torch.tensor([0, 1]), torch.eye(2))
    options = {"PYTHONIOENCODING": "ascii:strict"}
    with command("fuse", "größe", folder=tmp_path, **options) as program:
        output, errors = program.communicate(timeout=100)
    assert program.returncode == 0, errors
    assert b"gr\\xf6\\xdfe" in output


def test_a_closed_pipe_ends_the_command_without_a_word(tmp_path: Path) -> None:
    with command("info", folder=tmp_path) as program:
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 128 + signal.SIGPIPE


def test_ctrl_c_ends_what_is_in_work_and_nothing_else(tmp_path: Path) -> None:
    """A flow that notes each stretch of a long video that it is given, and takes its time."""
    write_video(tmp_path / "videos" / "a.avi", moving_frames(200, step=(1, 0)))
    lines = ["import time, numpy", "def estimate(frames):", "    print(len(frames), file=open('begun', 'a'))"]
    lines += ["    time.sleep(0.5)", "    return numpy.zeros((len(frames) - 1, 48, 64, 2), numpy.float32)"]
    (tmp_path / "slow.py").write_text("\n".join(lines))
    options = ["extract", "videos", "flow", "--workers", "2", "--size", "own", "--estimator", "slow:estimate"]
    with command(*options, folder=tmp_path) as program:
        wait_for(tmp_path / "begun", program)
        time.sleep(1)
        program.send_signal(signal.SIGINT)
        before = len((tmp_path / "begun").read_text().splitlines())
        errors = program.communicate(timeout=100)[1]
    assert program.returncode == 130, errors
    assert errors.endswith(b"twostream: interrupted; the same command goes on from here\n")
    # Two at work, of which one waits for the other: nobody calls an estimator twice at once. Until the signal is seen,
    # one more may be taken.
    assert len((tmp_path / "begun").read_text().splitlines()) <= before + 2
    assert [path.name for path in (tmp_path / "flow").rglob("*")] == ["store.json"]


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.avi", moving_frames(40, size=(240, 320), step=(1, 0)))
    estimator = "import time\ndef estimate(frames):\n    open('begun', 'w').close(); time.sleep(1000)\n"
    (tmp_path / "slow.py").write_text(estimator)
    with command("extract", "videos", "flow", "--estimator", "slow:estimate", folder=tmp_path) as program:
        wait_for(tmp_path / "begun", program)
        program.send_signal(signal.SIGINT)
        time.sleep(1)
        assert program.poll() is None
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=10)
    assert program.returncode == -signal.SIGINT


def wait_for(path: Path, program: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert program.poll() is None, program.communicate()
        time.sleep(0.02)


def test_training_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("twostream_ext.data.open_data", interrupted)
    make_lists(tmp_path)
    sources = ["--videos", str(tmp_path), "--lists", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["train", "temporal", *sources]) == 130
    assert "goes on from the last checkpoint, with --resume" in capsys.readouterr().err


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_text_files_are_opened_with_their_encoding_and_nothing_is_unpickled(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in calls(tree):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        is_open = name == "open" and ast.unparse(call.func) not in (
            "os.open",
            "av.open",
            "FlowStore.open",
            "FrameStore.open",
        )
        if name in ("read_text", "write_text") or (is_open and not any("b" in mode for mode in modes)):
            assert "encoding" in keywords, f"line {call.lineno}: {ast.unparse(call)}"
        assert name not in ("unsafe_load", "full_load", "loads") or ast.unparse(call.func) in (
            "json.loads",
            "tomllib.loads",
        )
        assert ast.unparse(call.func) not in ("eval", "yaml.load", "__import__", "os.system")
        if ast.unparse(call.func) == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True"
        assert "allow_pickle" not in keywords
        is_exec = ast.unparse(call.func) in ("exec", "compile")
        assert not is_exec or path.parts[-2:] == ("ops", "_operator.py")  # of text of our own
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
