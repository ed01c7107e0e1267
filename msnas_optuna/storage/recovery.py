"""Repeats what a process left unfinished, and counts what is settled."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from msnas_optuna.storage.quiet import quiet
from msnas_optuna.storage.records import INTERRUPTED, QUEUED, RETRY_HISTORY, read_plan, root_number

MAX_RETRY: Final = 2
"""How often a trial is repeated whose process died; it may be what killed the process."""

HEARTBEAT_INTERVAL: Final = 60
GRACE_PERIOD: Final = 120
"""Seconds. Shorter heartbeats cost SQLite writes."""

_POLL_SECONDS: Final = 2.0
"""Between two looks at what other workers do."""

PATIENCE: Final = GRACE_PERIOD + 2 * HEARTBEAT_INTERVAL
"""Seconds without news after which a trial of another worker is certainly alive."""

_UNPLANNED_GRACE: Final = timedelta(minutes=1)
"""A trial is planned within seconds of its creation, so an older one without a plan is lost."""


def mark_interrupted(study: Study, trial: Trial | FrozenTrial) -> None:
    """Says that the user stopped this running trial: the next run repeats it."""
    study._storage.set_trial_system_attr(trial._trial_id, INTERRUPTED, trial.number)


def recover_lost_trials(study: Study) -> list[int]:
    """Repeats what processes of this host, now ended, have left unfinished.

    A trial that a dead process left running fails and is queued again with the same plan, at
    most `MAX_RETRY` times; so is one that was marked as interrupted, without a limit. A trial
    that no plan was written for within a minute is queued again too, whatever its host. Running
    trials of other hosts are left alone: only their heartbeat tells whether they live.

    Returns:
        Numbers of the trials that ended here or were queued again.
    """
    with quiet():
        trials = study.get_trials(deepcopy=False)
        retried = {_repeated(trial) for trial in trials}
        recovered = []
        for trial in trials:
            if trial.state == TrialState.RUNNING and _is_lost(trial):
                if not _fail(study, trial):
                    continue  # another process was faster
            elif trial.number in retried or not _awaits_retry(trial):
                continue
            recovered.append(trial.number)
            retry(study, study._storage.get_trial(trial._trial_id))
        return recovered


def await_others(study: Study) -> bool:
    """Gives other workers a moment, and notices those that have died.

    Returns:
        False where nothing can be noticed, because the storage has no heartbeat.
    """
    if not is_heartbeat_enabled(study._storage):
        return False
    time.sleep(_POLL_SECONDS)
    with quiet():
        optuna.storages.fail_stale_trials(study)
    recover_lost_trials(study)
    return True


def n_slots(study: Study) -> int:
    """How many proposals the study has, in whatever state."""
    return len(_chains(study))


def finished_slots(study: Study) -> int:
    """How many proposals are settled: complete, pruned, or failed for good."""
    return sum(_is_settled(chain) for chain in _chains(study))


def claimed_slots(study: Study) -> int:
    """How many proposals are settled or being evaluated."""
    return sum(
        _is_settled(chain) or any(t.state == TrialState.RUNNING for t in chain)
        for chain in _chains(study)
    )


def _chains(study: Study) -> Collection[list[FrozenTrial]]:
    """Each proposal's trial with its retries."""
    chains: dict[int, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        chains.setdefault(root_number(trial), []).append(trial)
    return chains.values()


def _is_settled(chain: Sequence[FrozenTrial]) -> bool:
    """Whether a trial and its retries are over."""
    if any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in chain):
        return True
    retried = {_repeated(trial) for trial in chain}
    return all(
        t.state == TrialState.FAIL and (t.number in retried or not _awaits_retry(t)) for t in chain
    )


def _repeated(trial: FrozenTrial) -> int | None:
    """The trial that this one repeats directly."""
    history = trial.system_attrs.get(RETRY_HISTORY)
    return int(history[-1]) if history else None


def _is_interrupted(trial: FrozenTrial) -> bool:
    return bool(trial.system_attrs.get(INTERRUPTED) == trial.number)  # retries copy the attribute


def _awaits_retry(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and _is_interrupted(trial)


def _is_lost(trial: FrozenTrial) -> bool:
    plan = read_plan(trial)
    if plan is not None and plan.worker.trial == trial.number:
        return plan.worker.is_dead()
    # Parameters without a plan come from another sampler, for example by `optuna ask`.
    started = trial.datetime_start
    unplanned = plan is not None or not trial.params or QUEUED in trial.system_attrs
    return unplanned and started is not None and datetime.now() - started > _UNPLANNED_GRACE


def _fail(study: Study, trial: FrozenTrial) -> bool:
    try:
        return study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queues a failed trial again, unless it has been lost too often."""
    trials = study.get_trials(deepcopy=False)
    history = trial.system_attrs.get(RETRY_HISTORY, [])
    interruptions = sum(_is_interrupted(trials[number]) for number in (*history, trial.number))
    with quiet():
        queue = RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY + interruptions)
        queue(study, copy.deepcopy(trial))
    retries = [t for t in study.get_trials(deepcopy=False) if _repeated(t) == trial.number]
    withdraw(study, retries[1:])  # several processes may have queued the same trial


def withdraw(study: Study, doubles: Iterable[FrozenTrial]) -> None:
    """Fails those of the trials that still wait."""
    for double in doubles:
        waiting = double.state == TrialState.WAITING
        try:  # to take it over is atomic, so no worker that was faster loses its trial
            if waiting and study._storage.set_trial_state_values(
                double._trial_id, state=TrialState.RUNNING
            ):
                _fail(study, double)
        except UpdateFinishedTrialError:
            continue
