"""The verb that finds trials which nobody will finish: doctor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Final

import optuna
import typer

from msnas_optuna.cli.terminal import (
    BASELINES,
    AsJson,
    StorageUrl,
    StudyFile,
    app,
    out,
    print_json,
    session,
    table,
)
from msnas_optuna.report.table import Column
from msnas_optuna.storage import (
    UnfinishedTrial,
    end_trials,
    storage_exists,
    unfinished_trials,
)
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.setting import Setting

SEARCH = "search"
LIVES = {True: "lives", False: "has ended", None: "unknown"}


@app.command()
def doctor(
    study_file: StudyFile,
    fail: Annotated[bool, typer.Option("--fail", help="Fail the chosen trials for good.")] = False,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Let the next worker repeat the chosen trials.")
    ] = False,
    trial: Annotated[
        list[int] | None, typer.Option(min=0, help="Choose a trial by its number; repeatable.")
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MINUTES",
            help="Choose running trials older than this, by the clock of the machine they run on.",
        ),
    ] = None,
    stage: Annotated[
        str, typer.Option(help=f"The study of --trial: {SEARCH}, {BASELINES} or {RETRAIN}.")
    ] = SEARCH,
    storage: StorageUrl = None,
    as_json: AsJson = False,
) -> None:
    """List trials left running or waiting; fail or re-queue those whose worker is gone.

    Without --fail or --requeue, --trial and --older-than choose what is listed. With them, and
    neither --trial nor --older-than, all trials are chosen whose worker is known to have ended. A
    worker that is known to live keeps its trial.
    """
    with session():
        if fail and requeue:
            raise ValueError("give either --fail or --requeue")
        if trial and older_than is not None:
            raise ValueError("give either --trial or --older-than; each chooses trials by itself")
        setting = Setting.load(study_file, storage=storage)
        if not storage_exists(setting.storage_url):
            raise ValueError(
                f"the storage {setting.storage_url} does not exist: check --storage, "
                "OPTUNA_STORAGE and study.storage; it comes with the first trial"
            )
        stages = dict.fromkeys((*setting.stages, *setting.stages_in(setting.storage)))
        begun = {name or SEARCH: setting.begun_study(name) for name in stages}
        studies = [study for study in begun.values() if study is not None]
        if stage not in begun:
            raise ValueError(f"--stage is one of {', '.join(begun)}, got {stage!r}")
        if trial:
            study = begun[stage]
            if study is None:
                name = setting.study_name(None if stage == SEARCH else stage)
                raise ValueError(f"study {name} has not begun, so it has no trial {trial[0]}")
            chosen = unfinished_trials(study, trial)
        elif older_than is None:
            chosen = [found for found in _all(studies) if found.alive is False]
        else:
            chosen = [f for f in _all(studies) if not f.alive and (f.minutes or 0) > older_than]
        changed: list[tuple[str, int]] = []
        for study in studies if fail or requeue else ():
            numbers = [found.trial for found in chosen if found.study == study.study_name]
            ended = end_trials(study, numbers, repeat=requeue)
            changed += [(study.study_name, number) for number in ended]
        partly = not (fail or requeue) and bool(trial or older_than is not None)
        left = chosen if partly else _all(studies)
        word = "re-queued" if requeue else "failed"
        if as_json:
            lists: dict[str, list[tuple[str, int]]] = {"re-queued": [], "failed": []}
            lists[word] = changed
            print_json({"unfinished": [dataclasses.asdict(found) for found in left], **lists})
            return
        for study_name, number in changed:
            out.print(f"{word} trial {number} of {study_name}")
        if left:
            out.print(table(COLUMNS, left))
        else:
            out.print("no such trial runs or waits" if partly else "no trial runs or waits")
        if any(found.alive is False for found in left):
            out.print("The next worker on this machine, or --requeue, repeats what has ended.")
        if any(found.state == "RUNNING" and found.alive is None for found in left):
            out.print(
                "If an unknown or external worker is gone: --requeue --trial N, or --fail "
                "--trial N."
            )
        if (fail or requeue) and any(found.external for found in left):
            out.print(
                "Trials of external workers are left alone unless --trial N or --older-than "
                "chooses them."
            )


def _all(studies: Iterable[optuna.Study]) -> list[UnfinishedTrial]:
    return [found for study in studies for found in unfinished_trials(study)]


COLUMNS: Final[list[Column[UnfinishedTrial]]] = [
    Column("study", lambda found: found.study),
    Column("trial", lambda found: found.trial),
    Column("state", lambda found: found.state),
    Column("minutes", lambda found: found.minutes, "{:.1f}"),
    Column("host", lambda found: found.host),
    Column("process", lambda found: found.pid),
    Column(
        "worker",
        lambda f: ("external" if f.external else LIVES[f.alive]) if f.state != "WAITING" else None,
    ),
]
