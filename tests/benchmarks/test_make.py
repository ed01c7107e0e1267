from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from msnas_optuna.methods.msnas.tabular import load_table, truth_file
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.setting import Setting

FOLDER = Path(__file__).parents[2] / "benchmarks" / "tabular"


@pytest.fixture
def make(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)  # worker processes import it by name from there
    return importlib.import_module("make")


def measured(task, ap: float) -> dict:
    return {
        "architecture": task.architecture,
        "seed": task.seed,
        "ap": ap,
        "ap50": 2 * ap,
        "seconds": 1.0,
    }


def test_every_architecture_is_measured_once_and_some_again(make):
    setting = Setting.load(FOLDER / "study.toml")
    tasks = make.tasks(setting, 5)
    n = setting.feasible.count()
    assert len(tasks) == len(set(tasks)) == n + 5
    assert {task.architecture for task in tasks[:n]} == {
        str(setting.feasible.at(i)) for i in range(n)
    }
    assert [task.architecture for task in tasks[n:]] == [t.architecture for t in tasks[:5]]
    assert tasks == make.tasks(setting, 5)


def test_a_line_that_a_kill_cut_short_is_dropped(make, tmp_path):
    path = tmp_path / "results.jsonl"
    assert make.read_results(path, {"a": 1}) == []
    with path.open("a") as file:
        file.write(json.dumps({"ap": 0.5}) + '\n{"ap": 0.')
    assert make.read_results(path, {"a": 1}) == [{"ap": 0.5}]
    assert path.read_text().endswith("}\n")
    with pytest.raises(SystemExit, match="other settings"):
        make.read_results(path, {"a": 2})


def test_the_table_reads_back(make, tiny):
    setting = Setting.load(tiny)
    (setting.run_dir / "supernet.pt").write_bytes(b"weights")
    results = [measured(t, 0.1 + i / 1e4) for i, t in enumerate(make.tasks(setting, 3))]
    path = tiny.parent / "table.json"
    make.write_table(make.table(setting, results), path)
    table = load_table(path)
    assert len(table.measurements) == setting.feasible.count()
    assert sum(len(m.ap) for m in table.measurements.values()) == len(results)
    for result in results[: setting.feasible.count()]:
        architecture = make.Architecture.parse(result["architecture"])
        assert table.value(architecture) == pytest.approx(result["ap"], abs=1e-5)


def test_the_truth_of_a_table_reads_back(make, tiny, run_cheaply):
    make_truth = importlib.import_module("make_truth")
    setting, path = Setting.load(tiny), tiny.parent / "table.json"
    (setting.run_dir / "supernet.pt").write_bytes(b"weights")
    results = [measured(t, 0.1) for t in make.tasks(setting, 0)]
    make.write_table(make.table(setting, results), path)
    with pytest.raises(SystemExit, match="tiny-retrain has no training of the table yet"):
        make_truth.truth(setting, path)
    inside = [setting.feasible.at(i) for i in (5, 2)]
    outside = next(a for a in setting.valid if setting.feasible.violation(a) is not None)
    study = run_cheaply(setting, RETRAIN, architectures=[*inside, outside])
    values = {t.user_attrs["arch"]: t.value for t in study.trials}
    content = make_truth.truth(setting, path)
    make.write_table(content, truth_file(path))
    found = load_table(path)
    assert found.truth == {a: (pytest.approx(values[str(a)], abs=1e-5),) for a in inside}
    assert found.truth_provenance["seeds"] == {"0": 2}
    assert found.truth_provenance["train_seconds"] == 2
    assert {"date", "command", "versions", "settings", "processor"} <= set(content["provenance"])
    assert [row[0] for row in content["rows"]] == [str(setting.feasible.at(i)) for i in (2, 5)]
    tiny.write_text(tiny.read_text().replace("channels = 8\nstem", "channels = 16\nstem"))
    with pytest.raises(SystemExit, match="are not those of"):
        make_truth.truth(Setting.load(tiny), path)


@pytest.mark.slow
def test_it_continues_where_it_stopped(make, tiny):
    setting = Setting.load(tiny)
    options = {"again": 1, "processes": 2}
    missing = make.tasks(setting, 1)[-3:]
    path = setting.run_dir / "results.jsonl"
    assert make.read_results(path, setting.config.identity()) == []
    done = [measured(t, 0.1) for t in make.tasks(setting, 1) if t not in missing]
    with path.open("a") as file:
        file.writelines(json.dumps(result) + "\n" for result in done)
    results = make.measure(setting, tiny, **options)
    assert results[: len(done)] == done
    new = {make.Task(r["architecture"], r["seed"]) for r in results[len(done) :]}
    assert new == set(missing)
    assert make.measure(setting, tiny, **options) == make.read_results(
        path, setting.config.identity()
    )
