# SPDX-License-Identifier: BSD-3-Clause
"""One page about a run: an HTML file that holds its pictures."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twostream_ext.engine import STREAMS, SUMMARY_FILE, Scores, load_scores, read_summary
from twostream_ext.files import atomic_write
from twostream_ext.flow import FlowStore
from twostream_ext.media import FrameStore
from twostream_ext.models import fuse_average
from twostream_ext.report.figures import (
    Example,
    confusion_matrix,
    draw_confusion,
    draw_examples,
    draw_recall,
)
from twostream_ext.report.table import ROWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"
_EXAMPLES = 6

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem 1rem;border-bottom:1px solid #ddd;text-align:left}"
    "td+td{text-align:right}img{max-width:100%}code{background:#f3f3f3}"
)


def write_report(out: str | os.PathLike[str]) -> Path:
    """Write `report.html` and its figures as PNG beside the summary of a run; return the page's path.

    CheckpointError if `out` holds no finished run.
    """
    root = Path(out)
    summary = read_summary(root)
    mark = _mark(root)
    scores = {stream: load_scores(root / "scores" / f"{stream}_test.safetensors") for stream in STREAMS}
    figures = _draw(root, summary["classes"], scores)
    for name, picture in figures.items():
        with atomic_write(root / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(picture)
    with atomic_write(root / REPORT_FILE) as temporary:
        temporary.write_text(_page(summary, figures, mark), encoding="utf-8")
    return root / REPORT_FILE


def is_report_current(out: str | os.PathLike[str]) -> bool:
    """Whether there is a page, of the summary that is there.

    That of a run that 0.1.0 finished, which did not note of which it is, is taken for one.
    """
    page = Path(out) / REPORT_FILE
    if not page.exists():
        return False
    return "made_from" not in read_summary(out) or _mark(Path(out)) in page.read_text(encoding="utf-8")


def _mark(root: Path) -> str:
    """A line of the page that tells of which summary it is."""
    return f'<meta name="summary" content="{hashlib.sha256((root / SUMMARY_FILE).read_bytes()).hexdigest()}">'


def _draw(root: Path, classes: list[str], scores: dict[str, Scores]) -> dict[str, bytes]:
    by_stream = {stream: scores[stream].scores.numpy() for stream in STREAMS}
    by_stream["average"] = fuse_average([scores[stream].scores for stream in STREAMS]).numpy()
    videos = scores[STREAMS[0]]  # the same in the files of all
    labels = videos.labels.numpy()
    matrices = {
        name: confusion_matrix(labels, values.argmax(axis=1), len(classes)) for name, values in by_stream.items()
    }
    recall = {name: np.diagonal(matrix) for name, matrix in matrices.items()}
    chosen = _spread(labels)
    examples = [
        _read_example(
            root,
            videos.names[index],
            classes[labels[index]],
            {name: values[index] for name, values in by_stream.items()},
        )
        for index in chosen
    ]
    return {
        "examples": _png(draw_examples(examples, classes)),
        "confusion": _png(draw_confusion(matrices["average"], classes)),
        "recall": _png(draw_recall(recall, classes)),
    }


def _spread(labels: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """The first video of each of a few classes, evenly spread over the classes."""
    present = np.unique(labels)
    places = np.linspace(0, len(present) - 1, min(_EXAMPLES, len(present))).round().astype(int)
    return [int(np.flatnonzero(labels == label)[0]) for label in present[places]]


def _read_example(root: Path, name: str, label: str, scores: dict[str, Any]) -> Example:
    clip = FlowStore.open(root / "flow")[name]
    middle = clip.length() // 2
    frame = FrameStore.open(root / "frames")[name].read(middle)
    return Example(frame, clip.displacement(middle), label, scores)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _page(summary: dict[str, Any], figures: dict[str, bytes], mark: str) -> str:
    rows = "".join(
        f"<tr><td>{words}</td><td>{100 * summary['top1'][name]:.1f}</td></tr>"
        for name, words in ROWS.items()
        if name in summary["top1"]
    )
    pictures = {
        name: f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for name, data in figures.items()
    }
    videos = summary["videos"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{mark}<title>Two-stream result</title>'
        f"<style>{_STYLE}</style><h1>Two-stream result</h1>"
        f"<p>{len(summary['classes'])} classes, {videos['train']} training and {videos['test']} test videos; "
        f"split {summary['split']}, seed {summary['seed']}.</p>"
        f"<table><tr><th>method</th><th>top-1, %</th></tr>{rows}</table>"
        f"<h2>Examples</h2>"
        f"<p>Test videos: a frame, the flow from it, and the highest scores. The true class is in bold.</p>"
        f"{pictures['examples']}"
        f"<h2>Recall of each class</h2>{pictures['recall']}"
        f"<h2>Confusion</h2>{pictures['confusion']}"
        f"<h2>Settings</h2><pre>{html.escape(json.dumps(summary['recipe'], indent=1))}</pre></html>"
    )
