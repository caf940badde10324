# SPDX-License-Identifier: BSD-3-Clause
"""A folder of class folders without lists: which videos are for training and which for testing is drawn."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from twostream_ext.data.split import Split, Video, group_of, some_of, without_case
from twostream_ext.errors import ListError
from twostream_ext.files import check_directory
from twostream_ext.media import VIDEO_EXTENSIONS, list_videos

TEST_SHARE = 0.3  # of the videos of each class, as in HMDB-51; UCF-101 has 28 %


def split_folders(videos_dir: str | os.PathLike[str], split: int = 1, *, seed: int = 0) -> Split:
    """Divide the videos of a folder of class folders: three tenths of each class, as nearly as can be, are for testing.

    The class of a video is the folder that it lies in; classes come in the order of their names, upper and lower case
    alike, as in UCF-101. Videos of one group (`_g07_` in the names, as in UCF-101) show the same people and scenes:
    groups, counted across all classes, are for training or for testing as a whole, and no class is tested that would
    have no video left to learn from. The draw depends on the names, the seed and the split alone.

    ListError if a video lies in no class folder, or no class has two videos, or two groups of them.
    """
    root = Path(videos_dir)
    check_directory(root, ListError)
    found = _by_name(root)
    if not found:
        raise ListError(f"{root}: no videos ({', '.join(VIDEO_EXTENSIONS)}), and no lists of any")
    loose = [path for path in found.values() if "/" not in path]
    if loose:
        raise ListError(f"{root}: {some_of(loose)} lies in no class folder, expected <class>/<video>")
    classes = sorted({_class(path) for path in found.values()}, key=without_case)
    labels = {name: label for label, name in enumerate(classes)}
    videos = [Video(path, name, labels[_class(path)]) for name, path in found.items()]
    videos.sort(key=lambda video: (video.label, video.path))
    drawn = _draw_test([group_of(video.path) for video in videos], [video.label for video in videos], seed, split)
    if not any(drawn):
        raise ListError(f"{root}: cannot be divided: no class has two videos, or two groups (_g01_) of them")
    train, test = (
        [video for video, is_test in zip(videos, drawn, strict=True) if is_test is part] for part in (False, True)
    )
    return Split(classes, train, test, folder=root)


def _by_name(root: Path) -> dict[str, str]:
    """The paths of all videos by the names of their clips."""
    found: dict[str, str] = {}
    for path, name in list_videos(root, ListError):
        if name in found:
            raise ListError(f"{root / path}: has the name of {found[name]!r}, but for the ending")
        found[name] = path
    return found


def _class(path: str) -> str:
    return PurePosixPath(path).parent.name


def _draw_test(groups: Sequence[str], labels: Sequence[int], seed: int, split: int) -> list[bool]:
    """Whether each video is for testing.

    Groups come in a random order. One is for testing if that brings the classes nearer to their shares, and then, for
    classes that still have no test video, the first that has one of theirs.
    """
    members: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        members.setdefault(group, Counter())[label] += 1
    counts = Counter(labels)
    wanted = {label: max(1, round(TEST_SHARE * count)) for label, count in counts.items()}
    chosen: set[str] = set()
    taken: Counter[int] = Counter()

    def may_test(group: str) -> bool:
        return all(taken[label] + more < counts[label] for label, more in members[group].items())

    def brings_nearer(group: str) -> bool:
        """In parts of the shares, or a large class would take all groups of a small one."""
        off = [(wanted[label], wanted[label] - taken[label], more) for label, more in members[group].items()]
        return sum((abs(lack - more) - abs(lack)) / share for share, lack, more in off) < 0

    def has_untested(group: str) -> bool:
        return any(not taken[label] for label in members[group])

    order = sorted(members)
    np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, split]))).shuffle(order)
    for is_wanted in (brings_nearer, has_untested):
        for group in order:
            if group not in chosen and may_test(group) and is_wanted(group):
                chosen.add(group)
                taken += members[group]
    return [group in chosen for group in groups]
