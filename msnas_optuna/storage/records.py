"""The name of every key that the package stores in a study; plans and records.

Keys are fixed names, never derived from a class, so that renaming one orphans no stored study.
`Study.add_trial` copies what is stored with a trial as it is, and so do retries: each record says
which trial it was made for.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from uuid import uuid4

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from msnas_optuna.runtime.processes import Host, cached_start_time, start_time
from msnas_optuna.storage.optuna_private import (
    sample,
    set_system_attr,
    set_trial_system_attr,
    set_trial_user_attr,
    system_attrs,
)
from msnas_optuna.storage.passwords import redact

# System attributes of trials. A mark is the trial's own number, because retries copy attributes.
PLAN: Final = "msnas:plan"  # its `Plan`
OWNER: Final = "msnas:worker"  # the `Worker` that has claimed it, from the first moment on
QUEUED: Final = "msnas:queued"  # we have queued it: it has parameters before it has a plan
QUEUED_REPEAT: Final = (
    "msnas:repeat"  # of a queued trial, 0 where it is missing; see `Plan.repeat`
)
INTERRUPTED: Final = "msnas:interrupted"  # mark: the user stopped it
WITHDRAWN: Final = "msnas:withdrawn"  # mark: it was never evaluated, and has no slot
LOST: Final = "msnas:lost"  # mark: its worker died, and it is repeated
FIXED_PARAMS: Final = "fixed_params"  # Optuna's: what `Study.enqueue_trial` fixes
RETRY_HISTORY: Final = "retry_history"  # Optuna's: numbers of the trials that this one repeats

# User attributes of trials, for tables and figures; see also `TrialRecord`.
GENERATION: Final = "generation"  # an integer
ORIGIN: Final = "origin"  # how the architecture came about
ERROR: Final = "error"  # why the evaluation failed
ARCH: Final = "arch"
REPEAT: Final = "repeat"

# User attributes of studies.
CONFIG: Final = "msnas:config"  # the configuration that the study was created with
LAYOUT: Final = "msnas:layout"  # the version of our keys; 1 where it is missing
LAYOUT_VERSION: Final = 3  # layout 2 had other origins and plans of another sampler

# System attributes of studies.
IMPORT: Final = "msnas:import"  # names and `Worker` of an import, None when all is there
PUBLISHED: Final = "msnas:published"  # proposals settled when the dashboard was refreshed
SHOWN: Final = "msnas:shown"  # digest of what the dashboard shows and what that follows from
VERSIONS: Final = "msnas:versions"  # of each package those that have searched, first to last
WANTED: Final = "msnas:trials"  # how many trials the last command of the search asked for
DETECTIONS: Final = "msnas:detections"  # trial and weights that the stored pictures show
LOSSES: Final = "msnas:losses:"  # before the name of each training run
STUDY_ID: Final = "msnas:study:"  # before an id of the study, see `study_ids`

OBJECTIVE: Final = "objective"  # key of the configuration: where values come from
EXTERNAL: Final = "external"  # its value where an external trainer tells them, see `asktell`
_ASKED_ON: Final = f"{EXTERNAL} (asked on "  # before the host of an external trainer

_PACKAGES: Final = (
    "msnas-optuna", "torch", "torchvision", "optuna", "optuna-dashboard", "plotly", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Worker:
    """The process that evaluates a trial.

    A retry copies the record, so another number of a trial says that it belongs to an earlier one.
    """

    host: str  # a `Host` as text; process ids mean something inside it only
    pid: int
    started: str  # start time, which tells the process from a later one with the same id
    trial: int | None  # its number, None where it was not known yet
    heartbeats: bool = field(default=False, compare=False)  # whether it writes them

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
        """True of a trainer outside the package; nobody can see whether it lives."""
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
    """A trial's architecture, fixed before its evaluation starts."""

    params: Mapping[str, Any]
    generation: int  # 0 for the first population
    origin: str  # "queued", or that of a `samplers.proposals.Proposal`
    parents: tuple[int, ...]  # numbers of trials
    slot: int  # place in the sequence of proposals; a retry keeps it
    study: str  # an id of the study that it was made in
    worker: Worker  # with the number of the trial that it was made for
    repeat: int = 0  # measurements planned before this one; differs between equal architectures

    def to_json(self) -> dict[str, Any]:
        """The plan in types that JSON keeps."""
        return {  # not `asdict`, which copies in depth: this is done for every proposal
            **vars(self),
            "params": dict(self.params),
            "parents": list(self.parents),
            "worker": dict(vars(self.worker)),
        }


