"""The verb that trains hand-made detectors as the search's best are retrained: baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from msnas_optuna.cli.records import RecordFile, write_result
from msnas_optuna.cli.terminal import (
    AsJson,
    Quiet,
    Seeds,
    StorageUrl,
    StudyFile,
    Workers,
    app,
    out,
    print_json,
    session,
    table,
)
from msnas_optuna.cli.workers import trainers
from msnas_optuna.report.table import Column, record as as_json_row, training_columns
from msnas_optuna.study.baselines import Comparison, chosen_baselines, compared
from msnas_optuna.study.config import BASELINE, RETRAIN
from msnas_optuna.study.setting import Setting


@app.command()
def baseline(
    study_file: StudyFile,
    seeds: Seeds = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Train this one, as the table calls it; repeatable."),
    ] = None,
    full_size: Annotated[
        bool,
        typer.Option(help="Train those of the published sizes, too, whatever they cost."),
    ] = False,
    workers: Workers = 1,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    record: RecordFile = None,
    quiet: Quiet = False,
) -> None:
    """Train hand-made detectors of the study's FLOPs with the same recipe, to compare with.

    Together on several GPUs: torchrun --nproc-per-node K -m msnas_optuna baseline STUDY.toml
    """
    with session(joint=True, quiet=quiet, plain=as_json) as progress:
        setting = Setting.load(study_file, storage=storage)
        names = chosen_baselines(setting, only or (), full_size=full_size)
        with trainers(setting, storage, progress, workers=workers) as (experiment, run):
            if not experiment.ranks.first:
                experiment.assist_training([RETRAIN, BASELINE])
                return
            experiment.train_baselines(names, seeds, run=run)
        progress.stop()
        rows = compared(setting)
        columns = comparison_columns(setting, rows)
        numbers = {
            "images": setting.reported_images,
            "target_gflops": setting.target / 1e9,
            "detectors": [as_json_row(columns, row) for row in rows],
        }
        if as_json:
            print_json({"study": setting.study_name(BASELINE)} | numbers)
        else:
            title = f"Trained from scratch, on the {setting.reported_images} images"
            out.print(table(columns, rows, title=title))
        if record is not None:
            write_result(record, setting, seeds=seeds, numbers=numbers, workers=workers)


def comparison_columns(setting: Setting, rows: Sequence[Comparison]) -> list[Column[Comparison]]:
    """Costs, AP and the distance to the best of the search."""
    several = any(len(row.trainings.values) > 1 for row in rows)
    return [
        Column("", lambda r: r.name, key="name"),
        Column("GFLOPs", lambda r: r.gflops, "{:.4f}", "gflops", right=True),
        Column("million\nparameters", lambda r: r.mparams, "{:.3f}", "mparams", right=True),
        *training_columns(setting.reported_images, lambda r: r.trainings, several),
        Column("against\nthe best", lambda r: r.ahead, _difference, right=True),
        Column(None, lambda r: r.ahead and r.ahead[0], key="ahead_of_best"),
        Column(None, lambda r: r.ahead and r.ahead[1], key="ahead_of_best_error"),
    ]


def _difference(ahead: tuple[float, float | None]) -> str:
    """In percent, with its standard error where there is one."""
    difference, error = ahead
    return f"{100 * difference:+.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
