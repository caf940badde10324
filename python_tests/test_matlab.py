# SPDX-License-Identifier: BSD-3-Clause
"""MATLAB 5 files as SciPy writes them, and damaged ones."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from twostream_ext.models import matlab
from twostream_ext.models.matlab import MatlabError, read_matlab

NUMBERS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def write(path: Path, *, compressed: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {name: (100 * random.random((2, 3, 4))).astype(name) for name in NUMBERS}
    cells = np.empty((1, 3), object)
    cells[0, 0], cells[0, 1], cells[0, 2] = arrays["f4"], "in a cell", np.zeros((0, 3))
    values = {**arrays, "s": {"text": "über", "inner": {"x": 2.5}}, "c": cells, "z": np.array([1j])}
    scipy.io.savemat(path, values, do_compression=compressed)
    return arrays


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_texts_structs_and_cells(compressed: bool, tmp_path: Path) -> None:
    arrays = write(tmp_path / "a.mat", compressed=compressed)
    read = read_matlab(tmp_path / "a.mat")
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert read["s"]["text"] == "über"
    np.testing.assert_array_equal(read["s"]["inner"]["x"], [[2.5]])
    np.testing.assert_array_equal(read["c"][0], arrays["f4"])
    assert read["c"][1] == "in a cell"
    assert read["c"][2].shape == (0, 3)
    assert read["z"] is None


def test_a_file_cut_anywhere_is_refused_or_lacks_whole_variables(tmp_path: Path) -> None:
    write(tmp_path / "a.mat")
    data, whole = (tmp_path / "a.mat").read_bytes(), read_matlab(tmp_path / "a.mat")
    refused = 0
    for size in range(0, len(data), 7):
        (tmp_path / "cut.mat").write_bytes(data[:size])
        try:
            assert read_matlab(tmp_path / "cut.mat").keys() < whole.keys()
        except MatlabError:
            refused += 1
    assert refused > 0.9 * len(data) / 7


def test_what_unpacks_to_more_than_a_net_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matlab, "_LARGEST", 1 << 16)
    packed = zlib.compress(bytes(1 << 20))
    header = b"MATLAB 5.0".ljust(124, b" ") + b"\x00\x01IM"
    path = tmp_path / "a.mat"
    path.write_bytes(header + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(MatlabError, match="larger than a net"):
        read_matlab(path)
