# SPDX-License-Identifier: BSD-3-Clause
"""A video file to decoded frames, by FFmpeg (PyAV): in order, with times, and with what was lost counted."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.logging
from av.container import InputContainer
from av.video.stream import VideoStream

from twostream_ext.errors import VideoError
from twostream_ext.media.numbered_images import find_numbered_images

FALLBACK_FPS = 25.0
"""Frames per second of a video whose header does not tell; UCF-101's."""

MOST_PIXELS = 1 << 26
"""Of a frame; twice those of 8K video. What claims more is damaged, or made to take all memory."""

_FAILED_READS = 250  # in a row, after which the rest of a file is given up

# HTTP and other protocols that a file could name (a playlist that poses as a video) are not followed.
_CONTAINER_OPTIONS = {"protocol_whitelist": "file"}

# A file of 100 bytes may claim frames of a gigabyte, which some decoders make before they look for the pixels.
_DECODER_OPTIONS = {"max_pixels": str(MOST_PIXELS)}

# A title that is no UTF-8 is no reason to refuse a video; from PyAV 19 on it is none, and is not asked for.
_TITLES: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}

_MATROSKA_CODEC = re.compile(rb"\x86[\x81-\xff](V_[\x21-\x7e]+)")  # the element CodecID, its length, its text
_MATROSKA_HEAD = 1 << 16  # bytes

_telling = threading.Lock()


@dataclass
class Damage:
    """What a video has lost. The counts grow while its frames are read, and are whole after the last one."""

    lost: int = 0
    """Pieces of the file that could not be read or decoded; most often each is a frame that is left out."""
    patched: int = 0
    """Frames that are given, but of which the decoder had to make up a part from their neighbours."""
    first: str = ""
    """Where and what the first of them was."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.patched)

    def __str__(self) -> str:
        counts = ((self.lost, "lost"), (self.patched, "patched up by the decoder"))
        told = " and ".join(f"{_plural(count, 'frame')} {fate}" for count, fate in counts if count)
        return f"{told}, first {self.first}" if told else "nothing lost"

    def add_lost(self, count: int, where: str) -> None:
        self.lost += count
        self.first = self.first or where

    def add_patched(self, where: str) -> None:
        self.patched += 1
        self.first = self.first or where


class _File(FileIO):
    """A file that remembers that it could not be read: FFmpeg takes some such errors for the end of the file."""

    failure: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            self.failure = error
            raise

    def __del__(self) -> None:
        self.close()  # without a warning: who reads no more of a video lets go of it, and that is all


class Source(NamedTuple):
    """An open video file and its stream of pictures."""

    path: Path
    file: _File | None  # None: a folder of images
    container: InputContainer
    stream: VideoStream
    codec: str  # the decoder's name; PyAV 19 crashes where it is asked of one that could not be opened
    rate: Fraction  # frames per second, or FALLBACK_FPS where the file does not tell

    def close(self) -> None:
        self.container.close()
        if self.file is not None:
            self.file.close()

    def check_reading(self, error: Exception | None = None) -> None:
        """VideoError if the system could not read the file, which is no damage of the file: the next time it may.

        error: what FFmpeg raised, if it did.
        """
        if self.file is not None:
            error = self.file.failure
        if isinstance(error, OSError) and not isinstance(error, ValueError):  # FFmpeg's "invalid data" is both
            raise VideoError(f"{self.path}: cannot be read: {error.strerror}") from error


class TimedFrame(NamedTuple):
    time: Fraction  # seconds, as in the file; counted from the frame before where the file does not tell
    frame: av.VideoFrame


def open_source(path: Path) -> Source:
    """Open a video file, or a folder of numbered images; VideoError, naming it, if that cannot be."""
    file = None if path.is_dir() else _open_file(path)
    try:
        container = _open_images(path) if file is None else _open_container(path, file)
        try:
            stream = _video_stream(path, container)
        except VideoError:
            container.close()
            raise
    except VideoError:
        if file is not None:
            file.close()
        raise
    stream.codec_context.options = dict(_DECODER_OPTIONS)
    stream.codec_context.thread_count = 1  # extraction and data loading decode several videos at once
    return Source(path, file, container, stream, stream.codec_context.name, _rate(stream))


def decode(source: Source, damage: Damage) -> Iterator[TimedFrame]:
    """The frames in order, until the file ends; what cannot be decoded is left out and counted. Closes the file.

    VideoError, naming it, if the system cannot read it.
    """
    time = None
    clock = source.stream.time_base
    with closing(source):
        for frame in _decode(source, damage):
            told = frame.pts if frame.pts is not None else frame.dts
            if told is not None and clock is not None:
                time = told * clock
            else:
                time = Fraction(0) if time is None else time + 1 / source.rate
            yield TimedFrame(time, frame)


def _decode(source: Source, damage: Damage) -> Iterator[av.VideoFrame]:
    codec = source.stream.codec_context
    count = 0
    for packet in _read_packets(source, damage):
        try:
            frames = codec.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            damage.add_lost(1, f"at frame {count}: {source.codec}: {_reason(error)}")
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.add_patched(f"frame {count}: {source.codec}")
            count += 1
            yield frame


def _read_packets(source: Source, damage: Damage) -> Iterator[av.Packet[VideoStream] | None]:
    """The coded frames, and at the end None, at which a decoder gives what it has held back."""
    promised = _promised_packets(source)
    count = 0
    failed = 0  # in a row
    reason = ""
    while failed < _FAILED_READS:
        try:
            for packet in source.container.demux(source.stream):
                if packet.dts is None and packet.size == 0:  # the end
                    break
                if failed:
                    damage.add_lost(1, reason)
                failed = 0
                count += 1
                if packet.size > 0:  # an empty one would end the decoding
                    yield packet
            break
        except (av.FFmpegError, OSError) as error:
            source.check_reading(error)
            failed += 1
            reason = f"at frame {count}: {source.container.format.name}: {_reason(error)}"
    source.check_reading()
    if promised > count:
        damage.add_lost(promised - count, f"at frame {count}: the file ends, but promises {promised} frames")
    elif failed:
        damage.add_lost(1, reason)
    yield None


def _promised_packets(source: Source) -> int:
    """How many the file's index or header lists, where that is exact in a file that is whole; else 0."""
    kind = source.container.format.name
    if "mp4" in kind.split(","):
        return len(source.stream.index_entries)  # its header counts what an edit list leaves out, too
    return source.stream.frames if kind == "avi" else 0


