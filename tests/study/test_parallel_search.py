"""`msnas search --workers` and torchrun: real processes, killed and interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.runtime.processes import Place, torchrun_place
from msnas_optuna.storage import is_withdrawn, open_storage
from msnas_optuna.study.config import load_config
from msnas_optuna.study.experiment import placed

ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "msnas_optuna", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        start_new_session=True,
    )  # fmt: skip


def longer(study_file: Path, *, trials: int, finetune: int) -> None:
    text = study_file.read_text().replace("trials = 7", f"trials = {trials}")
    text = text.replace("[finetune]\nsteps = 1", f"[finetune]\nsteps = {finetune}")
    study_file.write_text(text.replace("tolerance = 0.05", "tolerance = 0.2"))


def trials_of(study_file: Path, name: str = "tiny") -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{study_file.parent / 'study.db'}"
    try:
        trials = optuna.load_study(study_name=name, storage=open_storage(url)).trials
    except KeyError:
        return []
    return [t for t in trials if not is_withdrawn(t)]


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """The worker processes of a command; not the one that tracks its resources."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(c): Path(f"/proc/{c}/cmdline").read_bytes() for c in listed}
    return [child for child, line in lines.items() if b"spawn_main" in line]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_worker_is_killed_and_the_others_repeat_its_trial(trained: Path) -> None:
    longer(trained, trials=16, finetune=10)
    process = start("search", trained, "--workers", 3, "--json")
    until(lambda: len(trials_of(trained)) >= 5, process)
    running = [t for t in trials_of(trained) if t.state == TrialState.RUNNING]
    victim = running[0].system_attrs["msnas:worker"]["pid"]
    assert victim in children(process.pid)
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"process {victim} has ended by signal SIGKILL" in err
    assert json.loads(out)["completed"] == 16
    trials = trials_of(trained)
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len({t.user_attrs["arch"] for t in complete}) == len(complete) == 16
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert len(trials) <= 17
    by_hand = trials_of(trained, "tiny-fpn-like")
    assert [t.state for t in by_hand].count(TrialState.COMPLETE) == 1


