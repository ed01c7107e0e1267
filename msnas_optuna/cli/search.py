"""The verbs that run a study: quickstart, train, search, retrain, results."""

from __future__ import annotations

import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msnas_optuna.cli.app import app
from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.results import live_table, print_results
from msnas_optuna.cli.terminal import AsJson, Quiet, StudyFile, Top, out, print_json, session
from msnas_optuna.setting import Setting

if TYPE_CHECKING:  # it imports torch, which other verbs can do without
    from msnas_optuna.study import Experiment


@app.command()
def quickstart(
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder for the study file and all that it makes.")
    ] = Path("msnas-quickstart"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole job on generated data: train, search, retrain, in about ten minutes."""
    with session(quiet=quiet, plain=as_json) as progress:
        experiment = _experiment(_quickstart_study(folder), progress)
        progress.beside(partial(live_table, experiment.setting), step="search")
        experiment.train_supernet()
        experiment.evaluate_fpn_like()
        experiment.search()
        experiment.retrain(top=1)
        progress.stop()
        print_results(experiment.setting, top=5, as_json=as_json)
        if not as_json:
            _print_next_steps(experiment.setting)


@app.command()
def train(study_file: StudyFile, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Train the supernet, from its last checkpoint where there is one."""
    with session(quiet=quiet, plain=as_json) as progress:
        experiment = _experiment(study_file, progress)
        losses = experiment.train_supernet()
        progress.stop()
        recent = losses[-100:]
        summary = {
            "checkpoint": str(experiment.supernet_path),
            "steps": len(losses),
            "loss": sum(recent) / len(recent),
        }
        if as_json:
            print_json(summary)
        else:
            out.print(
                f"supernet: {summary['steps']} steps, loss {summary['loss']:.3f} "
                f"(mean of the last {len(recent)}), saved in {summary['checkpoint']}"
            )


@app.command()
def search(
    study_file: StudyFile,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of the study, over all runs.")
    ] = None,
    top: Top = 5,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search architectures with the trained supernet until the study has its trials."""
    with session(quiet=quiet, plain=as_json) as progress:
        experiment = _experiment(study_file, progress)
        progress.beside(partial(live_table, experiment.setting), step="search")
        experiment.evaluate_fpn_like()
        experiment.search(trials)
        progress.stop()
        print_results(experiment.setting, top=top, as_json=as_json)


@app.command()
def retrain(
    study_file: StudyFile, top: Top = 5, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Train the best architectures, and the FPN-like path, alone and from scratch."""
    with session(quiet=quiet, plain=as_json) as progress:
        experiment = _experiment(study_file, progress)
        experiment.retrain(top)
        progress.stop()
        print_results(experiment.setting, top=top, as_json=as_json)


@app.command()
def results(study_file: StudyFile, top: Top = 5, as_json: AsJson = False) -> None:
    """Print the best architectures found so far."""
    with session():
        print_results(Setting.load(study_file), top=top, as_json=as_json)


def _experiment(study_file: Path, progress: Bars) -> Experiment:
    from msnas_optuna.study import Experiment

    return Experiment.load(study_file, report=progress)


def shipped_study(name: str) -> Path:
    """The file of a study that comes with the package."""
    installed = Path(__file__).parents[1] / "studies" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "studies" / name


def _quickstart_study(folder: Path) -> Path:
    study_file = folder / "quickstart.toml"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--dir must be a folder, {folder} is a file; give another name")
    if not study_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        copy = study_file.with_suffix(".tmp")
        shutil.copyfile(shipped_study("quickstart.toml"), copy)
        copy.replace(study_file)  # at once: half a file would be taken for an edited one
    return study_file


def _print_next_steps(setting: Setting) -> None:
    url, name = shlex.quote(setting.storage_url), shlex.quote(setting.study_name())
    best = "best-trial" if len(setting.metrics) == 1 else "best-trials"
    out.print("\nLook further:")
    for command in (
        f"optuna trials --storage {url} --study-name {name}",
        f"optuna {best} --storage {url} --study-name {name}",
        f"optuna-dashboard {url}",
    ):
        out.print(f"  {command}", soft_wrap=True, highlight=False)
