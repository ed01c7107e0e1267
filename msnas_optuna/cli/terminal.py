"""What all verbs share: options, progress bars, signals, errors and printing."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
from optuna.exceptions import OptunaError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from sqlalchemy.exc import SQLAlchemyError

from msnas_optuna.interrupts import insist_on_interrupts

EXPECTED = (
    ValueError, RuntimeError, OSError, ImportError, OptunaError, SQLAlchemyError, sqlite3.Error
)  # fmt: skip
"""Errors whose message is enough."""

LINE_SECONDS = 60
"""Least time between two lines about one step where there is no terminal."""

out = Console()
err = Console(stderr=True)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.")]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="OPTUNA_STORAGE",
        help="Storage of the study, in place of the study file's.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Top = Annotated[int, typer.Option(min=1, help="Number of architectures, best first.")]


def print_json(value: Any) -> None:
    """Prints a value for scripts."""
    typer.echo(json.dumps(value, indent=2))


class Bars:
    """Progress bars on a terminal; elsewhere a line a minute and one when a step ends.

    Args:
        shown: whether to show anything.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._printed = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=err,
            disable=not err.is_terminal,
        )

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` units of `step` are finished."""
        if not self._shown:
            return
        if step not in self._tasks:
            self._progress.start()
            self._tasks[step] = self._progress.add_task(step, total=total, note=note)
            self._started[step] = time.monotonic()
        self._progress.update(self._tasks[step], completed=done, note=note)
        now = time.monotonic()
        if not err.is_terminal and (done >= total or now - self._printed > LINE_SECONDS):
            seconds = now - self._started[step]
            err.print(f"{step}: {done}/{total} in {seconds:.0f} s {note}".rstrip())
            self._printed = now

    def stop(self) -> None:
        """Leaves the bars as they are and gives the terminal back."""
        self._progress.stop()


@contextmanager
def session(*, joint: bool = False) -> Iterator[Bars]:
    """Progress bars, signals and errors of one command.

    Args:
        joint: torchrun may have started several processes for one job. Then the first one speaks
            for all, and the others print nothing but the errors that end them.
    """
    rank = int(os.environ.get("RANK", "0")) if joint else 0
    heeded = insist_on_interrupts()
    warnings.showwarning = _show_warning
    if rank:
        warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bars = Bars(shown=not rank)
    try:
        yield bars
    except KeyboardInterrupt:
        heeded()
        bars.stop()
        if not rank:
            err.print("interrupted; the same command continues where this one stopped")
        raise typer.Exit(130) from None
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get("MSNAS_DEBUG"):
            raise
        bars.stop()
        message = f"error: {error}"
        if not isinstance(error, EXPECTED):
            message = f"error: {type(error).__name__}: {error} (MSNAS_DEBUG=1 shows where)"
        if rank:
            message = f"rank {rank}: {message}"
        err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    finally:
        heeded()
        bars.stop()


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    err.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


def percent(ap: float | None) -> str:
    """An AP as mAP in percent."""
    return "-" if ap is None else f"{100 * ap:.1f}"
