"""The commands as a person runs them: processes, signals, databases and a web server."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}
OPTUNA = Path(sys.executable).with_name("optuna")
DASHBOARD = Path(sys.executable).with_name("optuna-dashboard")


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "msnas_optuna", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip


def run(*arguments: str | Path) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def until(condition, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


def study_of(study_file: Path) -> optuna.Study | None:
    database = study_file.parent / "study.db"
    if not database.exists():
        return None
    storage = f"sqlite:///{database}?timeout=60"
    try:
        return optuna.load_study(study_name="tiny", storage=storage)
    except Exception:  # the worker is still making the tables
        return None


def n_complete(study_file: Path) -> int:
    study = study_of(study_file)
    if study is None:
        return -1
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def longer(study_file: Path, *, trials: int, finetune: int) -> None:
    text = study_file.read_text().replace("trials = 7", f"trials = {trials}")
    text = text.replace("[finetune]\nsteps = 1", f"[finetune]\nsteps = {finetune}")
    text = text.replace("steps = 4", "steps = 40").replace("tolerance = 0.05", "tolerance = 0.2")
    study_file.write_text(text)


def proposals(study: optuna.Study) -> dict[str, float]:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return {t.user_attrs["arch"]: t.values[0] for t in complete}


def test_train_kill_in_the_search_resume_and_count(tiny, tmp_path):
    longer(tiny, trials=20, finetune=5)
    run("train", tiny)
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in ("tiny.toml", "supernet.pt"):
        (twin / file).write_bytes((tiny.parent / file).read_bytes())

    for complete in (3, 8, 14):  # three kills, each in the middle of some trial
        process = start("search", tiny)
        until(lambda complete=complete: n_complete(tiny) >= complete, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run("search", tiny)
    study = study_of(tiny)
    states = [t.state for t in study.trials]
    assert states.count(TrialState.COMPLETE) == 20
    assert TrialState.RUNNING not in states
    assert TrialState.WAITING not in states
    assert len(proposals(study)) == 20  # no architecture twice

    run("search", twin / "tiny.toml")  # the same study, never disturbed
    assert proposals(study_of(twin / "tiny.toml")) == proposals(study)


def test_a_trial_that_died_on_another_host_is_evaluated_again(tiny):
    longer(tiny, trials=6, finetune=5)
    run("train", tiny)
    process = start("search", tiny)
    until(lambda: n_complete(tiny) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with sqlite3.connect(tiny.parent / "study.db") as database:  # as if it were elsewhere
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
        found = "SELECT trial_system_attribute_id, value_json FROM trial_system_attributes"
        owned = f"{found} WHERE key IN ('msnas:plan', 'msnas:worker')"
        for key, value in database.execute(owned).fetchall():
            moved = json.loads(value)
            moved.get("worker", moved)["host"] = "elsewhere"
            database.execute(
                "UPDATE trial_system_attributes SET value_json = ? "
                "WHERE trial_system_attribute_id = ?",
                (json.dumps(moved), key),
            )
    assert json.loads(run("search", tiny, "--json"))["completed"] == 6
    assert TrialState.RUNNING not in [t.state for t in study_of(tiny).trials]


def test_kill_in_the_training_of_the_supernet(tiny):
    longer(tiny, trials=3, finetune=1)
    process = start("train", tiny)
    until(lambda: (tiny.parent / "supernet.pt").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(run("train", tiny, "--json"))["steps"] == 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_command_that_can_be_continued(tiny, number):
    longer(tiny, trials=8, finetune=5)
    run("train", tiny)
    process = start("search", tiny)
    until(lambda: n_complete(tiny) >= 2, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in err
    assert TrialState.RUNNING not in [t.state for t in study_of(tiny).trials]
    assert json.loads(run("search", tiny, "--json"))["completed"] == 8


@pytest.mark.timeout(900)  # whichever comes first runs the quickstart
def test_optuna_s_own_commands_read_the_study(quickstart):
    best = json.loads(run("results", quickstart, "--json"))["best"][0]
    storage = f"sqlite:///{quickstart.parent / 'study.db'}"
    arguments = ["--storage", storage, "--study-name", "quickstart"]

    def ask(command: str):
        call = [OPTUNA, command, *arguments, "-f", "json"]
        return json.loads(subprocess.run(call, check=True, capture_output=True).stdout)

    trials, winner = ask("trials"), ask("best-trial")
    assert len(trials) == 16
    assert winner["number"] == best["trial"]
    assert winner["value"] == {"AP": best["one_shot_ap"]}
    assert {t["state"] for t in trials} == {"COMPLETE"}
    assert winner["params"]["stride_01"] == best["strides"][0]


@pytest.mark.timeout(900)
def test_the_dashboard_serves_the_study(quickstart, unused_port):
    url = f"sqlite:///{quickstart.parent / 'study.db'}"
    command = [DASHBOARD, url, "--host", "127.0.0.1", "--port", str(unused_port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{unused_port}"

        def answers() -> bool:
            try:
                return urllib.request.urlopen(f"{base}/dashboard/").status == 200
            except OSError:
                return False

        until(answers, server, 60)
        summaries = json.load(urllib.request.urlopen(f"{base}/api/studies"))["study_summaries"]
        names = {s["study_name"]: s["study_id"] for s in summaries}
        assert set(names) == {"quickstart", "quickstart-fpn-like", "quickstart-retrain"}
        detail = json.load(urllib.request.urlopen(f"{base}/api/studies/{names['quickstart']}"))
        assert len(detail["trials"]) == 16
        assert len(detail["union_search_space"]) == 7 + 5  # every parameter of every trial
        assert len(detail["intersection_search_space"]) == 7 + 5
    finally:
        server.terminate()
        server.wait()
