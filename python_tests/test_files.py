# SPDX-License-Identifier: BSD-3-Clause
"""Files that are whole or not there, and never written over what they are made from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from twostream_ext.errors import SettingsError
from twostream_ext.files import refuse_same_file

# ---- refuse_same_file ----------------------------------------------------------------------------


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_output_that_is_an_input_under_any_name_is_refused(tmp_path: Path, link) -> None:  # type: ignore[no-untyped-def]
    video, other, linked = (tmp_path / name for name in ("a.mp4", "other.mp4", "linked.mp4"))
    video.write_bytes(b"of the user")
    other.write_bytes(b"of the user")
    link(video, linked)
    for out in (video, linked, tmp_path / "." / "a.mp4", os.path.relpath(video)):
        with pytest.raises(SettingsError) as caught:
            refuse_same_file(out, other, video)
        assert str(caught.value).startswith(f"{out}: is the input {video} itself")
        assert "\n" not in str(caught.value)
    refuse_same_file(video, other)
    refuse_same_file(video)


def test_files_that_are_not_there_are_nobodys_input(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    for missing in ("none", "there/below", "dangling", "n" * 300):
        refuse_same_file(tmp_path / missing, there)
        refuse_same_file(there, tmp_path / missing)
