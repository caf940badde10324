# SPDX-License-Identifier: BSD-3-Clause
"""What is kept is of what it was made from: where lists, flow or nets have changed, it is made again or refused."""

from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch
import training_runs
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_pipeline import TINY
from videos import Frame, moving_frames, write_video

from twostream_ext import data, engine, report
from twostream_ext.cli import main
from twostream_ext.cli.run import run_and_report
from twostream_ext.engine.checkpoint import model_origin
from twostream_ext.engine.origin import data_digest
from twostream_ext.errors import CheckpointError, ReplacedVideoWarning, SettingsError
from twostream_ext.extraction import extract
from twostream_ext.flow import FlowStore
from twostream_ext.media import NOTED_AS, FrameStore
from twostream_ext.media.container import open_container, read_pictures, write_container
from twostream_ext.models import TemporalNet

STREAMS = ("spatial", "temporal")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    data.generate_videos(folder, seed=5, train_per_class=2, test_per_class=1, frames=14)
    return folder


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    run(clips, clips, out)
    return out


@pytest.fixture
def lists(clips: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for path in clips.glob("*.txt"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def out(finished: Path, lists: Path, tmp_path: Path) -> Path:
    """The finished run, with lists that may be edited."""
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    noted = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**noted, "lists": str(lists)}))
    return folder


def run(clips: Path, lists: Path, out: Path) -> dict[str, object]:
    return engine.run_pipeline(clips, lists, out, recipe=TINY, workers=0, say=lambda _: None)


