# SPDX-License-Identifier: BSD-3-Clause
"""From a folder of videos to a two-stream result, in steps that are done once and kept.

What a run leaves in its directory: `run.json` (its settings), `flow/` and `frames/` (stores), `spatial/` and
`temporal/` (checkpoint, log, `model.safetensors`), `scores/`, `fusion/svm.safetensors`, where videos were held out
also `fusion/svm_chosen.safetensors`, `summary.json`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twostream_ext.data import (
    DataSet,
    DataSource,
    OpenedData,
    VideoSet,
    describe_data,
    find_doubts,
    hold_out,
    open_data,
    write_ucf_lists,
)
from twostream_ext.engine.checkpoint import TrainedNet, load_model, model_digest, model_origin, save_model, start_from
from twostream_ext.engine.origin import Origin, data_digest, tensor_digest, unlike, video_digest, videos_origin
from twostream_ext.engine.recipes import Recipe, new_net
from twostream_ext.engine.scores import Scores, load_scores, scores_origin, write_scores
from twostream_ext.engine.streams import STREAMS
from twostream_ext.engine.summary import RUN_FILE, SUMMARY_FILE, read_summary, write_summary
from twostream_ext.engine.train import CHECKPOINT_FILE, train
from twostream_ext.errors import CheckpointError, FlowStoreError, SettingsError
from twostream_ext.extraction import extract
from twostream_ext.files import remove_leftovers
from twostream_ext.flow import FlowStore, find_method
from twostream_ext.media import FrameStore, is_made_of
from twostream_ext.models import (
    CNN_M_2048,
    Accuracy,
    StreamNet,
    SVMFusion,
    choose_cost,
    choose_weights,
    freeze_backbone,
    fused_accuracies,
)
from twostream_ext.settings_files import claim

STORES = ("flow", "frames")

LISTS_FOLDER = "lists"
MODEL_FILE = "model.safetensors"
SVM_FILE = "fusion/svm.safetensors"
SVM_CHOSEN_FILE = "fusion/svm_chosen.safetensors"
"""The machine with the C that was chosen on what was held out; there is none where nothing was."""

_STORES: dict[str, Callable[[Path], FlowStore | FrameStore]] = {"flow": FlowStore.open, "frames": FrameStore.open}

Say = Callable[[str], None]

_HELD_OUT = "held_out"

# Settings of runs that earlier versions did not note, as they were then.
_UNNOTED = {
    "backbone": CNN_M_2048,
    "bidirectional": False,
    "input": "stack",
    "subtract": "mean",
    "hold_out": 0.0,
    **dict.fromkeys(STORES),
}


def run_pipeline(
    videos: str | os.PathLike[str],
    lists: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    recipe: Recipe,
    split: int = 1,
    form: str | None = None,
    flow: str | os.PathLike[str] | None = None,
    frames: str | os.PathLike[str] | None = None,
    leave_out: Sequence[str] = (),
    skip_missing: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 2,
    say: Say = print,
) -> dict[str, Any]:
    """Extract flow, train both nets, score all videos, fuse; return what `summary.json` holds.

    Each step leaves its result in `out`, and a step whose result is there is not done again: a run that was broken off
    goes on where it was (in training, at the last checkpoint), and a run that is whole returns at once. Results keep
    what they were made from, by content: where lists, flow or nets are others than they were, scores, the SVM and the
    summary are made again; of nets, which are costly, it is said that they do not fit.

    Args:
        videos: directory with `<Class>/<video>` files.
        lists: directory with the lists, `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt` as UCF-101's or those
            of another format (`data.FORMATS`); None: they are beside the videos, or there are none, and the videos are
            divided at random: `out` then gets the lists, in UCF-101's format.
        out: directory of the run.
        recipe: the numbers; see `RECIPES`.
        split: N of the lists, or of the draw.
        form: their format; None: it is found by looking.
        flow, frames: stores of the videos, to which `out` then has links: nothing is extracted. Frames alone may be
            given, but not flow alone.
        leave_out: classes to leave out.
        skip_missing: go on without listed videos that are not there, or not in a store.
        seed: decides every random draw; a run with the same settings gives the same result on the same machine.
        device: where flow is computed, if its method can, and where the nets are trained and tested.
        workers: processes that read training batches ahead.
        say: gets a line when a step begins or ends.

    Raises:
        TwoStreamError: one line that says what is wrong with the videos, the lists, the settings or the disk, or
            which net was trained on something else.
    """
    root = Path(out)
    if flow is not None and frames is None:
        raise SettingsError("flow is given without frames (--frames); twostream extract --frames makes both at once")
    source = source_of(videos, lists, form, split, flow, frames, leave_out)
    opened, notes = look_at_data(root, source, recipe, seed, skip_missing)
    listed, place = opened.data, source.lists or source.videos
    claim_run(root, source, split, seed, recipe)
    if opened.drawn is not None:
        write_ucf_lists(root / LISTS_FOLDER, opened.drawn)
    remove_leftovers(root)
    say(describe_data(place, opened))
    for note in notes:
        say(f"note: {note}")
    if (root / SUMMARY_FILE).exists() and _is_current(root, listed, source.videos, recipe, seed):
        return read_summary(root)
    with _step("flow and frames", say):
        _extract(root, source, listed, recipe, torch.device(device))
    data = DataSet(listed.split, flow=root / "flow", frames=root / "frames", skip_missing=skip_missing)
    for note in find_doubts(place, data):
        if note not in notes:
            say(f"note: {note}")
            notes.append(note)
    check_clips(data, recipe)
    parts = _parts(data, recipe, seed)
    scores: dict[str, dict[str, Scores]] = {}
    for stream in STREAMS:
        with _step(f"{stream} net, training", say):
            net = _train(root, stream, parts["train"], data.classes, recipe, seed, torch.device(device), workers)
        with _step(f"{stream} net, scores of all videos", say):
            scores[stream] = _score(root, stream, net, parts, data.classes, recipe)
    summary = _summarise(root, data, parts, scores, split, seed, recipe, notes)
    write_summary(root, summary)
    return summary


def source_of(
    videos: str | os.PathLike[str],
    lists: str | os.PathLike[str] | None,
    form: str | None,
    split: int,
    flow: str | os.PathLike[str] | None,
    frames: str | os.PathLike[str] | None,
    leave_out: Sequence[str],
) -> DataSource:
    """The data of a run, from what `run_pipeline` is given."""
    folders = [None if each is None else Path(each) for each in (lists, flow, frames)]
    return DataSource(Path(videos), folders[0], form, split, folders[1], folders[2], tuple(leave_out))


def look_at_data(
    root: Path, source: DataSource, recipe: Recipe, seed: int, skip_missing: bool
) -> tuple[OpenedData, list[str]]:
    """The listed videos of a run, and what is doubtful about them, before anything is written or computed.

    TwoStreamError, as of `run_pipeline`, if the lists cannot be read, or videos or nets cannot be what the recipe says.
    """
    opened = open_data(source, seed=seed, drawn_lists=root / LISTS_FOLDER, skip_missing=skip_missing)
    place = source.lists or source.videos
    notes = find_doubts(place, opened.data)
    if not opened.data.test.videos:
        raise SettingsError(f"{place}: there are no test videos")
    _parts(opened.data, recipe, seed)  # fails if nothing can be held out
    if not (root / RUN_FILE).exists():
        _check_nets(recipe, len(opened.data.classes))
    return opened, notes


def claim_run(root: Path, source: DataSource, split: int | str, seed: int, recipe: Recipe) -> None:
    """Note the run's settings in its directory, or check that they are those noted."""
    paths = {name: getattr(source, name) for name in ("videos", "lists", *STORES)}
    settings = {
        **{name: None if path is None else str(path.resolve()) for name, path in paths.items()},
        "split": split,
        "seed": seed,
        **recipe.as_json(),
    }
    claim(root / RUN_FILE, settings, CheckpointError, unnoted=_UNNOTED)


