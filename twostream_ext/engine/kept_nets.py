# SPDX-License-Identifier: BSD-3-Clause
"""The nets of the paper's tables, each trained once and kept under a digest of what decides it; and their scores."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from twostream_ext.engine.checkpoint import load_model, save_model, start_from
from twostream_ext.engine.origin import unlike, videos_origin
from twostream_ext.engine.paper_tables import Row, Training
from twostream_ext.engine.pipeline import MODEL_FILE
from twostream_ext.engine.recipes import new_net
from twostream_ext.engine.scores import Scores, load_scores, scores_origin, write_scores
from twostream_ext.engine.table_data import Work, learnt, open_split
from twostream_ext.engine.train import CHECKPOINT_FILE, train
from twostream_ext.errors import CheckpointError
from twostream_ext.models import freeze_backbone
from twostream_ext.settings_files import claim


def net_file(work: Work, row: Row, training: Training, split: int, seed: int) -> Path:
    """The file of a net, trained if it is not there."""
    if training.on == "images" and isinstance(work.sources.images, Path):
        return work.sources.images
    data = learnt(work, row, training, split)
    start = None if training.start is None else net_file(work, row, training.start, split, seed)
    recipe = work.recipe.of_training(training, start)
    made_from = videos_origin(training.stream, data.videos)
    facts = {
        "training": {**asdict(training), "start": None if start is None else _file_digest(start)},
        "recipe": recipe.deciding(training.stream),
        "seed": seed,
        "classes": data.classes,
        "made_from": made_from,
    }
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = work.root / "nets" / f"{training.stream}-{key}"
    path = folder / MODEL_FILE
    if path.exists():
        return path
    claim(folder / "net.json", facts, CheckpointError)
    counts = {name: len(names) for name, names in data.classes.items()}
    net = new_net(recipe, training.stream, counts, seed=seed)
    if start is not None:
        start_from(net, start)
    if training.last_layer:
        freeze_backbone(net)
    numbers = recipe.numbers(training.stream)
    settings = numbers.settings(
        seed=seed,
        checkpoint_every=max(1, min(500, numbers.iterations // 10)),
    )
    train(net, data.videos, settings=settings, out_dir=folder, device=work.device, workers=work.workers)
    save_model(path, net, data.classes, made_from=made_from)
    (folder / CHECKPOINT_FILE).unlink()
    return path


def row_scores(work: Work, row: Row, net: Training, split: int, seed: int, part: str) -> Scores:
    """Scores of a net on the videos of its row's own data set and for the classes of that."""
    own = work.sources.own(row)
    assert own is not None
    data = open_split(work, own, split)
    videos = data.train if part == "train" else data.test
    file = net_file(work, row, net, split, seed)
    trained = load_model(file, work.device)
    path = file.parent / f"{part}.safetensors"
    frames, crops = work.recipe.frames, work.recipe.crops
    kept = load_scores(path) if path.exists() else None
    if (
        kept is None
        or unlike(kept.made_from, scores_origin(trained.net, videos, frames=frames, crops=crops)) is not None
    ):
        dataset = next(iter(trained.classes))
        kept = write_scores(
            path, trained.net, videos, frames=frames, crops=crops, dataset=dataset, classes=trained.classes[dataset]
        )
    return kept._replace(scores=kept.scores[:, : len(data.classes)])


def _file_digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
