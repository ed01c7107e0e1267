"""The command itself, with the options, signals, errors and printing that its verbs share."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TextIO, TypeVar, cast

import optuna
import typer
from optuna.exceptions import OptunaError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from typer.core import TyperGroup

from msnas_optuna.cli.progress import Bars
from msnas_optuna.methods import METHODS
from msnas_optuna.report.table import Column, titled
from msnas_optuna.runtime.interrupts import insist_on_interrupts
from msnas_optuna.runtime.processes import torchrun_place
from msnas_optuna.storage import has_secret, in_words, is_of_storage, is_word, redact

R = TypeVar("R")


class _Redacted:
    """A stream that hides the passwords in whatever is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(redact(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # leads around it
            raise AttributeError(name)
        return getattr(self._stream, name)


def redact_output() -> None:
    """Hides passwords in all that this process prints from now on: results, errors, tracebacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Redacted):
            setattr(sys, name, cast(TextIO, _Redacted(stream)))


typed_words: Final[ContextVar[tuple[str, ...]]] = ContextVar("typed_words")
"""The words behind `msnas`, as they were typed."""


class _Group(TyperGroup):
    """The command itself; a password that it is given goes to a storage and nowhere else."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        redact_output()
        typed_words.set(tuple(args))
        parameters = getattr(self.commands.get(args[0]), "params", ()) if args else ()
        takes_urls = any(p.metavar and p.metavar.endswith("|URL") for p in parameters)
        for before, word in pairwise(["", *args]):
            is_url = takes_urls or before == "--storage" or word.startswith("--storage=")
            if has_secret(word) and not (is_url and is_word(word)):
                raise typer.BadParameter(
                    "a password, or parameters of a URL after '?', may stand in the URL of a "
                    "storage alone, behind --storage or in OPTUNA_STORAGE, with @ written as %40, "
                    f"/ as %2F and a space as %20; got {redact(word) if is_word(word) else '***'}"
                )
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="msnas",
    cls=_Group,
    help="Multi-scale network architecture search for object detection, as an Optuna study.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

EXPECTED = (
    ValueError, RuntimeError, OSError, ImportError, OptunaError, SQLAlchemyError, sqlite3.Error
)  # fmt: skip
"""Errors whose message is enough."""

BASELINES = " or ".join(method.baseline_stage for method in METHODS.values())

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
    str, typer.Option("--trial", help=f"best, {BASELINES} or the number of a trial of the search.")
]
OneShot = Annotated[
    bool, typer.Option("--one-shot", help="Take the supernet's weights, fine-tuned, instead.")
]
Top = Annotated[int, typer.Option(min=1, help="Number of architectures, best first.")]
Seeds = Annotated[
    int, typer.Option(min=1, help="Trainings of each, with the study's seed and those after it.")
]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes on this machine; each has a GPU, if there is one.")
]


def print_json(value: Any) -> None:
    """Prints a value for scripts."""
    try:
        typer.echo(json.dumps(value, indent=2))
    except BrokenPipeError:
        _reader_is_gone()


def refuse_closed_output() -> None:
    """Keeps a command from work that nobody would hear of."""
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


out = _Console(markup=False, highlight=False, soft_wrap=True)
err = Console(stderr=True, markup=False, highlight=False)


def table(columns: Sequence[Column[R]], *groups: Iterable[R], title: str | None = None) -> Table:
    """One line for each row of each group, with a rule between the groups."""
    shown, drawn = titled(columns), Table(title=title, show_edge=False, pad_edge=False)
    for column in shown:
        drawn.add_column(
            column.title or "",
            justify="right" if column.right else "left",
            no_wrap=column.right or not column.title,
        )
    for rows in groups:
        for row in rows:
            drawn.add_row(*(column.cell(row) for column in shown))
        drawn.add_section()
    return drawn


def facts(*groups: Mapping[str | None, str]) -> Table:
    """A line for each name with its value; a rule stands between one group and the next."""
    drawn = Table(show_header=False)
    drawn.add_column()
    drawn.add_column(justify="right")
    for group in groups:
        for name, value in group.items():
            drawn.add_row(name, value)
        drawn.add_section()
    return drawn


def show_error(message: str, rank: int = 0) -> None:
    """Prints a sentence about what went wrong, in a process of a job."""
    place = f"rank {rank}: " if rank else ""
    err.print(f"{place}error: {message}", style="red", soft_wrap=True)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Prints a warning; can stand in for `warnings.showwarning`."""
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)


def message_of(error: Exception, hint: str = "") -> str:
    """An error in words, with its type and a hint where nobody expects it; see MSNAS_DEBUG."""
    if os.environ.get("MSNAS_DEBUG"):
        raise error
    if isinstance(error, EXPECTED) or is_of_storage(error):
        return in_words(error)
    return f"{type(error).__name__}: {error}{hint}"


@contextmanager
def session(*, quiet: bool = False, plain: bool = False, joint: bool = False) -> Iterator[Bars]:
    """Progress, signals and errors of one command; `plain` shows lines instead of bars.

    `joint`: torchrun may have started several processes for one job. Then the first one speaks
    for all, and the others print nothing but the errors that end them.
    """
    try:
        place = torchrun_place() if joint else None
    except ValueError as error:
        show_error(f"{error}; start the command with torchrun, or unset them")
        raise typer.Exit(1) from None
    rank = 0 if place is None else place.rank
    warnings.showwarning = show_warning
    if rank:
        warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bars = Bars(err, quiet=quiet or rank > 0, plain=plain)
    try:
        with insist_on_interrupts():
            yield bars
    except KeyboardInterrupt:
        bars.stop()
        if not rank:
            err.print("interrupted; the same command continues where this one stopped")
        raise typer.Exit(130) from None
    except typer.Exit:
        raise
    except Exception as error:
        bars.stop()
        show_error(message_of(error, " (MSNAS_DEBUG=1 shows where)"), rank=rank)
        raise typer.Exit(1) from None
    finally:
        bars.stop()


@app.callback(invoke_without_command=True)
def _options(show_version: Annotated[bool, typer.Option("--version")] = False) -> None:
    if show_version:
        typer.echo(f"msnas-optuna {version('msnas-optuna')}")
        raise typer.Exit
