# SPDX-License-Identifier: BSD-3-Clause
"""Lists of HMDB-51, TSN and MMAction2, and folders without lists, with the traps of the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from twostream_ext.data import (
    Split,
    Video,
    generate_videos,
    read_hmdb_lists,
    read_tsn_lists,
    read_ucf_lists,
    split_folders,
    write_ucf_lists,
)
from twostream_ext.errors import ListError

ODD = (
    "a b!#&()+;@[]~*?{x}_kick_f_cm_np1_ba_med_7"  # every character of HMDB-51's names, and those of a shell's patterns
)


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def make_frames(root: Path, *folders: str, count: int = 3) -> Path:
    return touch(root, *(f"{folder}/img_{number:05d}.jpg" for folder in folders for number in range(1, count + 1)))


def write(root: Path, **lists: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (root / f"{name}.txt").write_bytes(text.encode())
    return root


def names(videos: list[Video]) -> list[str]:
    return [video.name for video in videos]


def labels(split: Split) -> dict[str, int]:
    return {video.name: video.label for video in (*split.train, *split.test)}


# ---- HMDB-51 ---------------------------------------------------------------------------------------------------------

KICK = f"{ODD}.avi 1 \nk2.avi 2 \nk3.avi 0 \nk4.avi 1 \n"
BALL = "b1.avi 2 \nb2.avi 1 \n"


def make_hmdb(root: Path, **lists: str) -> Path:
    touch(root, f"kick/{ODD}.avi", "kick/k2.avi", "kick/k4.avi", "kick_ball/b1.avi", "kick_ball/b2.avi")
    return write(root, **{"kick_test_split1": KICK, "kick_ball_test_split1": BALL, **lists})


@pytest.mark.parametrize("end", ["\n", "\r\n", "  \r\n", "\n\n"])
def test_hmdb_lists(tmp_path: Path, end: str) -> None:
    """Flags, blanks at the ends of lines, names that no pattern may be made of; a clip of flag 0 need not be there."""
    kick, ball = (text.replace("\n", end) for text in (KICK, BALL))
    root = make_hmdb(tmp_path, kick_test_split1=kick, kick_ball_test_split1=ball)
    assert read_hmdb_lists(root, root) == Split(
        ["kick", "kick_ball"],
        [
            Video(f"kick/{ODD}.avi", f"kick/{ODD}", 0),
            Video("kick/k4.avi", "kick/k4", 0),
            Video("kick_ball/b2.avi", "kick_ball/b2", 1),
        ],
        [Video("kick/k2.avi", "kick/k2", 0), Video("kick_ball/b1.avi", "kick_ball/b1", 1)],
        folder=root,
    )


def test_hmdb_classes_have_the_order_of_their_names_or_of_a_list(tmp_path: Path) -> None:
    """Not that of the names of the lists."""
    root = make_hmdb(tmp_path)
    files = sorted(path.name for path in root.glob("*.txt"))
    assert files == ["kick_ball_test_split1.txt", "kick_test_split1.txt"]
    assert read_hmdb_lists(root, root).classes == ["kick", "kick_ball"]
    write(root, classInd="1 kick_ball\r\n2 kick\r\n")
    assert read_hmdb_lists(root, root).classes == ["kick_ball", "kick"]
    write(root, classInd="1 kick_ball\n2 kick\n3 run\n")
    with pytest.raises(ListError, match=r"class 'run' has no list and is in classInd.txt"):
        read_hmdb_lists(root, root)
    write(root, classInd="1 kick_ball\n")
    with pytest.raises(ListError, match=r"class 'kick' has a list and is not in classInd.txt"):
        read_hmdb_lists(root, root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("k2.avi 3", "kick_test_split1.txt, line 1: expected '<clip>.avi <flag>', the flag 0, 1 or 2, got 'k2.avi 3'"),
        ("k2.avi", "got 'k2.avi'"),
        ("k2.avi 1.0", "got 'k2.avi 1.0'"),
        ("../kick/k2.avi 1", "got '../kick/k2.avi'"),
        ("kick/k2.avi 1", "got 'kick/k2.avi 1'"),
        ("k2.avi 1\nk2.avi 1", "line 2: video 'kick/k2' is listed twice"),
        ("none.avi 2", "line 1: no video .*none.avi'; skip_missing"),
    ],
)
def test_wrong_hmdb_lists(tmp_path: Path, line: str, message: str) -> None:
    root = make_hmdb(tmp_path, kick_test_split1=line)
    with pytest.raises(ListError, match=message):
        read_hmdb_lists(root, root)


def test_hmdb_lists_of_other_splits_alone(tmp_path: Path) -> None:
    root = make_hmdb(tmp_path, kick_test_split2=KICK)
    with pytest.raises(ListError, match=r"no list kick_ball_test_split2.txt, but of other splits"):
        read_hmdb_lists(root, root, 2)
    with pytest.raises(ListError, match=r"no list <class>_test_split3.txt"):
        read_hmdb_lists(root, root, 3)


# ---- TSN, tsn-pytorch, MMAction2 -------------------------------------------------------------------------------------

VIDEOS = ["Bike/v_Bike_g01_c01", "Dive/v_Dive_g01_c01", "Bike/v_Bike_g08_c01", "Dive/v_Dive_g08_c 2"]


def make_tsn(root: Path, *, frames: bool = True, first: int = 0, stem: str = "ucf101_{}_split_1", **more: str) -> Path:
    """Two classes, a video of each for testing; as folders of images or as videos."""
    suffix, between = ("", " 3") if frames else (".avi", "")
    if frames:
        make_frames(root, *VIDEOS)
    else:
        touch(root, *(f"{name}.avi" for name in VIDEOS))
    lines = [f"{name}{suffix}{between} {first + number % 2}\r\n" for number, name in enumerate(VIDEOS)]
    lists = {stem.format("val"): "".join(lines[:2]), stem.format("train"): "".join(lines[2:])}
    return write(root, **{**lists, **more})


@pytest.mark.parametrize(
    "stem",
    [
        "ucf101_{}_split_1_rawframes",
        "ucf101_rgb_{}_split_1",
        "ucf101_flow_{}_split_1",
        "kinetics400_{}_list_rawframes",
        "{}_split01",
        "{}",
    ],
)
@pytest.mark.parametrize("frames", [True, False], ids=["folders", "videos"])
def test_tsn_lists(tmp_path: Path, frames: bool, stem: str) -> None:
    suffix = "" if frames else ".avi"
    expected = [Video(f"{name}{suffix}", name, number % 2) for number, name in enumerate(VIDEOS)]
    root = make_tsn(tmp_path, frames=frames, stem=stem)
    counts = dict.fromkeys(VIDEOS, 3) if frames else {}
    assert read_tsn_lists(root, root) == Split(["Bike", "Dive"], expected[2:], expected[:2], (), counts, root)


def test_a_folder_with_a_dot_keeps_its_whole_name(tmp_path: Path) -> None:
    make_frames(tmp_path, "A/v.1", "B/v.2")
    write(tmp_path, train="A/v.1 3 0\n", val="B/v.2 3 1\n")
    assert names(read_tsn_lists(tmp_path, tmp_path).train) == ["A/v.1"]


def test_paths_from_the_root_of_another_machine(tmp_path: Path) -> None:
    make_frames(tmp_path, "A/a", "flat", "B/b")
    here = tmp_path.absolute()
    write(tmp_path, train=f"/data/frames/A/a 3 0\n/data/frames/flat 3 1\n{here}/B/b 3 1\n", val="A/a 3 0\n")
    assert names(read_tsn_lists(tmp_path, tmp_path).train) == ["A/a", "flat", "B/b"]


@pytest.mark.parametrize("names_file", [{"classInd": "1 Bike\n2 Dive\n"}, {"label_map_ucf101": "Bike\nDive\n"}])
@pytest.mark.parametrize("first", [0, 1])
def test_labels_count_from_0_or_1(tmp_path: Path, names_file: dict[str, str], first: int) -> None:
    root = make_tsn(tmp_path, first=first, **names_file)
    split = read_tsn_lists(root, root)
    assert split.classes == ["Bike", "Dive"]
    assert labels(split) == {name: number % 2 for number, name in enumerate(VIDEOS)}
    (root / f"{next(iter(names_file))}.txt").unlink()
    assert labels(read_tsn_lists(root, root)) == labels(split)


def test_the_list_of_classes_decides_their_order_and_may_have_more(tmp_path: Path) -> None:
    root = make_tsn(tmp_path, first=1, classInd="1 Archery\n2 Bike\n3 Dive\n4 Yoyo\n")
    split = read_tsn_lists(root, root)
    assert [split.classes[video.label] for video in split.train] == ["Bike", "Dive"]
    root = make_tsn(tmp_path, first=2, classInd="1 Archery\n2 Bike\n3 Dive\n4 Yoyo\n")
    split = read_tsn_lists(root, root)  # from 1
    assert [split.classes[video.label] for video in split.train] == ["Bike", "Dive"]


def test_labels_without_names_and_without_folders_name_themselves(tmp_path: Path) -> None:
    make_frames(tmp_path, "a", "b", "c")
    write(tmp_path, train="a 3 7\nb 3 12\n", val="c 3 7\n")
    split = read_tsn_lists(tmp_path, tmp_path)
    assert split.classes == ["7", "12"]
    assert labels(split) == {"a": 0, "b": 1, "c": 0}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "Bike/a\n"}, r"train.txt, line 1: expected '<video> <label>' or .* got 'Bike/a'"),
        ({"train": "Bike/a x\n"}, "got 'Bike/a x'"),
        ({"train": "Bike/a -1\n"}, "got 'Bike/a -1'"),
        ({"train": f"Bike/a {'9' * 5000}\n"}, "got 'Bike/a 999"),
        ({"train": "../Bike/a 0\n"}, "line 1: expected .* got '../Bike/a'"),
        ({"train": "Bike/a 0\nBike/a 0\n"}, "line 2: video 'Bike/a' is listed twice"),
        ({"train": "Bike/a 0\nBike/x 0\n"}, "line 2: no video .*Bike/x'; skip_missing"),
        (
            {"train": "Bike/a 1\n", "val": "Dive/b 0\n", "classInd": "1 Bike\n2 Dive\n"},
            "label 1 is class 'Dive', but the",
        ),
        ({"train": "Bike/a 2\n", "val": "Dive/b 0\n", "classInd": "1 Bike\n2 Dive\n"}, "label is 2, expected 0 to 1"),
        ({"train": "Bike/a 0\n", "label_map": "Bike\nBike\n"}, "label_map.txt, line 2: class 'Bike' is listed twice"),
        (
            {"label_map_a": "Bike\n", "label_map_b": "Bike\n"},
            "'label_map_a.txt', 'label_map_b.txt' may name the classes",
        ),
        ({"x_train": "Dive/b 1\n", "x_val": "Bike/a 0\n"}, "fit, which are of different videos"),
    ],
)
def test_wrong_tsn_lists(tmp_path: Path, lists: dict[str, str], message: str) -> None:
    make_frames(tmp_path, "Bike/a", "Dive/b")
    write(tmp_path, **{"train": "Bike/a 0\n", "val": "Dive/b 1\n", **lists})
    with pytest.raises(ListError, match=message) as caught:
        read_tsn_lists(tmp_path, tmp_path)
    assert "\n" not in str(caught.value)


def test_of_lists_of_folders_and_of_videos_those_are_taken_that_are_there(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    for frames in (True, False):
        root = make_tsn(tmp_path / f"{frames}", frames=frames, stem="ucf101_{}_split_1_" + f"{frames}")
        for path in root.glob("*.txt"):
            lists.mkdir(exist_ok=True)
            path.rename(lists / path.name)
    assert read_tsn_lists(tmp_path / "True", lists).train[0].path == VIDEOS[2]
    assert read_tsn_lists(tmp_path / "False", lists).train[0].path == f"{VIDEOS[2]}.avi"
    with pytest.raises(ListError, match="none has its first video in"):
        read_tsn_lists(lists, lists)
    with pytest.raises(ListError, match="no lists of split 2"):
        read_tsn_lists(tmp_path / "True", lists, 2)


def test_lists_of_frames_and_of_flow_name_the_same_videos(tmp_path: Path) -> None:
    root = make_tsn(tmp_path, stem="ucf101_rgb_{}_split_1")
    for path in root.glob("*_rgb_*.txt"):  # a field less than frames
        path.with_name(path.name.replace("rgb", "flow")).write_text(path.read_text().replace(" 3 ", " 2 "))
    assert len(read_tsn_lists(root, root).train) == 2


# ---- folders ---------------------------------------------------------------------------------------------------------


def make_folders(root: Path, groups: dict[str, list[int]], *, clips: int = 2) -> Path:
    return touch(
        root,
        *(
            f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
            for name, own in groups.items()
            for group in own
            for clip in range(clips)
        ),
    )


def groups_of(videos: list[Video]) -> set[str]:
    return {video.name.split("_")[2] for video in videos}


@pytest.mark.parametrize("seed", range(5))
def test_folders_are_divided_by_groups_and_classes(tmp_path: Path, seed: int) -> None:
    groups = {"JumpRope": range(1, 26), "JumpingJack": range(1, 11), "hop": [3, 9, 14, 30]}
    split = split_folders(make_folders(tmp_path, {name: list(own) for name, own in groups.items()}), seed=seed)
    assert split.classes == ["hop", "JumpingJack", "JumpRope"]
    assert not groups_of(split.train) & groups_of(split.test)
    every = Counter(video.label for video in split.train + split.test)
    test = Counter(video.label for video in split.test)
    assert every == {0: 8, 1: 20, 2: 50}
    assert all(0.15 <= test[label] / count <= 0.5 for label, count in every.items())


def test_the_draw_depends_on_seed_and_split_alone(tmp_path: Path) -> None:
    """Not on how files end, nor on other folders that a link leads to."""
    groups = {"A": list(range(20)), "B": list(range(20))}
    first = make_folders(tmp_path / "first", groups)
    drawn = [names(split_folders(first, split, seed=seed).test) for seed in (0, 1) for split in (1, 2)]
    assert len({tuple(each) for each in drawn}) == 4
    assert names(split_folders(first).test) == drawn[0]
    for path in make_folders(tmp_path / "second", groups).rglob("*.avi"):
        path.rename(path.with_suffix(".mp4"))
    assert names(split_folders(tmp_path / "second").test) == drawn[0]


def test_videos_without_groups_are_divided_one_by_one(tmp_path: Path) -> None:
    make_frames(tmp_path, *(f"A/{number}" for number in range(10)))
    touch(tmp_path, *(f"B/x {number}.mp4" for number in range(3)), "C/only.mp4", "B/._x.mp4", "B/notes.txt")
    split = split_folders(tmp_path)
    assert Counter(video.label for video in split.test) == {0: 3, 1: 1}
    assert Counter(video.label for video in split.train) == {0: 7, 1: 2, 2: 1}


def test_a_class_of_the_last_group_is_still_tested(tmp_path: Path) -> None:
    """Large groups of one class bring it no nearer to its share, but without one it would have no test video."""
    touch(tmp_path, *(f"A/v_g01_{number}.avi" for number in range(2)), *(f"A/v_g02_{n}.avi" for n in range(30)))
    touch(tmp_path, *(f"B/v_g{group:02d}_{number}.avi" for group in (1, 2) for number in range(20)))
    split = split_folders(tmp_path)
    assert {video.label for video in split.test} == {video.label for video in split.train} == {0, 1}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no videos .*, and no lists of any"),
        (["A/a.avi", "b.avi"], "'b.avi' lies in no class folder"),
        (["A/a.avi", "B/b.avi"], "cannot be divided: no class has two videos"),
        (["A/v_g01_c01.avi", "A/v_g01_c02.avi"], "cannot be divided"),
        (["A/a.avi", "A/a.mp4", "A/b.avi"], r"A/a.* has the name of 'A/a.*', but for the ending"),
    ],
)
def test_folders_that_cannot_be_divided(tmp_path: Path, paths: list[str], message: str) -> None:
    with pytest.raises(ListError, match=message):
        split_folders(touch(tmp_path, *paths))


def test_lists_that_are_written_are_read_as_the_same(tmp_path: Path) -> None:
    make_frames(tmp_path, "A/v 2", "A/v 3", "two words/9", "two words/10", "B/" + ODD, "B/ü")
    split = split_folders(tmp_path)
    write_ucf_lists(tmp_path / "out", split)
    assert read_ucf_lists(tmp_path, tmp_path / "out") == split
    assert (tmp_path / "out" / "classInd.txt").read_text() == "1 A\n2 B\n3 two words\n"
    touch(tmp_path, "B/a\nb.avi")
    with pytest.raises(ListError, match=r"B/a\\nb.avi.* cannot be listed"):
        write_ucf_lists(tmp_path / "other", split_folders(tmp_path))
    assert not (tmp_path / "other" / "classInd.txt").exists()


# ---- all -------------------------------------------------------------------------------------------------------------


def as_ucf(root: Path) -> Callable[..., Split]:
    touch(root, "A/a.avi", "B/b.avi")
    write(root, classInd="1 A\n2 B\n", trainlist01="A/a.avi 1\nA/x.avi 1\nB/y.avi 2\n", testlist01="B/b.avi\nB/z.avi\n")
    return read_ucf_lists


def as_hmdb(root: Path) -> Callable[..., Split]:
    touch(root, "A/a.avi", "B/b.avi")
    write(root, A_test_split1="a.avi 1 \nx.avi 1 \n", B_test_split1="y.avi 1 \nb.avi 2 \nz.avi 2 \n")
    return read_hmdb_lists


def as_tsn(root: Path) -> Callable[..., Split]:
    touch(root, "A/a.avi", "B/b.avi")
    write(root, train="A/a.avi 0\nA/x.avi 0\nB/y.avi 1\n", val="B/b.avi 1\nB/z.avi 1\n")
    return read_tsn_lists


@pytest.mark.parametrize("layout", [as_ucf, as_hmdb, as_tsn])
def test_missing_videos_are_counted_and_left_out_if_so_told(tmp_path: Path, layout: Callable[..., Callable]) -> None:
    read = layout(tmp_path)
    message = (
        r", line 2: no video '.*A/x.avi'; 3 of 5 listed are missing: 'A/x.avi', 'B/y.avi', 'B/z.avi'; skip_missing"
    )
    with pytest.raises(ListError, match=message):
        read(tmp_path, tmp_path)
    split = read(tmp_path, tmp_path, skip_missing=True)
    assert (names(split.train), names(split.test)) == (["A/a"], ["B/b"])
    assert split.missing == ("A/x.avi", "B/y.avi", "B/z.avi")
    (tmp_path / "A" / "a.avi").unlink()
    (tmp_path / "B" / "b.avi").unlink()
    with pytest.raises(ListError, match=r"no video .*, and none of the 5 listed"):
        read(tmp_path, tmp_path, skip_missing=True)


def test_a_folder_is_a_video_unless_it_is_named_as_a_file_and_holds_no_images(tmp_path: Path) -> None:
    """Some tools name folders of frames by the whole name of the video."""
    make_frames(tmp_path, "A/a.avi", "A/b", "B/a", "B/b")
    write_ucf_lists(tmp_path, split_folders(tmp_path))
    split = read_ucf_lists(tmp_path, tmp_path)
    assert {video.name for video in (*split.train, *split.test)} == {"A/a.avi", "A/b", "B/a", "B/b"}
    for path in (tmp_path / "A" / "a.avi").iterdir():
        path.unlink()
    with pytest.raises(ListError, match=r"no video '.*A/a.avi'"):
        read_ucf_lists(tmp_path, tmp_path)


def test_generated_videos_are_divided_like_their_lists(tmp_path: Path) -> None:
    generate_videos(tmp_path, seed=0, train_per_class=2, test_per_class=1, frames=2)
    split = split_folders(tmp_path)
    assert split.classes == sorted(read_ucf_lists(tmp_path, tmp_path).classes, key=str.casefold)
    assert (len(split.train), len(split.test)) == (32, 16)
