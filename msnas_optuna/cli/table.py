"""Writes tables for people; programs read the same columns through `record`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.table import Table

from msnas_optuna.report.table import Column, record, titled

__all__ = ["Column", "facts", "record", "table"]

R = TypeVar("R")


def table(columns: Sequence[Column[R]], *groups: Iterable[R], title: str | None = None) -> Table:
    """One line for each row.

    Args:
        columns: what a row holds; those without a title are left out.
        groups: rows; a rule stands between one group and the next.
        title: stands above the table.
    """
    shown = titled(columns)
    drawn = Table(title=title)
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


def facts(row: R, *groups: Sequence[Column[R]], title: str | None = None) -> Table:
    """One line for each column of a single row: what it is called, and the value.

    Args:
        row: what the values are of.
        groups: columns; a rule stands between one group and the next.
        title: stands above the table.
    """
    drawn = Table(title=title, show_header=False)
    drawn.add_column()
    drawn.add_column(justify="right")
    for columns in groups:
        for column in titled(columns):
            drawn.add_row(column.title, column.cell(row))
        drawn.add_section()
    return drawn
