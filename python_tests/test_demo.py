# SPDX-License-Identifier: BSD-3-Clause
"""What the demo promises: neither stream alone, both together."""

from __future__ import annotations

import json

import pytest

from twostream_ext.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_demo(tmp_path, seed):
    assert main(["demo", "--out", str(tmp_path), "--seed", str(seed)]) == 0
    top1 = json.loads((tmp_path / "summary.json").read_text())["top1"]
    better_stream = max(top1["spatial"], top1["temporal"])
    for fused in (top1["average"], top1["svm"]):
        assert fused >= 0.90
        assert fused >= better_stream + 0.15
    assert (tmp_path / "report.html").is_file()
