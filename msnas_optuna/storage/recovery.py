"""Repeats what a process left unfinished, and counts what is settled."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from msnas_optuna.storage.heartbeats import (
    GRACE_PERIOD,
    HEARTBEAT_INTERVAL,
    beating,
    keeps_heartbeats,
    stale,
)
from msnas_optuna.storage.optuna_private import quiet, set_state, set_trial_system_attr, trial_id
from msnas_optuna.storage.records import (
    INTERRUPTED,
    LOST,
    RETRY_HISTORY,
    WITHDRAWN,
    Worker,
    is_told,
    is_withdrawn,
    owner_of,
    repeated,
    slots_of,
)

MAX_RETRY: Final = 2  # repeats of a trial whose process died; it may be what killed the process
POLL_SECONDS: Final = 2.0  # between two looks at what other workers do
_HANDOVER_SECONDS: Final = (2.0, 8.0)  # another time for each process, see `Sightings`
UNOWNED_GRACE: Final = 60.0  # seconds; claims take few, so a trial still unowned then is lost

PATIENCE: Final = GRACE_PERIOD + 2 * HEARTBEAT_INTERVAL
"""Seconds without news after which a trial of another worker is certainly alive."""


class Sightings:
    """Times at which this process first saw each trial in its state, by its own monotonic clock.

    The clocks of other machines may be wrong by hours: the age of a trial decides nothing. After
    `handover` seconds this process repeats a failed trial that another has left half done.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, TrialState], float] = {}
        self.handover = random.uniform(*_HANDOVER_SECONDS)

    def seconds(self, trial: FrozenTrial) -> float:
        """Time since this process first saw the trial in this state."""
        now = time.monotonic()
        return now - self._first.setdefault((trial.number, trial.state), now)


def mark_interrupted(study: Study, trial: Trial | FrozenTrial) -> None:
    """Says that the user stopped this running trial: the next run repeats it."""
    set_trial_system_attr(study, trial, INTERRUPTED, trial.number)


def recover_lost_trials(study: Study, sightings: Sightings | None = None) -> list[int]:
    """Repeats what processes that have ended have left unfinished.

    A trial that a dead process of this host left running fails and is queued again with the same
    plan, at most `MAX_RETRY` times; so is one that was marked as interrupted, without a limit.
    Of running trials of other hosts only the heartbeat tells whether they live. A process that
    looks again and again passes `sightings`: then trials of any host that stay without an owner or
    a first heartbeat are queued again too, and what others are about to queue is left to them.

    Returns:
        Numbers of the trials that ended here or were queued again.
    """
    ceased = stale(study)
    trials = study.get_trials(deepcopy=False)
    retried = _retried(trials)
    recovered = []
    for trial in trials:
        if trial.state == TrialState.RUNNING and _is_lost(study, trial, sightings, ceased):
            repeats = len(trial.system_attrs.get(RETRY_HISTORY, []))
            if repeats < _max_retry(trials, trial):
                with suppress(UpdateFinishedTrialError):
                    # If this process dies now, the mark tells another to repeat the trial.
                    set_trial_system_attr(study, trial, LOST, trial.number)
            if not set_state(study, trial, TrialState.FAIL):
                continue  # another process was faster
        elif not _awaits_retry(trial, retried):
            continue
        elif sightings is not None and sightings.seconds(trial) < sightings.handover:
            continue
        recovered.append(trial.number)
        if not is_withdrawn(trial):
            retry(study, study.get_trials(deepcopy=False)[trial.number])
    return recovered


