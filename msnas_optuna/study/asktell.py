"""The search for any trainer: hands architectures out, takes their values in. Needs no torch.

A trial that was handed out stays RUNNING, whatever becomes of the process that asked, until its
values are told.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.runtime.interrupts import deferred_interrupts
from msnas_optuna.samplers import SpaceExhaustedError, queue_architectures, suggest
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.storage import (
    EXTERNAL,
    INTERRUPTED,
    OBJECTIVE,
    OWNER,
    Plan,
    TrialRecord,
    Worker,
    claim_trial,
    mark_interrupted,
    read_plan,
    recover_lost_trials,
    refuse_mixed,
    write_error,
    write_plan,
    write_record,
    write_versions,
)
from msnas_optuna.storage.optuna_private import forget_trials, set_trial_system_attr
from msnas_optuna.study.setting import Setting


@dataclass(frozen=True)
class Proposal:
    """An architecture that an external trainer is to evaluate; each repeat with another seed."""

    trial: int  # the number to tell the values for
    architecture: Any
    costs: dict[str, float]  # see `Method.costs`
    plan: Plan


def ask(
    setting: Setting, n: int = 1, *, show: Callable[[list[Proposal]], object] | None = None
) -> list[Proposal]:
    """Proposes at most n architectures; none where the study has its trials.

    The study is created if need be. If `show`, which gives the proposals to whoever is to train
    them, fails or is interrupted, nobody knows of them, and they are handed out again.
    """
    seeds, wanted = setting.seeds, setting.n_trials()
    study = setting.open_study(setting.config.identity() | {OBJECTIVE: EXTERNAL})
    write_versions(study)
    recover_lost_trials(study)
    queue_architectures(study, setting.space, seeds)
    asked: list[Proposal] = []
    begun: list[optuna.Trial] = []
    with deferred_interrupts() as interrupts:  # Optuna's bookkeeping is not safe
        try:
            while len(asked) < n and (trial_id := claim_trial(study, wanted=wanted)) is not None:
                forget_trials(study)
                begun.append(optuna.Trial(study, trial_id))
                try:
                    proposal = _described(setting, begun[-1])
                except SpaceExhaustedError:  # other processes have taken what was left
                    study.tell(begun[-1], state=TrialState.FAIL)
                    break
                if proposal is not None:
                    asked.append(proposal)
            for proposal in asked:  # as late as can be: until here, a kill makes the trials lost
                found = copy.deepcopy(study.get_trials(deepcopy=False)[proposal.trial])
                worker = Worker.external(proposal.trial)
                write_plan(study, found, replace(proposal.plan, worker=worker))
                set_trial_system_attr(study, found, OWNER, asdict(worker))
            with interrupts.allowed():
                if show is not None:
                    show(asked)
        except BaseException:  # they reached nobody, and are handed out again
            for trial in begun:
                with suppress(UpdateFinishedTrialError):
                    mark_interrupted(study, trial)
                    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
    return asked


def _described(setting: Setting, trial: optuna.Trial) -> Proposal | None:
    """The architecture of a trial; a queued one that is not feasible fails."""
    try:
        architecture = suggest(trial, setting.feasible)
    except InvalidArchitectureError as error:
        write_error(trial, error)
        trial.study.tell(trial, state=TrialState.FAIL)
        return None
    costs = setting.method.costs(architecture, setting.cost)
    write_record(trial, TrialRecord(str(architecture), costs))
    plan = read_plan(trial.study.get_trials(deepcopy=False)[trial.number])
    assert plan is not None  # the sampler has written it
    return Proposal(trial.number, architecture, costs, plan)


def tell(
    setting: Setting, number: int, values: Sequence[float] | None, *, repeat: bool = False
) -> FrozenTrial:
    """Ends a trial with its values, or as failed; to tell the same again changes nothing.

    Args:
        setting: the study file's.
        number: of the trial.
        values: of `study.objectives`, in their order; None where it has failed.
        repeat: a failure was not the architecture's fault, so that it is handed out again.

    Raises:
        ValueError: the values are not finite or not one for each objective, AP is not in 0..1,
            the trial has ended otherwise, or there is no such trial.
        StudyMismatchError: see `storage.refuse_mixed`.
    """
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    told = None if values is None else [float(value) for value in values]
    names = setting.config.study.objectives
    if told is not None and len(told) != len(names):
        raise ValueError(
            f"one value is needed for each of study.objectives = {list(names)}, in this order; "
            f"got {told}"
        )
    if not all(map(math.isfinite, told or ())):
        raise ValueError(
            f"values must be finite, because nothing ranks beside {told}; tell a training "
            "that diverged by --state fail"
        )
    for name, metric, value in zip(names, setting.metrics, told or (), strict=False):
        if metric.is_ap and not 0 <= value <= 1:
            raise ValueError(
                f"{name} is a fraction, from 0 to 1; got {value:g}. Tell 41 % as 0.41: a trial "
                "that is told keeps its values"
            )
    study = setting.stored_study()
    if study is None:
        raise ValueError(
            f"study {setting.study_name()!r} has not begun, so there is no trial {number}; run "
            "`msnas ask` first"
        )
    refuse_mixed(study, external=True)
    trial = _trial(study, number)
    if trial.state == TrialState.RUNNING:
        try:
            if repeat:
                mark_interrupted(study, trial)
            return study.tell(number, told, state=state)
        except (UpdateFinishedTrialError, ValueError):  # told by somebody else meanwhile
            trial = _trial(study, number)
    if (trial.state, trial.values, _is_to_be_repeated(trial)) != (state, told, repeat):
        raise ValueError(
            f"trial {number} {_ended(trial)}; to tell something else does not change it. "
            "`msnas ask` hands out the next trial"
        )
    return trial


def _trial(study: optuna.Study, number: int) -> FrozenTrial:
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise ValueError(
            f"study {study.study_name!r} has {len(trials)} trials, numbered from 0; there is no "
            f"trial {number}"
        )
    return trials[number]


def _is_to_be_repeated(trial: FrozenTrial) -> bool:
    interrupted = trial.system_attrs.get(INTERRUPTED) == trial.number  # retries copy it
    return trial.state == TrialState.FAIL and interrupted


def _ended(trial: FrozenTrial) -> str:
    match trial.state:
        case TrialState.COMPLETE:
            return f"is complete with {trial.values}"
        case TrialState.FAIL if _is_to_be_repeated(trial):
            return "has failed and is handed out again under another number"
        case TrialState.FAIL:
            return "has failed"
        case TrialState.WAITING:
            return "has not been handed out yet"
        case _:
            return f"is {trial.state.name}"
