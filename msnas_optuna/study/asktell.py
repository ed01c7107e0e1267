"""The search for any trainer: hands architectures out, takes their values in. Needs no torch.

A trial that was handed out stays RUNNING, whatever becomes of the process that asked, until its
values are told.
"""

from __future__ import annotations

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
    ERROR,
    EXTERNAL,
    INTERRUPTED,
    OBJECTIVE,
    OWNER,
    Plan,
    TrialRecord,
    Worker,
    claim_trial,
    mark_interrupted,
    open_study,
    read_plan,
    recover_lost_trials,
    refuse_mixed,
    write_plan,
    write_record,
    write_versions,
)
from msnas_optuna.storage.optuna_private import forget_trials, set_trial_system_attr
from msnas_optuna.study.setting import Setting


@dataclass(frozen=True)
class Proposal:
    """An architecture that an external trainer is to evaluate.

    Attributes:
        trial: the number to tell the values for.
        params: the parameters of the trial.
        architecture: the same as an architecture.
        costs: see `Method.costs`.
        generation: 0 for the first population.
        origin: see `storage.Plan`.
        repeat: how many measurements of the architecture come before; train with another seed.
    """

    trial: int
    params: dict[str, Any]
    architecture: Any
    costs: dict[str, float]
    generation: int
    origin: str
    repeat: int


def ask(
    setting: Setting, n: int = 1, *, show: Callable[[list[Proposal]], object] | None = None
) -> list[Proposal]:
    """Proposes the next architectures of the study file's search, which it creates if need be.

    Args:
        setting: the study.
        n: how many.
        show: gives the proposals to whoever is to train them. If it fails or is interrupted,
            nobody knows of them, and they are handed out again.

    Returns:
        At most `n`; none where the study has its trials.

    Raises:
        ConfigError, EmptyWindowError, StudyMismatchError: see there.
    """
    seeds, wanted = setting.seeds, setting.n_trials()
    study = open_study(
        setting.storage,
        name=setting.study_name(),
        directions=[metric.direction for metric in setting.metrics],
        sampler=setting.sampler(setting.feasible),
        config=setting.config.identity() | {OBJECTIVE: EXTERNAL},
        metric_names=[metric.label for metric in setting.metrics],
    )
    write_versions(study)
    recover_lost_trials(study)
    queue_architectures(study, setting.space, seeds)
    asked: list[Proposal] = []
    with deferred_interrupts() as interrupts:  # Optuna's bookkeeping is not safe
        while len(asked) < n and (trial_id := claim_trial(study, wanted=wanted)) is not None:
            forget_trials(study)
            try:
                trial = optuna.Trial(study, trial_id)  # plans it
            except SpaceExhaustedError:  # other processes have taken what was left
                break
            proposal = _described(setting, trial)
            if proposal is not None:
                asked.append(proposal)
        try:
            for proposal in asked:  # as late as can be: until here, a kill makes the trials lost
                found, worker = study.get_trials()[proposal.trial], Worker.external(proposal.trial)
                write_plan(study, found, replace(_plan(found), worker=worker))
                set_trial_system_attr(study, found, OWNER, asdict(worker))
            with interrupts.allowed():
                if show is not None:
                    show(asked)
        except BaseException:
            _take_back(study, asked)
            raise
    return asked


def _described(setting: Setting, trial: optuna.Trial) -> Proposal | None:
    """The architecture of a trial; a queued one that is not feasible fails."""
    try:
        architecture = suggest(trial, setting.feasible)
    except InvalidArchitectureError as error:
        trial.set_user_attr(ERROR, str(error))
        trial.study.tell(trial, state=TrialState.FAIL)
        return None
    costs = setting.method.costs(architecture, setting.cost)
    write_record(trial, TrialRecord(str(architecture), costs))
    plan = _plan(trial.study.get_trials(deepcopy=False)[trial.number])
    return Proposal(
        trial=trial.number,
        params=trial.params,
        architecture=architecture,
        costs=costs,
        generation=plan.generation,
        origin=plan.origin,
        repeat=plan.repeat,
    )


def _take_back(study: optuna.Study, asked: Sequence[Proposal]) -> None:
    """Ends proposals that reached nobody, so that they are handed out again."""
    for proposal in asked:
        with suppress(UpdateFinishedTrialError):
            mark_interrupted(study, study.get_trials(deepcopy=False)[proposal.trial])
            study.tell(proposal.trial, state=TrialState.FAIL, skip_if_finished=True)


def _plan(trial: FrozenTrial) -> Plan:
    plan = read_plan(trial)
    assert plan is not None  # the sampler has written it
    return plan


def tell(setting: Setting, number: int, values: Sequence[float]) -> FrozenTrial:
    """Ends a trial with its values; to tell the same again changes nothing.

    Args:
        setting: the study.
        number: of the trial.
        values: of `study.objectives`, in their order.

    Raises:
        ValueError: the values are not finite or not one for each objective, the trial has
            ended otherwise, or there is no such trial.
        StudyMismatchError: see `storage.refuse_mixed`.
    """
    names = setting.config.study.objectives
    if len(values) != len(names):
        raise ValueError(
            f"one value is needed for each of study.objectives = {list(names)}, in this order; "
            f"got {list(values)}"
        )
    if not all(map(math.isfinite, values)):
        raise ValueError(
            f"values must be finite, because nothing ranks beside {list(values)}; tell a training "
            "that diverged by --state fail"
        )
    return _end(setting, number, TrialState.COMPLETE, values=[float(v) for v in values])


def tell_failure(setting: Setting, number: int, *, repeat: bool = False) -> FrozenTrial:
    """Ends a trial without values; to tell the same again changes nothing.

    Args:
        setting: the study.
        number: of the trial.
        repeat: whether it was not the architecture's fault, so that it is handed out again.

    Raises:
        ValueError: the trial has ended otherwise, or there is no such trial.
        StudyMismatchError: see `storage.refuse_mixed`.
    """
    return _end(setting, number, TrialState.FAIL, repeat=repeat)


def _end(
    setting: Setting,
    number: int,
    state: TrialState,
    *,
    values: list[float] | None = None,
    repeat: bool = False,
) -> FrozenTrial:
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
            return study.tell(number, values, state=state)
        except (UpdateFinishedTrialError, ValueError):  # told by somebody else meanwhile
            trial = _trial(study, number)
    if (trial.state, trial.values, _is_to_be_repeated(trial)) != (state, values, repeat):
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
    """The end of a trial, in words."""
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
