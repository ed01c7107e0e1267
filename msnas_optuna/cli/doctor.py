"""The verb that finds trials which nobody will finish: doctor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

import optuna
import typer
from rich.table import Table

from msnas_optuna.cli.app import app
from msnas_optuna.cli.terminal import (
    AsJson,
    StorageUrl,
    StudyFile,
    out,
    print_json,
    session,
)
from msnas_optuna.setting import FPN_LIKE, RETRAIN, Setting
from msnas_optuna.storage import Unfinished, end_trials, unfinished_trials

SEARCH = "search"


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
        str, typer.Option(help=f"The study of --trial: {SEARCH}, {FPN_LIKE} or {RETRAIN}.")
    ] = SEARCH,
    storage: StorageUrl = None,
    as_json: AsJson = False,
) -> None:
    """List trials left running or waiting; fail or re-queue those whose worker is gone.

    Without --trial or --older-than, all trials are chosen whose worker is known to have ended. A
    worker that is known to live keeps its trial.
    """
    with session():
        _check(fail, requeue, stage)
        setting = Setting.load(study_file, storage=storage)
        changed: list[tuple[str, int]] = []
        for name, study in _studies(setting):
            if fail or requeue:
                named = trial if name == stage else []
                numbers = _chosen(unfinished_trials(study), named, older_than, trial is not None)
                ended = end_trials(study, numbers, repeat=requeue)
                changed += [(study.study_name, number) for number in ended]
        left = [found for _, study in _studies(setting) for found in unfinished_trials(study)]
        word = "re-queued" if requeue else "failed"
        if as_json:
            lists: dict[str, list[tuple[str, int]]] = {"re-queued": [], "failed": []}
            lists[word] = changed
            print_json({"unfinished": [dataclasses.asdict(found) for found in left], **lists})
            return
        for study_name, number in changed:
            out.print(f"{word} trial {number} of {study_name}")
        _print(left)


def _check(fail: bool, requeue: bool, stage: str) -> None:
    if fail and requeue:
        raise ValueError("give either --fail or --requeue")
    if stage not in (SEARCH, FPN_LIKE, RETRAIN):
        raise ValueError(f"--stage is {SEARCH}, {FPN_LIKE} or {RETRAIN}, got {stage!r}")


def _studies(setting: Setting) -> Iterator[tuple[str, optuna.Study]]:
    """The studies of all stages that have begun, whatever the study file says now."""
    for name in (SEARCH, FPN_LIKE, RETRAIN):
        study = setting.begun_study(None if name == SEARCH else name)
        if study is not None:
            yield name, study


def _chosen(
    found: list[Unfinished], named: list[int] | None, older_than: float | None, by_number: bool
) -> list[int]:
    if by_number:
        return named or []
    if older_than is None:
        return [trial.trial for trial in found if trial.alive is False]
    return [
        trial.trial
        for trial in found
        if not trial.alive and trial.minutes is not None and trial.minutes > older_than
    ]


def _print(left: list[Unfinished]) -> None:
    if not left:
        out.print("no trial runs or waits")
        return
    table = Table()
    for column in ("study", "trial", "state", "minutes", "host", "process", "worker"):
        table.add_column(column)
    words = {True: "lives", False: "has ended", None: "unknown"}
    for found in left:
        running = found.state == "RUNNING"
        table.add_row(
            found.study,
            str(found.trial),
            found.state,
            "-" if found.minutes is None else f"{found.minutes:.1f}",
            found.host or "-",
            "-" if found.pid is None else str(found.pid),
            words[found.alive] if running else "-",
        )
    out.print(table)
    if any(found.alive is False for found in left):
        out.print("The next worker on this machine, or --requeue, repeats what has ended.")
    if any(found.state == "RUNNING" and found.alive is None for found in left):
        out.print("If an unknown worker is gone: --requeue --trial N, or --fail --trial N.")