def edit_list(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def backward(lines: list[str]) -> list[str]:
    return lines[::-1]


def without_first(lines: list[str]) -> list[str]:
    return lines[1:]


def names_of(lists: Path, part: str) -> list[str]:
    return [line.split()[0].removesuffix(".mp4") for line in (lists / f"{part}list01.txt").read_text().splitlines()]


def as_0_1_0_wrote(out: Path) -> None:
    """Take off all that says what a result was made from."""
    for path in out.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        if not metadata.get("kind", "").startswith("twostream"):
            continue
        description = json.loads(metadata["description"])
        description.pop("made_from", None)
        if "names" in description:
            description.pop("classes", None)
        save_file(load_file(path), path, {**metadata, "description": json.dumps(description)})
    summary = json.loads((out / "summary.json").read_text())
    summary.pop("made_from", None)
    (out / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("change", [backward, without_first])
@pytest.mark.parametrize("old", [False, True], ids=["now", "0.1.0"])
@pytest.mark.parametrize("broken_off", [False, True], ids=["finished", "broken off"])
def test_an_edited_list_of_test_videos_is_scored_again(
    clips: Path,
    finished: Path,
    lists: Path,
    out: Path,
    change: Callable[[list[str]], list[str]],
    old: bool,
    broken_off: bool,
) -> None:
    if old:
        as_0_1_0_wrote(out)
    if broken_off:
        (out / "summary.json").unlink()
    edit_list(lists / "testlist01.txt", change)
    summary = run(clips, lists, out)
    expected = names_of(lists, "test")
    by_name = {}
    for stream in STREAMS:
        found = engine.load_scores(out / "scores" / f"{stream}_test.safetensors")
        before = engine.load_scores(finished / "scores" / f"{stream}_test.safetensors")
        assert found.names == expected
        by_name[stream] = dict(zip(before.names, before.scores, strict=True))
        torch.testing.assert_close(found.scores, torch.stack([by_name[stream][name] for name in expected]))
        right = [by_name[stream][name].argmax() == label for name, label in zip(expected, found.labels, strict=True)]
        assert summary["top1"][stream] == pytest.approx(sum(right).item() / len(right), abs=1e-4)
    assert summary["videos"] == {"train": 32, "test": len(expected)}
    assert json.loads((out / "summary.json").read_text()) == summary


@pytest.mark.parametrize("change", [backward, without_first])
@pytest.mark.parametrize("old", [False, True], ids=["now", "0.1.0"])
@pytest.mark.parametrize("broken_off", [False, True], ids=["finished", "broken off"])
def test_nets_of_another_list_of_training_videos_are_refused(
    clips: Path, lists: Path, out: Path, change: Callable[[list[str]], list[str]], old: bool, broken_off: bool
) -> None:
    if old:
        as_0_1_0_wrote(out)
    if broken_off:
        (out / "summary.json").unlink()
    edit_list(lists / "trainlist01.txt", change)
    with pytest.raises(SettingsError, match=r"spatial/model\.safetensors: was trained on other videos"):
        run(clips, lists, out)


def test_nets_of_other_classes_are_refused(clips: Path, lists: Path, out: Path) -> None:
    edit_list(lists / "classInd.txt", lambda lines: [f"1 {lines[1][2:]}", f"2 {lines[0][2:]}", *lines[2:]])
    for part in ("train", "test"):
        edit_list(lists / f"{part}list01.txt", lambda lines: [f"{line.split()[0]}\n" for line in lines])
    with pytest.raises(SettingsError, match=r"spatial/model\.safetensors: was trained on other classes"):
        run(clips, lists, out)


def test_what_0_1_0_finished_is_not_done_again(clips: Path, lists: Path, out: Path) -> None:
    as_0_1_0_wrote(out)
    (out / report.REPORT_FILE).write_text("the page of 0.1.0")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    run(clips, lists, out)
    assert report.is_report_current(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_the_flow_of_a_finished_run_may_be_deleted(clips: Path, lists: Path, out: Path) -> None:
    shutil.rmtree(out / "flow")
    assert run(clips, lists, out) == json.loads((out / "summary.json").read_text())


def replace_clip(out: Path, store: str, name: str, other: str) -> None:
    shutil.copy(out / store / f"{other}.safetensors", out / store / f"{name}.safetensors")
    forget_video(out / store / f"{name}.safetensors", store)  # or the extraction would make it again


def forget_video(path: Path, kind: str) -> None:
    """Let a clip note of no video that it was made of it, as those of 0.1.0."""
    opened = open_container(path, kind)
    description = {name: value for name, value in opened.description.items() if name != NOTED_AS}
    series = [name.removesuffix(".offsets") for name in opened.arrays if name.endswith(".offsets")]
    arrays = {name: array for name, array in opened.arrays.items() if not name.endswith(".offsets")}
    pictures = {
        each: [
            picture.tobytes() for picture in read_pictures(opened, each, 0, len(opened.arrays[f"{each}.offsets"]) - 1)
        ]
        for each in series
    }
    write_container(path, kind, description, arrays, pictures)


@pytest.mark.parametrize(("store", "stream"), [("flow", "temporal"), ("frames", "spatial")])
def test_scores_of_data_that_is_other_now_are_made_again(
    clips: Path, finished: Path, lists: Path, out: Path, store: str, stream: str
) -> None:
    name, other = names_of(lists, "test")[0], names_of(lists, "train")[-1]
    replace_clip(out, store, name, other)
    run(clips, lists, out)
    for each in STREAMS:
        found, before = (
            engine.load_scores(root / "scores" / f"{each}_test.safetensors").scores for root in (out, finished)
        )
        assert torch.equal(found[1:], before[1:])
        assert torch.equal(found[0], before[0]) == (each != stream)


def test_nets_of_data_that_is_other_now_are_refused(clips: Path, lists: Path, out: Path) -> None:
    names = names_of(lists, "train")
    replace_clip(out, "flow", names[0], names[-1])
    with pytest.raises(SettingsError, match=r"temporal/model\.safetensors: was trained on other flow"):
        run(clips, lists, out)


def test_all_that_follows_from_a_net_is_made_again_where_the_net_is_another(
    clips: Path, finished: Path, lists: Path, out: Path
) -> None:
    path = out / "temporal" / "model.safetensors"
    trained = engine.load_model(path)
    with torch.no_grad():
        for parameter in trained.net.parameters():
            parameter.mul_(-1)
    engine.save_model(path, trained.net, trained.classes, made_from=model_origin(path))
    video = next(clips.rglob("*.mp4"))
    with pytest.raises(CheckpointError, match=r"fusion/svm\.safetensors: learnt from the scores of other nets"):
        engine.predict_video(video, out)
    run(clips, lists, out)
    for part in ("train", "test"):
        spatial, temporal = (
            [
                engine.load_scores(root / "scores" / f"{stream}_{part}.safetensors").scores.tolist()
                for root in (out, finished)
            ]
            for stream in STREAMS
        )
        assert spatial[0] == spatial[1]
        assert temporal[0] != temporal[1]
    assert (out / "fusion/svm.safetensors").read_bytes() != (finished / "fusion/svm.safetensors").read_bytes()
    engine.predict_video(video, out)


def test_a_training_does_not_go_on_with_other_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training_runs.make_folder(tmp_path)
    videos = training_runs.video_set(tmp_path / "flow")
    settings = training_runs.SETTINGS
    engine.train(training_runs.new_net(), videos, settings=settings, out_dir=tmp_path / "out", workers=0)
    engine.train(training_runs.new_net(), videos, settings=settings, out_dir=tmp_path / "out", workers=0)
    others = videos._replace(videos=training_runs.VIDEOS[::-1])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: learnt from other videos"):
        engine.train(training_runs.new_net(), others, settings=settings, out_dir=tmp_path / "out", workers=0)
    replace_clip(tmp_path, "flow", "c0/a", "c1/a")
    again = training_runs.video_set(tmp_path / "flow")
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: learnt from other flow"):
        engine.train(training_runs.new_net(), again, settings=settings, out_dir=tmp_path / "out", workers=0)


def test_fuse_takes_scores_of_the_same_classes_and_nets_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, videos: list[str], classes: list[str] | None, net: str | None) -> str:
        scores = torch.eye(2)[torch.arange(len(videos)) % 2] * 0.8 + 0.1
        made_from = {} if net is None else {"net": net}
        engine.save_scores(tmp_path / name, videos, torch.arange(len(videos)) % 2, scores, classes, made_from)
        return str(tmp_path / name)

    test, train = ["a", "b"], ["c", "d", "e", "f"]
    first, second = write("1", test, ["x", "y"], "1"), write("2", test, ["x", "y"], "2")
    swapped, old = write("swapped", test, ["y", "x"], "3"), write("old", test, None, None)
    learn_first, learn_second = write("t1", train, ["x", "y"], "1"), write("t2", train, ["x", "y"], "2")
    learn_old = write("t old", train, None, None)
    assert main(["fuse", first, second, old, "--train", learn_first, learn_second, learn_old]) == 0
    capsys.readouterr()
    assert main(["fuse", first, swapped]) == 2
    assert f"{swapped}: has class 'y' where {first} has 'x'" in capsys.readouterr().err
    assert main(["fuse", first, second, "--train", learn_second, learn_first]) == 2
    assert f"{learn_second}: is of another net than {first}" in capsys.readouterr().err


def test_evaluate_notes_what_its_scores_were_made_from(tmp_path: Path) -> None:
    training_runs.make_folder(tmp_path)
    torch.manual_seed(0)
    net = TemporalNet(3, length=2, width=0.05, input_size=training_runs.SIDE)
    engine.save_model(tmp_path / "model.safetensors", net, ["c0", "c1", "c2"])
    noted = {}
    for part in ("train", "test", "train again"):
        options = ["--model", str(tmp_path / "model.safetensors"), "--part", part.split()[0], "--crops", "1"]
        assert main(["evaluate", *options, *training_runs.sources(tmp_path), "--out", str(tmp_path / part)]) == 0
        found = engine.load_scores(tmp_path / part)
        assert found.classes == ["c0", "c1", "c2"]
        noted[part] = dict(found.made_from)
    assert noted["train"] == noted["train again"]
    assert noted["train"]["net"] == noted["test"]["net"]
    assert noted["train"]["videos"] != noted["test"]["videos"]
    assert noted["train"]["data"] != noted["test"]["data"]
    assert (noted["test"]["frames"], noted["test"]["crops"]) == (25, 1)


def test_the_page_is_written_again_where_the_summary_is_another(
    clips: Path, lists: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.write_report(out)
    edit_list(lists / "testlist01.txt", without_first)
    run_and_report(Namespace(out=out, seed=0, device="cpu", workers=0), data.DataSource(clips, lists), TINY)
    assert "15 test videos" in (out / report.REPORT_FILE).read_text()


def replace_video(path: Path, seed: int = 9) -> None:
    """Another video of the same name: as many bytes, and as old, where it is one file."""
    if path.is_dir():
        first = min(path.iterdir())
        write_images(path, texture_frames(seed))
        assert first.exists()
        return
    before = path.stat()
    other = write_video(path.with_name(f"other{path.suffix}"), texture_frames(seed)).read_bytes()
    size = max(before.st_size, len(other))
    path.write_bytes(other.ljust(size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_name(f"other{path.suffix}").unlink()


def texture_frames(seed: int) -> list[Frame]:
    return moving_frames(5, size=(32, 40), seed=seed)


def write_images(folder: Path, frames: list[Frame]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / f"img_{number:05d}.jpg"), frame)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A video file and a folder of images, of one name as long as the other's."""
    root = tmp_path / "videos"
    write_video(root / "A" / "file.avi", texture_frames(0))
    write_images(root / "A" / "images", texture_frames(1))
    return root


def extract_quietly(videos: Path, root: Path) -> dict[str, bytes]:
    """The files of both stores, by an extraction that warns of nothing else than replaced videos."""
    extract(videos, root / "flow", method="dis", smallest_side=None, frames_out=root / "frames", progress=False)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*") if path.is_file()}


@pytest.mark.parametrize("name", ["A/file.avi", "A/images"])
def test_a_video_that_was_replaced_is_extracted_again(mixed: Path, tmp_path: Path, name: str) -> None:
    extract_quietly(mixed, tmp_path / "out")
    extract(mixed, tmp_path / "out/flow", method="dis", smallest_side=None, preview=True, progress=False)
    replace_video(mixed / name)
    with pytest.warns(ReplacedVideoWarning) as warned:
        found = extract_quietly(mixed, tmp_path / "out")
    (text,) = {str(each.message) for each in warned}
    assert text.startswith(f"{mixed / name}: not the video")
    expected = extract_quietly(mixed, tmp_path / "fresh")
    extract(mixed, tmp_path / "fresh/flow", method="dis", smallest_side=None, preview=True, progress=False)
    for path in (tmp_path / "fresh").rglob("*.png"):
        kept = tmp_path / "out" / path.relative_to(tmp_path / "fresh")
        assert kept.read_bytes() == path.read_bytes()
    assert {path: data for path, data in found.items() if not path.endswith(".png")} == expected


def test_one_store_of_a_replaced_video_that_is_current_stays(mixed: Path, tmp_path: Path) -> None:
    extract_quietly(mixed, tmp_path / "out")
    replace_video(mixed / "A" / "file.avi")
    with pytest.warns(ReplacedVideoWarning):
        extract(mixed, tmp_path / "out" / "flow", method="dis", smallest_side=None, progress=False)
    current = tmp_path / "out/flow/A/file.safetensors"
    before = current.stat().st_mtime_ns
    with pytest.warns(ReplacedVideoWarning):
        extract_quietly(mixed, tmp_path / "out")
    assert current.stat().st_mtime_ns == before
    extract_quietly(mixed, tmp_path / "out")


def test_copies_and_links_of_a_video_are_the_same_video(mixed: Path, tmp_path: Path) -> None:
    before = extract_quietly(mixed, tmp_path / "out")
    inodes = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.safetensors")}
    (tmp_path / "copies").mkdir()
    shutil.copytree(mixed / "A", tmp_path / "copies" / "A")
    (tmp_path / "copies/A/file.avi").unlink()
    (tmp_path / "copies/A/file.avi").symlink_to(mixed / "A/file.avi")
    for path in (tmp_path / "copies").rglob("*"):
        os.utime(path, (0, 0))
    assert extract_quietly(tmp_path / "copies", tmp_path / "out") == before
    assert {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.safetensors")} == inodes


def test_clips_that_note_no_video_are_kept(mixed: Path, tmp_path: Path) -> None:
    """As 0.1.0 wrote them; and a video that cannot be read is no other one."""
    extract_quietly(mixed, tmp_path / "out")
    paths = list((tmp_path / "out").rglob("*.safetensors"))
    for path in paths:
        forget_video(path, path.relative_to(tmp_path / "out").parts[0])
    replace_video(mixed / "A" / "file.avi")
    before = {path: path.read_bytes() for path in paths}
    extract_quietly(mixed, tmp_path / "out")
    assert {path: path.read_bytes() for path in paths} == before


def test_a_run_scores_a_test_video_that_was_replaced_again(clips: Path, out: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(clips, videos)
    noted = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**noted, "videos": str(videos)}))
    lists = tmp_path / "lists"
    before = run(videos, lists, out)["made_from"]
    name, other = names_of(lists, "test")[0], names_of(lists, "train")[-1]
    shutil.copy(videos / f"{other}.mp4", videos / f"{name}.mp4")
    with pytest.warns(ReplacedVideoWarning, match=f"{name}.mp4: not the video"):
        after = run(videos, lists, out)["made_from"]
    assert (before["flow"] != after["flow"], before["frames"] != after["frames"]) == (True, True)
    for stream in STREAMS:
        found = engine.load_scores(out / "scores" / f"{stream}_test.safetensors")
        assert found.made_from["data"] == after_data(out, stream, lists)


def after_data(out: Path, stream: str, lists: Path) -> str:
    store: FlowStore | FrameStore = (
        FlowStore.open(out / "flow") if stream == "temporal" else FrameStore.open(out / "frames")
    )
    listed = data.UCFLists(out.parent / "videos", lists)
    return data_digest(store, listed.test.videos)


@pytest.mark.parametrize("kind", ["flow", "frames"])
def test_videos_that_were_replaced_since_a_store_was_made_of_them(
    clips: Path, finished: Path, tmp_path: Path, kind: str
) -> None:
    """Said by the commands that take a store as it is."""
    videos = tmp_path / "videos"
    shutil.copytree(clips, videos)
    listed = data.UCFLists(videos, videos, **{kind: finished / kind})
    assert data.find_doubts("set", listed) == []
    other, gone = listed.train.videos[1].path, listed.test.videos[0].path
    shutil.copy(videos / gone, videos / other)
    (videos / gone).unlink()  # not told
    assert data.find_doubts("set", listed) == [
        f"1 videos are not those that the store was made of (extraction makes it again): {other!r}"
    ]
