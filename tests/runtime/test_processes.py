"""The processes that pass for dead: clones, restarts, containers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from msnas_optuna.runtime.processes import Host
from msnas_optuna.storage import OWNER, Worker, open_storage, recover_lost_trials

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

FIRST = "pid:[4026531836]"
HERE = Host("node", FIRST, "b0", "m0")
RESTARTED = replace(HERE, boot="b1")
CLONE = replace(HERE, boot="b1", machine="m1")
IN_CONTAINER = replace(HERE, namespace="pid:[4026532222]")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "current", lambda: HERE)


@pytest.mark.parametrize("host", [HERE, IN_CONTAINER, Host("node"), Host.current()])
def test_a_host_is_read_as_it_was_written(host: Host) -> None:
    assert Host.parse(str(host)) == host


def test_this_host_is_the_same_in_every_process_and_shows_no_machine_id() -> None:
    code = "from msnas_optuna.runtime.processes import Host; print(Host.current())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.stdout.strip() == str(Host.current())
    for file in map(Path, ("/proc/sys/kernel/random/boot_id", "/etc/machine-id")):
        if file.exists() and (content := file.read_text().strip()):
            assert content not in other.stdout
    assert bool(Host.current().boot) == Path("/proc/sys/kernel/random/boot_id").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("host", "local", "dead"),
    [
        (HERE, True, True),
        (RESTARTED, False, True),
        (CLONE, False, False),
        (replace(HERE, boot="b1", machine=""), False, False),
        (replace(HERE, name="other"), False, False),
        (IN_CONTAINER, False, False),
        (replace(IN_CONTAINER, boot="b1"), False, False),  # its machine id may be the image's
        (Host("other", FIRST), False, False),
    ],
)
def test_the_processes_of_this_host_alone_are_looked_up(
    host: Host, local: bool, dead: bool
) -> None:
    ended = Worker(str(host), os.getpid(), "0", None)  # the id has been given again
    assert (ended.is_here(), ended.is_dead()) == (local, dead)
    assert ended.host_name == host.name


@pytest.mark.usefixtures("here")
def test_the_trials_of_a_clone_are_left_alone_and_those_before_a_restart_repeated(
    tmp_path: Path,
) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:///{tmp_path}/s"))
    for host in (RESTARTED, CLONE):
        owner = asdict(Worker(str(host), os.getpid(), "0", None))
        study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={OWNER: owner}))
    assert recover_lost_trials(study) == [0]
    assert [t.state.name for t in study.trials] == ["FAIL", "RUNNING", "WAITING"]


@pytest.mark.usefixtures("here")
def test_where_there_are_heartbeats_they_decide_whether_a_restart_ended_it(tmp_path: Path) -> None:
    """A clone may share the machine id, too."""
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
    owner = asdict(Worker(str(RESTARTED), os.getpid(), "0", None, heartbeats=True))
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={OWNER: owner}))
    study._storage.record_heartbeat(study.trials[0]._trial_id)
    assert recover_lost_trials(study) == []
    with study._storage._backend.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    assert recover_lost_trials(study) == [0]
