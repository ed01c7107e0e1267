"""What a study's trials say: who proposed which architecture, and who is fit to be a parent.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1,
lines 1-3 and 9: populations and Topk.

Symbols: P population size, g generation. The slot of a trial is its place in the sequence of
proposals; trials that repeat an earlier one have its slot, withdrawn trials take none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from statistics import fmean
from threading import Lock

import numpy as np
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError
from msnas_optuna.storage import Plan, is_retry, is_withdrawn, known_params, read_plan, root_number


@dataclass(frozen=True)
class Schedule:
    """Which generation a slot belongs to, and which slots take random children.

    Attributes:
        population_size: P, slots of generation 0 and number of parents.
        n_children: slots of each later generation for children of the operators.
        n_random: slots of each later generation for random children; they come first.
        n_reevaluated: slots of each later generation that measure an earlier architecture
            again; they come second.
    """

    population_size: int
    n_children: int
    n_random: int
    n_reevaluated: int = 0

    @property
    def _length(self) -> int:
        return self.n_random + self.n_reevaluated + self.n_children

    def generation(self, slot: int) -> int:
        """0 for the first population, then one for each iteration of Algorithm 1."""
        if slot < self.population_size:
            return 0
        return 1 + (slot - self.population_size) // self._length

    def is_random(self, slot: int) -> bool:
        """Whether the slot takes a random architecture."""
        place = (slot - self.population_size) % self._length
        return slot < self.population_size or place < self.n_random

    def is_reevaluation(self, slot: int) -> bool:
        """Whether the slot measures one of the best architectures again."""
        place = (slot - self.population_size) % self._length - self.n_random
        return slot >= self.population_size and 0 <= place < self.n_reevaluated


@dataclass(frozen=True, slots=True)
class Record:
    """One trial, decoded.

    Attributes:
        trial: the trial.
        number: its number.
        slot: its place in the sequence of proposals.
        generation: 0 for trials without a plan, which somebody else has added.
        retry: whether it repeats an earlier trial.
        architecture: a feasible architecture, or None for anything else.
        loss: objectives, smaller is better, of a trial that may be a parent; else None. Of an
            architecture that is measured several times, `averaged` gives the mean.
        repeat: how many measurements of the architecture were planned before this one.
    """

    trial: FrozenTrial
    number: int
    slot: int
    generation: int
    retry: bool
    architecture: Architecture | None
    loss: tuple[float, ...] | None
    repeat: int = 0


@dataclass(frozen=True)
class History:
    """All trials of a study at one moment.

    Attributes:
        records: one record for each trial, by number.
        settled: the architectures of finished trials.
        recent: the architectures of all other trials by trial number.
        n_final: the number of first records that stay as they are.
        ranking: which remembers, from trial to trial, what it has ranked.
    """

    records: Sequence[Record]
    settled: AbstractSet[Architecture]
    recent: Mapping[int, Architecture]
    n_final: int
    ranking: Ranking

    def holds(self, architecture: Architecture, *, besides: int) -> bool:
        """Whether a trial other than number `besides` has the architecture."""
        return architecture in self.settled or any(
            held == architecture for number, held in self.recent.items() if number != besides
        )

    def n_held(self, *, besides: int) -> int:
        """The number of feasible architectures that trials other than `besides` have."""
        recent = {held for number, held in self.recent.items() if number != besides}
        return len(self.settled) + len(recent - self.settled)

    def slots_of(self, architecture: Architecture, *, besides: int) -> dict[int, int]:
        """Slot -> repeat of the trials, other than slot `besides`, with an architecture."""
        return {
            record.slot: record.repeat
            for record in self.records
            if record.slot != besides and record.architecture == architecture
        }

    def parents(self, generation: int, *, before: int, size: int) -> list[Record]:
        """The best architectures of earlier generations, best first, each by its first trial.

        Only trials with a number below `before` count. What is measured several times is ranked
        by the mean.
        """
        candidates = self.ranking.candidates(
            self.records, generation, before=before, n_final=self.n_final
        )
        return self.ranking.best(candidates, size)


def next_repeat(slots: Mapping[int, int]) -> int:
    """The number of a measurement after those in `slots`, see `History.slots_of`."""
    return max(len(slots), 1 + max(slots.values(), default=-1))


def averaged(records: Sequence[Record]) -> list[Record]:
    """One record for each architecture: its first measurement, with the mean of all losses."""
    groups: dict[Architecture | int, list[Record]] = {}
    for record in records:
        key = record.number if record.architecture is None else record.architecture
        groups.setdefault(key, []).append(record)
    if len(groups) == len(records):
        return list(records)
    return [
        replace(group[0], loss=tuple(map(fmean, zip(*map(_loss, group), strict=True))))
        if len(group) > 1
        else group[0]
        for group in groups.values()
    ]


def top(records: Sequence[Record], size: int) -> list[Record]:
    """Topk: the best `size` records, best first; earlier slots win ties.

    Several objectives are ranked by non-dominated sorting, then by crowding distance (Deb et
    al., 2002).
    """
    records = sorted(records, key=lambda record: (record.slot, record.number))
    if not records or len(_loss(records[0])) == 1:
        return sorted(records, key=_loss)[:size]
    losses = np.array([_loss(record) for record in records])
    ranks = _fast_non_domination_rank(losses, n_below=size)
    best: list[Record] = []
    for rank in range(int(ranks.max()) + 1):
        (front,) = np.nonzero(ranks == rank)
        crowding = _crowding_distance(losses[front])
        best += [records[front[i]] for i in np.argsort(-crowding, kind="stable")]
        if len(best) >= size:
            break
    return best[:size]


def _loss(record: Record) -> tuple[float, ...]:
    assert record.loss is not None
    return record.loss


def _crowding_distance(losses: np.ndarray) -> np.ndarray:  # [records, objectives] -> [records]
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span == 0:
            continue
        distance[order[[0, -1]]] = math.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


class Ranking:
    """Candidates and parents, remembered: both change only where a generation ends."""

    def __init__(self) -> None:
        self._found: tuple[int, int, list[Record]] = -1, 0, []
        self._ranked: tuple[list[Record], int, list[Record]] = [], 0, []

    def candidates(
        self, records: Sequence[Record], generation: int, *, before: int, n_final: int
    ) -> list[Record]:
        """Who may be a parent in a generation, among the trials with a number below `before`."""
        known, read, found = self._found  # one read: threads may ask too
        end = min(before, n_final)
        if known != generation or read > end:
            read, found = 0, []
        found = found + _older(records[read:end], generation)
        self._found = generation, end, found
        return found + _older(records[end:before], generation)

    def best(self, candidates: list[Record], size: int) -> list[Record]:
        """`top` of `averaged`."""
        known, known_size, best = self._ranked
        if known_size != size or known != candidates:
            best = top(averaged(candidates), size)
            self._ranked = candidates, size, best
        return best


def _older(records: Sequence[Record], generation: int) -> list[Record]:
    return [r for r in records if r.loss is not None and r.generation < generation]


class Ledger:
    """Decodes each finished trial once; everything in it can be derived from storage again.

    Args:
        feasible: what the study may propose, or None for parameters of any kind.
        schedule: slots and generations.
    """

    def __init__(self, feasible: FeasibleSet[Architecture] | None, schedule: Schedule) -> None:
        self._feasible, self._schedule = feasible, schedule
        self._lock = Lock()  # threads of one study share the sampler
        self._forget()

    def __reduce__(
        self,
    ) -> tuple[type[Ledger], tuple[FeasibleSet[Architecture] | None, Schedule]]:
        return Ledger, (self._feasible, self._schedule)

    def _forget(self) -> None:
        self._oldest: list[Record] = []  # all finished, up to the first unfinished trial
        self._later: dict[int, Record] = {}  # the other finished ones by number
        self._settled: set[Architecture] = set()
        self._next_slot = 0
        self._ranking = Ranking()

    def read(self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> History:
        """The history of a study.

        Args:
            trials: all trials by number, as storages return them.
            directions: one for each objective.
        """
        with self._lock:
            if not self._knows(trials):
                self._forget()
            records, recent, slot = self._oldest.copy(), {}, self._next_slot
            for trial in trials[len(records) :]:
                record = self._later.get(trial.number)
                if record is None or record.trial is not trial:
                    record = self._decode(trial, records, slot, directions)
                slot += not (record.retry or is_withdrawn(trial))
                if trial.state.is_finished():
                    self._remember(record, next_slot=slot)
                elif record.architecture is not None:
                    recent[trial.number] = record.architecture
                records.append(record)
            return History(records, self._settled, recent, len(self._oldest), self._ranking)

    def _remember(self, record: Record, *, next_slot: int) -> None:
        if record.number == len(self._oldest):
            self._oldest.append(record)
            self._next_slot = next_slot
            self._later.pop(record.number, None)
        else:
            self._later[record.number] = record
        if record.architecture is not None:
            self._settled.add(record.architecture)

    def _knows(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether these trials continue the known ones; finished trials stay the same objects."""
        last = max(self._later, default=len(self._oldest) - 1)
        record = self._later.get(last, self._oldest[-1] if self._oldest else None)
        return record is None or (len(trials) > last and trials[last] is record.trial)

    def _decode(
        self,
        trial: FrozenTrial,
        earlier: Sequence[Record],
        slot: int,
        directions: Sequence[StudyDirection],
    ) -> Record:
        plan, retry = read_plan(trial), is_retry(trial)
        if plan is not None:
            generation = plan.generation
        else:
            generation = 0 if self._feasible is not None else self._schedule.generation(slot)
        architecture = self._architecture(trial, plan)
        known = self._feasible is None or architecture is not None
        return Record(
            trial=trial,
            number=trial.number,
            slot=earlier[root_number(trial)].slot if retry else slot,
            generation=generation,
            retry=retry,
            architecture=architecture,
            loss=_parent_loss(trial, directions) if known else None,
            repeat=0 if plan is None else plan.repeat,
        )

    def _architecture(self, trial: FrozenTrial, plan: Plan | None) -> Architecture | None:
        """What the trial evaluates, as far as it is known and feasible."""
        if self._feasible is None or is_withdrawn(trial):
            return None
        try:
            architecture = self._feasible.space.decode(known_params(trial, plan))
        except InvalidArchitectureError:
            return None
        return architecture if self._feasible.violation(architecture) is None else None


def _parent_loss(
    trial: FrozenTrial, directions: Sequence[StudyDirection]
) -> tuple[float, ...] | None:
    """Objectives to minimise of a complete trial that breaks no constraint, or None."""
    if trial.state != TrialState.COMPLETE or any(c > 0 for c in trial.constraints.values()):
        return None
    values = trial.values
    if len(values) != len(directions) or not all(map(math.isfinite, values)):
        return None
    return tuple(
        -value if direction == StudyDirection.MAXIMIZE else value
        for value, direction in zip(values, directions, strict=True)
    )
