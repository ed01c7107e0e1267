"""Trials that are not finished, what is known of their workers, and how to end or repeat them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.storage.heartbeats import beating, stale
from msnas_optuna.storage.optuna_private import set_state, trial_id
from msnas_optuna.storage.records import is_withdrawn, owner_of
from msnas_optuna.storage.recovery import mark_interrupted, retry, withdraw, withdraw_claimed

State = Literal["RUNNING", "WAITING"]

_N_NAMED: Final = 3  # trials of a sentence about those that are waited for


@dataclass(frozen=True)
class UnfinishedTrial:
    """A trial that runs or waits."""

    study: str  # its name
    trial: int  # its number
    state: State
    minutes: float | None  # since its start, by the clocks of its worker and of this machine
    host: str | None  # where its worker runs, or where an external trainer was asked for
    pid: int | None  # the worker's process id there; None for an external trainer
    alive: bool | None  # whether the worker lives; None if nobody can tell
    external: bool = False  # whether `msnas ask` has handed it out, so that values are to be told


def unfinished_trials(study: Study, numbers: Iterable[int] | None = None) -> list[UnfinishedTrial]:
    """The trials of a study that run or wait, by number; those of given `numbers`, or all.

    Raises:
        ValueError: a trial of these numbers is finished or does not exist.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    heard, ceased = beating(study), stale(study)
    found = {t.number: _describe(study, t, heard, ceased) for t in trials}
    if numbers is None:
        return list(found.values())
    wanted = sorted(set(numbers))
    if missing := [number for number in wanted if number not in found]:
        raise ValueError(
            f"trial {missing[0]} of study {study.study_name} neither runs nor waits; "
            "`msnas doctor` lists those that do"
        )
    return [found[number] for number in wanted]


def _describe(
    study: Study, trial: FrozenTrial, heard: set[int], ceased: set[int]
) -> UnfinishedTrial:
    if trial.state == TrialState.WAITING:
        return UnfinishedTrial(study.study_name, trial.number, "WAITING", None, None, None, None)
    owner, start = owner_of(trial), trial.datetime_start
    alive: bool | None = None
    if owner is not None and owner.is_here():
        alive = not owner.is_dead()
    elif trial_id(trial) in ceased | heard:
        alive = trial_id(trial) not in ceased
    elif owner is not None and owner.is_dead():
        alive = False
    return UnfinishedTrial(
        study.study_name,
        trial.number,
        "RUNNING",
        None if start is None else (datetime.now() - start).total_seconds() / 60,
        None if owner is None else owner.host_name,
        None if owner is None or owner.is_external else owner.pid,
        alive,
        owner is not None and owner.is_external,
    )


def holders(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """Trials that others are to end, in words: who evaluates each, and since when by its clock."""
    found = []
    for trial in trials[:_N_NAMED]:
        owner, start = owner_of(trial), trial.datetime_start
        if trial.state.is_finished():
            who = "to be queued again"
        elif owner is None:
            who = "unknown process"
        else:
            who = f"process {owner.pid} on {owner.host_name}"
        since = "" if start is None else f" since {start.isoformat(' ', 'seconds')}"
        found.append(f"trial {trial.number} of {study.study_name} ({who}{since})")
    more = len(trials) - len(found)
    return ", ".join(found) + (f" and {more} more" if more else "")


def end_trials(study: Study, numbers: Iterable[int], *, repeat: bool) -> list[int]:
    """Ends trials that nobody will finish; returns the numbers of those that were changed.

    A trial that runs fails, and with `repeat` the next worker repeats its architecture; one that
    waits is withdrawn, or with `repeat` stays as it is.

    Raises:
        ValueError: a trial is not unfinished, or its worker is known to live; none is changed.
    """
    wanted = unfinished_trials(study, numbers)
    for found in wanted:
        if found.alive:
            raise ValueError(
                f"the worker of trial {found.trial} lives (process {found.pid} on {found.host}); "
                "stop it first"
            )
    changed = []
    for number in (found.trial for found in wanted):
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state == TrialState.WAITING:
            changed += [] if repeat else withdraw(study, [trial])
        elif _end_running(study, trial, repeat=repeat):
            changed.append(number)
    return changed


def _end_running(study: Study, trial: FrozenTrial, *, repeat: bool) -> bool:
    if is_withdrawn(trial):
        withdraw_claimed(study, trial)
        return True
    if repeat:  # as often as a person asks for it
        with suppress(UpdateFinishedTrialError):
            mark_interrupted(study, trial)
    if not set_state(study, trial, TrialState.FAIL):
        return False
    if repeat:
        retry(study, study.get_trials(deepcopy=False)[trial.number])
    return True
