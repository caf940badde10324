# SPDX-License-Identifier: BSD-3-Clause
"""Folders as people have them: links that lead anywhere, what may not be read, files where folders are expected."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_runs import make_lists, make_store
from videos import moving_frames, write_video

from twostream_ext.cli import main
from twostream_ext.data import read_ucf_lists
from twostream_ext.errors import FlowStoreError, ListError
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowStore
from twostream_ext.media import FrameStore

NOBODY = 65534


def in_time(script: str, folder: Path, *, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """A program in a folder, given ten seconds beside its imports; as another user where that is said."""
    imports = "import os; from pathlib import Path; from twostream_ext.cli import main; "
    imports += (
        "b'a'.decode('utf-8-sig'); import twostream_ext.data, twostream_ext.extraction, twostream_ext.media.directory; "
    )
    imports += "" if user is None else f"os.setuid({user}); "
    path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path if each)
    return subprocess.run(
        [sys.executable, "-c", imports + script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_videos(root: Path, *names: str) -> Path:
    for name in names:
        write_video(root / name, moving_frames(3))
    return root


def folders_with_links_to_all(root: Path, count: int) -> None:
    """Paths that no program ever gets to the end of."""
    for number in range(count):
        (root / f"class{number}").mkdir(parents=True)
        (root / f"class{number}" / "video.avi").touch()
        for other in range(count):
            (root / f"class{number}" / f"to{other}").symlink_to(root / f"class{other}", target_is_directory=True)
        (root / f"class{number}" / "up").symlink_to(root, target_is_directory=True)


def test_each_folder_is_listed_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    folders_with_links_to_all(tmp_path, 12)
    script = "print(len(list(twostream_ext.media.directory.list_folders(Path()))))"
    done = in_time(script, tmp_path)
    assert (done.returncode, done.stdout) == (0, "13\n"), done.stderr


def test_links_into_the_tree_give_no_video_twice(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", "A/a.avi", "B/b.avi")
    for place, target in (("loop", "."), ("A/up", ".."), ("A/b", "../B"), ("B/a", "../A"), ("aaa", "B")):
        (videos / place).symlink_to(target, target_is_directory=True)
    outside = make_videos(tmp_path / "elsewhere", "c.avi")
    (videos / "C").symlink_to(outside, target_is_directory=True)
    (outside / "back").symlink_to(videos, target_is_directory=True)
    (videos / "C again").symlink_to(outside, target_is_directory=True)
    store = extract(videos, tmp_path / "flow", method="dis", smallest_side=None, progress=False)
    assert list(store) == ["A/a", "B/b", "C/c"]


def test_a_clip_is_found_under_the_name_of_a_link_to_its_folder(tmp_path: Path) -> None:
    """Some have a second name for a class that lists write in two ways."""
    make_store(tmp_path)
    (tmp_path / "alias").symlink_to("c0", target_is_directory=True)
    store = FlowStore.open(tmp_path)
    assert list(store) == ["c0/a", "c0/b", "c1/a", "c1/b", "c2/a", "c2/b"]
    assert store["alias/a"].frame_count == store["c0/a"].frame_count


@pytest.fixture
def closed() -> Iterator[Path]:
    """Videos of two classes, of which nobody but root may read one."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        make_lists(folder)
        (folder / "c1").chmod(0o000)
        (folder / "out").mkdir()
        os.chown(folder / "out", NOBODY, NOBODY)
        yield folder
        (folder / "c1").chmod(0o755)


def test_a_folder_that_may_not_be_read_is_named(closed: Path) -> None:
    done = in_time(f"print(main(['extract', {str(closed)!r}, {str(closed / 'out' / 'flow')!r}]))", closed, user=NOBODY)
    assert done.stdout == "1\n"
    assert done.stderr == f"twostream: error: {closed / 'c1'}: cannot be read: Permission denied\n"
    script = "\ntry: twostream_ext.data.read_ucf_lists('.', '.')\nexcept Exception as error: print(repr(error))"
    done = in_time(script, closed, user=NOBODY)
    assert "trainlist01.txt, line 3: video 'c1/a.avi': Permission denied" in done.stdout, done.stderr


