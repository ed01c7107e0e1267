"""The verbs for external trainers: ask, tell. They print JSON and need no torch."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Final

import typer

from msnas_optuna.cli.terminal import (
    StorageUrl,
    StudyFile,
    app,
    err,
    print_json,
    refuse_closed_output,
    session,
    show_warning,
)
from msnas_optuna.storage import finished_slots
from msnas_optuna.study import asktell
from msnas_optuna.study.asktell import Proposal
from msnas_optuna.study.setting import Setting

NOTHING_LEFT: Final = 3  # exit status of `ask` at the end: ends a shell loop


class State(StrEnum):
    """How a trial ended."""

    complete = "complete"
    fail = "fail"


@app.command()
def ask(
    study_file: StudyFile,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Print a list of up to this many.")
    ] = None,
    storage: StorageUrl = None,
) -> None:
    """Print an architecture to train as JSON; exit with 3 once the study has its trials."""
    with session():
        setting = Setting.load(study_file, storage=storage)
        refuse_closed_output()
        values = ",".join(setting.config.study.objectives).upper()

        def show(proposals: list[Proposal]) -> None:
            described = [
                {
                    "study": setting.study_name(),
                    "trial": proposal.trial,
                    "params": dict(proposal.plan.params),
                    "architecture": str(proposal.architecture),
                    **setting.method.as_json(proposal.architecture),
                    **proposal.costs,
                    "generation": proposal.plan.generation,
                    "origin": proposal.plan.origin,
                    "repeat": proposal.plan.repeat,
                    "tell": setting.words(
                        "tell", "--trial", str(proposal.trial), "--values", values
                    ),
                }
                for proposal in proposals
            ]
            if described:
                print_json(described if n is not None else described[0])
                if setting.is_secret and not os.environ.get("OPTUNA_STORAGE"):
                    show_warning(
                        "`tell` of the JSON leaves out --storage, whose URL holds a password; "
                        "set OPTUNA_STORAGE to the URL for it"
                    )

        if not asktell.ask(setting, n or 1, show=show):
            err.print(
                f"study {setting.study_name()}: all {setting.n_trials()} trials are told or "
                "handed out; raise study.trials for more",
                soft_wrap=True,
            )
            raise typer.Exit(NOTHING_LEFT)


@app.command()
def tell(
    study_file: StudyFile,
    trial: Annotated[int, typer.Option(min=0, help="Its number, as `ask` printed it.")],
    values: Annotated[
        str | None,
        typer.Option(help="One for each of study.objectives, AP from 0 to 1: 0.41 or 0.41,12.5."),
    ] = None,
    state: Annotated[State, typer.Option(help="How it ended.")] = State.complete,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="With --state fail: hand the architecture out again.")
    ] = False,
    storage: StorageUrl = None,
) -> None:
    """Report the values of an architecture that `ask` has printed, or that it has none."""
    with session():
        failed = state is State.fail
        if failed == (values is not None) or (repeat and not failed):
            given = "" if values is None else f"--values {values} "
            raise ValueError(
                "give either --values, or --state fail with or without --repeat; "
                f"got {given}--state {state}{' --repeat' if repeat else ''}"
            )
        setting = Setting.load(study_file, storage=storage)
        numbers = None
        try:
            if values is not None:
                numbers = [float(text) for text in values.replace(",", " ").split()]
                if "_" in values or not values.isascii():  # Python reads 1_0 and ٤١ as numbers
                    raise ValueError
        except ValueError:
            raise ValueError(
                f"--values are numbers joined by commas, as 0.41 or 0.41,12.5; got {values!r}"
            ) from None
        told = asktell.tell(setting, trial, numbers, repeat=repeat)
        study = setting.stored_study()
        assert study is not None
        # The dashboard is refreshed as by a search: after each generation, and at the end.
        if setting.is_refresh_due(study) or finished_slots(study) >= setting.n_trials():
            from msnas_optuna.report.dashboard import Publisher  # plotly is slow

            Publisher(setting).refresh()
        print_json({"trial": trial, "state": told.state.name.lower(), "values": told.values})
