# SPDX-License-Identifier: BSD-3-Clause
"""The benchmarks: what they record, and that no wrong result is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from modules import forget_scripts, load_module

from twostream_ext import ops
from twostream_ext.engine import load_model

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def table(benchmark_scripts: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    import table

    threads = torch.get_num_threads()
    monkeypatch.setattr(table, "set_threads", lambda count: None)
    yield table
    torch.set_num_threads(threads)


def run(table: ModuleType, out: Path, *operators: str) -> int:
    common = ["--quick", "--without", "torch.compile", "--out", str(out), "--operators"]
    return int(table.main([*common, *operators]))


def test_scripts_are_forgotten_but_not_the_process_that_was_started() -> None:
    forget_scripts(FOLDER)  # there is a __main__.py among them, and spawned processes look for this one's
    assert "__main__" in sys.modules


def test_quick_tables_of_two_operators_are_recorded_with_bytes_limits_and_machine(
    table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(table, tmp_path, "mean_flow", "flow_stack") == 0
    record = json.loads((tmp_path / "kernels_cpu.json").read_text())
    assert {"date", "commit", "machine", "versions", "kernels", "threads", "growth"} <= set(record)
    assert {each["operator"] for each in record["kernels"]} == {"mean_flow", "flow_stack"}
    for kernel in record["kernels"]:
        ours, *peers = kernel["implementations"]
        assert ours["name"] == "twostream_ext"
        assert peers
        assert all(each["ours_is_times_faster"] > 0 and each["fraction_of_limit"] > 0 for each in peers)
        assert kernel["limit"]["median_ms"] > 0
        assert kernel["bytes"]["read"] > 0
    printed = capsys.readouterr().out
    assert "| implementation |" in printed
    assert (tmp_path / "kernels.png").exists()


def test_one_command_prints_the_limits_and_writes_a_record_and_a_chart(table: ModuleType, tmp_path: Path) -> None:
    recorded = {path: path.stat().st_mtime_ns for path in (FOLDER / "results").iterdir()}
    command = [sys.executable, "-m", "benchmarks", "mean_flow", "quantize_flow", "--quick", "--device", "cpu"]
    options = ["--without", "torch.compile", "OpenCV", "--out", str(tmp_path)]
    paths = os.pathsep.join(path for path in sys.path if path and Path(path) != FOLDER)
    done = subprocess.run(
        [*command, *options],
        cwd=FOLDER.parent,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels_cpu.json", "kernels_cpu.svg"]
    assert {path: path.stat().st_mtime_ns for path in (FOLDER / "results").iterdir()} == recorded
    record = json.loads((tmp_path / "kernels_cpu.json").read_text())
    assert list(dict.fromkeys(each["operator"] for each in record["kernels"])) == ["mean_flow", "quantize_flow"]
    speeds = record["limits"]["gigabytes_per_second"]
    assert min(speeds.values()) > 0
    assert "The machine, with 1,048,576 bytes: fill " in done.stdout
    assert f"copy {speeds['copy']:.3g} GB/s." in done.stdout
    words = [each.text for each in ET.parse(tmp_path / "kernels_cpu.svg").getroot().iter() if each.text]
    assert {"twostream_ext", "NumPy", "torch", "mean_flow, float32", "quantize_flow, planar"} <= set(words)
    assert "OpenCV" not in words


def test_the_chart_of_a_record_is_the_same_bytes_again(table: ModuleType, tmp_path: Path) -> None:
    import ratio_chart

    record = json.loads((FOLDER / "results" / "kernels_cpu.json").read_text())
    first, second = (ratio_chart.draw(record, tmp_path / name) for name in ("first.svg", "second.svg"))
    assert first.read_bytes() == second.read_bytes()
    words = {each.text for each in ET.parse(first).getroot().iter()}
    assert {f"{each['operator']}, {each['workload']}" for each in record["kernels"]} <= words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_flow"], "'no_flow' is none of flow_stack, "),
        (["--record", "--quick"], "--record is for all operators in their full shapes"),
        (["--record", "mean_flow"], "--record is for all operators in their full shapes"),
        (["--guard", "--history"], "not allowed with"),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda: torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    table: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    command = load_module(FOLDER / "__main__.py", "benchmarks_main")
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert words in capsys.readouterr().err


def test_the_table_of_the_page_is_made_from_a_record(table: ModuleType, tmp_path: Path) -> None:
    assert run(table, tmp_path, "mean_flow") == 0
    record = json.loads((tmp_path / "kernels_cpu.json").read_text())
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- kernels -->\nold\n<!-- /kernels -->\nafter\n")
    table.markdown.write_page(page, [record])
    text = page.read_text()
    assert text.startswith("before\n<!-- kernels -->\n")
    assert text.endswith("<!-- /kernels -->\nafter\n")
    assert "old" not in text
    assert text.count("`mean_flow`") == len(record["kernels"])


def test_a_wrong_result_is_caught_before_it_is_timed(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ops.mean_flow
    monkeypatch.setattr(ops, "mean_flow", lambda *args, out, **options: right(*args, out=out, **options).add_(0.01))
    assert run(table, tmp_path, "mean_flow") == 1
    record = json.loads((tmp_path / "kernels_cpu.json").read_text())
    assert "kernels" not in record
    assert all("WrongResultError" in each["error"] for each in record["failed"])


def test_a_call_that_writes_nothing_is_not_judged_by_the_last_ones_result(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench_flow_stack
    import workloads

    problem = bench_flow_stack.problem(workloads.Setting(quick=True))
    bench_flow_stack.ours.call(problem)
    idle = workloads.Implementation("idle", lambda problem: lambda: problem.inputs.out)
    with pytest.raises(workloads.WrongResultError, match="idle"):
        idle.call(problem)


def test_a_step_of_the_gpu_check_that_outlives_its_time_is_ended_with_all_it_started(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_check

    monkeypatch.setattr(gpu_check, "SITE", tmp_path)
    code = "import subprocess, time; print('began', flush=True); subprocess.run(['sleep', '60']); time.sleep(60)"
    step = gpu_check.Step("slow", [sys.executable, "-c", code], 1, dict(os.environ))
    done = gpu_check.run(step, 1.0)
    assert done["timed_out"]
    assert done["seconds"] < 30
    assert done["output"] == "began\n"


def test_the_training_step_is_recorded_with_the_share_of_its_normalisation(table: ModuleType, tmp_path: Path) -> None:
    import bench_cnn_m_2048

    assert bench_cnn_m_2048.main(["--quick", "--rounds", "3", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "cnn_m_2048.json").read_text())
    assert {"date", "commit", "machine", "versions", "shapes"} <= set(record)
    ours, by_torch, planes, without = record["implementations"]
    assert all(each["samples_per_processor_second"] > 0 for each in record["implementations"])
    assert max(ours["share_of_lrn"], by_torch["share_of_lrn"]) < 1
    assert min(by_torch["ours_is_times_faster"], planes["ours_is_times_faster"]) > 0
    assert without["name"] == "without LRN"


def test_the_four_settings_of_table_2_each_give_a_share_of_right_videos(table: ModuleType, tmp_path: Path) -> None:
    """With too few videos and iterations to learn from, but through all that the benchmark does."""
    import multi_task

    few = {"train": {"small": 1, "large": 1}, "test": {"small": 2, "large": 1}}
    found = multi_task.four_settings(tmp_path, 0, 4, few)
    assert set(found) == {*multi_task.SETTINGS, "large alone", "large, multi-task"}
    for name, value in found.items():
        videos = 8 if name.startswith("large") else 12
        assert 0 <= value <= 1
        assert value * videos == pytest.approx(round(value * videos))
    lines = {path.parent.name: path.read_text().count("\n") - 1 for path in tmp_path.glob("*/log.csv")}
    assert lines == {"large": 4, "multi-task": 4, "alone": 4, "fine-tuned": 1, "added": 4}


def test_camera_training_gives_a_row_for_each_subtraction_and_goes_on_where_it_stopped(
    table: ModuleType, tmp_path: Path
) -> None:
    """With too few videos and iterations to learn from, but through all that the benchmark does."""
    import camera_training

    short = replace(camera_training.TEMPORAL, iterations=2, batch_size=2)
    recipe = replace(camera_training.RECIPE, streams={"temporal": short}, frames=1, crops=1)
    data = camera_training.made_set(tmp_path, {"train": 1, "test": 1})
    assert (len(data.train.videos), len(data.test.videos)) == (8, 8)
    found = camera_training.rows(data, [0, 1], tmp_path, recipe)
    assert [row["subtract"] for row in found] == ["none", "mean", "affine"]
    for row in found:
        assert [each * 8 for each in row["each"]] == [round(each * 8) for each in row["each"]]
        assert row["interval"][0] <= row["top1"] <= row["interval"][1]
    nets = {path.parent.name: path for path in tmp_path.glob("nets/*/model.safetensors")}
    assert sorted(nets) == ["affine-0", "affine-1", "mean-0", "mean-1", "none-0", "none-1"]
    settings = [load_model(path).net.settings for path in nets.values()]
    assert [f"{each.subtract}-{name[-1]}" for each, name in zip(settings, nets, strict=True)] == list(nets)
    nets["mean-1"].unlink()
    kept = {name: path.stat().st_mtime_ns for name, path in nets.items() if name != "mean-1"}
    assert camera_training.rows(data, [0, 1], tmp_path, recipe) == found
    assert {name: nets[name].stat().st_mtime_ns for name in kept} == kept


def test_the_scaling_model_adds_up_what_an_exchange_takes(table: ModuleType) -> None:
    """One second forward, two backward; buckets of 4 and 8 bytes, full in the middle and at the end, at 4 bytes/s."""
    import scaling_model

    sent = [scaling_model.Bucket(0.5, 4), scaling_model.Bucket(1.0, 8)]
    link = scaling_model.Link(0.0, 4.0)
    hidden, half, none = (scaling_model.predict(3.0, sent, 2, link, taken).seconds for taken in (0.0, 0.5, 1.0))
    assert hidden == pytest.approx(3 + 2)  # the first second beside the backward pass
    assert half == pytest.approx(3.5 + 2)
    assert none == pytest.approx(3 + 1 + 2)
    assert scaling_model.predict(3.0, sent, 1, link).seconds == 3
    slow = scaling_model.Link(0.25, 4.0)  # 4 GPUs: 6 steps of a ring, each 1/4 s and a quarter of the bytes
    assert scaling_model.exchange(8, 4, slow) == pytest.approx(6 * (0.25 + 2 / 4))


def test_the_scaling_model_s_buckets_hold_all_gradients_from_the_last_layer_on(table: ModuleType) -> None:
    import scaling_model

    net = scaling_model.check_net()
    found = scaling_model.layers(net, torch.zeros(1, 20, 112, 112))
    assert [layer.name for layer in found][-1] == "fc8.default"
    sent = scaling_model.buckets(found)
    assert sum(bucket.size for bucket in sent) == 4 * sum(parameter.numel() for parameter in net.parameters())
    assert sent[0].size >= scaling_model.FIRST_BUCKET_BYTES
    assert sent[0].ready < sent[-1].ready == 1
