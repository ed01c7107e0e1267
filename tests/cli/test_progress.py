from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from msnas_optuna.cli.progress import LINE_SECONDS, Bars


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, height=40)


def piped() -> Console:
    return Console(file=io.StringIO(), width=120)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def work(bars: Bars) -> None:
    for done in range(4):
        bars("supernet", done, 3, f"loss {done}")
    for parts in ((2, 4), (2, 4), (4,), (4,)):
        for done in parts:
            bars("evaluation", done, 4)
    bars.stop()


def test_a_terminal_has_bars_with_rate_and_time_left():
    console = terminal()
    work(Bars(console))
    shown = text(console)
    for part in ("supernet", "━", "3/3", "left", "loss 3", "evaluation", "4/4"):
        assert part in shown
    assert "/s" in shown or "s each" in shown


def test_elsewhere_a_step_has_a_line_and_a_repeated_one_no_more():
    console = piped()
    work(Bars(console))
    assert text(console).splitlines() == [
        "supernet: 3/3 in 0 s loss 3",
        "evaluation: 4/4 in 0 s",
    ]


def test_a_long_step_has_a_line_a_minute(monkeypatch):
    console, now = piped(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bars = Bars(console)
    for done in range(1, 7):
        bars("supernet", done, 1000)
        now[0] += LINE_SECONDS / 2 + 1
    assert len(text(console).splitlines()) == 2


def test_short_steps_within_a_long_one_leave_it_its_lines(monkeypatch):
    console, now = piped(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bars = Bars(console)
    bars("search", 0, 4)
    for trial in range(1, 5):
        for done in (16, 32, 40):
            now[0] += 10
            bars("evaluation", done, 40)
        now[0] += 1
        bars("search", trial, 4)
    assert text(console).splitlines() == [
        "evaluation: 40/40 in 20 s",
        "search: 2/4 in 62 s",
        "search: 4/4 in 124 s",
    ]


def test_a_repeated_step_that_takes_long_has_a_line_at_its_end(monkeypatch):
    console, now = piped(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bars = Bars(console)
    for done, seconds in ((30, 0), (60, 5), (30, 10), (58, 75), (60, 80)):
        now[0] = seconds
        bars("evaluation", done, 60)
    assert text(console).splitlines() == [
        "evaluation: 60/60 in 5 s",
        "evaluation: 58/60 in 65 s",
        "evaluation: 60/60 in 70 s",
    ]


def test_a_step_that_has_ended_does_not_begin_anew(monkeypatch):
    """Several workers end one after the other; what they did is told again and again."""
    console, now = piped(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bars = Bars(console)
    for done, seconds in ((0, 0), (6, 10), (7, 30), (7, 31), (7, 200)):
        now[0] = seconds
        bars("search", done, 7)
    assert text(console).splitlines() == ["search: 7/7 in 30 s", "search: 7/7 in 200 s"]


def test_a_note_that_changes_while_nothing_else_does_is_told_at_once(monkeypatch):
    console, now = piped(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bars = Bars(console)
    for done, note in ((0, ""), (1, "best 1"), (2, "best 2"), (2, "waiting"), (2, "waiting"),
                       (3, "best 2"), (3, "")):  # fmt: skip
        bars("search", done, 3, note)
        now[0] += 1
    assert text(console).splitlines() == [
        "search: 2/3 in 3 s waiting",
        "search: 3/3 in 5 s best 2",
    ]


def test_a_long_note_is_shown_whole_beside_the_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40)
    bars = Bars(console)
    note = f"waiting for trial 22 of tiny (process 1234 on {60 * 'x'})"
    bars("search", 22, 24, "best 1")
    bars("search", 23, 24, note)
    bars.stop()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text(console))
    assert note in re.sub(r"\s+", " ", shown)
    assert "━" in shown
    assert "23/24" in shown


@pytest.mark.parametrize("console", [terminal(), piped()], ids=["terminal", "pipe"])
def test_quiet_shows_nothing(console):
    bars = Bars(console, quiet=True)
    bars.beside(lambda: "table", step="supernet")
    work(bars)
    assert text(console) == ""


def test_plain_has_lines_on_a_terminal():
    console = terminal()
    work(Bars(console, plain=True))
    assert "━" not in text(console)
    assert "supernet: 3/3" in text(console)


def test_the_table_stands_above_the_bars_while_its_step_goes_on():
    console, made = terminal(), []
    bars = Bars(console)
    bars.beside(lambda: made.append(0) or f"table {len(made)}", step="search")
    bars("supernet", 1, 2)
    assert not made
    for done in range(3):
        bars("search", done, 3)
    bars.stop()
    assert len(made) == 3
    assert console.file.getvalue().count("table 3") == 0  # gone when the bars stop


def test_no_table_is_made_where_there_are_no_bars():
    bars = Bars(piped())
    bars.beside(lambda: pytest.fail("made a table"), step="search")
    bars("search", 1, 1)


# ---------------------------------------------------------------- as a person runs them


def on_a_terminal(*arguments: str | Path, stdout: int | None = None) -> tuple[str, str]:
    """What a command shows on a pseudo-terminal, and what it writes to a piped stdout."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "50"}
    process = subprocess.Popen(
        [sys.executable, "-m", "msnas_optuna", *map(str, arguments)],
        stdin=theirs, stderr=theirs, stdout=theirs if stdout is None else stdout, env=environment,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the last process has closed the terminal
            break
        if not part:
            break
        shown += part
    os.close(ours)
    answer = b"" if process.stdout is None else process.stdout.read()
    assert process.wait(60) == 0, shown.decode()
    return shown.decode(), answer.decode()


@pytest.mark.slow
def test_a_search_on_a_terminal_shows_bars_and_the_best_trials(trained):
    shown, _ = on_a_terminal("search", trained)
    live, _, _ = shown.rpartition(" trials finished")
    assert "\x1b[1A" in live  # drawn over and over in one place
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", live)
    for part in ("━", "search", "evaluation", "left", "7/7"):
        assert part in words
    for part in ("Best architectures", "trial 0", "FPN-like", "one-shot"):
        assert part in words


@pytest.mark.slow
def test_json_on_a_terminal_has_lines_beside_it(trained):
    shown, answer = on_a_terminal("search", trained, "--json", stdout=subprocess.PIPE)
    assert json.loads(answer)["completed"] == 7
    assert "\x1b" not in shown
    assert "search: 7/7" in shown


@pytest.mark.slow
def test_quiet_on_a_terminal_is_quiet(trained):
    shown, answer = on_a_terminal("search", trained, "-q", "--json", stdout=subprocess.PIPE)
    assert shown == ""
    assert json.loads(answer)["completed"] == 7


@pytest.mark.slow
def test_piped_output_has_lines_alone(trained):
    done = subprocess.run(
        [sys.executable, "-m", "msnas_optuna", "search", str(trained)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "\x1b" not in done.stdout + done.stderr
    assert "━" not in done.stderr
    assert "search: 7/7" in done.stderr
    assert "Best architectures" not in done.stderr
    assert "Best architectures" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(searched, option):
    process = subprocess.Popen(
        [sys.executable, "-m", "msnas_optuna", "results", str(searched), *option],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()  # as `| head` does when it has seen enough
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
