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
    heading, *rows = comparison_rows(numbers) if "arms" in numbers else result_rows(numbers)
    link = os.path.relpath(RESULTS / f"{name}.json", folder)
    return f"{table(heading, rows)}\n\n{origin(record)} ([record]({link})).\n"


def result_rows(numbers: Mapping[str, Any]) -> list[list[str]]:
    """The best architectures of a search and the baseline, of `msnas results`."""
    method = METHODS["msnas"]
    rows = [["", "strides", "reading", "GFLOPs", "one-shot mAP", "retrained mAP"]]
    for found in (*numbers["best"], numbers["baseline"]):
        trial = found["trial"]
        strides = " ".join(f"{s:g}".removeprefix("0") for s in found["strides"])
        rows.append(
            [
                method.baseline if trial is None else f"trial {trial}",
                f"`{strides}`",
                f"`{' '.join(map(str, found['feature_strides']))}`",
                f"{found['gflops']:.4f}",
                percent(found["one_shot_ap"]),
                percent(found["standalone_ap"]),
            ]
        )
    return rows


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
