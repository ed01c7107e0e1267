"""What figures know about a study: its measured trials, decoded, and what it was created with.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1.

Symbols: P population size, g generation. AP in [0, 1], FLOPs in 1e9 multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.config import BudgetSection, SpaceSection
from msnas_optuna.cost import EncoderCost
from msnas_optuna.metrics import METRICS
from msnas_optuna.samplers.history import History, Ledger, Schedule
from msnas_optuna.setting import budget_target, encoder_cost, window_around
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.spaces.msnas import Architecture, MSNASSpace
from msnas_optuna.storage import CONFIG, read_plan

_S = TypeVar("_S")

_DEFAULT_POPULATION: Final = 50
"""P of the paper (§4.1), where a study does not say."""

KINDS: Final = ("random", "recombination", "crossover", "mutation", "other")
"""How an architecture can have come about, coarsely."""


@dataclass(frozen=True)
class Observation:
    """A finished trial.

    Attributes:
        number: of the trial.
        architecture: what it measured.
        ap: one-shot AP (or stand-alone AP in the study of a retraining).
        generation: 0 for the first population and for trials without a plan.
        kind: one of `KINDS`.
        parents: numbers of the trials that the architecture was made from.
        gflops: of encoder + RPN head, None where unknown.
        latency_ms: of a forward pass, None where it is not measured.
        ap_by_size: AP of small, medium and large objects, None where it is not known.
    """

    number: int
    architecture: Architecture
    ap: float
    generation: int
    kind: str
    parents: tuple[int, ...]
    gflops: float | None
    latency_ms: float | None
    ap_by_size: tuple[float | None, float | None, float | None]


class Observed:
    """A study as the figures see it; trials that fit no architecture are passed over.

    Args:
        study: of the search, or of a stage beside it.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        stored = study.user_attrs.get(CONFIG)
        self.config: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
        self._trials = study.get_trials(deepcopy=False)

    @classmethod
    def of(cls, source: Source) -> Observed:
        """Reads a study, unless that is done already."""
        return source if isinstance(source, Observed) else cls(source)

    @cached_property
    def space(self) -> MSNASSpace | None:
        """The space that the parameters belong to, None if they belong to none."""
        n_blocks = self.config.get("space.n_blocks") or max(
            (sum(name.startswith("stride_") for name in t.distributions) for t in self._trials),
            default=0,
        )
        try:
            return MSNASSpace(int(n_blocks))
        except (TypeError, ValueError):
            return None

    @cached_property
    def _budget(self) -> BudgetSection | None:
        return None if self.cost is None else _section(BudgetSection, "budget", self.config)

    @cached_property
    def cost(self) -> EncoderCost | None:
        """FLOPs of the stored configuration, None without one."""
        if "space.channels" not in self.config:
            return None
        try:
            space = _section(SpaceSection, "space", self.config)
            budget = _section(BudgetSection, "budget", self.config)
            shorter, longer = self.config["data.image_size"]
            return encoder_cost(space, budget, (shorter, longer))
        except (KeyError, TypeError, ValueError):  # written by another version
            return None

    @cached_property
    def window(self) -> tuple[float, float] | None:
        """Least and largest cost of a proposal in 1e9 multiply-adds, None without a budget."""
        if self._budget is None or self.cost is None or self.space is None:
            return None
        target = budget_target(self._budget, self.space, self.cost)
        low, high = window_around(target, self._budget.tolerance)
        return low / 1e9, high / 1e9

    @cached_property
    def population_size(self) -> int:
        """P of the stored configuration; without one, the size of the first population."""
        stored = self.config.get("sampler.population_size")
        if isinstance(stored, int):
            return stored
        first = sum(o.generation == 0 for o in self.observations)
        return min(first, _DEFAULT_POPULATION) or _DEFAULT_POPULATION

    @cached_property
    def latency_measured(self) -> bool:
        """Whether latency is known of some trial."""
        return any(o.latency_ms is not None for o in self.observations)

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """The finished trials with a finite AP, by number."""
        found = (self._observe(trial) for trial in self._trials)
        return tuple(o for o in found if o is not None)

    @cached_property
    def by_number(self) -> dict[int, Observation]:
        """The observations by the number of their trial."""
        return {o.number: o for o in self.observations}

    @cached_property
    def generations(self) -> range:
        """From the first generation to the last that has a finished trial."""
        return range(1 + max((o.generation for o in self.observations), default=-1))

    @cached_property
    def _history(self) -> History | None:
        if self.space is None:
            return None
        schedule = Schedule(self.population_size, 1, 0)  # the plans say which generation it is
        try:
            return Ledger(Lattice(self.space), schedule).read(self._trials, self.study.directions)
        except ValueError:  # plans of another version
            return None

    def population(self, generation: int) -> list[Observation]:
        """The best P architectures up to a generation, best first (Alg. 1, l. 9).

        What is measured several times counts with the mean, and has its first number.
        """
        if self._history is None:
            return []
        best = self._history.parents(
            generation + 1, before=len(self._trials), size=self.population_size
        )
        return [self._mean(self.by_number[r.number]) for r in best if r.number in self.by_number]

    @cached_property
    def _ap_of(self) -> dict[Architecture, float]:
        measured: dict[Architecture, list[float]] = {}
        for o in self.observations:
            measured.setdefault(o.architecture, []).append(o.ap)
        return {architecture: sum(aps) / len(aps) for architecture, aps in measured.items()}

    def _mean(self, observation: Observation) -> Observation:
        values = vars(observation) | {"ap": self._ap_of[observation.architecture]}
        return Observation(**values)

    @cached_property
    def distinct(self) -> list[Observation]:
        """Every architecture once, by its first trial, with its mean AP; best first."""
        first: dict[Architecture, Observation] = {}
        for o in self.observations:
            first.setdefault(o.architecture, o)
        return sorted(map(self._mean, first.values()), key=lambda o: (-o.ap, o.number))

    def _observe(self, trial: FrozenTrial) -> Observation | None:
        if trial.state != TrialState.COMPLETE or self.space is None:
            return None
        try:
            architecture = self.space.decode(trial.params)
            plan = read_plan(trial)
        except ValueError:  # of another space, or with a plan of another version
            return None
        ap = trial.values[0]
        if self.space.violation(architecture) is not None or not math.isfinite(ap):
            return None
        attrs = trial.user_attrs
        return Observation(
            number=trial.number,
            architecture=architecture,
            ap=ap,
            generation=0 if plan is None else plan.generation,
            kind="other" if plan is None else _kind(plan.origin),
            parents=() if plan is None else plan.parents,
            gflops=self._gflops(architecture, attrs),
            latency_ms=_number(attrs.get("latency_ms")) or self._latency(trial),
            ap_by_size=(
                _number(attrs.get("ap_small")),
                _number(attrs.get("ap_medium")),
                _number(attrs.get("ap_large")),
            ),
        )

    def _gflops(self, architecture: Architecture, attrs: Mapping[str, Any]) -> float | None:
        stored = _number(attrs.get("gflops"))
        if stored is not None or self.cost is None:
            return stored
        return self.cost.total(architecture) / 1e9

    @cached_property
    def _latency_at(self) -> int | None:
        """Which objective is the latency."""
        names = self.study.metric_names or []
        label = METRICS["latency"].label
        return names.index(label) if label in names else None

    def _latency(self, trial: FrozenTrial) -> float | None:
        return None if self._latency_at is None else _number(trial.values[self._latency_at])


def _kind(origin: str) -> str:
    if origin == "random":
        return "random"
    for kind, prefix in (
        ("crossover", "crossover"),
        ("recombination", "recombination"),
        ("mutation", "mutate"),
    ):
        if origin.startswith(prefix):
            return kind
    return "other"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _section(section: type[_S], name: str, config: Mapping[str, Any]) -> _S:
    prefix = f"{name}."
    values = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return section(**values)


Source = Study | Observed
"""A study, or what was read of it; who draws many figures reads it once."""
