"""The command itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    name="msnas",
    help="Multi-scale network architecture search for object detection, as an Optuna study.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msnas-optuna {version('msnas-optuna')}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `msnas` command."""
    app()


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass
