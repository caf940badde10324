# SPDX-License-Identifier: BSD-3-Clause
"""`twostream export`: what other tools, and we ourselves, read in the trees it writes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_denseflow import RawFrames, content

from twostream_ext import ops
from twostream_ext.cli import main
from twostream_ext.errors import ExtractionError, FlowStoreError, LeftOutWarning, SettingsError
from twostream_ext.flow import EXPORT_LAYOUTS, FlowStore, export, write_flow_clip
from twostream_ext.flow.field_files import centred_codes

COUNT = 5  # fields
NAMES = ["A/one.v2", "A/two", "B/three"]
CODED = [name for name, layout in EXPORT_LAYOUTS.items() if layout.is_coded]
EXACT = [name for name, layout in EXPORT_LAYOUTS.items() if not layout.is_coded]


def quantized(field: np.ndarray) -> ops.QuantizedFlow:
    return ops.QuantizedFlow(*(part[0, 0] for part in ops.quantize_flow(torch.from_numpy(field)[None, None])))


def smooth_field(random: np.random.Generator, size: tuple[int, int], largest: float = 18.0) -> np.ndarray:
    return cv2.resize(random.uniform(-largest, largest, (3, 4, 2)).astype(np.float32), size[::-1])


def make_store(
    root: Path, names: list[str] = NAMES, *, count: int = COUNT, size: tuple[int, int] = (24, 40), backward: bool = True
) -> Path:
    random = np.random.default_rng(len(names) + count)
    for name in names:
        fields = [[quantized(smooth_field(random, size)) for _ in range(count)] for _ in range(2)]
        ways = {"forward": fields[0], "backward": fields[1]} if backward else {"forward": fields[0]}
        write_flow_clip(root / f"{name}.safetensors", **ways, codec="raw")
    return root


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "flow")


def displacements(store: FlowStore, name: str, direction: str) -> np.ndarray:
    first = int(direction == "backward")
    clip = store[name]
    return np.stack([clip.displacement(first + number, direction) for number in range(clip.length(direction))])


def write(store: Path, out: Path, layout: str, **options: object) -> int:
    if layout != "feichtenhofer":
        return export(store, out, layout=layout, **options)
    with pytest.warns(LeftOutWarning, match="backward flow is left out, layout feichtenhofer has no names for it"):
        return export(store, out, layout=layout, **options)


FILES = {
    "denseflow": {
        *(f"A/two/flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in range(5)),
        *(f"A/two/flow_{axis}_m1_{number:05d}.jpg" for axis in "xy" for number in range(1, 6)),
    },
    "tsn": {
        *(f"A/two/flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in range(1, 6)),
        *(f"A/two/flow_{axis}_m1_{number:05d}.jpg" for axis in "xy" for number in range(2, 7)),
    },
    "feichtenhofer": {
        *(f"{axis}/A/two/frame{number:06d}.jpg" for axis in "uv" for number in range(1, 6)),
        "u/A/two.bin",
    },
    "flo": {
        *(f"A/two/flow_{number:05d}.flo" for number in range(5)),
        *(f"A/two/flow_m1_{number:05d}.flo" for number in range(1, 6)),
    },
    "npy": {"A/two/forward.npy", "A/two/backward.npy"},
    "h5": {"A/two.h5", "A/two_m1.h5"},
}


@pytest.mark.parametrize("layout", EXPORT_LAYOUTS)
def test_the_files_of_every_layout(store: Path, tmp_path: Path, layout: str) -> None:
    if layout == "h5":
        pytest.importorskip("h5py")
    assert write(store, tmp_path / "out", layout) == 3
    written = content(tmp_path / "out").keys()
    assert {name for name in written if "two" in name and ".done" not in name} == FILES[layout]
    assert len(written) == 3 * (len(FILES[layout]) + 1)


@pytest.mark.parametrize("bound", [20, 15.5])
@pytest.mark.parametrize("layout", CODED)
def test_coded_trees_come_back_through_the_flow_store(tmp_path: Path, layout: str, bound: float) -> None:
    """A JPEG keeps blocks of one value, so that what is seen here is the code alone: at most half of one is lost."""
    values = np.random.default_rng(3).uniform(-bound, bound, (COUNT, 2, 2)).astype(np.float32)
    values[0] = [[0, bound], [-bound, 3 * bound]]
    for direction in range(2):
        values[1, direction] = 0.3 * bound / 127.5
    fields = [[np.full((24, 40, 2), value, np.float32) for value in values[:, way]] for way in range(2)]
    ways = {name: list(map(quantized, each)) for name, each in zip(("forward", "backward"), fields, strict=True)}
    write_flow_clip(tmp_path / "flow/A/one.safetensors", **ways)
    write(tmp_path / "flow", tmp_path / "out", layout, bound=bound)
    read = FlowStore.open(tmp_path / "out", bound=None if layout == "feichtenhofer" else bound)
    assert list(read) == ["A/one"]
    assert read.settings.directions == EXPORT_LAYOUTS[layout].directions
    for way, direction in enumerate(read.settings.directions):
        expected = np.clip(np.stack(fields[way]), -bound, bound)
        error = np.abs(displacements(read, "A/one", direction) - expected)
        assert error.max() <= 0.5 * 2 * bound / 255 + bound / 2**15  # of the step the reader keeps 16 bits
    assert (displacements(read, "A/one", "forward")[0, ..., 0] == 0).all()


@pytest.mark.parametrize("layout", CODED)
def test_fields_come_back_but_for_half_a_code_and_the_jpeg(store: Path, tmp_path: Path, layout: str) -> None:
    write(store, tmp_path / "out", layout)
    given_store, read = FlowStore.open(store), FlowStore.open(tmp_path / "out")
    assert list(read) == list(given_store) == NAMES
    for name in NAMES:
        assert (read[name].frame_count, read[name].size) == (COUNT + 1, (24, 40))
        for direction in read.settings.directions:
            error = np.abs(displacements(read, name, direction) - displacements(given_store, name, direction))
            assert error.max() <= 2.5 * 40 / 255
            assert error.mean() <= 0.5 * 40 / 255


@given(st.floats(-25, 25, width=32), st.floats(0.5, 60))
def test_every_code_is_within_half_of_one(value: float, bound: float) -> None:
    codes = centred_codes(np.full((1, 1, 2), value, np.float32), bound)
    step = 2 * bound / 255
    read = (codes.astype(float) - 128) * step
    assert np.abs(read - np.clip(value, -bound, bound)).max() <= step / 2 * (1 + 1e-6)


def test_mmaction2s_loader_reads_what_it_expects(store: Path, tmp_path: Path) -> None:
    for layout, start_index in (("tsn", 1), ("denseflow", 0)):
        export(store, tmp_path / layout, layout=layout)
        planes = RawFrames("flow_{}_{:05d}.jpg", start_index).read(tmp_path / layout / "B/three", [0, COUNT - 1])
        expected = displacements(FlowStore.open(store), "B/three", "forward")
        for number, plane in enumerate(planes):
            field = expected[0 if number < 2 else -1][..., number % 2]
            assert np.abs((plane.astype(float) - 128) * 40 / 255 - field).mean() < 0.5 * 40 / 255


def test_flo_is_read_by_opencv_to_the_bit(store: Path, tmp_path: Path) -> None:
    write(store, tmp_path / "out", "flo")
    for direction, name in (("forward", "flow_{:05d}.flo"), ("backward", "flow_m1_{:05d}.flo")):
        first = int(direction == "backward")
        for number, field in enumerate(displacements(FlowStore.open(store), "A/two", direction), first):
            read = cv2.readOpticalFlow(str(tmp_path / "out/A/two" / name.format(number)))
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, field)


def test_npy_is_read_by_numpy_to_the_bit(store: Path, tmp_path: Path) -> None:
    write(store, tmp_path / "out", "npy")
    for direction in ("forward", "backward"):
        read = np.load(tmp_path / f"out/A/one.v2/{direction}.npy", mmap_mode="r")
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, displacements(FlowStore.open(store), "A/one.v2", direction))


def test_h5_is_read_by_h5py_to_the_bit(store: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write(store, tmp_path / "out", "h5")
    for direction, file, mark in (("forward", "one.v2.h5", ""), ("backward", "one.v2_m1.h5", "m1_")):
        expected = displacements(FlowStore.open(store), "A/one.v2", direction)
        with h5py.File(tmp_path / "out/A" / file) as read:
            assert len(read) == 2 * COUNT
            for number, field in enumerate(expected, int(direction == "backward")):
                for axis, letter in enumerate("xy"):
                    np.testing.assert_array_equal(read[f"flow_{letter}_{mark}{number:05d}"][:], field[..., axis])


def test_the_ranges_of_gpu_flow_are_noted(store: Path, tmp_path: Path) -> None:
    write(store, tmp_path / "out", "feichtenhofer", bound=7)
    noted = np.fromfile(tmp_path / "out/u/B/three.bin", "<f4").reshape(COUNT, 4)
    np.testing.assert_array_equal(noted, np.tile([-7, 7, -7, 7], (COUNT, 1)))


def test_a_tree_of_another_tool_is_a_store_too(store: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "tree", layout="denseflow", bound=30)
    write(FlowStore.open(tmp_path / "tree", bound=30), tmp_path / "again", "feichtenhofer", bound=30)
    tree, again = FlowStore.open(tmp_path / "tree", bound=30), FlowStore.open(tmp_path / "again")
    for name in NAMES:  # the codes are the same; two JPEGs differ a little
        error = displacements(tree, name, "forward") - displacements(again, name, "forward")
        assert np.abs(error).max() <= 1.01 * 60 / 255
    export(FlowStore.open(tmp_path / "tree", bound=30), tmp_path / "arrays", layout="npy")
    read = np.load(tmp_path / "arrays/A/two/backward.npy")
    np.testing.assert_array_equal(read, displacements(tree, "A/two", "backward"))


@pytest.mark.parametrize("layout", ["denseflow", "feichtenhofer", "npy", "flo"])
def test_what_is_done_is_left_out_and_what_changed_is_done_again(store: Path, tmp_path: Path, layout: str) -> None:
    out = tmp_path / "out"
    write(store, out, layout)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    write(store, out, layout)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    make_store(store, ["B/three"], count=3)
    write(store, out, layout)
    assert {
        path for path, before in times.items() if path.is_file() and path.exists() and path.stat().st_mtime_ns == before
    } == {path for path in times if path.is_file() and "three" not in str(path)}
    write(store, tmp_path / "fresh", layout)
    assert content(out) == content(tmp_path / "fresh")  # with nothing left of the longer clip


@pytest.mark.parametrize(
    ("layout", "file"),
    [("denseflow", "A/two/.flow_x_00001.jpg"), ("npy", "A/two/.forward.npy"), ("flo", "A/two/.x.flo")],
)
def test_what_a_killed_process_left_in_work_is_removed(store: Path, tmp_path: Path, layout: str, file: str) -> None:
    out = tmp_path / "out"
    write(store, out, layout)
    whole = content(out)
    (out / ".done/A/two.json").unlink()
    for place in (file, ".done/B/.three.json"):
        left = out / f"{place}.00000000-12345678.tmp"
        left.write_bytes(b"half")
        os.utime(left, (0, 0))
    write(store, out, layout)
    assert content(out) == whole


def test_other_settings_in_the_same_directory_are_refused(store: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "out", layout="denseflow", bound=20)
    before = content(tmp_path)
    with pytest.raises(SettingsError, match=r"out: was made with bound 20.0, not 15.0; use another directory"):
        export(store, tmp_path / "out", layout="denseflow", bound=15)
    with pytest.raises(SettingsError, match=r"out: was made with layout denseflow, not tsn"):
        export(store, tmp_path / "out", layout="tsn")
    assert content(tmp_path) == before


def test_videos_that_are_damaged_are_listed_and_leave_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store / "A/two.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["export", str(store), str(out), "--layout", "denseflow"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(f"{file}: ")
        assert lines[1] == "twostream: error: 1 videos could not be exported, see above"
        assert list(FlowStore.open(out)) == ["A/one.v2", "B/three"]
        assert not (out / "A/two").exists()
    make_store(store, ["A/two"])
    assert main(["export", str(store), str(out), "--layout", "denseflow"]) == 0
    assert capsys.readouterr() == (f"3 videos in {out}\n", "")


def test_damage_that_is_found_late_leaves_nothing_of_that_video(store: Path, tmp_path: Path) -> None:
    """A JPEG of a tree, which has no checksum, in the second direction."""
    export(store, tmp_path / "tree", layout="denseflow")
    broken = tmp_path / "tree/A/two/flow_y_m1_00005.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    for layout in ("tsn", "npy", "flo"):
        with pytest.raises(ExtractionError, match=r"1 of 3 videos could not be exported: .*flow_y_m1_00005.jpg"):
            export(tmp_path / "tree", tmp_path / layout, layout=layout)
        assert not [name for name in content(tmp_path / layout) if "two" in name]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none", "out", "--layout", "npy"], 1, "none: no such directory"),
        (["empty", "out", "--layout", "npy"], 1, "empty: holds no flow files"),
        (
            ["flow", "out", "--layout", "npy", "--bound", "3"],
            2,
            "bound is 3, but layout npy keeps displacements as they are",
        ),
        (["flow", "flow", "--layout", "npy"], 2, "flow: lies in the input flow"),
        (["flow", "flow/new", "--layout", "tsn"], 2, "flow/new: lies in the input flow"),
        (["flow", "other", "--layout", "tsn"], 2, "other: is a store of ours"),
        (["flow", "file", "--layout", "tsn"], 1, "file: cannot be written: is a file, expected a directory"),
    ],
)
def test_wrong_input_is_one_line(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    Path("other").mkdir()
    Path("other/store.json").write_text("{}")
    before = content(tmp_path)
    assert main(["export", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"twostream: error: {message}")
    assert content(tmp_path) == before
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "options", [["--layout", "zip"], ["--layout", "tsn", "--bound", "0"], ["--layout", "tsn", "--workers", "0"], []]
)
def test_wrong_usage(store: Path, tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(store), str(tmp_path / "out"), *options])
    assert stopped.value.code == 2
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_from_python_and_outputs_inside_a_store(store: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"layout": "denseflo"}, "layout is 'denseflo', expected one of denseflow, .*; did you mean 'denseflow'"),
        ({"layout": "tsn", "bound": float("nan")}, "bound is nan, expected a number of pixels above 0"),
        ({"layout": "tsn", "workers": 0}, "workers is 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            export(store, tmp_path / "out", **options)
    for inside_a_store in (store, store / "A", store / "new"):
        with pytest.raises(SettingsError, match="lies in the store"):
            export(store, inside_a_store, layout="tsn")
    with pytest.raises(FlowStoreError, match="no such directory"):
        export(tmp_path / "none", tmp_path / "out", layout="tsn")
    assert not (tmp_path / "out").exists()


def test_without_h5py_a_line_says_what_to_install(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main(["export", str(store), str(tmp_path / "out"), "--layout", "h5"]) == 2
    assert capsys.readouterr().err == "twostream: error: HDF5 needs h5py: pip install 'twostream_ext[h5]'\n"


def test_backward_flow_that_has_no_names_is_told_of(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(store), str(out), "--layout", "feichtenhofer"]) == 0
    told = f"twostream: warning: {out}: backward flow is left out, layout feichtenhofer has no names for it\n"
    assert capsys.readouterr() == (f"3 videos in {out}\n", told)


def test_the_layouts_of_the_command_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out
    listed = shown.partition("below OUT:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == list(EXPORT_LAYOUTS)
    assert f"--layout {{{','.join(EXPORT_LAYOUTS)}}}" in shown


def test_a_class_may_have_the_name_of_a_video(tmp_path: Path) -> None:
    make_store(tmp_path / "flow", ["A", "A/one"])
    export(tmp_path / "flow", tmp_path / "out", layout="npy")
    assert export(tmp_path / "flow", tmp_path / "out", layout="npy") == 2
    assert {name for name in content(tmp_path / "out") if ".done" not in name} == {
        f"{clip}/{way}.npy" for clip in ("A", "A/one") for way in ("forward", "backward")
    }


@pytest.mark.parametrize("layout", ["denseflow", pytest.param("npy", marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_goes_on_and_ends_with_the_same_files(tmp_path: Path, layout: str) -> None:
    names = [f"A/{number:03d}" for number in range(8)]
    store = make_store(tmp_path / "flow", names, count=20)
    out = tmp_path / "out"
    program = [
        sys.executable,
        "-m",
        "twostream_ext",
        "export",
        str(store),
        str(out),
        "--layout",
        layout,
        "--workers",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(program, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and len(list(out.glob(".done/A/*.json"))) < 2:
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert 2 <= len(list(out.glob(".done/A/*.json"))) < len(names)
    export(store, out, layout=layout)
    export(store, tmp_path / "undisturbed", layout=layout)
    assert content(out) == content(tmp_path / "undisturbed")


def test_a_store_without_backward_flow(tmp_path: Path) -> None:
    make_store(tmp_path / "flow", backward=False)
    export(tmp_path / "flow", tmp_path / "out", layout="feichtenhofer")
    assert FlowStore.open(tmp_path / "out").settings.directions == ("forward",)
    shutil.rmtree(tmp_path / "out")
    export(tmp_path / "flow", tmp_path / "out", layout="npy")
    assert {name for name in content(tmp_path / "out") if "two/" in name} == {"A/two/forward.npy"}
