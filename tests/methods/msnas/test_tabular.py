from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
import pytest

from msnas_optuna import ArchitectureSampler
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.methods.msnas.tabular import TABLE_FILE, TabularObjective, load_table
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.study.rank_statistics import agreement
from msnas_optuna.study.setting import Setting

ROOT = Path(__file__).parents[3]
STUDY, DOCS = ROOT / "benchmarks" / "tabular" / "study.toml", ROOT / "docs"
CONTENT = json.loads(TABLE_FILE.read_text())


@pytest.fixture(scope="module")
def table():
    return load_table()


def test_the_table_holds_the_window_of_its_study_exactly(table):
    setting = Setting.load(STUDY)
    assert set(table.measurements) == set(setting.feasible)
    assert 1000 <= len(table.measurements) == table.feasible.count() <= 2000
    assert table.feasible.window == setting.window
    assert table.feasible.cost == setting.cost
    assert table.space == setting.space


def test_values_are_ap_and_costs_those_of_the_architectures(table):
    for architecture, measured in table.measurements.items():
        aps = zip(measured.ap, measured.ap50, strict=True)
        assert all(0 < ap < ap50 < 1 for ap, ap50 in aps)
        assert measured.gflops == pytest.approx(table.feasible.cost.total(architecture) / 1e9)


