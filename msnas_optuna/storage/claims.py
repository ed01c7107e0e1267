"""Claims of slots: of several workers, each slot below the wanted number gets one.

Storages number trials in turn, so whoever has created one sees all that come before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna.storage.heartbeats import keeps_heartbeats
from msnas_optuna.storage.optuna_private import (
    create_trial_in,
    set_state,
    set_trial_system_attr,
    trial_id,
)
from msnas_optuna.storage.records import (
    OWNER,
    QUEUED,
    QUEUED_REPEAT,
    Worker,
    is_withdrawn,
    known_params,
    repeated,
    slots_of,
)
from msnas_optuna.storage.recovery import withdraw_claimed


def claim_trial(study: Study, *, wanted: int, propose: bool = True) -> int | None:
    """The id of a trial, queued or with `propose` new, that now runs in a slot below `wanted`.

    This process owns it, and has not planned it. None where no slot is free.
    """
    trials, heartbeats = study.get_trials(deepcopy=False), keeps_heartbeats(study)
    slots = slots_of(trials)
    for trial in trials:
        if trial.state != TrialState.WAITING or slots.get(trial.number, wanted) >= wanted:
            continue
        if not set_state(study, trial, TrialState.RUNNING):
            continue  # another worker was faster
        owner = Worker.current(trial.number, heartbeats=heartbeats)
        set_trial_system_attr(study, trial, OWNER, asdict(owner))
        if not _is_double(trial, study.get_trials(deepcopy=False)):
            return trial_id(trial)
        withdraw_claimed(study, trial)
    if not propose or len(set(slots.values())) >= wanted:
        return None
    owner = Worker.current(heartbeats=heartbeats)  # known from the trial's first moment
    template = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: asdict(owner)})
    created, trials = create_trial_in(study, template), study.get_trials(deepcopy=False)
    trial = next(t for t in reversed(trials) if trial_id(t) == created)
    if slots_of(trials)[trial.number] < wanted:
        return created
    withdraw_claimed(study, trial)  # another worker has taken the last slot
    return None


def _is_double(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """True if another worker has queued the same; then that with the lower number counts."""
    others = [t for t in trials if t.number != trial.number and not is_withdrawn(t)]
    if repeated(trial, trials) is not None:
        slots = slots_of(trials)
        return any(
            slots[t.number] == slots[trial.number]
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
        and t.system_attrs.get(QUEUED_REPEAT) == trial.system_attrs.get(QUEUED_REPEAT)
        for t in others
    )
