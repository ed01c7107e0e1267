"""The verbs that run a study: quickstart, train, search, retrain, results."""

from __future__ import annotations

import dataclasses
import shlex
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from msnas_optuna.cli.experiments import joint_experiment, open_experiment
from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.records import RecordFile, write_result
from msnas_optuna.cli.terminal import (
    BASELINES,
    AsJson,
    Quiet,
    Seeds,
    StorageUrl,
    StudyFile,
    Top,
    Workers,
    app,
    out,
    print_json,
    session,
    table,
)
from msnas_optuna.cli.workers import Job, refuse_torchrun, run_with_workers, trainers
from msnas_optuna.report.table import percent, record, result_columns
from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.runtime.processes import torchrun_place
from msnas_optuna.study.selection import select
from msnas_optuna.study.setting import VALIDATION, Setting
from msnas_optuna.study.view import StudyView

if TYPE_CHECKING:  # it imports torch
    from msnas_optuna.study.experiment import Experiment

LIVE_ROWS = 5  # of the table that is shown while the search runs

Folder = Annotated[
    Path, typer.Option("--dir", help="Folder for the study file and all that it makes.")
]
Trials = Annotated[
    int | None, typer.Option(min=1, help="Trials of the study, over all runs and workers.")
]


@app.command()
def quickstart(
    folder: Folder = Path("msnas-quickstart"),
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole job on generated data: train, search, retrain, in about 20 minutes."""
    with session(joint=True, quiet=quiet, plain=as_json) as progress:
        if torchrun_place() is not None:
            raise ValueError(
                "the quickstart is the job of one process; run `msnas quickstart` without "
                "torchrun. Several processes can share the steps `train`, `search` and `retrain` "
                "of a study file"
            )
        study_file = folder / "quickstart.toml"
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--dir must be a folder, {folder} is a file; give another name")
        if not study_file.exists():
            with atomic_write(study_file) as file:  # half a file would be taken for an edited one
                file.write(shipped_study("quickstart.toml").read_bytes())
        setting = Setting.load(study_file, storage=storage)
        experiment = open_experiment(setting, progress)
        progress.beside(partial(live_table, setting), step="search")
        experiment.train_supernet()
        experiment.evaluate_baseline()
        experiment.search()
        experiment.retrain(top=1)
        progress.stop()
        print_results(setting, top=5, as_json=as_json)
        if not as_json:
            _print_next_steps(setting)


@app.command()
def train(
    study_file: StudyFile,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the supernet, from its last checkpoint where there is one.

    On several GPUs: torchrun --nproc-per-node K -m msnas_optuna train STUDY.toml
    """
    with (
        session(joint=True, quiet=quiet, plain=as_json) as progress,
        joint_experiment(Setting.load(study_file, storage=storage), progress) as experiment,
    ):
        losses = experiment.train_supernet()
        progress.stop()
        if not experiment.ranks.first:
            return
        recent, path = losses[-100:], experiment.supernet_path
        loss = sum(recent) / len(recent)
        if as_json:
            print_json({"checkpoint": str(path), "steps": len(losses), "loss": loss})
        else:
            out.print(
                f"supernet: {len(losses)} steps, loss {loss:.3f} "
                f"(mean of the last {len(recent)}), saved in {path}"
            )


@app.command()
def search(
    study_file: StudyFile,
    trials: Trials = None,
    workers: Workers = 1,
    top: Top = 5,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search architectures with the trained supernet until the study has its trials.

    The same command on other machines, with one storage, adds workers. On several GPUs also:
    torchrun --nproc-per-node K -m msnas_optuna search STUDY.toml
    """
    with session(joint=True, quiet=quiet, plain=as_json) as progress:
        place, setting = torchrun_place(), Setting.load(study_file, storage=storage)
        progress.beside(partial(live_table, setting), step="search")
        run_search(setting, storage, trials, workers=workers, progress=progress)
        progress.stop()
        if place is None or place.rank == 0:
            print_results(setting, top=top, as_json=as_json)


@app.command()
def retrain(
    study_file: StudyFile,
    top: Top = 5,
    trial: Annotated[
        list[str] | None,
        typer.Option(
            help=f"In place of the best: best, {BASELINES} or the number of a trial; repeatable."
        ),
    ] = None,
    seeds: Seeds = 1,
    workers: Workers = 1,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    record: RecordFile = None,
    quiet: Quiet = False,
) -> None:
    """Train the best architectures, and the baseline, alone and from scratch.

    Together on several GPUs: torchrun --nproc-per-node K -m msnas_optuna retrain STUDY.toml
    """
    with session(joint=True, quiet=quiet, plain=as_json) as progress:
        setting = Setting.load(study_file, storage=storage)
        with trainers(setting, storage, progress, workers=workers) as (experiment, run):
            if not experiment.ranks.first:
                experiment.assist_training()
                return
            if trial:
                chosen = [select(setting, word, one_shot=True).architecture for word in trial]
                experiment.train_alone(chosen, seeds, run=run)
                experiment.refresh()
            else:
                experiment.retrain(top, seeds=seeds, run=run)
        progress.stop()
        print_results(setting, top=top, as_json=as_json)
        if record is not None:
            from msnas_optuna.report.figures.training import get_transfer_info  # slow to import

            view = StudyView.load(setting)
            numbers = result_numbers(view, setting, top=top)
            numbers |= {"kendall_tau": get_transfer_info(view).tau}
            write_result(record, setting, seeds=seeds, numbers=numbers, workers=workers)


@app.command()
def results(
    study_file: StudyFile,
    top: Top = 5,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    record: RecordFile = None,
    quiet: Quiet = False,
) -> None:
    """Print the best architectures found so far."""
    with session(quiet=quiet, plain=as_json):
        setting = Setting.load(study_file, storage=storage)
        print_results(setting, top=top, as_json=as_json)
        if record is not None:
            numbers = result_numbers(StudyView.load(setting), setting, top=top)
            write_result(record, setting, numbers=numbers)


def result_numbers(view: StudyView[Any], setting: Setting, *, top: int) -> dict[str, Any]:
    """The results of a study with every value, in types that JSON has."""
    columns = result_columns(view)
    best = [record(columns, result) for result in view.best]
    return dataclasses.asdict(view.summary) | {
        "objectives": list(setting.config.study.objectives),
        "images": {"one_shot": VALIDATION, "standalone": view.reported_images},
        "best": best[:top],
        "pareto_front": best if len(setting.metrics) > 1 else None,
        "standalone": [record(columns, r) for r in view.results if r.trainings is not None],
        "baseline": view.baseline and record(columns, view.baseline),
    }


def print_results(setting: Setting, *, top: int, as_json: bool) -> None:
    """Prints the best architectures of a study, and all that are retrained, by the baseline."""
    view = StudyView.load(setting)
    summary, several = view.summary, len(setting.metrics) > 1
    if as_json:
        about = {"study": setting.study_name(), "storage": setting.storage_url}
        print_json(about | result_numbers(view, setting, top=top))
        return
    low, high = setting.window
    again = summary.completed - summary.architectures
    out.print(
        f"{summary.completed} trials finished{f' ({again} repeated)' if again else ''}, "
        f"{summary.failed} failed; window "
        f"{low / 1e9:.4f} to {high / 1e9:.4f} GFLOPs; one-shot mAP on the "
        f"{VALIDATION} images over {'trials' if again == 0 else 'architectures'}: "
        f"mean {percent(summary.one_shot_mean)}, least {percent(summary.one_shot_min)}, "
        f"best {percent(summary.one_shot_max)}"
    )
    if summary.completed + summary.failed >= setting.feasible.count():
        out.print("Every architecture inside the window has been evaluated.")
    out.print(_table(view, setting, None if several else top))  # all of a front
    if summary.retrained > 1:
        out.print(
            f"retrained, best {summary.retrained}, on the {view.reported_images} images: "
            f"mean {percent(summary.standalone_mean)}, "
            f"variance {1e4 * (summary.standalone_variance or 0):.4f}, "
            f"max {percent(summary.standalone_max)} mAP"
        )


def run_search(
    setting: Setting, storage: str | None, trials: int | None, *, workers: int, progress: Bars
) -> None:
    """Evaluates the baseline, and searches with so many processes, or as one of torchrun's."""
    if workers > 1:
        refuse_torchrun()
        by_hand = (setting.method.baseline_stage,)
        wanted: dict[str | None, int] = {None: setting.n_trials(trials)}
        job = Job("search", wanted, partial(_search, trials=trials), beside=by_hand)
        run_with_workers(setting, storage, job, count=workers, progress=progress)
    else:
        experiment = open_experiment(setting, progress, place=torchrun_place())
        experiment.evaluate_baseline()
        experiment.search(trials)


def _search(experiment: Experiment, trials: int | None) -> None:
    """The part of one of several workers."""
    experiment.evaluate_baseline(wait=False)
    experiment.search(trials, patience=inf)
    experiment.evaluate_baseline()


def live_table(setting: Setting) -> Table:
    """The best architectures so far, which stand above the bars of a search."""
    return _table(StudyView.load(setting), setting, LIVE_ROWS)


def _table(view: StudyView[Any], setting: Setting, top: int | None) -> Table:
    best = view.best[:top]
    shown = {result.architecture for result in best}
    others = [r for r in view.results if r.trainings and r.architecture not in shown]
    baseline = filter(None, [view.baseline])
    return table(result_columns(view), best, others, baseline, title=setting.ranking)


def shipped_study(name: str) -> Path:
    """The file of a study that comes with the package."""
    installed = Path(__file__).parents[1] / "studies" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "studies" / name


def _print_next_steps(setting: Setting) -> None:
    url, name = setting.storage_url, shlex.quote(setting.study_name())
    if url.startswith("grpc:"):
        return  # Optuna's commands speak to databases alone
    out.print("\nLook further:")
    shown = setting.storage_word
    if setting.is_secret:
        out.print("(OPTUNA_STORAGE stands for the storage's URL, which holds a password)")
    best = "best-trial" if len(setting.metrics) == 1 else "best-trials"
    for command in (
        setting.command("dashboard"),
        setting.command("report", "-o", "report.html"),
        f"optuna trials --storage {shown} --study-name {name}",
        f"optuna {best} --storage {shown} --study-name {name}",
        f"optuna-dashboard {shown}",
    ):
        out.print(f"  {command}")
