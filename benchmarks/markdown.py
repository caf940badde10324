# SPDX-License-Identifier: BSD-3-Clause
"""Records of benchmarks as Markdown: every row for the terminal, one row a workload for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workloads import OURS

BEGIN, END = "<!-- kernels -->", "<!-- /kernels -->"
_CHART = "kernels.png"  # beside the page
_MICROSECONDS_BELOW = 0.1  # milliseconds


def full(record: dict[str, Any]) -> str:
    """Every implementation of every workload."""
    rows = []
    for kernel in record.get("kernels", []):
        label = f"{kernel['operator']}, {kernel['workload']}: {kernel['shapes']}"
        rows.append([label, f"limit: {kernel['limit']['what']}", duration(kernel["limit"]["median_ms"]), "", "", ""])
        for each in kernel["implementations"]:
            faster = each.get("ours_is_times_faster")
            rows.append(
                [
                    "",
                    each["name"],
                    duration(each["median_ms"]),
                    f"{each['gigabytes_per_second']:.1f}",
                    f"{each['fraction_of_limit']:.2f}",
                    "" if faster is None else f"{faster:.2f}",
                ]
            )
        rows += [["", name, reason, "", "", ""] for name, reason in kernel["absent"].items()]
    head = ["workload", "implementation", "time", "GB/s", "fraction of the limit", "ours is x times faster"]
    lines = [_provenance(record), "", *_limits(record), *table(head, rows)]
    if record.get("threads"):
        lines += ["", *_scaling(record["threads"])]
    return "\n".join(lines)


def compact(record: dict[str, Any]) -> str:
    """One row a workload: what ours takes and reaches, and how many times longer each peer takes."""
    rows, absent = [], {}
    for kernel in record.get("kernels", []):
        ours = next(each for each in kernel["implementations"] if each["name"] == OURS)
        others = [_against(each) for each in kernel["implementations"] if each["name"] != OURS]
        rows.append(
            [
                f"`{kernel['operator']}`, {kernel['workload']}",
                duration(ours["median_ms"]),
                f"{ours['gigabytes_per_second']:.1f}",
                f"{ours['fraction_of_limit']:.2f} ({_kinds(kernel['limit']['what'])})",
                ", ".join(others),
            ]
        )
        absent.update(kernel["absent"])
    head = ["workload", "ours", "GB/s", "fraction of the limit", "times longer: peers"]
    lines = [_provenance(record), "", *table(head, rows)]
    if absent:
        lines += ["", "Left out: " + "; ".join(f"{name} ({reason})" for name, reason in absent.items()) + "."]
    return "\n".join(lines)


def write_page(page: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace what stands between the markers."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} must hold {BEGIN} and {END} once each")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    parts = [compact(each) for each in records]
    if (page.parent / _CHART).exists():
        parts.append(f"![Time of each implementation over the batch size]({_CHART})")
    tables = "\n\n".join(parts)
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


def _provenance(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    where = machine.get("gpu", f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads")
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{where}; {packages}; {record['date'][:10]}, commit {record['commit'][:7]}."


def _limits(record: dict[str, Any]) -> list[str]:
    """What the machine can do; records made before it was told are without."""
    if "limits" not in record:
        return []
    found = record["limits"]
    told = ", ".join(f"{kind} {value:.3g} GB/s" for kind, value in found["gigabytes_per_second"].items())
    return [f"The machine, with {found['bytes']:,} bytes: {told}.", ""]


def _scaling(entries: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        [
            f"{each['operator']}, {each['workload']}",
            *map(duration, each["median_ms"].values()),
            f"{each['speedup']:.2f}",
        ]
        for each in entries
    ]
    counts = [f"{name} thread{'s' * (name != '1')}" for name in entries[0]["median_ms"]]
    return table(["ours", *counts, "speedup"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def duration(milliseconds: float) -> str:
    if milliseconds < _MICROSECONDS_BELOW:
        return f"{milliseconds * 1e3:.1f} µs"
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def _kinds(limit: str) -> str:
    """`fill of 8 bytes + read of 8 bytes` -> `fill + read`."""
    return " + ".join(part.split(" of ")[0] for part in limit.split(" + "))


def _against(entry: dict[str, Any]) -> str:
    """A peer by how many times longer it takes; a part of our own call by its time."""
    ratio = entry.get("ours_is_times_faster")
    return f"{entry['name']} {duration(entry['median_ms']) if ratio is None else _ratio(ratio)}"


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
