"""The name of every key that the package stores in a study; plans and records.

A study lives in its storage alone: the plan of each trial, the configuration of the study, what
an interruption left behind. Keys are fixed names, never derived from a class, so that renaming a
class orphans no stored study.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from msnas_optuna.runtime.processes import Host, cached_start_time, start_time
from msnas_optuna.storage.optuna_private import set_trial_system_attr, set_trial_user_attr

PLAN: Final = "msnas:plan"
"""Trial system attribute: the `Plan` of the trial."""

INTERRUPTED: Final = "msnas:interrupted"
"""Trial system attribute: the number of the trial that the user stopped."""

OWNER: Final = "msnas:worker"
"""Trial system attribute: the `Worker` that has claimed the trial, from the first moment on."""

WITHDRAWN: Final = "msnas:withdrawn"
"""Trial system attribute: its own number, for a trial that was never evaluated; it has no slot."""

LOST: Final = "msnas:lost"
"""Trial system attribute: its own number, for a trial whose worker died and that is repeated."""

CONFIG: Final = "msnas:config"
"""Study user attribute: the configuration that the study was created with."""

OBJECTIVE: Final = "objective"
"""Key of the configuration: where values come from, if not from the supernet; `EXTERNAL`."""

EXTERNAL: Final = "external"
"""Values are told by an external trainer, see `asktell`."""

_ASKED_ON: Final = f"{EXTERNAL} (asked on "
"""Beginning of the host of an external trainer."""

IMPORT: Final = "msnas:import"
"""Study system attribute: the `Worker` that imports it and its stages, None when all is there."""

LAYOUT: Final = "msnas:layout"
"""Study user attribute: the version of our keys; 1 where it is missing."""

LAYOUT_VERSION: Final = 3
"""Layout 2 had other origins and plans of another sampler."""

PUBLISHED: Final = "msnas:published"
"""Study system attribute: how many proposals were settled when the dashboard was refreshed."""

VERSIONS: Final = "msnas:versions"
"""Study system attribute: of each package the versions that have searched, first to last."""

WANTED: Final = "msnas:trials"
"""Study system attribute: how many trials the search was last told to have by its command."""

DETECTIONS: Final = "msnas:detections"
"""Study system attribute: which trial and weights the stored pictures with detections show."""

LOSSES: Final = "msnas:losses:"
"""Study system attributes of the search, each with the name of a training run behind it."""

GENERATION: Final = "generation"
"""Trial user attribute, for tables and figures: the generation as an integer."""

ORIGIN: Final = "origin"
"""Trial user attribute, for tables and figures: how the architecture came about."""

ERROR: Final = "error"
"""Trial user attribute: why the evaluation of the architecture failed."""

ARCH: Final = "arch"
REPEAT: Final = "repeat"
"""Trial user attributes: see `TrialRecord`."""

QUEUED: Final = "msnas:queued"
"""Trial system attribute: we have queued the trial, so it has parameters before it has a plan."""

FIXED_PARAMS: Final = "fixed_params"
"""Optuna's trial system attribute: what `Study.enqueue_trial` fixes."""

RETRY_HISTORY: Final = "retry_history"
"""Optuna's trial system attribute: the numbers of the trials that this one repeats."""


@dataclass(frozen=True)
class Worker:
    """The process that evaluates a trial.

    Attributes:
        host: a `Host` as text; process ids mean something inside it only.
        pid: process id.
        started: start time of the process, which tells it from a later one with the same id.
        trial: number of the trial, None where it was not known yet. A retry copies the record,
            so another number says that it belongs to the trial that is repeated.
        heartbeats: whether it writes heartbeats from the start of the evaluation on.
    """

    host: str
    pid: int
    started: str
    trial: int | None
    heartbeats: bool = field(default=False, compare=False)

    @classmethod
    def current(cls, trial: int | None = None, *, heartbeats: bool = False) -> Worker:
        """This process, at work on a trial."""
        pid = os.getpid()
        return cls(str(Host.current()), pid, cached_start_time(pid), trial, heartbeats)

    @classmethod
    def external(cls, trial: int) -> Worker:
        """A trainer outside the package, which `asktell.ask` has handed a trial to."""
        return cls(f"{_ASKED_ON}{Host.current().name})", 0, "", trial)

    @property
    def host_name(self) -> str:
        """The host's name for people; of an external trainer, where it was asked for."""
        return Host.parse(self.host.removeprefix(_ASKED_ON).rstrip(")")).name

    @property
    def is_external(self) -> bool:
        """True if it is no process of the package; nobody can see whether it lives."""
        return self.host.startswith(_ASKED_ON)

    def is_here(self) -> bool:
        """True if it is, or was, a process of this host."""
        return Host.parse(self.host).is_here()

    def is_this(self) -> bool:
        """True if it is this very process."""
        return replace(self, trial=None) == Worker.current()

    def is_dead(self) -> bool:
        """True if the process has ended for certain; seldom known of another host's."""
        if self.is_here():
            return start_time(self.pid) != self.started
        return Host.parse(self.host).has_restarted()


