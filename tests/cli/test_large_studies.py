"""However large a study is: what a command or a look reads, draws and writes of it, counted."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from rich.console import Console
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.search import live_table
from msnas_optuna.report.dashboard import publish
from msnas_optuna.storage import finished_slots
from msnas_optuna.study.asktell import ask, tell
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each trial that was finished has been made from rows of the database."""
    made, build = Counter[int](), RDBStorage._build_frozen_trial_from_trial_model

    def count(storage, model):
        trial = build(storage, model)
        made[trial._trial_id] += trial.state.is_finished()
        return trial

    monkeypatch.setattr(RDBStorage, "_build_frozen_trial_from_trial_model", count)
    return made


@pytest.mark.parametrize("verb", ["results", "results --json", "report -o DIR/r.html", "doctor"])
def test_a_command_that_shows_reads_each_trial_once(
    finished: Path, decoded: Counter[int], verb: str
) -> None:
    name, *options = verb.replace("DIR", str(finished.parent)).split()
    assert CliRunner().invoke(app, [name, str(finished), *options]).exit_code == 0
    assert len(decoded) > 6
    assert set(decoded.values()) == {1}


def test_a_search_reads_the_trials_before_it_once(searched: Path, decoded: Counter[int]) -> None:
    found = CliRunner().invoke(app, ["search", str(searched), "--trials", "6"])
    assert found.exit_code == 0, found.output
    assert sorted(decoded.values())[:6] == [1] * 6  # five, and the baseline's


def test_ask_and_tell_read_the_trials_before_them_once(tiny: Path, decoded: Counter[int]) -> None:
    for _ in range(5):
        (proposal,) = ask(Setting.load(tiny))
        tell(Setting.load(tiny), proposal.trial, [0.5])
    decoded.clear()
    setting = Setting.load(tiny)
    (proposal,) = ask(setting)
    assert +decoded == dict.fromkeys(range(1, 6), 1)
    publish(setting)
    tell(setting, proposal.trial, [0.5])
    assert sorted(decoded.values())[:5] == [1] * 5


def test_who_looks_again_reads_what_is_new(finished: Path, decoded: Counter[int]) -> None:
    setting = Setting.load(finished)
    first, trials = StudyView.load(setting), setting.stored_study().trials
    assert len(first.results) == 7
    assert first.baseline is not None
    decoded.clear()
    for _ in range(3):
        assert finished_slots(setting.stored_study()) == 7
        assert StudyView.load(setting).results == first.results
        publish(setting)
    assert not +decoded
    Setting.load(finished).stored_study().add_trial(trials[0])  # another process
    assert len(StudyView.load(setting).measurements) == 8
    assert decoded.total() == 1


def test_the_live_table_is_made_anew_when_a_trial_has_settled(finished: Path) -> None:
    setting, made = Setting.load(finished), []
    bars = Bars(Console(file=io.StringIO(), force_terminal=True))

    def table():
        made.append(live_table(setting))
        return made[-1]

    bars.beside(table, step="search")
    for settled in (0, 0, 3, 3, 3, 4):
        bars("search", settled, 7, "2 workers")
    bars.stop()
    assert len(made) == 3
