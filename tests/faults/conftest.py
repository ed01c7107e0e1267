"""What the fault tests share: workers as processes, databases, and what a study must be after."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

sys.path.insert(0, str(Path(__file__).parent))

from cheap import SCHEDULE, cheap_study, value_of

from msnas_optuna.storage import is_withdrawn, read_plan, slots_of

CHEAP = Path(__file__).with_name("cheap.py")


class Workers:
    """Processes that evaluate one study; the test ends them all."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self, wanted: int, seconds: float, *, hours: float = 0) -> subprocess.Popen[bytes]:
        log = (self.folder / f"worker{self._started}.log").open("wb")
        self._started += 1
        command = [sys.executable, str(CHEAP), self.url, str(wanted), str(seconds), str(hours)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def study(self) -> optuna.Study:
        return cheap_study(self.url)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.processes.remove(process)

    def join(self, timeout: float = 240) -> None:
        """Waits until all have ended as they should."""
        assert [p.wait(timeout=timeout) for p in self.processes] == [0] * len(self.processes), (
            self.said()
        )

    def said(self) -> str:
        return "\n".join(log.read_text() for log in sorted(self.folder.glob("worker*.log")))


@pytest.fixture
def workers(url: str, tmp_path: Path) -> Iterator[Workers]:
    crew = Workers(url, tmp_path)
    yield crew
    for process in crew.processes:
        process.kill()
        process.wait()


@pytest.fixture(params=["sqlite", "postgresql", "journal"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"{request.param}:///{tmp_path}/study.db"


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def results(study: optuna.Study) -> dict[int, tuple[dict[str, object], list[float], str]]:
    """Slot -> architecture, value and origin of all finished trials."""
    slots = slots_of(study.trials)
    return {slots[t.number]: (t.params, t.values, t.user_attrs["origin"]) for t in complete(study)}


def check_whole(study: optuna.Study, wanted: int) -> None:
    """Every slot is settled once, by a value of its own architecture, in its own generation."""
    trials, done = study.trials, complete(study)
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    slots = slots_of(trials)
    assert sorted(slots[t.number] for t in done) == list(range(wanted))
    assert len({str(sorted(t.params.items())) for t in done}) == wanted
    for trial in done:
        assert trial.values == [value_of(trial.params)]
        plan = read_plan(trial)
        assert plan is not None
        assert plan.params == trial.params
        assert not is_withdrawn(trial)
        assert trial.user_attrs["generation"] == SCHEDULE.generation(slots[trial.number])
