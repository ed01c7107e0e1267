"""A study as layout 1 stored it: plans alone name the workers, by host and process namespace."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import optuna
import pytest
from cheap import SPACE, cheap_study, value_of
from conftest import check_whole, complete, results
from optuna.trial import TrialState

from msnas_optuna.runtime.processes import Host
from msnas_optuna.storage import (
    LAYOUT,
    LAYOUT_VERSION,
    OWNER,
    PLAN,
    Worker,
    claim_trial,
    end_trials,
    owner_of,
    read_plan,
    unfinished_trials,
)
from msnas_optuna.study.workers import evaluate_trials

HERE = f"{Host.current().name} {Host.current().namespace}".strip()


def objective(trial: optuna.Trial) -> float:
    return value_of({n: trial._suggest(n, d) for n, d in SPACE.distributions.items()})


def rewrite(file: Path, worker_of: Callable[[int], dict[str, Any]]) -> None:
    """Stores a study as layout 1 did, with the worker of each trial number."""
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = ?", (LAYOUT,))
        database.execute("DELETE FROM trial_system_attributes WHERE key = ?", (OWNER,))
        plans = database.execute(
            "SELECT a.trial_system_attribute_id, t.number, a.value_json FROM trials t "
            "JOIN trial_system_attributes a ON a.trial_id = t.trial_id WHERE a.key = ?",
            (PLAN,),
        ).fetchall()
        for row, number, text in plans:
            plan = json.loads(text) | {"worker": worker_of(number) | {"trial": number}}
            database.execute(
                "UPDATE trial_system_attributes SET value_json = ? "
                "WHERE trial_system_attribute_id = ?",
                (json.dumps(plan), row),
            )
    database.close()


def planned(study: optuna.Study, wanted: int) -> None:
    """A trial of a worker that has got no further than its plan."""
    trial_id = claim_trial(study, wanted=wanted)
    assert trial_id is not None
    optuna.Trial(study, trial_id)


def test_a_study_of_layout_1_goes_on(tmp_path: Path) -> None:
    url, dead, elsewhere = f"sqlite:///{tmp_path}/study.db", 12, 13
    study = cheap_study(url)
    evaluate_trials(study, objective, wanted=12)
    for number in (dead, elsewhere):
        planned(study, number + 1)
    rewrite(
        tmp_path / "study.db",
        lambda number: {
            "host": "elsewhere pid:[1]" if number == elsewhere else HERE,
            "pid": os.getpid(),
            "started": "0",
        },
    )
    again = cheap_study(url)
    before, plans = results(again), [read_plan(t) for t in again.trials]
    assert [f.alive for f in unfinished_trials(again)] == [False, None]
    with pytest.warns(UserWarning, match="1 trials are left to other workers"):
        evaluate_trials(again, objective, wanted=20, patience=inf)
    assert again.user_attrs[LAYOUT] == LAYOUT_VERSION
    assert again.trials[dead].state == TrialState.FAIL
    assert again.trials[elsewhere].state == TrialState.RUNNING
    assert end_trials(again, [elsewhere], repeat=True) == [elsewhere]
    evaluate_trials(again, objective, wanted=20)
    check_whole(again, 20)
    after = results(again)
    assert before.items() <= after.items()
    for number in (dead, elsewhere):
        assert plans[number].params == after[number][0]  # what was planned, not another
    assert len(complete(again)) == 20


@pytest.mark.parametrize("host", [f"external, asked on {HERE}", Worker.external(0).host])
def test_a_trial_that_was_handed_out_by_layout_1_waits_for_its_values(
    tmp_path: Path, host: str
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = cheap_study(url)
    planned(study, 1)
    rewrite(tmp_path / "study.db", lambda number: {"host": host, "pid": 0, "started": ""})
    again = cheap_study(url)
    owner = owner_of(again.trials[0])
    assert owner is not None
    assert (owner.is_external, owner.host_name, owner.is_dead()) == (
        True,
        Host.current().name,
        False,
    )
    with pytest.warns(UserWarning, match="1 trials are left to other workers"):
        evaluate_trials(again, objective, wanted=1, patience=inf)
    assert again.tell(0, 1.0).value == 1.0
