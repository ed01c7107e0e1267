"""The trials of a study as architectures, and the best of them (Alg. 1's Topk).

The slot of a trial is its place in the sequence of proposals; trials that repeat an earlier one
have its slot, withdrawn trials take none. A loss is one number for each objective, smaller is
better.

Anybody may add trials to a study: of other samplers, parameters, studies, versions. Here, and
nowhere else, each trial is judged: those that hold an architecture that the study may evaluate
count, as generation 0 unless they were proposed in this study; the others are left out, with a
warning that names them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence, Set as AbstractSet
from dataclasses import dataclass
from heapq import nsmallest
from itertools import groupby
from statistics import fmean
from threading import Lock
from typing import Any, Final, Generic

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.spaces.base import A, InvalidArchitectureError, Space
from msnas_optuna.storage import Plan, is_withdrawn, known_params, read_plan, repeated, study_ids
from msnas_optuna.storage.optuna_private import non_domination_ranks, storage_of, study_id

Loss = tuple[float, ...]

_MOST: Final = 3  # reasons and names that a warning lists
_LACKS: Final = "no "  # begins the reason where parameters are missing, which is told first


@dataclass(frozen=True, slots=True)
class Record(Generic[A]):
    """One trial, decoded."""

    trial: FrozenTrial
    slot: int
    plan: Plan | None  # None where it was not proposed in this study
    generation: int  # of its plan, 0 without one
    architecture: A | None  # one that the study may hold, or None
    loss: Loss | None  # of a complete trial that breaks no constraint, else None
    misfit: str | None = None  # why a complete trial is left out, None where it is not

    @property
    def number(self) -> int:
        """The number of the trial."""
        return self.trial.number

    @property
    def repeat(self) -> int:
        """How many measurements of the architecture were planned before this one."""
        return 0 if self.plan is None else self.plan.repeat


@dataclass(frozen=True, slots=True)
class Candidate(Generic[A]):
    """An architecture with all its measurements."""

    architecture: A
    loss: Loss  # mean over the measurements
    records: tuple[Record[A], ...]  # the measurements by number, at least one

    @property
    def number(self) -> int:
        """The number of the trial that measured it first."""
        return self.records[0].number


def averaged(records: Iterable[Record[A]]) -> list[Candidate[A]]:
    """Each measured architecture once, in the order of the first measurements."""
    groups: dict[A, list[Record[A]]] = {}
    for record in records:
        if record.architecture is not None and record.loss is not None:
            groups.setdefault(record.architecture, []).append(record)
    candidates = []
    for architecture, group in groups.items():
        losses = [record.loss for record in group if record.loss is not None]
        mean = tuple(map(fmean, zip(*losses, strict=True))) if len(losses) > 1 else losses[0]
        candidates.append(Candidate(architecture, mean, tuple(group)))
    return candidates


def top(candidates: Iterable[Candidate[A]], size: int) -> list[Candidate[A]]:
    """Topk: the best `size`, best first; earlier slots win ties.

    Several objectives are ranked by non-dominated sorting, then by crowding distance (Deb et
    al., 2002).
    """
    ordered = list(candidates)
    if not ordered or len(ordered[0].loss) == 1:
        return nsmallest(size, ordered, key=lambda c: (c.loss, c.records[0].slot, c.number))
    ordered.sort(key=lambda c: (c.records[0].slot, c.number))
    losses = np.array([c.loss for c in ordered])
    ranks = non_domination_ranks(losses, n_below=size)
    crowding = np.empty(len(losses))
    for rank in set(ranks.tolist()):
        crowding[ranks == rank] = _crowding_distance(losses[ranks == rank])
    return [ordered[i] for i in np.lexsort((-crowding, ranks))[:size].tolist()]


def pareto_front(candidates: Sequence[Candidate[A]]) -> list[Candidate[A]]:
    """Those that no other beats in one objective without losing in another, in their order."""
    if not candidates:
        return []
    ranks = non_domination_ranks(np.array([c.loss for c in candidates]), n_below=1)
    return [c for c, rank in zip(candidates, ranks.tolist(), strict=True) if rank == 0]


def _crowding_distance(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over objectives of the gap between neighbors. [n, objectives] -> [n]."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span == 0:
            continue
        distance[order[[0, -1]]] = math.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


@dataclass(frozen=True)
class History(Generic[A]):
    """All trials of a study at one moment."""

    records: Sequence[Record[A]]  # one for each trial, by number
    settled: AbstractSet[A]  # the architectures of finished trials
    unfinished: AbstractSet[A]  # those of all others, but for the planned trial
    planned: int | None  # number of the trial that is being planned
    study: str | None  # an id of the study, None where no plan has told it yet
    ranking: Ranking[A]

    def holds(self, architecture: A) -> bool:
        """True where a trial other than the planned one has the architecture."""
        return architecture in self.settled or architecture in self.unfinished

    @property
    def n_held(self) -> int:
        """The number of different architectures that `holds` says yes to."""
        return len(self.settled) + len(self.unfinished - self.settled)

    def repeats(self, architecture: A) -> dict[int, int]:
        """Slot -> repeat of an architecture's measurements in other slots than the planned.

        Those that are planned, run or have failed count too.
        """
        own = None if self.planned is None else self.records[self.planned].slot
        return {
            record.slot: record.repeat
            for record in self.records
            if record.slot != own and record.architecture == architecture
        }

    def population(self, generation: int, *, size: int) -> list[Candidate[A]]:
        """The best architectures of all earlier generations, best first."""
        older = [r for r in self.records if r.loss is not None and r.generation < generation]
        return self.ranking.best(older, size)


class Ranking(Generic[A]):
    """`top` of `averaged`, remembered: what it is asked for changes once a generation."""

    def __init__(self) -> None:
        self._last: tuple[list[Record[A]], int, list[Candidate[A]]] = [], 0, []

    def best(self, records: list[Record[A]], size: int) -> list[Candidate[A]]:
        """The best candidates of some records."""
        known, known_size, best = self._last  # one read: threads may ask too
        if known_size != size or known != records:
            best = top(averaged(records), size)
            self._last = records, size, best
        return best


class Ledger(Generic[A]):
    """Judges and decodes each finished trial once; all in it can be derived from storage again.

    `violation` says in words why the study may not hold an architecture; by default it may hold
    every valid one of the space.
    """

    def __init__(
        self, space: Space[A], violation: Callable[[A], str | None] | None = None
    ) -> None:
        self._space, self._violation = space, violation or space.violation
        self._lock = Lock()  # threads of one study share the sampler
        self._forget(None)

    def __reduce__(self) -> tuple[type[Ledger[A]], tuple[Any, ...]]:
        return type(self), (self._space, self._violation)

    def _forget(self, source: object) -> None:
        self._source = source  # storage and id of the study
        self._oldest: list[Record[A]] = []  # all finished, up to the first unfinished trial
        self._later: dict[int, Record[A]] = {}  # the other finished ones by number
        self._settled: set[A] = set()
        self._ids: dict[str, bool] = {}  # those in plans, and whether they are of the study
        self._next_slot = 0
        self._ranking: Ranking[A] = Ranking()

    def read(self, study: Study, *, planned: int | None = None) -> History[A]:
        """The history of all trials; `planned` is the number of the one that is being planned.

        Trials that have come to be left out since the last call are named in a warning.
        """
        with self._lock:
            source = storage_of(study), study_id(study)
            trials, directions = source[0].get_all_trials(source[1], deepcopy=False), None
            if source != self._source or not self._knows(trials):
                self._forget(source)
            records, unfinished, slot = self._oldest.copy(), set(), self._next_slot
            misfits = []
            for trial in trials[len(records) :]:
                first = repeated(trial, trials)
                record = self._later.get(trial.number)
                if record is None or record.trial is not trial:
                    own = slot if first is None else records[first.number].slot
                    directions = directions or study.directions
                    record = self._decode(trial, own, self._plan(study, trial, first), directions)
                    misfits += [record] if record.misfit is not None else []
                slot += first is None and not is_withdrawn(trial)
                if trial.state.is_finished():
                    self._remember(record, next_slot=slot)
                elif record.architecture is not None and trial.number != planned:
                    unfinished.add(record.architecture)
                records.append(record)
            if misfits:
                warnings.warn(_left_out(study.study_name, misfits), stacklevel=1)
            own_id = next((known for known, own in self._ids.items() if own), None)
            return History(records, self._settled, unfinished, planned, own_id, self._ranking)

    def _remember(self, record: Record[A], *, next_slot: int) -> None:
        if record.number == len(self._oldest):
            self._oldest.append(record)
            self._next_slot = next_slot
            self._later.pop(record.number, None)
        else:
            self._later[record.number] = record
        if record.architecture is not None:
            self._settled.add(record.architecture)

    def _knows(self, trials: Sequence[FrozenTrial]) -> bool:
        """True where trials continue the known ones; finished trials stay the same objects."""
        last = max(self._later, default=len(self._oldest) - 1)
        record = self._later.get(last, self._oldest[-1] if self._oldest else None)
        return record is None or (len(trials) > last and trials[last] is record.trial)

    def _plan(self, study: Study, trial: FrozenTrial, first: FrozenTrial | None) -> Plan | None:
        """The plan of a trial that may repeat a `first` one; None if it was made for another."""
        plan = read_plan(trial)
        if plan is None or plan.worker.trial not in (trial.number, first and first.number):
            return None
        if plan.study not in self._ids:  # an id is stored before the first plan that bears it
            self._ids |= {plan.study: False, **dict.fromkeys(study_ids(study), True)}
        return plan if self._ids[plan.study] else None

    def _decode(
        self,
        trial: FrozenTrial,
        slot: int,
        plan: Plan | None,
        directions: Sequence[StudyDirection],
    ) -> Record[A]:
        complete, architecture = trial.state == TrialState.COMPLETE, None
        params = trial.params if complete else known_params(trial, plan)  # what it has measured
        try:
            architecture = self._space.decode(params)
            misfit = self._violation(architecture)
        except InvalidArchitectureError as error:
            misfit = _other_parameters(params, self._space) or str(error)
        if misfit is not None or is_withdrawn(trial):
            architecture = None
        return Record(
            trial=trial,
            slot=slot,
            plan=plan,
            generation=0 if plan is None else plan.generation,
            architecture=architecture,
            loss=None if architecture is None else _loss(trial, directions),
            misfit=misfit if complete else None,
        )


def _other_parameters(params: Iterable[str], space: Space[Any]) -> str | None:
    """How names of parameters differ from those of a space, None where all of these are there."""
    names, given = space.distributions, set(params)
    missing, other = [name for name in names if name not in given], sorted(given - names.keys())
    if not missing:
        return None
    return f"{_LACKS}{_listed(missing)}{f', but {_listed(other)}' if other else ''}"


def _left_out(study: str, misfits: Sequence[Record[Any]]) -> str:
    """Names the trials that hold no architecture of the search, by reason."""
    reasons: dict[str, list[int]] = {}
    for record in misfits:
        reasons.setdefault(str(record.misfit), []).append(record.number)
    ordered = sorted(reasons, key=lambda reason: not reason.startswith(_LACKS))
    told = [f"trial {_ranges(reasons[reason])} ({reason})" for reason in ordered[:_MOST]]
    if rest := sorted(number for reason in ordered[_MOST:] for number in reasons[reason]):
        told.append(f"trial {_ranges(rest)} (other reasons)")
    return (
        f"study {study} leaves out {len(misfits)} of its complete trials, which hold no "
        f"architecture that it may evaluate: {'; '.join(told)}"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: "3, 7-9"."""
    runs = groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ends = ([number for _, number in run] for _, run in runs)
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ends)


def _loss(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> Loss | None:
    """Objectives to minimize of a complete trial that breaks no constraint, or None."""
    if trial.state != TrialState.COMPLETE or any(c > 0 for c in trial.constraints.values()):
        return None
    values = trial.values
    if len(values) != len(directions) or not all(map(math.isfinite, values)):
        return None
    return tuple(
        -value if direction == StudyDirection.MAXIMIZE else value
        for value, direction in zip(values, directions, strict=True)
    )
