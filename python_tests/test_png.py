# SPDX-License-Identifier: BSD-3-Clause
"""Pictures coded as PNGs."""

from __future__ import annotations

from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from videos import texture

from twostream_ext.media.png import code_png


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (120, 200)])
def test_a_picture_comes_back_as_it_was_and_always_gives_the_same_bytes(size: tuple[int, int]) -> None:
    picture = texture(*size)[:, ::-1] if size != (1, 1) else np.array([[[1, 2, 3]]], np.uint8)
    coded = code_png(picture)
    assert coded == code_png(picture.copy())
    decoded = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, picture)


def test_opacity_is_kept() -> None:
    picture = np.dstack([texture(20, 30), texture(20, 30)[..., :1]])
    decoded = cv2.imdecode(np.frombuffer(code_png(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))


def test_what_the_coder_lacks_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(picture: object, form: str) -> None:
        raise av.FFmpegError(12, "Cannot allocate memory")

    monkeypatch.setattr(av, "VideoFrame", SimpleNamespace(from_ndarray=fail))  # the class itself cannot be changed
    with pytest.raises(MemoryError, match="a picture of 64x48 pixels"):
        code_png(texture(48, 64))