def test_a_class_id_of_any_length_is_compared(tmp_path: Path) -> None:
    make_lists(tmp_path)
    for number, says in (
        ("9" * 5000, "class id is 999"),
        ("0" * 5000 + "1", None),
        ("0", "class id is 0, but 'c0' has 1"),
    ):
        (tmp_path / "trainlist01.txt").write_text(f"c0/a.avi {number}\n")
        if says is None:
            read_ucf_lists(tmp_path, tmp_path)
        else:
            with pytest.raises(ListError, match=says):
                read_ucf_lists(tmp_path, tmp_path)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A file, a directory, and what stands at them where the other is expected; a sound store, lists and videos."""
    make_lists(tmp_path)
    make_store(tmp_path / "flow")
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    return {name: tmp_path / name for name in ("file", "folder", "flow", "run", ".")}


WRONG = {
    "extract file OUT": ("file", "is a file, expected a directory"),
    "extract none OUT": ("none", "no such directory"),
    "extract . file": ("file", "is a file, expected a directory"),
    "extract . OUT --frames file": ("file", "is a file, expected a directory"),
    "run --videos file --lists . --out OUT": ("file", "is a file, expected a directory"),
    "run --videos . --lists file --out OUT": ("file", "is a file, expected a directory"),
    "run --videos . --lists . --out file": ("file", "is a file, expected a directory"),
    "demo --out file": ("file", "is a file, expected a directory"),
    "train temporal --videos . --lists . --flow file --out OUT": ("file", "is a file, expected a directory"),
    "train spatial --videos . --lists . --frames flow --out OUT": ("flow/c0/a.safetensors", "holds 'flow', expected"),
    "evaluate --model folder --videos . --lists . --out OUT": ("folder", "is a directory, expected a file"),
    "evaluate --model file --videos . --lists . --out folder": ("folder", "is a directory, expected a file"),
    "fuse folder": ("folder", "is a directory, expected a file"),
    "predict folder --model run": ("folder", "holds no videos"),
    "predict none --model run": ("none", "no such file"),
    "predict c0/a.avi --model file": ("file", "is a file, expected a directory"),
}


@pytest.mark.parametrize("command", WRONG)
def test_a_path_of_the_wrong_kind_is_named_with_what_it_is(
    places: dict[str, Path], command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places["."])
    place, says = WRONG[command]
    assert main(command.split()) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("twostream: error: ")
    assert place in line
    assert says in line


def test_a_store_of_another_kind_is_told(tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", "A/a.avi")
    extract(tmp_path / "videos", tmp_path / "flow", method="dis", smallest_side=None, frames_out=tmp_path / "frames")
    with pytest.raises(FlowStoreError, match="frames: is a store of frames, expected one of flow"):
        FlowStore.open(tmp_path / "frames")
    with pytest.raises(FlowStoreError, match="flow: is a store of flow, expected one of frames"):
        FrameStore.open(tmp_path / "flow")


def test_a_hidden_video_that_is_named_is_found(tmp_path: Path) -> None:
    make_videos(tmp_path, ".hidden.avi")
    assert list(extract(tmp_path, tmp_path / "flow", method="dis", smallest_side=None, names=[".hidden.avi"])) == [
        ".hidden"
    ]


@pytest.mark.parametrize("out", ["flow/c0/a.safetensors", "trainlist01.txt", "c0/a.avi", "link"])
def test_scores_are_not_written_over_a_file_of_an_input(
    places: dict[str, Path], out: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places["."])
    Path("link").symlink_to("trainlist01.txt")
    before = Path(out).read_bytes()
    sources = ["--videos", ".", "--lists", ".", "--flow", "flow"]
    assert main(["evaluate", "--model", "file", *sources, "--out", out]) == 2
    assert "is a file of the input" in capsys.readouterr().err
    assert Path(out).read_bytes() == before
