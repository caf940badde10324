# SPDX-License-Identifier: BSD-3-Clause
"""No output of any command is an input of it: tried for every pair of options that name files or folders."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from twostream_ext.cli import main, make_parser
from twostream_ext.cli.paths import ReadsFile, ReadsFolder, ReadsPaths, Use, WritesFile, WritesFolder, find_use
from twostream_ext.errors import SettingsError
from twostream_ext.extraction import extract

# Options with a text that names no file.
_WORDS = {"device", "method", "estimator", "scheduler", "stream", "backbone", "net"}


def commands() -> dict[str, argparse.ArgumentParser]:
    (actions,) = [each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(actions.choices)


def uses(command: str) -> dict[str, Use]:
    found = {option.dest: find_use(option) for option in commands()[command]._actions}
    return {name: use for name, use in found.items() if use is not None}


COMMANDS = {command: uses(command) for command in commands()}


@pytest.mark.parametrize("command", commands())
def test_every_option_that_names_a_path_says_what_is_done_with_it(command: str) -> None:
    for option in commands()[command]._actions:
        is_text = option.type is None and option.choices is None and option.nargs != 0 and option.dest not in _WORDS
        assert (option.type is Path or is_text) == (find_use(option) is not None), option.dest


def make_place(place: Path, use: Use) -> Path:
    """A file or folder as an option wants one; that of an output is there, too, as if the command ran again."""
    if isinstance(use, ReadsFile | WritesFile):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"of the user " + place.name.encode())
    elif isinstance(use, ReadsPaths):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text('videos = "no such folder"')
    else:
        (place / "A").mkdir(parents=True)
        for name in ("A/a.mp4", "A/a.safetensors", "a.txt"):
            (place / name).write_bytes(b"of the user")
    return place


def arguments(command: str, places: dict[str, Path]) -> list[str]:
    """All options that name a path, and what else must be given."""
    words, positional = [command], []
    for option in commands()[command]._actions:
        if option.dest in places:
            values = [str(places[option.dest])]
        elif option.required:
            values = [next(iter(option.choices or ["spatial"]))]
        else:
            continue
        if option.option_strings:
            words += [option.option_strings[-1], *values]
        else:
            positional += values
    return [*words, *(["--"] if positional else []), *positional]


Pair = tuple[str, str, str]


def pairs() -> Iterator[Pair]:
    """Of each command each output with each input and each other output."""
    for command in commands():
        named = uses(command)
        outputs = [name for name, use in named.items() if not isinstance(use, ReadsFile | ReadsFolder | ReadsPaths)]
        for place, output in enumerate(outputs):
            yield from ((command, output, other) for other in named if other not in outputs[place:])


def tries(out: Use, other: Use, place: Path, link: Path) -> Iterator[Path]:
    """Paths for an output that would be, or be part of, what `other` names."""
    if isinstance(other, ReadsFile | ReadsPaths) and isinstance(out, WritesFolder):
        for number, name in enumerate(out.files()):
            file = link.with_name(f"link{number}") / name
            file.parent.mkdir(parents=True)
            file.symlink_to(place)
            yield link.with_name(f"link{number}")
        return
    yield place
    link.symlink_to(place)
    yield link
    if isinstance(other, ReadsFile | ReadsPaths | WritesFile):
        hard = link.with_name("hard")
        os.link(place, hard)
        yield hard
        yield place.parent / ".." / place.parent.name / place.name
        return
    inside = "A/a.safetensors" if isinstance(other, ReadsFolder) and ".mp4" in other.unread else "A/a.mp4"
    yield place / "new"
    yield link / "A" if isinstance(out, WritesFolder) else link / inside
    if isinstance(out, WritesFile):
        elsewhere = link.with_name("elsewhere.mp4")
        elsewhere.write_bytes(b"of the user")
        (place / "A" / "link.mp4").symlink_to(elsewhere)
        yield elsewhere


def is_lossless(out: Use, other: Use, path: Path) -> bool:
    """Whether nothing is lost: folders beside videos, and files that are new in a folder which is no store."""
    if not isinstance(other, ReadsFolder) or other.is_store:
        return False
    return not isinstance(out, WritesFile) or not path.exists() or path.suffix in other.unread


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pair", list(pairs()), ids="-".join)
def test_no_output_is_an_input(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, output, other = pair
    named = uses(command)
    places = {name: make_place(tmp_path / name / f"{name}.mp4", use) for name, use in named.items()}
    (tmp_path / "links").mkdir()
    tried = 0
    for path in tries(named[output], named[other], places[other], tmp_path / "links" / "link"):
        before = content(tmp_path)
        if is_lossless(named[output], named[other], path):
            continue
        tried += 1
        assert main(arguments(command, {**places, output: path})) == 2, path
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(path) in error
        assert content(tmp_path) == before
    if isinstance(named[output], WritesFolder) and not isinstance(named[other], ReadsFolder):
        assert tried == len(named[output].files())  # nothing else that it writes could be given
        return
    # A run may leave its files beside the videos and lists that it reads.
    folders_alone = isinstance(named[output], WritesFolder) or not isinstance(named[output], WritesFile)
    assert tried or (folders_alone and named[other] == named.get("videos", named[other]))


@pytest.mark.parametrize("command", [each for each, named in COMMANDS.items() if "data" in named])
def test_no_output_is_an_input_that_a_file_names(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store of a `--data` file is one as that of `--flow` is."""
    for name in ("videos", "flow"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.toml").write_text('videos = "videos"\nflow = "flow"')
    (tmp_path / "model").write_bytes(b"of the user")
    places = {"data": tmp_path / "a.toml", "model": tmp_path / "model", "out": tmp_path / "flow" / "new"}
    assert main(arguments(command, places)) == 2
    assert "lies in the input" in capsys.readouterr().err


@pytest.mark.parametrize("command", [each for each in commands() if len(uses(each)) > 1])
def test_places_of_their_own_are_no_matter(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {name: make_place(tmp_path / f"{name}.mp4", use) for name, use in uses(command).items()}
    main(arguments(command, places))
    error = capsys.readouterr().err
    assert "the input" not in error
    assert "the output" not in error


@pytest.mark.parametrize("below", [".", "flow"])
def test_pictures_of_flow_are_not_put_among_videos(tmp_path: Path, below: str) -> None:
    """The next extraction would take them for numbered images of a video."""
    (tmp_path / "a01.avi").write_bytes(b"video")
    with pytest.raises(SettingsError, match="would be taken for those of a video"):
        extract(tmp_path, tmp_path / below, method="dis", preview=True, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a01.avi"]
