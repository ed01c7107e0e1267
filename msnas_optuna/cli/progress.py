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
    note: str  # the last one
    printed_note: str  # that of the last line, or of the first report
    done: int = -1


class Bars:
    """Told about steps; shows them as bars on a terminal, as `plain` lines, or not at all.

    Without bars, a step has a line a minute, one at its end, and one where its note changes while
    it stands still. A step that is repeated, as the evaluation of every trial is, has that at its
    end once unless it takes as long.
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
            console=console,
            speed_estimate_period=RATE_SECONDS,
        )
        self._live = Live(console=console, get_renderable=self._renderable)

    def _renderable(self) -> RenderableType:
        """The table, the bars, and below them the notes, which may be longer than a line."""
        notes = Text("\n".join(step.note for step in self._steps.values() if step.note))
        parts = (self._table, self._progress, notes if notes else None)
        return Group(*(part for part in parts if part is not None))

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` units of `step` are finished."""
        now, at = time.monotonic(), self._steps.get(step)
        begins = at is None or done < at.done
        if at is None or begins:
            at = self._steps[step] = _Step(now, now, at is not None, note, note)
        stands, at.done, at.note = at.done == done, done, note
        if self._bars:
            if begins:
                self._live.start()
                if step in self._tasks:
                    self._progress.reset(self._tasks[step], total=total, completed=done)
                else:
                    self._tasks[step] = self._progress.add_task(step, completed=done)
            self._progress.update(self._tasks[step], completed=done, total=total)
            if step in self._tables and not stands:
                self._table = self._tables[step]()
        elif not self._quiet:
            seconds = now - at.started
            brief = at.repeated and seconds <= LINE_SECONDS
            due = now - at.printed > LINE_SECONDS
            due |= stands and done < total and note != at.printed_note
            if due or (done >= total and not stands and not brief):
                line = f"{step}: {done}/{total} in {seconds:.0f} s {note}".rstrip()
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
                at.printed, at.printed_note = now, note

    def beside(self, table: Callable[[], RenderableType], *, step: str) -> None:
        """Shows a table above the bars, if there are any; `step` makes it anew when it goes on."""
        if self._bars:
            self._tables[step] = table

    def stop(self) -> None:
        """Leaves the bars as they are, without the table, and gives the terminal back."""
        self._table = None
        self._live.stop()
