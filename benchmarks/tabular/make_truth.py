"""Keeps what architectures of the table reach when they are trained from scratch.

python benchmarks/tabular/make_truth.py STUDY.toml [--output FILE]

The trainings are those of the study file's stage "retrain", as `msnas rank` and `msnas retrain`
make them: test images, AP of each seed. What lies outside the window of the table is left out.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import make

from msnas_optuna.methods.msnas.tabular import TABLE_FILE, load_table, truth_file
from msnas_optuna.storage import CONFIG, REPEAT
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView


def truth(setting: Setting, table: Path) -> dict[str, Any]:
    """The content of the file: provenance, and a row for each architecture, in the table's order.

    Raises:
        SystemExit: nothing is trained yet, or the study has other networks than the table.
    """
    found = load_table(table)
    if (setting.space, setting.cost) != (found.space, found.feasible.cost):
        raise SystemExit(
            f"[space] and input size of {setting.study_file} are not those of {table}"
        )
    known = found.measurements
    study = setting.stored_study(RETRAIN)
    view = StudyView(study, method=setting.method, space=setting.space)
    trained = {r.architecture: r.records for r in view.results if r.architecture in known}
    if study is None or not trained:
        raise SystemExit(f"study {setting.study_name(RETRAIN)} has no training of the table yet")
    rows = [
        [str(a), [round(record.trial.values[0], 5) for record in trained[a]]]
        for a in known
        if a in trained
    ]
    return {
        "provenance": provenance(setting, [r.trial for own in trained.values() for r in own]),
        "columns": ["architecture", "ap"],
        "rows": rows,
    }


def provenance(setting: Setting, trials: list[Any]) -> dict[str, Any]:
    """How the numbers came about."""
    config = setting.config
    seeds = Counter(config.study.seed + int(t.user_attrs.get(REPEAT, 0)) for t in trials)
    stored = setting.stored_study(RETRAIN)
    assert stored is not None
    return {
        "what": (
            f"COCO AP on the {setting.reported_images} images after training from scratch; one "
            f"entry for each seed, the study's first"
        ),
        "command": "python benchmarks/tabular/make_truth.py",
        "date": max(t.datetime_complete for t in trials).date().isoformat(),
        "seeds": {str(seed): n for seed, n in sorted(seeds.items())},
        "train_seconds": round(sum(t.user_attrs["train_seconds"] for t in trials)),
        "processor": make.processor(),
        "versions": make.package_versions(),
        "settings": stored.user_attrs[CONFIG],
    }


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--table", type=Path, default=TABLE_FILE)
    parser.add_argument("--output", type=Path, help="the default is the file beside the table")
    options = parser.parse_args()
    output = options.output or truth_file(options.table)
    make.write_table(truth(Setting.load(options.study), options.table), output)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
