"""Tables as data: one description of the columns, for text, pages and JSON alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Column(Generic[R]):
    """One value of each row, as people and as programs read it.

    Attributes:
        title: heading; without one the value is in JSON alone.
        value: of a row, in a type that JSON keeps.
        text: the value for people, as a format such as "{:.4f}" or a function; None is "-".
        key: its name in JSON; without one the value is in text alone.
        right: whether the text is aligned to the right, as numbers are.
    """

    title: str | None
    value: Callable[[R], Any]
    text: str | Callable[[Any], str] = "{}"
    key: str | None = None
    right: bool = False

    def cell(self, row: R) -> str:
        """The value of a row for people."""
        value = self.value(row)
        if value is None:
            return "-"
        return self.text.format(value) if isinstance(self.text, str) else self.text(value)


def titled(columns: Sequence[Column[R]]) -> list[Column[R]]:
    """The columns that people see."""
    return [column for column in columns if column.title is not None]


def cells(columns: Sequence[Column[R]], rows: Iterable[R]) -> list[list[str]]:
    """A table as text: the titles, then a list of cells for each row."""
    shown = titled(columns)
    return [[c.title or "" for c in shown], *([c.cell(row) for c in shown] for row in rows)]


def record(columns: Sequence[Column[R]], row: R) -> dict[str, Any]:
    """A row as JSON keeps it."""
    return {column.key: column.value(row) for column in columns if column.key is not None}