def _max_retry(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """Repeats that the trial may have had: those that users have stopped do not count."""
    stopped, at = 0, trials[trial.number]
    while True:
        stopped += _is_interrupted(at)
        earlier = repeated(at, trials)
        if earlier is None:
            return MAX_RETRY + stopped
        at = earlier


def release_own_trials(study: Study) -> None:
    """Gives up what this process has claimed; only for one that evaluates nothing now."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = owner_of(trial)
        if owner is not None and owner.is_this():
            with suppress(UpdateFinishedTrialError):
                mark_interrupted(study, trial)
            set_state(study, trial, TrialState.FAIL)


def outstanding_trials(study: Study) -> list[FrozenTrial]:
    """The trials that run, and the failed ones that wait to be queued again."""
    trials = study.get_trials(deepcopy=False)
    retried = _retried(trials)
    return [t for t in trials if t.state == TrialState.RUNNING or _awaits_retry(t, retried)]


def would_notice_death(study: Study, trial: FrozenTrial) -> bool:
    """True if a process that looks again and again notices when the worker of the trial dies."""
    if trial.state.is_finished():
        return True  # whoever looks queues it again
    owner = owner_of(trial)
    if owner is None:
        noticed = not is_told(trial)
    else:
        noticed = owner.is_here() or _announces_heartbeats(study, owner)
    return noticed or trial_id(trial) in beating(study)


def n_slots(study: Study) -> int:
    """Number of proposals of the study, in whatever state."""
    return len(set(slots_of(study.get_trials(deepcopy=False)).values()))


def finished_slots(study: Study) -> int:
    """Number of proposals that are settled: complete, pruned, or failed for good."""
    trials = study.get_trials(deepcopy=False)
    slots, retried = slots_of(trials), _retried(trials)
    finished, pending = set(), set()
    for trial in trials:
        if trial.number not in slots:
            continue
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            finished.add(slots[trial.number])
        elif trial.state != TrialState.FAIL or _awaits_retry(trial, retried):
            pending.add(slots[trial.number])
    return len(finished | (set(slots.values()) - pending))


def _is_interrupted(trial: FrozenTrial) -> bool:
    return bool(trial.system_attrs.get(INTERRUPTED) == trial.number)  # retries copy the attribute


def _retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that others of these repeat."""
    return {t.number for t in (repeated(trial, trials) for trial in trials) if t is not None}


def _awaits_retry(trial: FrozenTrial, retried: Collection[int]) -> bool:
    """True if somebody is to queue a failed trial again, and nobody has."""
    if trial.state != TrialState.FAIL or trial.number in retried or is_withdrawn(trial):
        return False
    return trial.system_attrs.get(LOST) == trial.number or _is_interrupted(trial)


def _is_lost(
    study: Study, trial: FrozenTrial, sightings: Sightings | None, ceased: Collection[int]
) -> bool:
    if is_withdrawn(trial):
        return True
    owner = owner_of(trial)
    if owner is not None and owner.is_here():
        return owner.is_dead()  # its heart stops while the whole machine sleeps
    if trial_id(trial) in ceased:
        return True
    if owner is not None and not _announces_heartbeats(study, owner):
        return owner.is_dead()
    if sightings is None or (owner is None and is_told(trial)):
        return False
    grace = UNOWNED_GRACE if owner is None else GRACE_PERIOD
    return sightings.seconds(trial) > grace and trial_id(trial) not in beating(study)


def _announces_heartbeats(study: Study, owner: Worker) -> bool:
    """True if no heartbeat means no life: a worker behind a proxy, for one, writes none."""
    return owner.heartbeats and keeps_heartbeats(study)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queues a failed trial again, unless it has been lost too often."""
    trials = study.get_trials(deepcopy=False)
    with quiet():
        queue = RetryHeartbeatStaleTrialCallback(max_retry=_max_retry(trials, trial))
        queue(study, copy.deepcopy(trial))
    trials = study.get_trials(deepcopy=False)
    retries = [t for t in trials if repeated(t, trials) is trials[trial.number]]
    withdraw(study, retries[1:])  # several processes may have queued the same trial


def withdraw(study: Study, trials: Iterable[FrozenTrial]) -> list[int]:
    """Gives up those of the trials that still wait; they leave no slot. Returns their numbers."""
    withdrawn = []
    for trial in trials:
        # To take it over is atomic, so no worker that was faster loses its trial.
        if trial.state == TrialState.WAITING and set_state(study, trial, TrialState.RUNNING):
            withdraw_claimed(study, trial)
            withdrawn.append(trial.number)
    return withdrawn


def withdraw_claimed(study: Study, trial: FrozenTrial) -> None:
    """Gives up a trial that this process has claimed; it leaves no slot."""
    set_trial_system_attr(study, trial, WITHDRAWN, trial.number)
    set_state(study, trial, TrialState.FAIL)