def test_the_documentation_tells_the_noise_of_the_values(table):
    """Recomputed from the file; what is measured twice tells the noise of one measurement."""
    rows = [dict(zip(CONTENT["columns"], row, strict=True)) for row in CONTENT["rows"]]
    first, second = np.array([row["ap"] for row in rows if len(row["ap"]) == 2]).T
    noise = np.sqrt(np.mean((first - second) ** 2) / 2)
    spread = np.std([row["ap"][0] for row in rows])
    a, b = (np.sign(values[:, None] - values) for values in (first, second))
    tau = np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))  # Kendall's tau-b
    best = np.sort([row["ap"][0] for row in rows])[::-1][: len(rows) // 100 + 1]
    assert len(best) == 11
    text = " ".join((DOCS / "samplers.md").read_text().split())
    assert (
        f"{len(first)} of them were fine-tuned a second time, with other batches: the standard "
        f"deviation of one measurement is {100 * noise:.2f} AP, that of the architectures "
        f"{100 * spread:.1f} AP, and Kendall's tau of both rankings is {tau:.2f}. The best 1 % "
        f"lie within {100 * (best[0] - best[-1]):.2f} AP"
    ) in text
    assert best[0] - best[-1] < noise  # which of them is the best of all is not known
    again = [m.ap for m in table.measurements.values() if len(m.ap) == 2]
    assert sorted(again) == sorted(zip(first, second, strict=True))


def test_the_provenance_says_how_to_make_it_again(table):
    told = table.provenance
    assert {"command", "date", "versions", "settings", "evaluation_seconds"} <= told.keys()
    assert {"torch", "torchvision", "optuna", "python"} <= told["versions"].keys()
    settings = Setting.load(STUDY).config.identity()
    kept = [key for key in told["settings"] if not key.startswith("sampler.")]
    assert {"supernet.steps", "finetune.steps", "budget.tolerance"} <= set(kept)
    assert {key: told["settings"][key] for key in kept} == {key: settings[key] for key in kept}
    assert sum(told["seeds"].values()) == sum(len(m.ap) for m in table.measurements.values())


def test_the_file_is_small():
    assert TABLE_FILE.stat().st_size < 250_000


def test_it_loads_fast_and_without_torch():
    code = (
        "import sys, time; from msnas_optuna.methods.msnas.tabular import load_table\n"
        "start = time.process_time(); load_table()\n"
        "assert time.process_time() - start < 1, time.process_time() - start\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_quantiles_are_those_of_the_values(table):
    values = sorted(map(table.value, table.measurements))
    assert table.quantile(1) == values[-1]
    assert table.quantile(0) == values[0]
    for q in (0.5, 0.99, 0.999):
        quantile = table.quantile(q)
        at_least = sum(v >= quantile for v in values)
        assert (1 - q) * len(values) <= at_least <= (1 - q) * len(values) + 1
    with pytest.raises(ValueError, match="q must lie in"):
        table.quantile(2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 1 1 1 1 1 1 | 4 4 4 4 4", "must hold min <= 8"),
        ("1 1 1 1 1 1 2 | 4 4 4 4 8", "lie outside the window"),
    ],
)
def test_nothing_else_has_a_value(table, text, why):
    with pytest.raises(InvalidArchitectureError, match=why):
        table.value(Architecture.parse(text))


def test_a_study_has_the_values_of_the_table(table):
    study = optuna.create_study(
        direction="maximize", sampler=ArchitectureSampler(table.feasible, seed=0)
    )
    study.optimize(TabularObjective(table), n_trials=30)
    decoded = [table.space.decode(t.params) for t in study.trials]
    assert len(set(decoded)) == 30
    assert [t.value for t in study.trials] == [table.measurements[a].ap[0] for a in decoded]


def test_a_trial_outside_the_table_fails(table):
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    with pytest.raises(InvalidArchitectureError, match="the table does not hold"):
        study.optimize(TabularObjective(table), n_trials=5)


def test_an_incomplete_table_is_refused(tmp_path):
    content = json.loads(TABLE_FILE.read_text())
    del content["rows"][7]
    path = tmp_path / "part.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"part\.json must hold the \d+ architectures"):
        load_table(path)


def test_an_architecture_that_is_measured_again_has_the_next_of_its_values(table):
    again = next(a for a, m in table.measurements.items() if len(m.ap) == 2)
    study = optuna.create_study(direction="maximize", sampler=ArchitectureSampler(table.feasible))
    for _ in range(3):
        study.enqueue_trial(table.space.encode(again))
    study.optimize(TabularObjective(table), n_trials=3)
    first, second = table.measurements[again].ap
    assert [trial.value for trial in study.trials] == [first, second, first]


def with_truth(tmp_path: Path, rows: list) -> Path:
    path = tmp_path / "some.json"
    path.write_text(TABLE_FILE.read_text())
    content = {"provenance": {"date": "2026"}, "columns": ["architecture", "ap"], "rows": rows}
    (tmp_path / "some_truth.json").write_text(json.dumps(content))
    return path


def test_the_truth_is_read_from_the_file_beside_a_table(table, tmp_path):
    one, other = list(table.measurements)[:2]
    path = with_truth(tmp_path, [[str(one), [0.3, 0.4]], [str(other), [0.2]]])
    found = load_table(path)
    assert found.truth == {one: (0.3, 0.4), other: (0.2,)}
    assert found.truth_provenance == {"date": "2026"}
    assert found.measurements == table.measurements
    (tmp_path / "some_truth.json").unlink()
    assert load_table(path).truth == {}


def test_a_truth_of_another_window_is_refused(tmp_path):
    path = with_truth(tmp_path, [["1 1 1 1 1 1 2 | 4 4 4 4 8", [0.3]]])
    with pytest.raises(
        ValueError, match=r"some_truth\.json must hold architectures of the window"
    ):
        load_table(path)


def test_a_truth_agrees_with_the_scores_of_the_table(table, tmp_path):
    """The statistics of a ranking take a table as they take a study."""
    some = list(table.measurements)[::17]
    path = with_truth(tmp_path, [[str(a), [table.value(a), table.value(a) + 0.1]] for a in some])
    found = load_table(path)
    scores = [found.value(a) for a in found.truth]
    assert agreement(scores, [*map(fmean, found.truth.values())]).tau.value == pytest.approx(1)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(ValueError, match="is no table: it lacks columns, provenance, rows, space"):
        load_table(str(tmp_path / "table.json"))
