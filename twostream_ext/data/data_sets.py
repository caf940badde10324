# SPDX-License-Identifier: BSD-3-Clause
"""Data sets: the training and the test videos of one split, with their stores, from whichever lists people have."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import ClassVar

from twostream_ext.data.folders import split_folders
from twostream_ext.data.hmdb import read_hmdb_lists
from twostream_ext.data.split import Split, Video, some_of
from twostream_ext.data.tsn import read_tsn_lists
from twostream_ext.data.ucf import read_ucf_lists
from twostream_ext.data.video_sets import VideoSet
from twostream_ext.errors import FlowStoreError, SettingsError, closest
from twostream_ext.flow import FlowStore
from twostream_ext.media import FrameStore, is_made_of

AnyPath = str | os.PathLike[str]


class DataSet:
    """The training and the test videos of one split, and the names of their classes.

    Args:
        split: the videos; see `UCFLists` and the others for what reads them from lists.
        flow: directory of a flow store of these videos, as `twostream_ext.extract` writes it, or of a tree of another
            tool; or the store itself, of which `FlowStore.open` can be told more.
        frames: directory of a frame store (`twostream_ext.extract(..., frames_out=)`).
        skip_missing: leave out videos that a store has not; `missing` then has their paths.

    Raises:
        FlowStoreError: a directory holds no store of its kind, or the store lacks videos that are not to be skipped.
    """

    classes: list[str]
    train: VideoSet
    test: VideoSet
    missing: tuple[str, ...]
    """Paths of listed videos that are left out, as the folder of videos or a store has them not."""

    def __init__(
        self,
        split: Split,
        *,
        flow: AnyPath | FlowStore | None = None,
        frames: AnyPath | None = None,
        skip_missing: bool = False,
    ) -> None:
        self.split = split
        """As it was read, whatever the stores have."""
        flow_store = flow if flow is None or isinstance(flow, FlowStore) else FlowStore.open(flow)
        frame_store = None if frames is None else FrameStore.open(frames)
        missing: dict[str, None] = dict.fromkeys(split.missing)
        for store in (flow_store, frame_store):
            if store is not None:
                missing |= dict.fromkeys(_missing_in(store, [*split.train, *split.test], skip_missing))
        self.classes = split.classes
        self.missing = tuple(missing)
        self.train, self.test = (
            VideoSet([video for video in videos if video.path not in missing], flow_store, frame_store)
            for videos in (split.train, split.test)
        )


class _ListedData(DataSet):
    _read: ClassVar[Callable[..., Split]]

    def __init__(
        self,
        videos: AnyPath,
        lists: AnyPath,
        *,
        split: int = 1,
        flow: AnyPath | FlowStore | None = None,
        frames: AnyPath | None = None,
        skip_missing: bool = False,
    ) -> None:
        found = self._read(videos, lists, split, skip_missing=skip_missing)
        super().__init__(found, flow=flow, frames=frames, skip_missing=skip_missing)


class UCFLists(_ListedData):
    """The videos of one split, listed as UCF-101's are.

    Args:
        videos: directory with `<Class>/<video>` files.
        lists: directory with `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`; see `read_ucf_lists`.
        split: N of the lists.
        flow, frames: their stores; see `DataSet`.
        skip_missing: leave out listed videos that are not there, or not in a store; `missing` names them.

    Raises:
        ListError: a list is missing or wrong; names the list and the line.
        FlowStoreError: as for `DataSet`.
    """

    _read = staticmethod(read_ucf_lists)


class HMDBLists(_ListedData):
    """The videos of one split, listed as HMDB-51's are: `<class>_test_split<N>.txt` for each class.

    Arguments and errors as for `UCFLists`; see `read_hmdb_lists`.
    """

    _read = staticmethod(read_hmdb_lists)


class TSNLists(_ListedData):
    """The videos of one split, listed as TSN, tsn-pytorch and MMAction2 do: `ucf101_train_split_1_videos.txt`, ...

    Arguments and errors as for `UCFLists`; see `read_tsn_lists`.
    """

    _read = staticmethod(read_tsn_lists)


class Folders(DataSet):
    """The videos of a folder of class folders without lists, divided at random: see `split_folders`.

    Args:
        videos: directory with `<class>/<video>` files, or folders of numbered images.
        split, seed: decide the draw.
        flow, frames: their stores; see `DataSet`.
        skip_missing: leave out videos that are not in a store.

    Raises:
        ListError: there are no videos, or they cannot be divided.
        FlowStoreError: as for `DataSet`.
    """

    def __init__(
        self,
        videos: AnyPath,
        *,
        split: int = 1,
        seed: int = 0,
        flow: AnyPath | FlowStore | None = None,
        frames: AnyPath | None = None,
        skip_missing: bool = False,
    ) -> None:
        super().__init__(split_folders(videos, split, seed=seed), flow=flow, frames=frames, skip_missing=skip_missing)


def without_classes(split: Split, leave_out: Collection[str]) -> Split:
    """The split without some classes and their videos; the others keep their order.

    SettingsError, naming it and the nearest that there is, for a class that is not there.
    """
    for name in leave_out:
        if name not in split.classes:
            raise SettingsError(f"leave_out: {name!r} is no class of the data set{closest(name, split.classes)}")
    classes = [name for name in split.classes if name not in leave_out]
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (
        [video._replace(label=labels[name]) for video in videos if (name := split.classes[video.label]) in labels]
        for videos in (split.train, split.test)
    )
    return split._replace(classes=classes, train=train, test=test)


def trained_whole(split: Split) -> Split:
    """The split with all its videos for training: the data set that table 2 of the paper adds to another."""
    train = dict.fromkeys([*split.train, *split.test])
    return split._replace(train=list(train), test=[])


def find_doubts(place: object, data: DataSet, *, shares_head: bool = False) -> list[str]:
    """What makes a result doubtful, a line each, before hours of work: to be said, and to be noted with the result.

    Videos that are missing; videos that are for training and for testing; classes without a video for one of them;
    clips whose number of frames is another than the list says, by more than the one by which tools differ; videos that
    are not those that a store was made of.

    place: of the data set, for the error. shares_head: a classifier learns the classes of others beside these.

    SettingsError, naming it, if there is a single class, which nothing is told from, or no training video.
    """
    if len(data.classes) < 2 and not shares_head:
        raise SettingsError(f"{place}: a classifier needs at least 2 classes, got {data.classes}")
    if not data.train.videos:
        raise SettingsError(f"{place}: there are no training videos")
    train, test = data.train.videos, data.test.videos
    doubts = []
    if data.missing:
        doubts.append(f"{len(data.missing)} listed videos are missing and left out: {some_of(data.missing)}")
    both = sorted({video.name for video in train} & {video.name for video in test})
    if both:
        doubts.append(f"{len(both)} of {len(test)} test videos are training videos, too: {some_of(both)}")
    for part, videos in (("training", train), ("test", test)):
        labels = {video.label for video in videos}
        without = [name for label, name in enumerate(data.classes) if label not in labels]
        if without and videos:
            doubts.append(f"{len(without)} of {len(data.classes)} classes have no {part} video: {some_of(without)}")
    others = dict.fromkeys(_other_frame_counts(data)) if data.split.frame_counts else ()
    if others:
        doubts.append(
            f"{len(others)} videos have other numbers of frames than their list says: {'; '.join(list(others)[:3])}"
        )
    replaced = dict.fromkeys(_replaced(data))
    if replaced:
        doubts.append(
            f"{len(replaced)} videos are not those that the store was made of (extraction makes it again): "
            f"{some_of(replaced)}"
        )
    return doubts


def _replaced(data: DataSet) -> Iterator[str]:
    """The videos that are others now than when a store was made, as far as that notes of which it is."""
    if data.split.folder is None:
        return
    for videos in (data.train, data.test):
        for store in (videos.flow, videos.frames):
            if store is not None:
                for video in videos.videos:
                    if not is_made_of(store.peek(video.name).metadata, data.split.folder / video.path):
                        yield video.path


def _other_frame_counts(data: DataSet) -> Iterator[str]:
    """The videos of which a store has another number of frames than the list, with both."""
    for videos in (data.train, data.test):
        for video in videos.videos:
            listed = data.split.frame_counts.get(video.name)
            if videos.flow is not None:
                count = videos.flow.peek(video.name).frame_count
            elif videos.frames is not None:
                count = len(videos.frames.peek(video.name))
            else:
                return
            if listed is not None and abs(count - listed) > 1:
                yield f"{video.name} has {count} and not {listed}"


def _missing_in(store: FlowStore | FrameStore, videos: Sequence[Video], skip_missing: bool) -> list[str]:
    """Paths of the videos that a store has not."""
    missing = [video for video in videos if not _has(store, video.name)]
    if missing and (not skip_missing or len(missing) == len(videos)):
        text = f"{store.path}: holds no video {missing[0].name!r}"
        if len(missing) == len(videos):
            raise FlowStoreError(f"{text}, and none of the {len(videos)} listed; it has {some_of(store)}")
        if len(missing) > 1:
            text += f"; {len(missing)} of {len(videos)} listed are missing: {some_of(each.name for each in missing)}"
        raise FlowStoreError(f"{text}; skip_missing (--skip-missing) goes on without")
    return [video.path for video in missing]


def _has(store: FlowStore | FrameStore, name: str) -> bool:
    """Whether a store has a clip, if only by a link to a folder that is listed under its own name."""
    if name in store:
        return True
    try:
        store.peek(name)
    except FlowStoreError:
        return False
    return True
