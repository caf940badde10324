# SPDX-License-Identifier: BSD-3-Clause
"""Split lists in UCF-101's format, with the traps of the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from twostream_ext.data import Split, UCFLists, Video, generate_videos, read_ucf_lists
from twostream_ext.errors import ListError, SettingsError
from twostream_ext.extraction import extract

CLASSES = ["Archery", "Hammering", "HammerThrow", "HandstandPushups", "JumpingJack", "JumpRope"]
TRAIN = [
    "Archery/v_Archery_g08_c01.avi 1",
    "Hammering/v_Hammering_g08_c01.avi 2",
    "HammerThrow/v_HammerThrow_g08_c01.avi 3",
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 4",
    "JumpRope/v_JumpRope_g08_c01.avi 6",
]
TEST = ["JumpingJack/v_JumpingJack_g01_c02.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"]


def write_set(
    root: Path,
    *,
    classes: list[str] | None = None,
    train: list[str] | None = None,
    test: list[str] | None = None,
    end: str = "\n",
) -> Path:
    """Lists and empty files for the videos they name."""
    train = TRAIN if train is None else train
    test = TEST if test is None else test
    numbered = [f"{i} {name}" for i, name in enumerate(CLASSES if classes is None else classes, 1)]
    for name, lines in (("classInd", numbered), ("trainlist01", train), ("testlist01", test)):
        (root / f"{name}.txt").write_bytes("".join(line + end for line in lines).encode())
    for line in TRAIN + TEST + [line for line in train + test if "/" in line]:
        file = root / line.removesuffix(f" {line.split()[-1]}" if line.split()[-1].isdigit() else "")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


@pytest.mark.parametrize("end", ["\n", "\r\n", " \r\n", "\n\n", "\r\n\r\n\r\n"])
def test_ucf_lists(tmp_path: Path, end: str) -> None:
    write_set(tmp_path, end=end)
    split = read_ucf_lists(tmp_path, tmp_path)
    assert split == Split(
        CLASSES,
        [
            Video("Archery/v_Archery_g08_c01.avi", "Archery/v_Archery_g08_c01", 0),
            Video("Hammering/v_Hammering_g08_c01.avi", "Hammering/v_Hammering_g08_c01", 1),
            Video("HammerThrow/v_HammerThrow_g08_c01.avi", "HammerThrow/v_HammerThrow_g08_c01", 2),
            Video(
                "HandstandPushups/v_HandStandPushups_g08_c01.avi",
                "HandstandPushups/v_HandStandPushups_g08_c01",
                3,
            ),
            Video("JumpRope/v_JumpRope_g08_c01.avi", "JumpRope/v_JumpRope_g08_c01", 5),
        ],
        [
            Video("JumpingJack/v_JumpingJack_g01_c02.avi", "JumpingJack/v_JumpingJack_g01_c02", 4),
            Video(
                "HandstandPushups/v_HandStandPushups_g01_c01.avi",
                "HandstandPushups/v_HandStandPushups_g01_c01",
                3,
            ),
        ],
        folder=tmp_path,
    )


def test_order_is_that_of_the_file_and_not_of_sorting(tmp_path: Path) -> None:
    classes = read_ucf_lists(write_set(tmp_path), tmp_path).classes
    assert classes == CLASSES
    assert classes != sorted(classes)


def test_names_with_every_character_of_hmdb_and_spaces(tmp_path: Path) -> None:
    name = "a b!#&()+;@[]~-_25fps 7"
    write_set(
        tmp_path,
        classes=["two words", "Archery"],
        train=[f"two words/{name}.avi 1"],
        test=[f"two words/{name}.v2.avi", "Archery/99.avi"],
    )
    split = read_ucf_lists(tmp_path, tmp_path)
    assert split.train == [Video(f"two words/{name}.avi", f"two words/{name}", 0)]
    assert split.test[0] == Video(f"two words/{name}.v2.avi", f"two words/{name}.v2", 0)
    assert split.test[1] == Video("Archery/99.avi", "Archery/99", 1)


@pytest.mark.parametrize(
    ("line", "path", "name"),
    [
        ("./Archery//a/.././b.avi", None, None),
        ("./Archery//./b.avi 1", "Archery/b.avi", "Archery/b"),
        ("more/Archery/b.v2.avi", "more/Archery/b.v2.avi", "more/Archery/b.v2"),
        ("more.dots/Archery/b", "more.dots/Archery/b", "more.dots/Archery/b"),
        ("Archery/.b.avi", "Archery/.b.avi", "Archery/.b"),
        ("Archery/.b", "Archery/.b", "Archery/.b"),
        ("Archery/b.", "Archery/b.", "Archery/b."),
    ],
)
def test_ways_to_write_a_path(tmp_path: Path, line: str, path: str | None, name: str | None) -> None:
    write_set(tmp_path, test=[line])
    if path is None or name is None:
        with pytest.raises(ListError, match="expected '<Class>/<file>'"):
            read_ucf_lists(tmp_path, tmp_path)
    else:
        assert read_ucf_lists(tmp_path, tmp_path).test == [Video(path, name, 0)]


def test_a_video_by_a_link_is_there_and_a_link_to_nothing_is_none(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name, target in (("link", TEST[0]), ("broken", "nothing")):
        (tmp_path / "testlist01.txt").write_text(f"Archery/{name}.avi\n")
        (tmp_path / "Archery" / f"{name}.avi").symlink_to(tmp_path / target)
        if name == "link":
            assert len(read_ucf_lists(tmp_path, tmp_path).test) == 1
        else:
            with pytest.raises(ListError, match=f"line 1: no video '.*{name}.avi'"):
                read_ucf_lists(tmp_path, tmp_path)


def test_other_split_in_another_folder(tmp_path: Path) -> None:
    videos, lists = tmp_path / "videos", tmp_path / "lists"
    videos.mkdir()
    lists.mkdir()
    write_set(videos)
    (lists / "classInd.txt").write_text("\ufeff1 Archery\n2\tHammering", encoding="utf-8")
    (lists / "trainlist03.txt").write_text(TRAIN[0])
    (lists / "testlist03.txt").write_text(TRAIN[1])
    split = read_ucf_lists(videos, lists, split=3)
    assert [video.label for video in split.train + split.test] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [*TRAIN, "Archery 1"]}, r"trainlist01.txt, line 6: expected '<Class>/<file>'"),
        ({"train": [*TRAIN, "../x/y.avi 1"]}, r"trainlist01.txt, line 6: expected '<Class>/<file>'"),
        ({"train": [*TRAIN, "Diving/v.avi 1"]}, r"trainlist01.txt, line 6: class 'Diving' is not in"),
        ({"test": [*TEST, "Diving/v.avi"]}, r"testlist01.txt, line 3: class 'Diving' is not in"),
        ({"train": [*TRAIN, "Archery/v.avi 0"]}, r"trainlist01.txt, line 6: class id is 0"),
        ({"train": [*TRAIN, "Archery/v.avi 2"]}, r"line 6: class id is 2, but 'Archery' has 1"),
        ({"train": [*TRAIN, "Archery/v.avi 77"]}, r"line 6: class id is 77"),
        ({"train": [*TRAIN, TRAIN[0]]}, r"line 6: video 'Archery/.*' is listed twice"),
        ({"train": []}, r"trainlist01.txt: is empty"),
        ({"test": ["", " "]}, r"testlist01.txt: is empty"),
        ({"classes": []}, r"classInd.txt: is empty"),
        ({"classes": [*CLASSES, "Archery"]}, r"classInd.txt, line 7: class 'Archery' is listed twice"),
        ({"classes": ["Archery", ""]}, r"classInd.txt, line 2: expected '<id> <Class>'"),
    ],
)
def test_wrong_lists(tmp_path: Path, changes: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ListError, match=message) as caught:
        read_ucf_lists(write_set(tmp_path, **changes), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0 Archery", "2 Archery", "x Archery", "1 Archery\n3 Hammering"])
def test_wrong_class_ids(tmp_path: Path, text: str) -> None:
    write_set(tmp_path)
    (tmp_path / "classInd.txt").write_text(text)
    with pytest.raises(ListError, match=r"classInd.txt, line \d: class id is .*, expected \d"):
        read_ucf_lists(tmp_path, tmp_path)


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"nowhere: no such directory"):
        read_ucf_lists(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ListError, match=r"classInd.txt: cannot be read: No such file"):
        read_ucf_lists(tmp_path, tmp_path)
    write_set(tmp_path)
    with pytest.raises(ListError, match=r"trainlist02.txt: cannot be read"):
        read_ucf_lists(tmp_path, tmp_path, split=2)
    (tmp_path / TRAIN[2].split()[0]).unlink()
    with pytest.raises(ListError, match=r"trainlist01.txt, line 3: no video '.*HammerThrow_g08_c01"):
        read_ucf_lists(tmp_path, tmp_path)
    (tmp_path / "classInd.txt").write_bytes(b"1 \xff\xfe")
    with pytest.raises(ListError, match=r"classInd.txt: is not UTF-8"):
        read_ucf_lists(tmp_path, tmp_path)


def test_real_lists(shared_data: Path) -> None:
    folder = shared_data / "ut-interaction"
    for number, (train, test) in {1: (83, 37), 2: (84, 36), 3: (60, 60)}.items():
        split = read_ucf_lists(folder, folder, number)
        assert (len(split.classes), len(split.train), len(split.test)) == (6, train, test)
        assert len({video.name for video in split.train + split.test}) == 120
        for video in split.train + split.test:
            assert video.path.startswith(f"{split.classes[video.label]}/")


def test_lists_with_their_stores(tmp_path: Path) -> None:
    generate_videos(tmp_path / "videos", seed=1, train_per_class=1, test_per_class=1, frames=3, size=(32, 40))
    flow, frames = tmp_path / "flow", tmp_path / "frames"
    extract(tmp_path / "videos", flow, smallest_side=None, frames_out=frames, progress=False)
    bare = UCFLists(tmp_path / "videos", tmp_path / "videos")
    with pytest.raises(SettingsError, match="no flow store"):
        bare.train.flow_store()
    with pytest.raises(SettingsError, match="no frame store"):
        bare.train.frame_store()
    data = UCFLists(tmp_path / "videos", tmp_path / "videos", split=1, flow=flow, frames=frames)
    assert data.classes == bare.classes
    assert data.test.labels.tolist() == [video.label for video in data.test.videos] == list(range(16))
    video = data.train.videos[3]
    assert data.train.flow_store()[video.name].frame_count == len(data.train.frame_store()[video.name]) == 3
