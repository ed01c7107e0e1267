"""How far long steps have come: bars and a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS: Final = 60  # least time between two lines about a step, without a terminal
RATE_SECONDS: Final = 1800  # rates are means over so long: trials may take minutes


class Rate(ProgressColumn):
    """Units per second, or seconds per unit where one takes longer."""

    def render(self, task: Task) -> Text:
        """The rate, or a dash before it is known."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("-/s", style="progress.data.speed")
        text = f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
        return Text(text, style="progress.data.speed")


@dataclass
class _Step:
    started: float
    printed: float
    repeated: bool
    done: int = -1


class Bars:
    """Told about steps; shows them as bars on a terminal, as `plain` lines, or not at all.

    Without bars, a step has a line a minute, and one at its end; a step that is repeated, as the
    evaluation of every trial is, has the latter once unless it takes as long.
    """

    def __init__(self, console: Console, *, quiet: bool = False, plain: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._bars = console.is_terminal and not quiet and not plain
        self._steps: dict[str, _Step] = {}
        self._tasks: dict[str, TaskID] = {}
        self._tables: dict[str, Callable[[], RenderableType]] = {}
        self._table: RenderableType | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            speed_estimate_period=RATE_SECONDS,
        )
        self._live = Live(
            console=console,
            get_renderable=lambda: (
                self._progress if self._table is None else Group(self._table, self._progress)
            ),
        )

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` units of `step` are finished."""
        now, at = time.monotonic(), self._steps.get(step)
        begins = at is None or done < at.done
        if at is None or begins:
            at = self._steps[step] = _Step(now, now, repeated=at is not None)
        goes_on, had_ended, at.done = done != at.done, at.done == done >= total, done
        if self._bars:
            if begins:
                self._live.start()
                if step in self._tasks:
                    self._progress.reset(self._tasks[step], total=total, completed=done)
                else:
                    self._tasks[step] = self._progress.add_task(step, completed=done, note=note)
            self._progress.update(self._tasks[step], completed=done, total=total, note=note)
            if step in self._tables and goes_on:
                self._table = self._tables[step]()
        elif not self._quiet:
            seconds = now - at.started
            brief = at.repeated and seconds <= LINE_SECONDS
            due = now - at.printed > LINE_SECONDS
            if due or (done >= total and not had_ended and not brief):
                line = f"{step}: {done}/{total} in {seconds:.0f} s {note}".rstrip()
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
                at.printed = now

    def beside(self, table: Callable[[], RenderableType], *, step: str) -> None:
        """Shows a table above the bars, if there are any; `step` makes it anew when it goes on."""
        if self._bars:
            self._tables[step] = table

    def stop(self) -> None:
        """Leaves the bars as they are, without the table, and gives the terminal back."""
        self._table = None
        self._live.stop()