def flow_device(method: str, device: torch.device) -> str:
    """Where `extract` is to compute for a net on `device`: there, or on the CPU where that is all the method knows."""
    return str(device) if find_method(method).runs_on_cuda else "cpu"


def _extract(root: Path, source: DataSource, listed: DataSet, recipe: Recipe, device: torch.device) -> None:
    """Flow and frames into the run's directory, or links to those that are given."""
    for name in STORES:
        given: Path | None = getattr(source, name)
        if given is not None and not (root / name).exists():
            (root / name).symlink_to(given.resolve(), target_is_directory=True)
    if source.flow is not None:
        return
    extract(
        source.videos,
        _store(root, "flow"),
        method=recipe.flow_method,
        device=flow_device(recipe.flow_method, device),
        smallest_side=recipe.smallest_side,
        quality=recipe.jpeg_quality,
        backward=recipe.bidirectional,
        names=[video.path for video in (*listed.train.videos, *listed.test.videos)],
        frames_out=_store(root, "frames") if source.frames is None else None,
    )


def _store(root: Path, name: str) -> Path:
    """Where a store is made: splits share one by links, which lead nowhere until it is there."""
    path = root / name
    return path.resolve() if path.is_symlink() else path


def _check_nets(recipe: Recipe, classes: int) -> None:
    """Before hours of extraction: the nets can be made."""
    for stream in STREAMS:
        _first_net(recipe, stream, classes, seed=0)


def _first_net(recipe: Recipe, stream: str, classes: int, seed: int) -> StreamNet:
    """The net with which a training begins."""
    net = new_net(recipe, stream, classes, seed=seed)
    init = recipe.numbers(stream).init
    if init is not None:
        start_from(net, init)
    return net


