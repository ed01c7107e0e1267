from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from msnas_optuna.methods.msnas.tabular import TABLE_FILE, load_table

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "search.py"


def compared(*options: str) -> str:
    command = [sys.executable, SCRIPT, "--seeds", "2", "--trials", "60", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_it_prints_a_row_for_each_contestant(search):
    results = json.loads(compared("--json"))
    assert list(results) == [contestant.name for contestant in search.CONTESTANTS]
    for name, row in results.items():
        ours = not name.startswith("Optuna")
        assert not ours or (row["in window"], row["repeats"]) == (1, 0)
        assert row["runs"] == 2


def test_equal_seeds_give_equal_runs(search):
    table = load_table()
    first, second = (search.run(search.CONTESTANTS[0], 3, table=table, limit=80) for _ in range(2))
    assert first.values == second.values


def test_a_run_tells_when_it_reached_a_value(search):
    run = search.Run(values=(0.1, 0.0, 0.3, 0.2), in_window=0.75, repeats=0, milliseconds=1)
    assert run.reached(0.1) == 1
    assert run.reached(0.2) == 3
    assert run.reached(0.4) == float("inf")
    assert run.best(2) == 0.1


def test_the_constraints_are_met_by_the_table_alone(search):
    table = load_table()
    for i in range(table.feasible.count()):
        architecture = table.feasible.at(i)
        assert search.broken_rules(architecture) == 0
        assert search.outside(architecture, table) == 0
    valid = [search.Architecture.parse(text) for text in ("1 1 1 1 1 1 2 | 4 4 4 4 8",)]
    for architecture in valid:
        assert search.broken_rules(architecture) == 0
        assert search.outside(architecture, table) > 0


@pytest.mark.parametrize(
    "text",
    [
        ".5 1 1 1 1 1 2 | 4 4 4 4 8",
        "1 1 1 1 1 1 2 | 8 4 4 8 8",
        "1 1 1 1 1 1 2 | 4 4 4 4 4",
        "1 1 1 1 1 1 2 | 4 4 4 4 16",
    ],
)
def test_broken_rules_are_seen(search, text):
    architecture = search.Architecture.parse(text)
    assert load_table().space.violation(architecture) is not None
    assert search.broken_rules(architecture) > 0


def test_quartiles_of_runs_that_never_arrive(search):
    assert search._quartiles([1, 2, float("inf"), float("inf")]) == [1, 2, None]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_documentation_shows_what_the_comparison_finds(search):
    table, limit = load_table(), search.LIMIT
    chosen = [c for c in search.CONTESTANTS if not c.name.startswith("Optuna")]
    runs = search.run_all(chosen, search.HELD_OUT_SEEDS, path=TABLE_FILE, limit=limit, processes=2)
    rows = search.markdown({name: search.summary(r, table) for name, r in runs.items()}, limit)
    page = (SCRIPT.parents[1] / "docs" / "samplers.md").read_text(encoding="utf-8").splitlines()
    for row in rows.splitlines()[2:]:
        counted = row.rsplit("|", 2)[0]  # without milliseconds
        assert any(line.startswith(counted) for line in page), counted
