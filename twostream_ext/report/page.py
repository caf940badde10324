# SPDX-License-Identifier: BSD-3-Clause
"""One page about a run or a table: an HTML file that holds its pictures, and asks no other machine for anything."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from twostream_ext.engine import SUMMARY_FILE, is_of_splits, is_of_table, read_any_summary
from twostream_ext.errors import ReportError, TwoStreamError, describe
from twostream_ext.files import atomic_write
from twostream_ext.report.content import Part, draw
from twostream_ext.report.other_pages import draw_splits, draw_table
from twostream_ext.report.result import MISSING_MARK, percent, read_result

REPORT_FILE = "report.html"
FIGURES = "figures"
"""The folder beside the page with its pictures and charts as files of their own."""
_UNPRINTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What neither HTML nor XML may hold, and names of files may."""


def write_report(out: str | os.PathLike[str]) -> Path:
    """Write `report.html` and, in `figures/`, its pictures (PNG) and charts (SVG); return the page's path.

    out: the directory of a finished run, of one on several splits, or of a table of the paper. What has been deleted of
        a run since (flow, frames, nets) is missing on its page.

    CheckpointError if `out` holds none of them; ReportError, in one line, whatever else goes wrong.
    """
    root = Path(out)
    summary = read_any_summary(root)
    try:
        return _write(root, summary)
    except (TwoStreamError, OSError) as error:
        raise ReportError(f"{root / REPORT_FILE}: cannot be made: {error}; the result is in {SUMMARY_FILE}") from error
    except Exception as error:  # of drawing: the result is whole, and its user is told of it in one line all the same
        raise ReportError(
            f"{root / REPORT_FILE}: cannot be made: {describe(error)}; the result is in {SUMMARY_FILE}"
        ) from error


def is_report_current(out: str | os.PathLike[str]) -> bool:
    """Whether there is a page, of the summary that is there, that lacks nothing: what could not be read may be back.

    That of a run that 0.1.0 finished, which did not note of which it is, is taken for one.
    """
    path = Path(out) / REPORT_FILE
    if not path.exists():
        return False
    summary = read_any_summary(out)
    if not (is_of_table(summary) or is_of_splits(summary) or "made_from" in summary):
        return True
    page = path.read_text(encoding="utf-8", errors="replace")
    return _summary_digest(Path(out)) in page and MISSING_MARK not in page


def _summary_digest(root: Path) -> str:
    """It is noted in the page, and so tells of which summary the page is."""
    return hashlib.sha256((root / SUMMARY_FILE).read_bytes()).hexdigest()


def _write(root: Path, summary: dict[str, Any]) -> Path:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = percent
    digest = _summary_digest(root)
    template, (content, files, charts) = _content(root, summary)
    style, script = (_source(templates, name) for name in ("report.css", "report.js"))
    for name, (chart, values) in charts.items():
        files[f"{name}.svg"] = _render(templates, chart, {**content, **values}).encode()
    for name, picture in files.items():
        with atomic_write(root / FIGURES / name) as temporary:
            temporary.write_bytes(picture)
    more = {"style": style, "script": script, "script_digest": _content_hash(script), "summary_digest": digest}
    page = _render(templates, template, {**content, **more})
    with atomic_write(root / REPORT_FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return root / REPORT_FILE


def _content(root: Path, summary: dict[str, Any]) -> tuple[str, Part]:
    """The template of a page, and what it is filled with."""
    if is_of_table(summary):
        return "experiment.html", draw_table(summary)
    if is_of_splits(summary):
        return "splits.html", draw_splits(summary)
    return "report.html", draw(root, read_result(root, summary))


def _render(templates: jinja2.Environment, name: str, content: Mapping[str, Any]) -> str:
    text = templates.get_template(name).render(content)
    return _UNPRINTED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _source(templates: jinja2.Environment, name: str) -> Markup:
    """A file of ours that goes into the page as it is."""
    assert templates.loader is not None
    return Markup(templates.loader.get_source(templates, name)[0])


def _content_hash(script: str) -> str:
    """Under which a browser runs this script and no other, whatever may stand in a name."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
