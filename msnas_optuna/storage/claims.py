"""Claims of slots: of several workers, each slot below the wanted number gets one.

A slot is a place in the sequence of proposals: the number of trials before, without repeats and
withdrawn ones. Storages number trials one after the other, so whoever has created a trial sees
all that come before it, and knows whether there is a slot left for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna.storage.heartbeats import keeps_heartbeats
from msnas_optuna.storage.records import (
    OWNER,
    QUEUED,
    Worker,
    is_retry,
    is_withdrawn,
    known_params,
    root_number,
)
from msnas_optuna.storage.recovery import withdraw_claimed


def slots_of(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Trial number -> slot of all trials that have one; repeats have that of the first."""
    slots: dict[int, int] = {}
    following = 0
    for trial in trials:
        if is_withdrawn(trial):
            continue
        if is_retry(trial) and root_number(trial) in slots:
            slots[trial.number] = slots[root_number(trial)]
            continue
        slots[trial.number] = following
        following += 1
    return slots


def claim_trial(study: Study, *, wanted: int, propose: bool = True) -> int | None:
    """Takes a queued trial, or makes a new one, if a slot below `wanted` is free.

    Args:
        study: the study.
        wanted: how many slots it is to have, over all workers.
        propose: whether to make trials that nobody has queued.

    Returns:
        Id of a running trial that this process owns and has not planned, or None.
    """
    trials = _trials(study)
    slots = slots_of(trials)
    for trial in trials:
        if trial.state == TrialState.WAITING and slots.get(trial.number, wanted) < wanted:
            if not _take(study, trial):
                continue
            if _is_double(trial, _trials(study)):
                withdraw_claimed(study, trial)
                continue
            return trial._trial_id
    if not propose or len(set(slots.values())) >= wanted:
        return None
    return _create(study, wanted)


def _trials(study: Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def _take(study: Study, trial: FrozenTrial) -> bool:
    """Takes a waiting trial; of several workers one succeeds."""
    storage, trial_id = study._storage, trial._trial_id
    try:
        if not storage.set_trial_state_values(trial_id, state=TrialState.RUNNING):
            return False
    except UpdateFinishedTrialError:
        return False
    storage.set_trial_system_attr(trial_id, OWNER, _owner(study, trial.number))
    return True


def _owner(study: Study, trial: int | None = None) -> dict[str, Any]:
    return asdict(Worker.current(trial, heartbeats=keeps_heartbeats(study)))


def _is_double(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether another worker has queued the same; then that with the lower number counts."""
    others = [t for t in trials if t.number != trial.number and not is_withdrawn(t)]
    if is_retry(trial):
        return any(
            root_number(t) == root_number(trial)
            and t.state != TrialState.FAIL
            and (t.state.is_finished() or t.number < trial.number)
            for t in others
        )
    if QUEUED not in trial.system_attrs:
        return False
    params = known_params(trial, None)
    return any(
        QUEUED in t.system_attrs
        and t.state not in (TrialState.FAIL, TrialState.PRUNED)
        and t.number < trial.number
        and known_params(t, None) == params
        for t in others
    )


def _create(study: Study, wanted: int) -> int | None:
    """Makes a trial whose owner is known from the first moment; gives it up if it is surplus."""
    owner = _owner(study)
    template = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: owner})
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=template)
    trials = _trials(study)
    trial = next(t for t in reversed(trials) if t._trial_id == trial_id)
    if slots_of(trials)[trial.number] < wanted:
        return trial_id
    withdraw_claimed(study, trial)
    return None
