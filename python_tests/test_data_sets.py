# SPDX-License-Identifier: BSD-3-Clause
"""Data sets by file and by looking: which format they have, what they lack, and what is doubtful about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_runs
from stores import smooth_fields
from test_formats import make_folders, make_frames, make_hmdb, make_tsn, names, touch, write

import twostream_ext as ts
from twostream_ext.data import DataSource, Folders, HMDBLists, TSNLists, UCFLists, find_doubts, open_data, read_source
from twostream_ext.errors import FlowStoreError, ListError, SettingsError
from twostream_ext.flow import write_flow_clip
from twostream_ext.media import write_frame_clip


def make_ucf(root: Path) -> Path:
    touch(root, "A/a.avi", "A/b.avi", "B/a.avi", "B/b.avi")
    lists = {
        "classInd": "1 A\r\n2 B\r\n",
        "trainlist02": "A/a.avi 1\r\nB/a.avi 2\r\n",
        "testlist02": "A/b.avi\r\nB/b.avi\r\n",
    }
    return write(root, **lists)


# ---- the file --------------------------------------------------------------------------------------------------------


def toml(folder: Path, text: str, name: str = "set.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_file_says_where_a_data_set_is(tmp_path: Path) -> None:
    """Relative paths count from the file, and not from the folder of this process."""
    text = 'videos = "v"\nlists = "l"\nformat = "ucf"\nsplit = 2\nflow = "f"\nframes = "/x/y"\n'
    text += 'leave_out = ["B"]\nwhole = true\n'
    file = toml(tmp_path / "sets", "\ufeff" + text, "ucf101.toml")
    here = tmp_path / "sets"
    assert read_source(file) == DataSource(
        here / "v", here / "l", "ucf", 2, here / "f", Path("/x/y"), ("B",), True, "ucf101"
    )
    assert read_source(toml(tmp_path, 'videos = "v"')) == DataSource(tmp_path / "v", name="set")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('vidoes = "v"', "set.toml: key 'vidoes' is not known; did you mean 'videos'?"),
        ('videos = "v"\nlabels = "l"', "key 'labels' is not known"),
        ('videos = "v"\nname = "n"', "key 'name' is not known"),
        ('lists = "l"', "lacks the key 'videos'"),
        ("videos = 3", "videos is 3, expected a text"),
        ('videos = "v"\nsplit = "1"', "split is '1', expected a whole number"),
        ('videos = "v"\nsplit = true', "split is True, expected a whole number"),
        ('videos = "v"\nleave_out = "A"', "leave_out is 'A', expected a list of class names"),
        ('videos = "v"\nwhole = 1', "whole is 1, expected true or false"),
        ("videos = ", "set.toml: is no TOML: "),
        ("x = " + "[" * 5000, "set.toml: is no TOML: "),
        ("x = " + "9" * 5000, "set.toml: is no TOML: "),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_source(toml(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "set.toml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.toml: cannot be read: No such file"):
        read_source(tmp_path / "none.toml")
    (tmp_path / "set.toml").write_bytes(b'videos = "\xff"')
    with pytest.raises(SettingsError, match=r"set.toml: is not UTF-8 text"):
        read_source(tmp_path / "set.toml")


# ---- the format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [True, False], ids=["said", "found"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside the videos", "in a folder"])
@pytest.mark.parametrize(
    ("form", "make", "kind", "split"),
    [("ucf", make_ucf, UCFLists, 2), ("hmdb", make_hmdb, HMDBLists, 1), ("tsn", make_tsn, TSNLists, 1)],
)
def test_a_format_is_found_by_looking(
    tmp_path: Path, form: str, make: Any, kind: Any, split: int, beside: bool, said: bool
) -> None:
    videos = lists = make(tmp_path / "videos")
    if not beside:
        lists = tmp_path / "lists"
        lists.mkdir()
        for path in list(videos.glob("*.txt")):
            path.rename(lists / path.name)
    opened = open_data(DataSource(videos, None if beside else lists, form if said else None, split))
    assert (opened.format, opened.drawn) == (form, None)
    expected = kind(videos, lists, split=split)
    assert (opened.data.classes, opened.data.train, opened.data.test) == (
        expected.classes,
        expected.train,
        expected.test,
    )
    file = toml(tmp_path, f'videos = "videos"\nsplit = {split}\n' + ("" if beside else 'lists = "lists"\n'))
    assert ts.data.read(file).train == expected.train


def test_without_lists_the_split_is_drawn_and_kept(tmp_path: Path) -> None:
    videos = make_folders(tmp_path / "videos", {"A": list(range(9)), "B": list(range(9))})
    opened = open_data(DataSource(videos), seed=3, drawn_lists=tmp_path / "lists")
    assert (opened.format, opened.drawn) == ("folders", Folders(videos, seed=3).split)
    assert opened.data.train == Folders(videos, seed=3).train
    ts.data.write_ucf_lists(tmp_path / "lists", opened.drawn)
    touch(videos, "A/v_A_g70_c01.avi")
    again = open_data(DataSource(videos), seed=4, drawn_lists=tmp_path / "lists")
    assert again.drawn is None
    assert (again.data.train, again.data.test) == (opened.data.train, opened.data.test)


def test_what_is_in_doubt_is_said_with_what_was_looked_for(tmp_path: Path) -> None:
    videos = make_ucf(tmp_path / "videos")
    (tmp_path / "empty").mkdir()
    looked_for = r"empty: holds no lists; looked for trainlist01.txt .*UCF-101.*HMDB-51.*TSN, MMAction2"
    for source, message in (
        (DataSource(videos, tmp_path / "empty"), looked_for),
        (DataSource(videos, tmp_path / "none"), r"none: no such directory"),
        (DataSource(tmp_path / "none"), r"none: no such directory"),
        (
            DataSource(write(videos, A_test_split1="a.avi 1\n")),
            r"several formats \(ucf, hmdb\); a --data file says which",
        ),
        (DataSource(videos, format="hmdb", split=2), r"no list <class>_test_split2.txt"),
        (DataSource(videos, format="ucf", split=1), r"trainlist01.txt: cannot be read"),
    ):
        with pytest.raises(ListError, match=message):
            open_data(source)
    for source, message in (
        (DataSource(videos, format="ucf101"), r"format is 'ucf101', expected one of ucf, hmdb, tsn, folders"),
        (DataSource(videos, videos, format="folders"), r"format 'folders' takes no lists"),
        (DataSource(videos, split=0), r"split is 0, expected a whole number from 1"),
        (DataSource(videos, format="ucf", split=2, leave_out=("b",)), r"leave_out: 'b' is no class of the data set"),
    ):
        with pytest.raises(SettingsError, match=message):
            open_data(source)


def test_classes_are_left_out_and_a_whole_set_is_trained_on(tmp_path: Path) -> None:
    """The data sets that table 2 of the paper adds to another."""
    root = make_folders(tmp_path, {name: [1, 2, 3] for name in ("Archery", "Biking", "Diving")}, clips=1)
    drawn = Folders(root)
    left = open_data(DataSource(root, leave_out=("Biking",))).data
    assert left.classes == ["Archery", "Diving"]
    assert [left.classes[video.label] for video in left.test.videos] == ["Archery", "Diving"]
    assert names(left.train.videos) == [name for name in names(drawn.train.videos) if "Biking" not in name]
    whole = open_data(DataSource(root, whole=True)).data
    assert names(whole.train.videos) == [*names(drawn.train.videos), *names(drawn.test.videos)]
    assert not whole.test.videos
    assert find_doubts("set", whole) == []
    with pytest.raises(SettingsError, match="'Dving' is no class of the data set; did you mean 'Diving'"):
        open_data(DataSource(root, leave_out=("Dving",)))


# ---- stores ----------------------------------------------------------------------------------------------------------


def store_of(root: Path, *clips: str, frames: int = 3) -> Path:
    for name in clips:
        fields = smooth_fields(frames - 1, size=(8, 8))
        write_flow_clip(root / "flow" / f"{name}.safetensors", forward=fields, codec="raw")
        write_frame_clip(root / "frames" / f"{name}.safetensors", [np.zeros((8, 8, 3), np.uint8)] * frames)
    return root


@pytest.mark.parametrize("kind", ["flow", "frames"])
def test_videos_that_a_store_lacks(tmp_path: Path, kind: str) -> None:
    videos = make_ucf(tmp_path / "videos")
    store_of(tmp_path, "A/a", "B/b")
    message = rf"{kind}: holds no video 'B/a'; 2 of 4 listed are missing: 'B/a', 'A/b'; skip_missing"
    with pytest.raises(FlowStoreError, match=message):
        UCFLists(videos, videos, split=2, **{kind: tmp_path / kind})
    data = UCFLists(videos, videos, split=2, skip_missing=True, **{kind: tmp_path / kind})
    assert (names(data.train.videos), names(data.test.videos)) == (["A/a"], ["B/b"])
    assert data.missing == ("B/a.avi", "A/b.avi")
    assert find_doubts("set", data) == [
        "2 listed videos are missing and left out: 'B/a.avi', 'A/b.avi'",
        "1 of 2 classes have no training video: 'B'",
        "1 of 2 classes have no test video: 'A'",
    ]
    other = store_of(tmp_path / "other", "a", "b")
    with pytest.raises(FlowStoreError, match="holds no video 'A/a', and none of the 4 listed; it has 'a', 'b'"):
        UCFLists(videos, videos, split=2, skip_missing=True, **{kind: other / kind})


def test_a_store_has_what_a_link_leads_to(tmp_path: Path) -> None:
    videos = make_ucf(tmp_path / "videos")
    store_of(tmp_path, "A/a", "A/b")
    (tmp_path / "flow" / "B").symlink_to("A", target_is_directory=True)
    assert UCFLists(videos, videos, split=2, flow=tmp_path / "flow").missing == ()


# ---- doubts ----------------------------------------------------------------------------------------------------------


def test_sound_data_is_not_doubted(tmp_path: Path) -> None:
    videos = make_ucf(tmp_path)
    assert find_doubts("set", UCFLists(videos, videos, split=2)) == []


def test_videos_in_both_lists(tmp_path: Path) -> None:
    training_runs.make_lists(tmp_path)
    assert find_doubts("set", UCFLists(tmp_path, tmp_path)) == [
        "1 of 1 test videos are training videos, too: 'c0/a'",
        "2 of 3 classes have no test video: 'c1', 'c2'",
    ]


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    root = make_folders(tmp_path, {"A": [1, 2, 3]})
    with pytest.raises(SettingsError, match=r"set: a classifier needs at least 2 classes, got \['A'\]"):
        find_doubts("set", Folders(root))


@pytest.mark.parametrize(("listed", "said"), [(2, False), (3, False), (4, False), (5, True), (1, True)])
@pytest.mark.parametrize("kind", ["flow", "frames"])
def test_numbers_of_frames_may_be_off_by_one(tmp_path: Path, kind: str, listed: int, said: bool) -> None:
    """Some tools count frames, others flow; and OpenCV does not find the last frame of each file."""
    make_frames(tmp_path / "v", "A/a", "B/b")
    write(tmp_path / "v", train=f"A/a {listed} 0\nB/b 3 1\n", val=f"A/a {listed} 0\nB/b 3 1\n")
    store_of(tmp_path, "A/a", "B/b")
    doubts = find_doubts("set", TSNLists(tmp_path / "v", tmp_path / "v", **{kind: tmp_path / kind}))
    assert doubts[0] == "2 of 2 test videos are training videos, too: 'A/a', 'B/b'"
    about = f"1 videos have other numbers of frames than their list says: A/a has 3 and not {listed}"
    assert doubts[1:] == ([about] if said else [])
