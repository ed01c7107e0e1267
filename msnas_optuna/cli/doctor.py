"""The verb that finds trials which nobody will finish: doctor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Annotated

import optuna
import typer
from rich.table import Table

from msnas_optuna.cli.app import app
from msnas_optuna.cli.terminal import (
    BASELINES,
    AsJson,
    StorageUrl,
    StudyFile,
    out,
    print_json,
    session,
)
from msnas_optuna.storage import (
    Unfinished,
    end_trials,
    redacted,
    storage_exists,
    unfinished_trials,
)
from msnas_optuna.study.setting import RETRAIN, Setting

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
        stages = (SEARCH, setting.method.baseline_stage, RETRAIN)
        if stage not in stages:
            known = f"{SEARCH}, {setting.method.baseline_stage} or {RETRAIN}"
            raise ValueError(f"--stage is {known}, got {stage!r}")
        _require(setting.storage_url)
        studies = _studies(setting)
        chosen = _named(setting, studies, stage, trial) if trial else _chosen(studies, older_than)
        listed = chosen if trial or older_than is not None else None
        changed: list[tuple[str, int]] = []
        if fail or requeue:
            changed, listed = _end(studies, chosen, repeat=requeue), None
        left = _all(studies) if listed is None else listed
        word = "re-queued" if requeue else "failed"
        if as_json:
            lists: dict[str, list[tuple[str, int]]] = {"re-queued": [], "failed": []}
            lists[word] = changed
            print_json({"unfinished": [dataclasses.asdict(found) for found in left], **lists})
            return
        for study_name, number in changed:
            out.print(f"{word} trial {number} of {study_name}")
        _print(left, chosen=listed is not None)
        if (fail or requeue) and any(found.external for found in left):
            out.print(
                "Trials of external workers are left alone unless --trial N or --older-than "
                "chooses them."
            )


def _require(url: str) -> None:
    if not storage_exists(url):
        raise ValueError(
            f"the storage {redacted(url)} does not exist: check --storage, OPTUNA_STORAGE and "
            "study.storage; it comes with the first trial"
        )


def _studies(setting: Setting) -> list[optuna.Study]:
    """The studies of all stages that have begun, whatever the study file says now."""
    return [study for stage in setting.stages if (study := setting.begun_study(stage)) is not None]


def _all(studies: Iterable[optuna.Study]) -> list[Unfinished]:
    return [found for study in studies for found in unfinished_trials(study)]


def _named(
    setting: Setting, studies: Iterable[optuna.Study], stage: str, numbers: list[int]
) -> list[Unfinished]:
    """The trials of these numbers.

    Raises:
        ValueError: one is finished or does not exist.
    """
    name = setting.study_name(None if stage == SEARCH else stage)
    for study in studies:
        if study.study_name == name:
            return unfinished_trials(study, numbers)
    raise ValueError(f"study {name} has not begun, so it has no trial {numbers[0]}")


def _chosen(studies: Iterable[optuna.Study], older_than: float | None) -> list[Unfinished]:
    if older_than is None:
        return [found for found in _all(studies) if found.alive is False]
    return [
        found
        for found in _all(studies)
        if not found.alive and found.minutes is not None and found.minutes > older_than
    ]


def _end(
    studies: Iterable[optuna.Study], chosen: Iterable[Unfinished], *, repeat: bool
) -> list[tuple[str, int]]:
    """Fails or re-queues trials; returns study and number of those that are changed."""
    changed = []
    for study in studies:
        numbers = [found.trial for found in chosen if found.study == study.study_name]
        changed += [(study.study_name, n) for n in end_trials(study, numbers, repeat=repeat)]
    return changed


def _print(left: list[Unfinished], *, chosen: bool) -> None:
    if not left:
        out.print("no such trial runs or waits" if chosen else "no trial runs or waits")
        return
    table = Table()
    for column in ("study", "trial", "state", "minutes", "host", "process", "worker"):
        table.add_column(column)
    for found in left:
        table.add_row(
            found.study,
            str(found.trial),
            found.state,
            "-" if found.minutes is None else f"{found.minutes:.1f}",
            found.host or "-",
            "-" if found.pid is None else str(found.pid),
            _worker(found),
        )
    out.print(table)
    if any(found.alive is False for found in left):
        out.print("The next worker on this machine, or --requeue, repeats what has ended.")
    if any(found.state == "RUNNING" and found.alive is None for found in left):
        out.print(
            "If an unknown or external worker is gone: --requeue --trial N, or --fail --trial N."
        )


def _worker(found: Unfinished) -> str:
    if found.state == "WAITING":
        return "-"
    if found.external:
        return "external"
    return {True: "lives", False: "has ended", None: "unknown"}[found.alive]
