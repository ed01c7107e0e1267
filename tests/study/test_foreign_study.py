"""A study of this name that another program has made: every verb says so and touches nothing."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.study.setting import Setting


def content(study_file: Path) -> list[object]:
    storage = Setting.load(study_file).storage
    (study,) = optuna.get_all_study_summaries(storage)
    attributes = storage.get_study_system_attrs(study._study_id)
    return [study.user_attrs, attributes, storage.get_all_trials(study._study_id)]


@pytest.fixture
def foreign(tiny: Path) -> Path:
    """The study file; a study of its name has a finished trial and one that runs."""
    tiny.write_text(
        tiny.read_text().replace(
            "trials = 7", 'trials = 7\nstorage = "journal:///foreign.journal"'
        )
    )
    study = optuna.create_study(
        storage=Setting.load(tiny).storage, study_name="tiny", direction="maximize"
    )
    study.add_trial(create_trial(value=1.0))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    return tiny


@pytest.mark.parametrize(
    "arguments",
    [
        "results STUDY",
        "report STUDY -o DIR/report.html",
        "ask STUDY",
        "tell STUDY --trial 1 --values 0.4",
        "doctor STUDY",
        "doctor STUDY --fail --trial 1",
        "export-study STUDY DIR/s.zip",
        "export-study STUDY sqlite:///DIR/copy.db",
        "import-study STUDY journal:///DIR/foreign.journal --storage sqlite:///DIR/copy.db",
    ],
)
def test_it_is_named_and_left_alone(foreign: Path, arguments: str) -> None:
    before, folder = content(foreign), str(foreign.parent)
    words = [w.replace("STUDY", str(foreign)).replace("DIR", folder) for w in arguments.split()]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: study 'tiny' was not created by msnas: it has trials")
    assert len(result.stderr.splitlines()) == 1
    assert content(foreign) == before
    made = {path.name for path in foreign.parent.iterdir()}
    assert made.isdisjoint({"report.html", "s.zip", "copy.db"})


def test_one_without_trials_has_not_begun(tiny: Path) -> None:
    optuna.create_study(storage=Setting.load(tiny).storage, study_name="tiny")
    assert Setting.load(tiny).stored_study() is None
