"""The loop of a worker: claim a trial, evaluate it, tell the result, until the study is done.

Any number of processes and machines may run it on one study; they share its storage alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from msnas_optuna.runtime.interrupts import InterruptFlag, deferred_interrupts
from msnas_optuna.samplers import SpaceExhaustedError
from msnas_optuna.storage import (
    PATIENCE,
    POLL_SECONDS,
    Sightings,
    StorageFailures,
    claim_trial,
    finished_slots,
    heartbeat,
    holders,
    mark_interrupted,
    outstanding_trials,
    recover_lost_trials,
    release_own_trials,
    would_notice_death,
    write_error,
)
from msnas_optuna.storage.optuna_private import forget_trials, sample

Objective = Callable[[Trial], float | Sequence[float]]
Failures = tuple[type[Exception], ...]

_BOOKKEEPING_SECONDS: Final = 20.0  # where it takes longer, the storage has gone away


class _OvertakenError(Exception):
    """Others have ended the trial, because they took this worker for dead."""


def evaluate_trials(
    study: Study,
    objective: Objective,
    *,
    wanted: int,
    propose: bool = True,
    failures: Failures = (),
    wait: bool = True,
    patience: float = PATIENCE,
    report: Callable[[int, Sequence[FrozenTrial]], None] | None = None,
) -> None:
    """Evaluates trials until the study has this many, over all workers and runs.

    Trials that other processes have left unfinished are repeated. SIGINT and SIGTERM interrupt
    an evaluation, never the bookkeeping; what they interrupt is repeated by the next run. A
    process works on a study once at a time: it gives up the trials that it still owns.

    Args:
        study: as `storage.open_study` returns it.
        objective: evaluates a trial.
        wanted: settled slots of the study at the end; never more are begun.
        propose: evaluate more than what is queued.
        failures: what fails one trial and lets the study go on.
        wait: for the trials that other workers evaluate.
        patience: seconds without news after which they are left to them.
        report: called with the number of settled slots and the trials that this worker waits for.

    Raises:
        StorageError: the storage fails again and again.
    """
    sightings: Sightings | None = None  # at first, repeat at once what was left
    storage_failures = StorageFailures()
    seen, since = -1, time.monotonic()
    while True:
        try:
            with deferred_interrupts(at_most=_BOOKKEEPING_SECONDS):
                release_own_trials(study)  # what a failed storage left as it was
                recover_lost_trials(study, sightings)
            sightings = sightings or Sightings()
            settled = finished_slots(study)
            busy = settled < wanted and _evaluate_one(study, objective, wanted, propose, failures)
            waits = wait and not busy and settled < wanted
            others = outstanding_trials(study) if waits else []
            if report is not None:
                report(finished_slots(study) if busy else settled, others)
            hopeful = any(would_notice_death(study, trial) for trial in others)
            storage_failures.end()
        except SpaceExhaustedError:
            return  # other workers have taken what was left
        except Exception as error:
            storage_failures.wait(error)
            continue
        if busy:
            continue
        if not waits:
            return
        if settled != seen:
            seen, since = settled, time.monotonic()
        elif not others:
            return  # nobody would settle more
        if others and (not hopeful or time.monotonic() - since > patience):
            left = wanted - settled
            warnings.warn(
                f"{left} trials are left to other workers: {holders(study, others)}; if one of "
                "these has ended, `msnas doctor` shows how to repeat its trial",
                stacklevel=2,
            )
            return
        time.sleep(POLL_SECONDS if others else 0)


def _evaluate_one(
    study: Study, objective: Objective, wanted: int, propose: bool, failures: Failures
) -> bool:
    """Claims a trial and evaluates it; False if there is none to claim."""
    # Optuna's bookkeeping must not be interrupted.
    with deferred_interrupts(at_most=_BOOKKEEPING_SECONDS) as interrupts:
        forget_trials(study)
        trial_id = claim_trial(study, wanted=wanted, propose=propose)
        if trial_id is None:
            return False
        with heartbeat(study, trial_id):
            try:
                trial = Trial(study, trial_id)
                sample(trial)
                outcome = _outcome(trial, objective, interrupts, failures)
            except UpdateFinishedTrialError:
                return True  # others took this worker for dead, and repeat the trial
            except SpaceExhaustedError as error:
                outcome = error
        _tell(study, trial, outcome)
        told: Failures = (optuna.TrialPruned, _OvertakenError, *failures)  # by the trial's state
        if isinstance(outcome, BaseException) and not isinstance(outcome, told):
            raise outcome
    return True


def _outcome(
    trial: Trial, objective: Objective, interrupts: InterruptFlag, failures: Failures
) -> float | Sequence[float] | BaseException:
    """The objective's values, or what it raised."""
    try:
        with interrupts.allowed():
            return objective(trial)
    except optuna.TrialPruned as pruned:
        return pruned
    except failures as failure:
        with suppress(UpdateFinishedTrialError):
            write_error(trial, failure)
        warnings.warn(f"trial {trial.number} failed: {failure}", stacklevel=2)
        return failure
    except BaseException as error:  # not the architecture's fault: the next run repeats the trial
        try:
            mark_interrupted(trial.study, trial)
        except UpdateFinishedTrialError:
            if isinstance(error, UpdateFinishedTrialError):
                return _OvertakenError()
        return error


def _tell(study: Study, trial: Trial, outcome: float | Sequence[float] | BaseException) -> None:
    """Stores the result; one that cost hours is not lost to a moment without storage."""
    arguments: dict[str, Any] = {"values": outcome}
    if isinstance(outcome, BaseException):
        pruned = isinstance(outcome, optuna.TrialPruned)
        arguments = {"state": TrialState.PRUNED if pruned else TrialState.FAIL}
    storage_failures, state = StorageFailures(), None
    while state is None:
        try:
            state = study.tell(trial, **arguments, skip_if_finished=True).state
        except UpdateFinishedTrialError:
            state = TrialState.FAIL
        except Exception as error:
            storage_failures.wait(error)
    if isinstance(outcome, _OvertakenError) or (
        state == TrialState.FAIL and "values" in arguments
    ):
        warnings.warn(
            f"trial {trial.number} has no result: its value is no number, or other workers took "
            "this one for dead and repeat the trial",
            stacklevel=2,
        )
