"""The verb that runs both arms of an ablation of the paper: ablation."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.records import RecordFile, write_result
from msnas_optuna.cli.search import Trials, run_search, shipped_study
from msnas_optuna.cli.terminal import (
    AsJson,
    Quiet,
    StorageUrl,
    Top,
    Workers,
    app,
    out,
    print_json,
    session,
    table,
)
from msnas_optuna.cli.workers import trainers
from msnas_optuna.report.table import Column
from msnas_optuna.runtime.processes import torchrun_place
from msnas_optuna.study.ablation import BASE, Ablation
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView


@app.command()
def ablation(
    name: Annotated[str, typer.Argument(metavar="NAME", help="table2, table3, table4 or table5.")],
    study: Annotated[
        Path | None,
        typer.Option(metavar="STUDY.toml", help="Compare in this setting, on its data."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Supernets, searches and retrainings.")] = 3,
    trials: Trials = None,
    top: Top = 5,
    workers: Workers = 1,
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder for the study files and all that they make.")
    ] = Path("msnas-ablations"),
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Print what is finished, and begin nothing.")
    ] = False,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    record: RecordFile = None,
    quiet: Quiet = False,
) -> None:
    """Repeat an ablation of the paper at the small scale: train, search and retrain both arms.

    Prints the paper's row beside ours. Everything is a study in the folder, which the other verbs
    read, too; ablations in one folder share the arm that is the setting itself.
    """
    with session(quiet=quiet, plain=as_json) as progress:
        from msnas_optuna.report.ablation import comparison, comparison_rows, outcome

        if torchrun_place() is not None:
            raise ValueError(
                "an ablation is the job of one process; run it without torchrun, which can train "
                "the studies in the folder one by one"
            )
        chosen = _load(name)
        base = Setting.load(study or shipped_study(f"ablations/{BASE}.toml"), storage=storage)
        first = base.config.study.seed
        settings = {
            (arm, seed): Setting.load(file, storage=storage)
            for seed in range(first, first + seeds)
            for arm, file in chosen.write_studies(base, folder, seed=seed, trials=trials).items()
        }
        for done, (arm, seed) in enumerate(settings if not so_far else ()):
            progress(name, done, len(settings), f"{arm}, seed {seed}")
            _run(settings[arm, seed], top=top, workers=workers, storage=storage, progress=progress)
            progress(name, done + 1, len(settings))
        outcomes = {
            arm: {seed: outcome(s, top=top) for (a, seed), s in settings.items() if a == arm}
            for arm in chosen.arms
        }
        progress.stop()
        numbers = comparison(chosen, outcomes, top=top)
        if record is not None:
            setting = settings[BASE, first]
            write_result(record, setting, seeds=seeds, numbers=numbers, workers=workers)
        if as_json:
            print_json(numbers)
        else:
            heading, *rows = comparison_rows(numbers)
            columns = [Column(title, itemgetter(i)) for i, title in enumerate(heading)]
            out.print(table(columns, rows, title=chosen.title))


def _load(name: str) -> Ablation:
    files = {file.stem: file for file in shipped_study("ablations").glob("table*.toml")}
    if name not in files:
        raise ValueError(f"an ablation is one of {', '.join(sorted(files))}, got {name!r}")
    return Ablation.load(files[name])


def _run(setting: Setting, *, top: int, workers: int, storage: str | None, progress: Bars) -> None:
    """The steps of one study, as far as they are not done."""
    with trainers(setting, storage, progress, workers=workers) as (experiment, run):
        experiment.train_supernet()
        run_search(setting, storage, None, workers=workers, progress=progress)
        best = StudyView.load(setting).best[:top]
        experiment.train_alone([result.architecture for result in best], run=run)