@pytest.mark.slow
def test_a_training_of_a_killed_worker_goes_on_from_its_checkpoint(searched: Path) -> None:
    text = searched.read_text()
    searched.write_text(text.replace("[retrain]\nsteps = 3", "[retrain]\nsteps = 100"))
    options = ("--trial", "fpn-like", "--seeds", 2, "--workers", 2)
    process = start("retrain", searched, *options, "--json")
    files = searched.parent / "retrained"
    until(lambda: len([*files.glob("*.pt")]) == 2, process)
    running = [t for t in trials_of(searched, "tiny-retrain") if t.state == TrialState.RUNNING]
    victim = running[0].system_attrs["msnas:worker"]["pid"]
    assert victim in children(process.pid)
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"process {victim} has ended by signal SIGKILL; the other workers" in err
    aps = json.loads(out)["baseline"]["standalone_by_seed"]
    assert [*aps] == ["0", "1"]
    states = [t.state for t in trials_of(searched, "tiny-retrain")]
    assert sorted(s.name for s in states) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert len([*files.glob("*.pt")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_workers_end_with_the_command(trained: Path, number: signal.Signals) -> None:
    longer(trained, trials=40, finetune=10)
    process = start("search", trained, "--workers", 2)
    until(lambda: len(trials_of(trained)) >= 3, process)
    workers = children(process.pid)
    assert len(workers) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "a worker outlives its command"
        time.sleep(0.1)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "the same command continues" in err
    assert TrialState.RUNNING not in [t.state for t in trials_of(trained)]
    done = sum(t.state == TrialState.COMPLETE for t in trials_of(trained))
    resumed = CliRunner().invoke(app, ["search", str(trained), "--trials", str(done + 2)])
    assert resumed.exit_code == 0, resumed.output
    assert [t.state for t in trials_of(trained)].count(TrialState.COMPLETE) == done + 2


IMPATIENT = """
import sys
import msnas_optuna.runtime.interrupts as interrupts
from msnas_optuna.cli import app, workers
interrupts._REPEAT_SECONDS, workers._END_SECONDS = 0.5, 3
app(["search", sys.argv[1], "--workers", "2"])
"""


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_killed_with_the_command(tiny: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, tiny], stderr=subprocess.DEVNULL, text=True
    )
    try:
        until(lambda: len(children(process.pid)) == 2, process)
        workers = children(process.pid)
        os.kill(workers[0], signal.SIGSTOP)
        process.terminate()
        assert process.wait(timeout=30) == 130
        assert not any(map(is_alive, workers))
    finally:
        process.kill()


@pytest.mark.slow
def test_the_command_says_whose_trial_the_others_wait_for(trained: Path) -> None:
    longer(trained, trials=8, finetune=40)
    process = start("search", trained, "--workers", 2)
    until(lambda: len(trials_of(trained)) >= 3, process)
    running = [t for t in trials_of(trained) if t.state == TrialState.RUNNING]
    stopped = running[0].system_attrs["msnas:worker"]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        said = next(line for line in lines if "waiting for" in line)
    finally:
        os.kill(stopped, signal.SIGCONT)
    held = next(t for t in running if t.system_attrs["msnas:worker"]["pid"] == stopped)
    since = held.datetime_start.isoformat(" ", "seconds")
    assert said.startswith("search: 7/8 in ")
    host = socket.gethostname()
    assert (
        f"2 workers, waiting for trial {held.number} of tiny (process {stopped} on {host} " in said
    )
    assert f" since {since})" in said
    process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.mark.slow
def test_torchrun_starts_workers_of_which_the_first_speaks(trained: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start("search", trained, "--json", launcher=torchrun)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["completed"] == 7  # one of them has printed
    assert [t.state for t in trials_of(trained)] == [TrialState.COMPLETE] * 7
    pids = {t.system_attrs["msnas:worker"]["pid"] for t in trials_of(trained)}
    assert len(pids) <= 2


@pytest.mark.slow
def test_torchrun_on_two_nodes(trained: Path, unused_port: int) -> None:
    longer(trained, trials=20, finetune=1)
    nodes = [
        start("search", trained, "--json", launcher=(
            "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", rank,
            "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
            "--master-port", str(unused_port),
        ))
        for rank in "01"
    ]  # fmt: skip
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert json.loads(said[0][0])["completed"] == 20
    assert said[1][0] == ""  # one of four has printed
    assert [t.state for t in trials_of(trained)] == [TrialState.COMPLETE] * 20


@pytest.mark.slow
def test_what_ends_all_workers_is_said_once(tiny: Path) -> None:
    process = start("search", tiny, "--workers", 2)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.count("run `msnas train` first") == 1
    assert "2 of 2 workers have ended early and 7 of 7 trials are left" in err


def test_the_place_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert torchrun_place() is None
    for name, value in zip(names, "3412", strict=True):
        monkeypatch.setenv(name, value)
    assert torchrun_place() == Place(3, 4, 1, 2)


def test_a_worker_under_torchrun_starts_no_others(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "0" if "RANK" in name else "1")
    result = CliRunner().invoke(app, ["search", str(tiny), "--workers", "2"])
    assert result.exit_code == 1
    assert "leave out --workers" in result.output


def test_the_quickstart_is_refused_under_torchrun(tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start("quickstart", "--dir", tmp_path / "new", launcher=torchrun)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "run `msnas quickstart` without torchrun. Several" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["quickstart", "train", "search", "retrain"])
def test_variables_that_torchrun_would_not_set_are_explained(
    verb: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "x")
    arguments = ["--dir", str(tiny.parent)] if verb == "quickstart" else [str(tiny)]
    result = CliRunner().invoke(app, [verb, *arguments])
    assert result.exit_code == 1
    assert result.output.startswith("error: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE must")
    assert "'x'; start the command with torchrun, or unset them" in result.output


def test_a_rank_of_another_launcher_means_nothing(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "x")  # without torchrun's other variables
    result = CliRunner().invoke(app, ["search", str(tiny)])
    assert result.exit_code == 1
    assert "run `msnas train` first" in result.output


@pytest.mark.parametrize(
    ("device", "n_gpus", "expected"),
    [
        ("auto", 0, "auto"),
        ("cpu", 4, "cpu"),
        ("auto", 4, "cuda:1"),
        ("cuda", 4, "cuda:1"),
        ("cuda:3", 4, "cuda:3"),
        ("auto", 1, "cuda:0"),
    ],
)
def test_each_worker_has_a_gpu_of_its_own(
    tiny: Path, device: str, n_gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    tiny.write_text(tiny.read_text() + f'\ndevice = "{device}"\nthreads = 0\n')
    runtime = placed(load_config(tiny), Place(1, 3, 1, 3)).runtime
    assert (runtime.device, runtime.threads) == (expected, 2)


@pytest.mark.slow
def test_a_moment_without_storage_ends_neither_the_workers_nor_their_command(
    trained: Path,
) -> None:
    longer(trained, trials=40, finetune=1)
    process = start("search", trained, "--workers", 2, "--quiet")
    until(lambda: len(trials_of(trained)) >= 4, process)
    database = sqlite3.connect(trained.parent / "study.db", timeout=60)
    database.execute("ALTER TABLE trials RENAME TO gone")
    time.sleep(5)  # the command looks every two
    assert process.poll() is None, process.communicate()
    database.execute("ALTER TABLE gone RENAME TO trials")
    database.close()
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    done = [t for t in trials_of(trained) if t.state == TrialState.COMPLETE]
    assert len(done) == 40
