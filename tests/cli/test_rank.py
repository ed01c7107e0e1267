"""`msnas rank`: with real trainings and kills, and with values that come from a formula."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.rank import RECALIBRATED, SAMPLE, pool
from msnas_optuna.study.setting import Setting

OPTIONS = ("--architectures", "3", "--seeds", "2", "--fine-tuning", "0,1")


def msnas(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def scored(tiny, run_cheaply) -> Path:
    """A study with a sample of four, trained once."""
    setting = Setting.load(tiny)
    sample = pool(setting.feasible, 4, seed=0)
    study = run_cheaply(setting, RECALIBRATED.stage, architectures=sample)
    study.set_user_attr(SAMPLE, [str(a) for a in sample])
    run_cheaply(setting, RETRAIN, architectures=sample)
    return tiny


def test_what_is_finished_is_told_without_measuring(scored):
    said = msnas("rank", scored, "--so-far").output
    assert "4 of 4 architectures are trained from scratch, 4 trainings" in said
    assert "No ceiling is known" in said
    numbers = json.loads(msnas("rank", scored, "--so-far", "--json").stdout)
    assert [row["score"] for row in numbers["scores"]] == [
        "recalibrated", "recalibrated, smoothed"
    ]  # fmt: skip
    assert numbers["scores"][0]["tau"] == pytest.approx([1, 1, 1])  # one formula gives both
    assert numbers["scores"][0]["regret_1"] == pytest.approx([0, 0, 0])
    assert numbers["study"] == "tiny"


def test_the_figure_is_written(scored):
    path = scored.parent / "figure.json"
    msnas("rank", scored, "--so-far", "--figure", path)
    assert json.loads(path.read_text())["data"][0]["name"] == "recalibrated"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--so-far",), "has no sample to rank yet; run `msnas rank"),
        (("--fine-tuning", "0,ten"), "--fine-tuning must be whole numbers from 0 on"),
    ],
)
def test_what_cannot_be_told_is_said(tiny, words, why):
    assert why in msnas("rank", tiny, *words, code=1).output
    assert not (tiny.parent / "study.db").exists()


def test_it_is_no_job_of_torchrun(scored, monkeypatch):
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 2,
        "LOCAL_RANK": 0,
        "LOCAL_WORLD_SIZE": 2,
    }.items():
        monkeypatch.setenv(name, str(value))
    assert "several processes: --workers" in msnas("rank", scored, code=1).output


def test_numbers_are_recorded(scored):
    path = scored.parent / "record.json"
    msnas("rank", scored, "--so-far", "--record", path)
    content = json.loads(path.read_text())
    numbers = json.loads(msnas("rank", scored, "--so-far", "--json").stdout)
    assert content["numbers"] | {"study": "tiny"} == numbers
    assert content["seeds"] == [0]


def test_the_doctor_looks_at_scores_too(scored):
    words = ("--stage", RECALIBRATED.stage, "--trial", "0")
    said = msnas("doctor", scored, *words, code=1).output
    assert "trial 0 of study tiny-rank-recalibrated neither runs nor waits" in said


def start(study_file: Path, *more: str) -> subprocess.Popen[bytes]:
    words = ["rank", str(study_file), *OPTIONS, "--json", *more]
    command = [sys.executable, "-m", "msnas_optuna", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def n_complete(study_file: Path, stage: str) -> int:
    try:
        study = Setting.load(study_file).stored_study(stage)
    except Exception:  # the tables are being made
        return 0
    return 0 if study is None else len(study.get_trials(states=(TrialState.COMPLETE,)))


@pytest.mark.slow
def test_killed_at_any_point_the_same_command_continues(trained, tmp_path):
    text = trained.read_text()
    trained.write_text(text.replace("tolerance = 0.05", "tolerance = 0.2"))
    shutil.rmtree(trained.parent / "data")  # it has more test images
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in ("tiny.toml", "supernet.pt"):
        (twin / file).write_bytes((trained.parent / file).read_bytes())
    for stage, complete in ((RECALIBRATED.stage, 2), (RETRAIN, 2)):
        process, deadline = start(trained), time.monotonic() + 120
        while n_complete(trained, stage) < complete:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = json.loads(start(trained, "--workers", "2").communicate()[0])
    assert (found["sample"], found["trained"], found["trainings"]) == (3, 3, 6)
    scores = ["as is", "recalibrated", "fine-tuned 1", "recalibrated, smoothed"]
    assert [row["score"] for row in found["scores"]] == scores
    assert all(row["n"] == 3 for row in found["scores"])
    assert found == json.loads(start(twin / "tiny.toml").communicate()[0])  # never disturbed

    setting = Setting.load(trained)
    names = set(optuna.get_all_study_names(setting.storage))
    assert names == {f"tiny-{s}" for s in ("rank-0", "rank-1", "rank-recalibrated", "retrain")}
    assert n_complete(trained, RECALIBRATED.stage) == 12
    assert n_complete(trained, RETRAIN) == 6  # nothing twice
