from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "population.py"


def test_landscapes_are_standardized_and_differ(population):
    values = [population.landscape(seed) for seed in (0, 0, 1)]
    rng = np.random.default_rng(7)
    params = [population.SPACE.encode(a) for a in population._feasible().sample(rng, 1000)]
    same, again, other = ([value(p) for p in params] for value in values)
    assert same == again
    assert abs(np.corrcoef(same, other)[0, 1]) < 0.5
    assert abs(fmean(same)) < 0.15
    assert abs(pstdev(same) - 1) < 0.15


def test_without_noise_the_best_only_gets_better(population):
    case = "Algorithm 1, 5 5 1"
    early = population.run((case, 0.0, 0, 100))
    assert len(early) == 1
    found = population.run((case, 0.0, 0, 220))
    assert found[0] == early[0] <= found[1]


@pytest.mark.slow
def test_it_prints_a_row_for_each_case(population):
    command = [sys.executable, SCRIPT, "--seeds", "2", "--trials", "100"]
    said = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout
    rows = json.loads(said)
    assert len(rows) == len(population.CASES) * len(population.NOISES)
    assert {len(row["means"]) for row in rows} == {1}
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(table.splitlines()) == 1 + len(rows)
