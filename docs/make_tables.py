"""The tables of README.md and docs/ that are made from records of commands.

python docs/make_tables.py        writes them anew from studies/results/*.json

A table stands between <!-- table: NAME --> and <!-- end -->; NAME.json is its record.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msnas_optuna.methods import METHODS
from msnas_optuna.report.ablation import comparison_rows
from msnas_optuna.report.table import percent

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def made(page: Path) -> str:
    """The text of a page with its tables made anew."""
    return MARKED.sub(
        lambda found: found[1] + markdown(found[2], page.parent) + found[3],
        page.read_text(encoding="utf-8"),
    )


def markdown(name: str, folder: Path) -> str:
    """The table of a record, and a line about its origin, for a page in a folder."""
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    numbers = record["numbers"]
    rows_of = {"arms": comparison_rows, "detectors": detector_rows, "best": result_rows}
    heading, *rows = next(make for key, make in rows_of.items() if key in numbers)(numbers)
    link = os.path.relpath(RESULTS / f"{name}.json", folder)
    return f"{table(heading, rows)}\n\n{origin(record)} ([record]({link})).\n"


def result_rows(numbers: Mapping[str, Any]) -> list[list[str]]:
    """The best architectures of a search and the baseline, of `msnas results` or `retrain`."""
    method, images = METHODS["msnas"], numbers["images"]
    one_shot, alone = (f"{images[kind]} images" for kind in ("one_shot", "standalone"))
    rows = [["", "strides", "reading", "GFLOPs"]]
    rows[0] += [f"one-shot mAP, {one_shot}", f"retrained mAP, {alone}"]
    for found in (*numbers["best"], *filter(None, [numbers["baseline"]])):
        trial = found["trial"]
        strides = " ".join(f"{s:g}".removeprefix("0") for s in found["strides"])
        rows.append(
            [
                method.baseline if trial is None else f"trial {trial}",
                f"`{strides}`",
                f"`{' '.join(map(str, found['feature_strides']))}`",
                f"{found['gflops']:.4f}",
                percent(found["one_shot_ap"]),
                spread(found["standalone_ap"], found.get("standalone_error")),
            ]
        )
    return rows


def detector_rows(numbers: Mapping[str, Any]) -> list[list[str]]:
    """The hand-made detectors and the best of the search, of `msnas baseline`."""
    rows = [["", "GFLOPs", "million parameters", "mAP, {images} images".format_map(numbers)]]
    rows[0] += ["seeds", "against the best"]
    for found in numbers["detectors"]:
        ahead = found["ahead_of_best"]
        rows.append(
            [
                found["name"],
                f"{found['gflops']:.4f}",
                f"{found['mparams']:.3f}",
                spread(found["standalone_ap"], found["standalone_error"]),
                str(len(found["standalone_by_seed"])),
                "-" if ahead is None else spread(ahead, found["ahead_of_best_error"], sign="+"),
            ]
        )
    return rows


def spread(ap: float | None, error: float | None, *, sign: str = "") -> str:
    """An AP in percent with its standard error, where that is known."""
    if ap is None:
        return "-"
    return f"{100 * ap:{sign}.1f}" + ("" if error is None else f" ± {percent(error)}")


def origin(record: Mapping[str, Any]) -> str:
    """Command, commit, date, seeds and machine of a record."""
    machine, seeds = record["machine"], record["seeds"]
    seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    commit = (record["commit"] or "unknown")[:7]
    return (
        f"`{record['command']}`, commit {commit}, {record['date']}, {seeds}, "
        f"{machine['torch threads']} threads on {machine['processor']}"
    )


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; numbers stand to the right."""
    rule = ["---", *("---:" for _ in heading[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(made(page), encoding="utf-8")