@dataclass(frozen=True)
class Plan:
    """A trial's architecture, fixed before its evaluation starts.

    Attributes:
        params: every parameter of the architecture.
        generation: 0 for the first population.
        origin: "random", "queued", "reevaluated" or the operator that made the architecture.
        parents: numbers of the trials that the operator started from.
        slot: place in the sequence of proposals; a retry keeps the slot of what it repeats.
        worker: the process that evaluates the trial.
        repeat: how many measurements of the architecture were planned before this one; no two
            trials of an architecture have the same.
    """

    params: Mapping[str, Any]
    generation: int
    origin: str
    parents: tuple[int, ...]
    slot: int
    worker: Worker
    repeat: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan in types that JSON keeps."""
        return {  # not `asdict`, which copies in depth: this is done for every proposal
            **vars(self),
            "params": dict(self.params),
            "parents": list(self.parents),
            "worker": dict(vars(self.worker)),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`.

        Raises:
            ValueError: the stored value is no plan.
        """
        try:
            values = dict(stored)
            values["parents"] = tuple(values["parents"])
            values["worker"] = Worker(**values["worker"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{PLAN} must hold a plan as written by this version, got {stored!r}"
            ) from error


def read_plan(trial: FrozenTrial) -> Plan | None:
    """The plan of a trial, or None for a trial that another sampler made."""
    stored = trial.system_attrs.get(PLAN)
    return None if stored is None else Plan.from_json(stored)


def owner_of(trial: FrozenTrial) -> Worker | None:
    """The process that evaluates a trial, as far as it is recorded."""
    stored = trial.system_attrs.get(OWNER)
    if stored is not None:
        worker = Worker(**stored)
        if worker.trial == trial.number or (worker.trial is None and not is_retry(trial)):
            return worker
    plan = read_plan(trial)
    return plan.worker if plan is not None and plan.worker.trial == trial.number else None


def is_withdrawn(trial: FrozenTrial) -> bool:
    """True if the trial was given up before its evaluation, so that it takes no slot."""
    return bool(trial.system_attrs.get(WITHDRAWN) == trial.number)  # retries copy the attribute


def is_told(trial: FrozenTrial) -> bool:
    """True if somebody will tell the trial's values, rather than a process that evaluates it."""
    owner = owner_of(trial)
    if owner is not None:
        return owner.is_external
    # Parameters without a plan come from another sampler, for example by `optuna ask`.
    return bool(trial.params) and not {PLAN, QUEUED} & trial.system_attrs.keys()


def known_params(trial: FrozenTrial, plan: Plan | None) -> dict[str, Any]:
    """The parameters of a trial as far as they are fixed, whether suggested already or not.

    Args:
        trial: the trial.
        plan: its plan, if it has one.
    """
    planned = {} if plan is None else plan.params
    return {**planned, **trial.system_attrs.get(FIXED_PARAMS, {}), **trial.params}


def repeat_of(trial: Trial) -> int:
    """Number of measurements of the trial's parameters before it, for its random seed.

    Planned for trials of our sampler; for others, equal trials with a lower number are counted.
    """
    trials = trial.study.get_trials(deepcopy=False)
    plan = read_plan(trials[trial.number])
    if plan is not None:
        return plan.repeat
    return sum(t.params == trial.params for t in trials[: trial.number])


def write_plan(study: Study, trial: FrozenTrial, plan: Plan) -> None:
    """Stores the plan, and shows its generation and origin where people look for them."""
    # `trial` is a copy that Optuna passes on to the sampler: it must hold what is stored.
    trial.system_attrs[PLAN] = plan.to_json()
    set_trial_system_attr(study, trial, PLAN, trial.system_attrs[PLAN])
    for key, value in ((GENERATION, plan.generation), (ORIGIN, plan.origin)):
        if trial.user_attrs.get(key) != value:
            set_trial_user_attr(study, trial, key, value)
            trial.user_attrs[key] = value


@dataclass(frozen=True)
class TrialRecord:
    """What the evaluation of an architecture has measured, as flat user attributes of the trial.

    Attributes:
        arch: the architecture in the notation of its method.
        values: whatever was measured, by name: ap50, gflops, mparams, latency_ms, ...
        repeat: how many measurements of the architecture came before; added to the seed.
    """

    arch: str
    values: Mapping[str, float]
    repeat: int = 0


def write_record(trial: Trial, record: TrialRecord) -> None:
    """Stores what was measured, one user attribute for each value, and `repeat` where not 0."""
    trial.set_user_attr(ARCH, record.arch)
    numbers = {**record.values, **({REPEAT: record.repeat} if record.repeat else {})}
    for name, value in numbers.items():  # a database commits each attribute on its own
        trial.set_user_attr(name, float(value))


def read_record(trial: FrozenTrial) -> TrialRecord | None:
    """What was measured, or None for a trial that nobody has evaluated."""
    attrs = trial.user_attrs
    if ARCH not in attrs:
        return None
    values = {
        name: value
        for name, value in attrs.items()
        if name not in (GENERATION, REPEAT) and isinstance(value, (int, float))
    }
    return TrialRecord(attrs[ARCH], values, int(attrs.get(REPEAT, 0)))


def is_retry(trial: FrozenTrial) -> bool:
    """True if the trial repeats an earlier one."""
    return bool(trial.system_attrs.get(RETRY_HISTORY))


def root_number(trial: FrozenTrial) -> int:
    """The number of the trial that this one repeats, in the end; its own if it repeats none."""
    history = trial.system_attrs.get(RETRY_HISTORY)
    return int(history[0]) if history else trial.number


def slots_of(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """The slot of each trial by its number, without withdrawn ones.

    A slot is a place in the sequence of proposals: the number of trials before, without repeats,
    which have that of the first, and without withdrawn ones.
    """
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
