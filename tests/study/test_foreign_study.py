"""What others have made: a study of this name is left alone, trials in ours stop no verb."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.report.dashboard import dashboard_server, publish
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


@pytest.fixture
def mixed(searched: Path) -> Path:
    """The study file of a search in which other samplers have run, one with other parameters."""
    setting = Setting.load(searched)
    study, space = setting.stored_study(), setting.space
    assert study is not None
    study.sampler = optuna.samplers.RandomSampler(seed=0)

    def same(trial: optuna.Trial) -> float:
        for name, distribution in space.distributions.items():
            trial.suggest_categorical(name, distribution.choices)
        return 0.9

    study.optimize(same, n_trials=3)
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
    old = create_trial(
        params=space.encode(setting.feasible.at(0)),
        distributions=dict(space.distributions),
        value=0.8,
        user_attrs={"arch": 3},
        system_attrs={"retry_history": [90], "msnas:plan": {}, "msnas:worker": "pid 3"},
    )
    study.add_trial(old)
    return searched


def test_trials_of_another_sampler_stop_no_verb(mixed: Path) -> None:
    for arguments in ("results", "results --json", "doctor", "report -o DIR/report.html",
                      "search --trials 12", "export-study DIR/s.zip"):  # fmt: skip
        verb, *rest = arguments.replace("DIR", str(mixed.parent)).split()
        result = CliRunner().invoke(app, [verb, str(mixed), *rest])
        assert result.exit_code == 0, (arguments, result.output)
        said = [line for line in result.stderr.splitlines() if "leaves out" in line]
        if verb in ("results", "report", "search"):
            assert len(said) == 1, (arguments, result.stderr)
            assert "study tiny leaves out 4 of its complete trials" in said[0]
            assert "trial 8 (no stride_01, stride_02, stride_03 and 7 more, but lr); " in said[0]
    setting = Setting.load(mixed)
    publish(setting)
    study = setting.stored_study()
    assert study is not None
    assert f"So far: {12 - 4} of 12 trials finished, " in get_note(study)
    with dashboard_server(setting, 0):
        pass