def check_clips(data: DataSet, recipe: Recipe) -> None:
    """Before hours of training: every video has enough frames for a stack, and is large enough for a window."""
    store = data.train.flow_store()
    for video in (*data.train.videos, *data.test.videos):
        clip = store.peek(video.name)
        if clip.frame_count <= recipe.length:
            raise SettingsError(
                f"{video.path}: has {clip.frame_count} frames, a stack of {recipe.length} flow fields needs "
                f"{recipe.length + 1}; take it off the lists"
            )
        if min(clip.size) < recipe.input_size:
            raise SettingsError(
                f"{video.path}: its frames are {clip.size[1]}x{clip.size[0]} pixels, a window needs "
                f"{recipe.input_size}x{recipe.input_size}; take it off the lists"
            )


def _is_current(root: Path, listed: DataSet, folder: Path, recipe: Recipe, seed: int) -> bool:
    """Whether the summary that is there is of these lists and videos, and of the stores and nets that there are."""
    summary = read_summary(root)
    noted = summary.get("made_from")
    if noted is None:  # by 0.1.0, which kept the names of the videos and their classes with the scores alone
        return summary.get("classes") == listed.classes and all(
            _is_of(load_scores(_scores_file(root, stream, part)), videos)
            for stream in STREAMS
            for part, videos in _parts(listed, recipe, seed).items()
        )
    try:
        return unlike(noted, _summary_origin(root, listed)) is None and _are_made_of(root, listed, folder)
    except FlowStoreError:  # a video is missing in a store: the extraction sees to it
        return False


def _are_made_of(root: Path, listed: DataSet, videos: Path) -> bool:
    """Whether the stores that are there are of the videos that there are."""
    stores = [open_store(root / name) for name, open_store in _STORES.items() if (root / name).is_dir()]
    return all(
        is_made_of(store.peek(video.name).metadata, videos / video.path)
        for video in (*listed.train.videos, *listed.test.videos)
        for store in stores
    )


def _summary_origin(root: Path, listed: DataSet) -> dict[str, Any]:
    """What the result is made from, as far as it is there: who has deleted the flow of a finished run may do so."""
    videos = [*listed.train.videos, *listed.test.videos]
    origin: dict[str, Any] = {
        "classes": listed.classes,
        "train": video_digest(listed.train.videos),
        "test": video_digest(listed.test.videos),
    }
    for name, open_store in _STORES.items():
        if (root / name).is_dir():
            origin[name] = data_digest(open_store(root / name), videos)
    for stream in STREAMS:
        if (path := root / stream / MODEL_FILE).exists():
            origin[f"{stream} net"] = model_digest(path)
    return origin


def _parts(data: DataSet, recipe: Recipe, seed: int) -> dict[str, VideoSet]:
    """Those to train on, those to test on, and between them those of the training list that are held out, if any."""
    if not recipe.hold_out:
        return {"train": data.train, "test": data.test}
    kept, held_out = (
        data.train._replace(videos=videos) for videos in hold_out(data.train.videos, recipe.hold_out, seed)
    )
    return {"train": kept, _HELD_OUT: held_out, "test": data.test}


def _scores_file(root: Path, stream: str, part: str) -> Path:
    return root / "scores" / f"{stream}_{part}.safetensors"


def _is_of(scores: Scores, videos: VideoSet) -> bool:
    """Whether scores are of these videos, by name, class and order."""
    return scores.names == [video.name for video in videos.videos] and torch.equal(scores.labels, videos.labels)


