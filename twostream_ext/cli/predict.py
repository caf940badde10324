# SPDX-License-Identifier: BSD-3-Clause
"""`twostream predict`: the top classes of a video, of windows of it as it comes in, or of many videos."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Any

from twostream_ext.cli.options import above_zero, add_device, positive_number
from twostream_ext.cli.paths import ReadsFolder, WritesFile, add_path
from twostream_ext.errors import DamagedVideoWarning, ExtractionError, SettingsError, VideoError, failure_text

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

    from twostream_ext.engine import FinishedRun, Pixels, Prediction, ReadAhead, Window
    from twostream_ext.flow import FlowClip
    from twostream_ext.media import FrameClip, OpenVideo
    from twostream_ext.report import Row, WriteRow

_PIPE = "-"
_PIPE_NAME = "standard input"  # in errors
_CAMERA = re.compile(r"camera:(?P<number>[0-9]+)")
_SIZE = re.compile(r"(?P<width>[0-9]{1,6})x(?P<height>[0-9]{1,6})")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="top classes of videos, pipes and cameras from both nets",
        description="Name the most likely classes of a video with the nets of a finished run: of the whole, or with "
        "--window of each stretch of it; of a pipe or a camera, which have no end, always in windows.",
    )
    add_path(
        parser,
        "video",
        use=ReadsFolder(unread=(".csv", ".json")),
        help="a video file; a folder, for all videos in it; - for raw frames from standard input (ffmpeg -i X -f "
        "rawvideo -pix_fmt rgb24 -), which needs --size and --fps; camera:0 for a camera",
    )
    add_path(
        parser,
        "--model",
        use=ReadsFolder(unread=(".mp4",)),
        required=True,
        help="directory of a finished `twostream run` or `demo`",
    )
    parser.add_argument("--top", type=positive_number, default=5, help="how many classes (5)")
    add_path(
        parser,
        "--out",
        use=WritesFile(),
        metavar="ANSWERS",
        help="write the answers to this .csv or .json, a line a video or a window, in place of a table",
    )
    add_path(
        parser,
        "--annotated",
        use=WritesFile(),
        help="also write this .mp4: frames, flow, and bars of the top classes of each net and of both",
    )
    windows = parser.add_argument_group("windows")
    windows.add_argument(
        "--window", type=above_zero, metavar="S", help="seconds of a window (of a pipe and a camera: 2; else the video)"
    )
    windows.add_argument("--stride", type=above_zero, metavar="S", help="seconds from one to the next (as --window)")
    windows.add_argument(
        "--spans", action="store_true", help="join windows of the same class that follow each other to one line"
    )
    live = parser.add_argument_group("pipe and camera")
    live.add_argument("--size", type=_size, metavar="WxH", help="of the frames in the pipe, in pixels")
    live.add_argument(
        "--fps", type=above_zero, metavar="R", help="frames per second of the pipe, or wanted of the camera"
    )
    live.add_argument(
        "--pixels",
        choices=("rgb24", "yuv420p"),
        help="of the pipe, by FFmpeg's names (rgb24); of a file in yuv420p that format keeps the luma, on which flow "
        "is estimated, so that the answers are those of the file",
    )
    add_device(parser)
    return parser


def execute(options: argparse.Namespace) -> None:
    from twostream_ext.engine import find_device, is_image_folder
    from twostream_ext.media import check_mp4
    from twostream_ext.report import check_answers

    source = str(options.video)
    is_live = source == _PIPE or _CAMERA.fullmatch(source) is not None
    is_many = not is_live and options.video.is_dir() and not is_image_folder(options.video)
    _check_usage(options, source, is_live, is_many)
    if options.annotated:
        check_mp4(options.annotated)
    if options.out:
        check_answers(options.out)
    device = find_device(options.device)
    if is_many:
        _predict_many(options, device)
    elif is_live or options.window:
        _predict_stream(options, device, source, is_live)
    else:
        _predict_whole(options, device)


def _check_usage(options: argparse.Namespace, source: str, is_live: bool, is_many: bool) -> None:
    """SettingsError for options that do not go together."""
    if source == _PIPE and not (options.size and options.fps):
        raise SettingsError("predict - needs --size WxH and --fps R of the frames in the pipe, which has no header")
    if source != _PIPE and (options.size or options.pixels):
        raise SettingsError("--size and --pixels are of a pipe: predict -")
    if not is_live and options.fps:
        raise SettingsError("--fps is of a pipe or a camera; a file tells its own")
    if not (is_live or options.window) and (options.stride or options.spans):
        raise SettingsError("--stride and --spans are of windows: give --window S, too")
    if is_many and options.annotated:
        raise SettingsError(f"--annotated is of one video, and {source} is a directory")


# ---- a whole video, and many of them --------------------------------------------------------------------------------


def _predict_whole(options: argparse.Namespace, device: torch.device) -> None:
    from twostream_ext.engine import predict_video

    predict_video(options.video, options.model, device=device, report=partial(_show_prediction, options))


def _show_prediction(options: argparse.Namespace, prediction: Prediction, flow: FlowClip, frames: FrameClip) -> None:
    from twostream_ext.report import answer_columns, answer_row, answers_file, write_annotated_video

    if options.out:
        with answers_file(options.out, ["video", *answer_columns(prediction)]) as write:
            write({"video": str(options.video), **answer_row(prediction)})
        print(f"answers: {options.out}")
    else:
        _print_best(prediction, options.top)
    if options.annotated:
        write_annotated_video(options.annotated, flow, frames, prediction, top=options.top)
        print(f"video: {options.annotated}")


def _print_best(prediction: Prediction, top: int) -> None:
    """The classes with the highest scores, and what the SVMs say."""
    from twostream_ext.engine import STREAMS

    best = prediction.scores[prediction.fused].argsort(descending=True)[:top].tolist()
    columns = (*(name for name in ("weighted", "average") if name in prediction.scores), *STREAMS)
    width = max(len(prediction.classes[index]) for index in best)
    print(f"{'':{width}}  {'  '.join(columns)}")
    for index in best:
        scores = "  ".join(f"{prediction.scores[name][index]:{len(name)}.3f}" for name in columns)
        print(f"{prediction.classes[index]:{width}}  {scores}")
    print(f"SVM: {prediction.classes[prediction.svm]}")
    if prediction.svm_chosen is not None:
        print(f"SVM, C chosen: {prediction.classes[prediction.svm_chosen]}")


def _predict_many(options: argparse.Namespace, device: torch.device) -> None:
    """All videos of a folder, a line each, or a line a window; those that fail with the reason."""
    from tqdm import tqdm

    from twostream_ext.engine import load_run
    from twostream_ext.media import list_videos

    videos = sorted(file for file, _ in list_videos(options.video))
    if not videos:
        raise VideoError(f"{options.video}: holds no videos")
    run = load_run(options.model, device)
    failures = []
    with _answers(options, run, many=True) as write:
        for name in tqdm(videos, desc="predict", unit="video", disable=None):
            try:
                _predict_one(options, run, name, write)
            except ExtractionError as error:
                if not error.failures:  # it is not this video that is at fault
                    raise
                failures.append(error.failures[0])
            except (VideoError, SettingsError) as error:
                failures.append(str(error))
            else:
                continue
            write({"video": name, "error": failures[-1]})
    if failures:
        raise VideoError(failure_text(failures, len(videos), "predicted"))


def _predict_one(options: argparse.Namespace, run: FinishedRun, name: str, write: WriteRow) -> None:
    from twostream_ext.engine import Predictor, predict_video, read_pixels
    from twostream_ext.media import open_video
    from twostream_ext.report import answer_row

    path = options.video / name
    if not options.window:
        write({"video": name, **answer_row(predict_video(path, run, progress=False))})
        return
    video = open_video(path, smallest_side=run.settings["smallest_side"])
    predictor = Predictor(run, window=options.window, stride=options.stride, fps=video.fps, name=str(path))
    for _ in _written(options, predictor.windows(read_pixels(video)), write, {"video": name}):
        pass
    _tell_damage(str(path), video)


# ---- windows of what comes in ---------------------------------------------------------------------------------------


def _predict_stream(options: argparse.Namespace, device: torch.device, source: str, is_live: bool) -> None:
    """Windows of a file, a pipe or a camera."""
    from tqdm import tqdm

    from twostream_ext.engine import DEFAULT_WINDOW, Predictor, load_run, read_pixels
    from twostream_ext.report import write_annotated_windows

    run = load_run(options.model, device)
    video = _open(options, source, run.settings["smallest_side"])
    window, name = options.window or DEFAULT_WINDOW, _PIPE_NAME if source == _PIPE else source
    predictor = Predictor(run, window=window, stride=options.stride, fps=video.fps, name=name)
    ahead = read_pixels(video, drops=_CAMERA.fullmatch(source) is not None)
    began = time.perf_counter()
    bar = tqdm(ahead, desc="predict", unit="frame", disable=None)
    with closing(bar), _stops_at_interrupt(ahead) if is_live else nullcontext(), _answers(options, run) as write:
        windows = _written(options, predictor.windows(_counting_drops(bar, ahead)), write, {})
        if options.annotated:
            write_annotated_windows(options.annotated, windows, video.fps, top=options.top)
        else:
            for _ in windows:
                pass
    if options.annotated:
        print(f"video: {options.annotated}")
    rate = predictor.frame_count / (time.perf_counter() - began)
    dropped = f", {ahead.dropped} dropped" if ahead.dropped else ""
    print(f"{predictor.frame_count} frames, {rate:.1f} frames/s{dropped}")
    _tell_damage(name, video)


def _open(options: argparse.Namespace, source: str, smallest_side: int) -> OpenVideo:
    from twostream_ext.media import open_camera, open_raw, open_video

    if source == _PIPE:
        if sys.stdin is None or sys.stdin.isatty():
            raise SettingsError("predict - reads raw frames from a pipe, and standard input is none")
        return open_raw(
            FileIO(sys.stdin.fileno(), closefd=False),  # without a lock, which a thread that waits would keep
            size=options.size,
            fps=options.fps,
            pixels=options.pixels or "rgb24",
            smallest_side=smallest_side,
            name=_PIPE_NAME,
        )
    camera = _CAMERA.fullmatch(source)
    if camera is not None:
        return open_camera(int(camera["number"]), fps=options.fps, smallest_side=smallest_side)
    return open_video(options.video, smallest_side=smallest_side)


def _counting_drops(bar: tqdm[Pixels], ahead: ReadAhead[Pixels]) -> Iterator[Pixels]:
    """The frames, with how many were dropped shown beside how many were taken."""
    shown = 0
    for pixels in bar:
        if ahead.dropped > shown:
            shown = ahead.dropped
            bar.set_postfix_str(f"{shown} dropped", refresh=False)
        yield pixels


@contextmanager
def _stops_at_interrupt(ahead: ReadAhead[Pixels]) -> Iterator[None]:
    """Let the first Ctrl-C end the frames, so that what is there is answered; the second one is as ever."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, say, by nohup
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        ahead.stop()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _written(options: argparse.Namespace, windows: Iterable[Window], write: WriteRow, beside: Row) -> Iterator[Window]:
    """The windows, each written when it comes, or their spans when they end. beside: what stands in all rows."""
    from twostream_ext.report import Spans, window_row

    spans = Spans(write)
    add = spans.add if options.spans else write
    for window in windows:
        add({**beside, **window_row(window)})
        yield window
    spans.end()


def _tell_damage(name: str, video: OpenVideo) -> None:
    if video.damage:
        warnings.warn(f"{name}: {video.damage}", DamagedVideoWarning, stacklevel=2)


@contextmanager
def _answers(options: argparse.Namespace, run: FinishedRun, *, many: bool = False) -> Iterator[WriteRow]:
    """What writes a row: to a file, or to a table on standard output at once."""
    from tqdm import tqdm

    from twostream_ext.report import answer_columns, answers_file, span_columns, table_line

    columns = answer_columns(run)
    if options.window or not many:
        columns = ["start", "end", *columns]
    if options.spans:
        columns = span_columns(columns)
    if many:
        columns = ["video", *columns, "error"]
    if options.out:
        with answers_file(options.out, columns) as write:
            yield write
        print(f"answers: {options.out}")
        return

    def show(row: Row) -> None:
        with tqdm.external_write_mode():  # the progress bar makes room
            print(table_line(row, columns, run.classes), flush=True)

    show({name: name for name in columns})
    yield show


def _size(text: str) -> tuple[int, int]:
    """An argparse type: 640x480, given as (height, width)."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(found["height"]), int(found["width"])