def read_plan(trial: FrozenTrial) -> Plan | None:
    """The plan that is stored with a trial; None for another sampler's, or another version's.

    Only `samplers.history` knows whether it was made for this trial and not copied with another.
    """
    try:
        values = dict(trial.system_attrs[PLAN])
        values["params"], values["parents"] = dict(values["params"]), tuple(values["parents"])
        return Plan(**{**values, "worker": Worker(**values["worker"])})
    except (KeyError, TypeError, ValueError):
        return None


def study_ids(study: Study) -> set[str]:
    """The ids of a study, which it keeps wherever it is moved; none before its first plan.

    Processes that begin a study at once may each have given it one.
    """
    keys = system_attrs(study)
    return {key.removeprefix(STUDY_ID) for key in keys if key.startswith(STUDY_ID)}


def identify(study: Study) -> str:
    """An id of the study, given to it if it has none."""
    stored = study_ids(study)
    if not stored:
        stored = {uuid4().hex}
        set_system_attr(study, f"{STUDY_ID}{min(stored)}", True)
    return min(stored)


def owner_of(trial: FrozenTrial) -> Worker | None:
    """The process that evaluates a trial, as far as it is recorded."""
    with suppress(KeyError, TypeError):  # none, or another version's
        worker = Worker(**trial.system_attrs[OWNER])
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
    """The parameters of a trial as far as they are fixed, whether suggested already or not."""
    return {
        **(plan.params if plan else {}),
        **trial.system_attrs.get(FIXED_PARAMS, {}),
        **trial.params,
    }


def repeat_of(trial: Trial) -> int:
    """Number of measurements of the trial's parameters before it, for its random seed.

    Planned for trials of our sampler; for others, equal trials with a lower number are counted.
    """
    sample(trial)  # plans it
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
    """Measurements of an architecture, as flat user attributes of the trial."""

    arch: str  # in the notation of its method
    values: Mapping[str, float]  # whatever was measured: ap50, gflops, mparams, latency_ms, ...
    repeat: int = 0  # how many measurements of the architecture came before; added to the seed


def write_record(trial: Trial, record: TrialRecord) -> None:
    """Stores what was measured, one user attribute for each value, and `repeat` where not 0."""
    trial.set_user_attr(ARCH, record.arch)
    numbers = {**record.values, **({REPEAT: record.repeat} if record.repeat else {})}
    for name, value in numbers.items():  # a database commits each attribute on its own
        trial.set_user_attr(name, float(value))


def write_error(trial: Trial, error: BaseException) -> None:
    """Stores why the evaluation failed."""
    trial.set_user_attr(ERROR, redact(str(error)))


def read_record(trial: FrozenTrial) -> TrialRecord | None:
    """The measured metrics, or None for a trial that nobody has evaluated."""
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
    """True if the trial repeats an earlier one, of this study or of one that it comes from."""
    return bool(trial.system_attrs.get(RETRY_HISTORY))


def repeated(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial that this one repeats, of all trials of its study; None if it repeats none there.

    A copy of another study's retry names numbers of that study. It is told by the trial of that
    number here: it has not failed, or has other parameters.
    """
    match trial.system_attrs.get(RETRY_HISTORY):
        case [*earlier, int(number)] if 0 <= number < trial.number:
            found = trials[number]
            known, params = (known_params(t, read_plan(t)).items() for t in (found, trial))
            same = found.system_attrs.get(RETRY_HISTORY, []) == earlier and known <= params
            failed = found.state == TrialState.FAIL and not is_withdrawn(found)
            return found if same and failed else None
    return None


def slots_of(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """The slot of each trial by its number: its place in the sequence of proposals.

    Withdrawn trials have none and count for none; a repeat has that of the first.
    """
    slots: dict[int, int] = {}
    following = 0
    for trial in trials:
        if is_withdrawn(trial):
            continue
        first = repeated(trial, trials)
        slots[trial.number] = following if first is None else slots[first.number]
        following += first is None
    return slots


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, in this process."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found


def read_versions(study: Study) -> dict[str, list[str]]:
    """The versions that have searched, first to last; none before the first search."""
    return {package: list(v) for package, v in system_attrs(study).get(VERSIONS, {}).items()}


def write_versions(study: Study) -> None:
    """Adds this process's versions to those that have searched."""
    stored = read_versions(study)
    merged = {
        package: list(dict.fromkeys([*stored.get(package, ()), number]))
        for package, number in versions().items()
    }
    if merged != stored:
        set_system_attr(study, VERSIONS, merged)


def wanted_trials(study: Study) -> int | None:
    """Number of trials that the last command asked for, None if it left that to the study file."""
    wanted = system_attrs(study).get(WANTED)
    return wanted if isinstance(wanted, int) else None


def write_wanted(study: Study, trials: int | None) -> None:
    """Stores the number of trials that a command asks for; None leaves it to the study file."""
    if wanted_trials(study) != trials:
        set_system_attr(study, WANTED, trials)