def _open_file(path: Path) -> _File:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise VideoError(f"{path!r}: the name is not UTF-8") from error
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():
        raise VideoError(f"{path}: is not a file")
    try:
        if not path.stat().st_size:
            raise VideoError(f"{path}: is empty")
        return _File(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error


def _open_container(path: Path, file: _File) -> InputContainer:
    try:
        return _av_open(file, container_options=_CONTAINER_OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        if file.failure is not None:
            raise VideoError(f"{path}: cannot be read: {file.failure.strerror}") from error
        raise VideoError(f"{path}: is not a video that FFmpeg can read: {_reason(error)}") from error


def _open_images(folder: Path) -> InputContainer:
    images = find_numbered_images(folder)
    options = {
        "start_number": str(images.first),
        "framerate": str(FALLBACK_FPS),
        **_CONTAINER_OPTIONS,
    }
    try:
        return _av_open(images.pattern, format="image2", container_options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{folder}: its images cannot be read: {_reason(error)}") from error


def _av_open(file: _File | str, **settings: Any) -> InputContainer:
    container: InputContainer = av.open(file, "r", options=_DECODER_OPTIONS, **_TITLES, **settings)
    return container


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
        others = {each.type for each in container.streams if each is not stream}
        holds = f"holds {' and '.join(sorted(others))} only" if others else "holds no stream"
        raise VideoError(f"{path}: is not a video: {holds}")
    if stream.codec_context is None:
        codec = _codec_of(path, container, stream)
        raise VideoError(f"{path}: FFmpeg has no decoder for its video ({codec} in {container.format.name})")
    return stream


def _codec_of(path: Path, container: InputContainer, stream: VideoStream) -> str:
    """What a file calls a codec that FFmpeg does not know: PyAV has it in FFmpeg's words to people alone."""
    with _telling:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            told: str = container.dumps_format()  # type: ignore[attr-defined]
        finally:
            av.logging.set_level(level)
    name = re.search(rf"Stream #0:{stream.index}\D.*?Video: .*?\((\S+) / 0x", told)
    if name is not None:
        return f"codec {name[1]!r}"
    if path.is_file():  # Matroska has names in place of four letters, and FFmpeg forgets those that it does not know
        with path.open("rb") as file:
            written = _MATROSKA_CODEC.search(file.read(_MATROSKA_HEAD))
        if written is not None:
            return f"codec {written[1].decode()!r}"
    return "an unknown codec"


def _rate(stream: VideoStream) -> Fraction:
    # The average rate is the ticks of a clock in some files: 60000 in those of DV camcorders.
    rate = stream.guessed_rate or stream.average_rate
    return rate if rate and rate > 0 else Fraction(FALLBACK_FPS)


def _reason(error: Exception) -> str:
    """What FFmpeg says, without the name of the file, which our error gives already."""
    told = getattr(error, "strerror", None) or str(error)
    hint = f", as for frames of more than {MOST_PIXELS} pixels" if isinstance(error, av.ArgumentError) else ""
    return " ".join(str(told).split()) + hint


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
