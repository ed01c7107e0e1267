"""`msnas doctor`: what it knows of unfinished trials, and what it does with them."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.storage import (
    OWNER,
    QUEUED,
    Worker,
    claim_trial,
    finished_slots,
    open_storage,
    open_study,
)
from msnas_optuna.study.asktell import ask
from msnas_optuna.study.setting import Setting

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

ELSEWHERE = replace(Worker.current(), host="elsewhere pid:[1]", pid=77, started="0")


def doctor(study_file: Path, *arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["doctor", str(study_file), *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


def begun(url: str, name: str = "tiny") -> Study:
    """A study of ours without trials."""
    return open_study(
        open_storage(url), name=name, directions=["maximize"], sampler=RandomSampler(), config={}
    )


@pytest.fixture(params=["sqlite", "journal"])
def study(request: pytest.FixtureRequest, tiny: Path) -> Study:
    """Trial 0 of this process, 1 of a dead one of this host, 2 of another host, 3 waits."""
    file = f'trials = 7\nstorage = "{request.param}:///study.db"'
    tiny.write_text(tiny.read_text().replace("trials = 7", file))
    url = Setting.load(tiny).storage_url
    study = begun(url)
    assert claim_trial(study, wanted=1) is not None
    for owner in (replace(Worker.current(), started="0"), ELSEWHERE):
        study.add_trial(
            create_trial(state=TrialState.RUNNING, system_attrs={OWNER: asdict(owner)})
        )
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs={QUEUED: True}))
    return study


def states(study: Study) -> list[str]:
    return [t.state.name for t in study.trials]


def test_it_lists_what_is_known(study: Study, tiny: Path) -> None:
    found = doctor(tiny, "--json")["unfinished"]
    assert [f["alive"] for f in found] == [True, False, None, None]
    assert [f["state"] for f in found] == ["RUNNING"] * 3 + ["WAITING"]
    assert found[2]["host"] == "elsewhere"
    assert found[2]["pid"] == 77
    assert all(0 <= f["minutes"] < 60 for f in found[:3])
    shown = " ".join(doctor(tiny).split())
    for word in ("lives", "has ended", "unknown", "elsewhere", "--requeue --trial N"):
        assert word in shown
    assert states(study) == ["RUNNING"] * 3 + ["WAITING"]


def test_by_itself_it_ends_those_alone_that_are_known_to_be_dead(study: Study, tiny: Path) -> None:
    assert doctor(tiny, "--requeue", "--json")["re-queued"] == [["tiny", 1]]
    assert states(study) == ["RUNNING", "FAIL", "RUNNING", "WAITING", "WAITING"]
    assert doctor(tiny, "--requeue", "--json")["re-queued"] == []


def test_a_person_decides_about_other_hosts(study: Study, tiny: Path) -> None:
    shown = doctor(tiny, "--requeue", "--trial", "2")
    assert "re-queued trial 2 of tiny" in shown
    assert states(study) == ["RUNNING", "RUNNING", "FAIL", "WAITING", "WAITING"]
    assert study.trials[4].system_attrs["retry_history"] == [2]
    assert finished_slots(study) == 0
    doctor(tiny, "--fail", "--trial", "1", "--trial", "3")
    assert states(study) == ["RUNNING", "FAIL", "FAIL", "FAIL", "WAITING"]
    assert finished_slots(study) == 1  # trial 1; trial 3 is withdrawn and takes no slot


def test_the_age_chooses_among_those_that_may_be_dead(study: Study, tiny: Path) -> None:
    assert doctor(tiny, "--fail", "--older-than", "60", "--json")["failed"] == []
    failed = doctor(tiny, "--fail", "--older-than", "0", "--json")["failed"]
    assert failed == [["tiny", 1], ["tiny", 2]]
    assert states(study) == ["RUNNING", "FAIL", "FAIL", "WAITING"]


def test_without_an_action_the_choice_is_what_is_listed(study: Study, tiny: Path) -> None:
    def listed(*arguments: str) -> list[int]:
        return [f["trial"] for f in doctor(tiny, "--json", *arguments)["unfinished"]]

    assert listed() == [0, 1, 2, 3]
    assert listed("--trial", "3", "--trial", "2") == [2, 3]
    assert listed("--older-than", "0") == [1, 2]
    assert listed("--older-than", "60") == []
    assert "no such trial runs or waits" in doctor(tiny, "--older-than", "60")
    assert states(study) == ["RUNNING"] * 3 + ["WAITING"]


def test_a_trial_that_was_asked_for_shows_where(tiny: Path) -> None:
    ask(Setting.load(tiny))
    (found,) = doctor(tiny, "--json")["unfinished"]
    assert (found["host"], found["pid"]) == (socket.gethostname(), None)
    assert (found["alive"], found["external"]) == (None, True)
    shown = " ".join(doctor(tiny).split())
    assert "- │ external" in shown
    assert "If an unknown or external worker is gone: --requeue --trial N" in shown


@pytest.mark.parametrize("action", ["--requeue", "--fail"])
def test_trials_of_external_trainers_are_left_alone_and_it_says_so(
    tiny: Path, action: str
) -> None:
    setting = Setting.load(tiny)
    ask(setting, 2)
    said = "Trials of external workers are left alone unless --trial N or --older-than"
    assert said in " ".join(doctor(tiny, action).split())
    study = setting.stored_study()
    assert study is not None
    assert states(study) == ["RUNNING", "RUNNING"]
    assert said not in " ".join(doctor(tiny).split())
    doctor(tiny, action, "--trial", "0", "--trial", "1")
    assert states(study)[:2] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fail", "--requeue"), "give either --fail or --requeue"),
        (("--fail", "--trial", "0"), "the worker of trial 0 lives"),
        (("--fail", "--trial", "9"), "trial 9 of study tiny neither runs nor waits"),
        (("--trial", "2", "--trial", "9"), "trial 9 of study tiny neither runs nor waits"),
        (
            ("--fail", "--trial", "5", "--stage", "retrain"),
            "tiny-retrain has not begun, so it has",
        ),
        (("--trial", "5", "--stage", "retrain"), "it has no trial 5"),
        (("--fail", "--trial", "2", "--older-than", "60"), "give either --trial or --older-than"),
        (
            ("--stage", "train"),
            "--stage is one of search, fpn-like, retrain, baseline, got 'train'",
        ),
    ],
)
@pytest.mark.parametrize("study", ["journal"], indirect=True)
def test_mistakes(study: Study, tiny: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in doctor(tiny, *arguments, code=1)
    assert states(study) == ["RUNNING"] * 3 + ["WAITING"]


def test_a_heartbeat_tells_of_other_hosts(tiny: Path) -> None:
    study = begun(Setting.load(tiny).storage_url, "tiny-retrain")
    storage = open_storage(Setting.load(tiny).storage_url)
    for _ in range(2):
        study.add_trial(
            create_trial(state=TrialState.RUNNING, system_attrs={OWNER: asdict(ELSEWHERE)})
        )
    storage.record_heartbeat(study.trials[0]._trial_id)
    assert [f["alive"] for f in doctor(tiny, "--json")["unfinished"]] == [True, None]
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    assert [f["alive"] for f in doctor(tiny, "--json")["unfinished"]] == [False, None]
    doctor(tiny, "--requeue", "--trial", "1", "--stage", "retrain")
    assert states(study) == ["RUNNING", "FAIL", "WAITING"]


def test_a_storage_without_studies_has_nothing_to_list(tiny: Path) -> None:
    open_storage(Setting.load(tiny).storage_url)
    assert "no trial runs or waits" in doctor(tiny)
    assert not (tiny.parent / "data").exists()


@pytest.mark.parametrize("url", [None, "sqlite:///nonexist.db", "journal:///none.log"])
def test_a_storage_that_does_not_exist_is_an_error(tiny: Path, url: str | None) -> None:
    arguments = [] if url is None else ["--storage", url]
    shown = doctor(tiny, *arguments, code=1)
    shown = shown.replace("\n", " ")
    assert f"error: the storage {url or 'sqlite:///' + str(tiny.parent / 'study.db')}" in shown
    assert "does not exist: check --storage, OPTUNA_STORAGE and study.storage" in shown
    assert [p.name for p in tiny.parent.iterdir()] == ["tiny.toml"]