def _train(
    root: Path,
    stream: str,
    videos: VideoSet,
    classes: list[str],
    recipe: Recipe,
    seed: int,
    device: torch.device,
    workers: int,
) -> StreamNet:
    path = root / stream / MODEL_FILE
    made_from = videos_origin(stream, videos)
    if not path.exists():
        numbers = recipe.numbers(stream)
        settings = numbers.settings(seed=seed, checkpoint_every=max(1, min(500, numbers.iterations // 10)))
        # What goes on from a checkpoint needs no file to start from.
        begin = new_net if (path.parent / CHECKPOINT_FILE).exists() else _first_net
        net = begin(recipe, stream, len(classes), seed=seed)
        if numbers.last_layer:
            freeze_backbone(net)
        train(net, videos, settings=settings, out_dir=root / stream, device=device, workers=workers)
        save_model(path, net, classes, made_from=made_from)
    trained = load_model(path, device)
    other = _trained_on_others(root, stream, trained, videos, classes, made_from)
    if other is not None:
        raise SettingsError(
            f"{path}: was trained on {other} than there are now; put back what it was, use another directory, or "
            f"remove {path.parent} to train again"
        )
    return trained.net


def _trained_on_others(
    root: Path, stream: str, trained: TrainedNet, videos: VideoSet, classes: list[str], made_from: Origin
) -> str | None:
    """On what a net was trained that is not there now, in words; None if it fits."""
    (own,) = trained.classes.values()
    noted = model_origin(root / stream / MODEL_FILE)
    if own != classes:
        return "other classes"
    scores = _scores_file(root, stream, "train")
    if not noted and scores.exists() and not _is_of(load_scores(scores), videos):
        return "other videos or another order of them"  # 0.1.0 noted them with the scores alone
    return unlike(noted, made_from)


def _score(
    root: Path, stream: str, net: StreamNet, parts: Mapping[str, VideoSet], classes: list[str], recipe: Recipe
) -> dict[str, Scores]:
    """Score the training videos too: the SVM learns from them."""
    scores = {}
    for part, videos in parts.items():
        path = _scores_file(root, stream, part)
        wanted = scores_origin(net, videos, frames=recipe.frames, crops=recipe.crops)
        kept = load_scores(path) if path.exists() else None
        if kept is None or not _is_of(kept, videos) or unlike(kept.made_from, wanted) is not None:
            kept = write_scores(path, net, videos, frames=recipe.frames, crops=recipe.crops, classes=classes)
        scores[part] = kept
    return scores


def _summarise(
    root: Path,
    data: DataSet,
    parts: Mapping[str, VideoSet],
    scores: dict[str, dict[str, Scores]],
    number: int,
    seed: int,
    recipe: Recipe,
    notes: list[str],
) -> dict[str, Any]:
    svm = _fit(root / SVM_FILE, [scores[stream]["train"] for stream in STREAMS])
    tested = {stream: scores[stream]["test"].scores for stream in STREAMS}
    chosen = _choose(root, {part: [scores[stream][part] for stream in STREAMS] for part in parts})
    given: dict[str, Any] = {"weights": chosen.weights, "svm_chosen": chosen.svm} if chosen else {}
    return {
        **describe_accuracies(fused_accuracies(tested, data.test.labels, svm=svm, **given)),
        **({"fusion": chosen.as_json()} if chosen else {}),
        "videos": {part: len(videos.videos) for part, videos in parts.items()},
        "classes": data.classes,
        "split": number,
        "seed": seed,
        "recipe": recipe.as_json(),
        "notes": notes,
        "made_from": _summary_origin(root, data),
    }


def describe_accuracies(results: Mapping[str, Accuracy]) -> dict[str, dict[str, Any]]:
    """Plain values for `summary.json`: each measure of `Accuracy` by the names of the results, to four digits."""
    measures: dict[str, dict[str, Any]] = {"top1": {}, "interval": {}, "mean_class": {}, "mean_class_interval": {}}
    for name, result in results.items():
        for measure, values in measures.items():
            value = getattr(result, measure)
            values[name] = round(value, 4) if isinstance(value, float) else [round(end, 4) for end in value]
    return measures


class _Chosen(NamedTuple):
    """What was chosen on the videos that were held out."""

    weights: tuple[float, ...]
    svm: SVMFusion

    def as_json(self) -> dict[str, Any]:
        """As the summary has it."""
        return {"weights": dict(zip(STREAMS, self.weights, strict=True)), "C": self.svm.C}


def _choose(root: Path, parts: Mapping[str, list[Scores]]) -> _Chosen | None:
    """Weights and a machine, from the scores of each stream on each part; None where nothing was held out."""
    if _HELD_OUT not in parts:
        return None
    training, held_out = ([each.scores for each in parts[part]] for part in ("train", _HELD_OUT))
    training_labels, labels = (parts[part][0].labels for part in ("train", _HELD_OUT))
    cost = choose_cost(training, training_labels, held_out, labels)
    return _Chosen(choose_weights(held_out, labels), _fit(root / SVM_CHOSEN_FILE, parts["train"], cost))


def _fit(path: Path, training: list[Scores], cost: float = 1.0) -> SVMFusion:
    """The machine that has learnt from these scores with this C: that in the file, or a new one."""
    scores, labels = [each.scores for each in training], training[0].labels
    learnt = {**dict(zip(STREAMS, scores, strict=True)), "labels": labels}
    made_from = {"scores": tensor_digest(learnt), "nets": [each.made_from.get("net") for each in training]}
    if path.exists():
        kept = SVMFusion.load(path)
        if kept.made_from == made_from and cost == kept.C:
            return kept
    svm = SVMFusion(cost).fit(scores, labels)
    svm.made_from = made_from
    svm.save(path)
    return svm


@contextmanager
def _step(name: str, say: Say) -> Iterator[None]:
    """Say how long a step took, unless its result was there already."""
    started = time.perf_counter()
    say(f"{name} ...")
    yield
    say(f"{name}: {time.perf_counter() - started:.1f} s")
