"""Options, signals, errors and printing that all verbs share."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import optuna
import typer
from optuna.exceptions import OptunaError
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from msnas_optuna.cli.progress import Bars
from msnas_optuna.methods import METHODS
from msnas_optuna.runtime.interrupts import insist_on_interrupts
from msnas_optuna.runtime.processes import torchrun_place
from msnas_optuna.storage import in_words, is_of_storage

EXPECTED = (
    ValueError, RuntimeError, OSError, ImportError, OptunaError, SQLAlchemyError, sqlite3.Error
)  # fmt: skip
"""Errors whose message is enough."""

BASELINES = " or ".join(method.baseline_stage for method in METHODS.values())
"""The words for the hand-made architectures of the methods."""

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
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Report no progress, only warnings and errors.")
]
TrialWord = Annotated[
    str,
    typer.Option("--trial", help=f"best, {BASELINES} or the number of a trial of the search."),
]
OneShot = Annotated[
    bool, typer.Option("--one-shot", help="Take the supernet's weights, fine-tuned, instead.")
]
Top = Annotated[int, typer.Option(min=1, help="Number of architectures, best first.")]


def print_json(value: Any) -> None:
    """Prints a value for scripts."""
    try:
        typer.echo(json.dumps(value, indent=2))
    except BrokenPipeError:
        _reader_is_gone()


def refuse_closed_output() -> None:
    """Keeps a command from work that nobody would hear of.

    Raises:
        OSError: standard output is closed.
    """
    if sys.stdout is None:
        raise OSError(
            "standard output is closed; send it to a file, or to the program that reads it"
        )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        _reader_is_gone()


def _reader_is_gone() -> NoReturn:
    """Ends quietly, as commands do whose output goes to `head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
    raise typer.Exit(128 + signal.SIGPIPE)


out = _Console()
err = Console(stderr=True)


@contextmanager
def session(*, quiet: bool = False, plain: bool = False, joint: bool = False) -> Iterator[Bars]:
    """Progress, signals and errors of one command.

    Args:
        quiet: no progress at all.
        plain: lines instead of bars on a terminal, too.
        joint: torchrun may have started several processes for one job. Then the first one speaks
            for all, and the others print nothing but the errors that end them.
    """
    rank = _rank() if joint else 0
    heeded = insist_on_interrupts()
    warnings.showwarning = _show_warning
    if rank:
        warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bars = Bars(err, quiet=quiet or rank > 0, plain=plain)
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
        message = f"error: {in_words(error)}"
        if not isinstance(error, EXPECTED) and not is_of_storage(error):
            message = f"error: {type(error).__name__}: {error} (MSNAS_DEBUG=1 shows where)"
        _print_error(f"rank {rank}: {message}" if rank else message)
        raise typer.Exit(1) from None
    finally:
        heeded()
        bars.stop()


def _rank() -> int:
    """The place of this process among those that torchrun has started, 0 for one alone."""
    try:
        place = torchrun_place()
    except ValueError as error:
        _print_error(f"error: {error}; start the command with torchrun, or unset them")
        raise typer.Exit(1) from None
    return 0 if place is None else place.rank


def _print_error(message: str) -> None:
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    err.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)
