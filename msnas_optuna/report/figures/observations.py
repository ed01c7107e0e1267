"""What figures know about a study: its measured trials, decoded, and what it was created with.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1.

Symbols: P population size, g generation. AP in [0, 1], FLOPs in 1e9 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, TypeVar

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial

from msnas_optuna.methods import METHODS
from msnas_optuna.methods.msnas.sections import SpaceSection
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.report.figures.observation import Observation, number_in, observe
from msnas_optuna.report.figures.style import thinned
from msnas_optuna.samplers.history import History, Ledger
from msnas_optuna.storage import CONFIG
from msnas_optuna.study.config import BudgetSection
from msnas_optuna.study.feasibility import Feasibility, feasibility
from msnas_optuna.study.setting import (
    RETRAIN,
    section_cost,
    stage_name,
    window_around,
)
from msnas_optuna.training.metrics import METRICS

_S = TypeVar("_S")

_DEFAULT_POPULATION: Final = 50
"""P of the paper (§4.1), where a study does not say."""


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
    def by_hand(self) -> Observation | None:
        """The FPN-like path under the supernet's weights, None before it is measured.

        It is in the study beside the search, in the same storage.
        """
        beside = self._beside("fpn-like")
        return None if beside is None or not beside.distinct else beside.distinct[0]

    @cached_property
    def standalone(self) -> tuple[Observation, ...]:
        """The architectures that are trained from scratch, best first, from their own study."""
        beside = self._beside(RETRAIN)
        return () if beside is None else tuple(beside.distinct)

    def _beside(self, stage: str) -> Observed | None:
        name = stage_name(self.study.study_name, stage)
        try:
            return Observed(optuna.load_study(study_name=name, storage=self.study._storage))
        except KeyError:
            return None

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
    def cost(self) -> Any:
        """FLOPs of the stored configuration, None without one."""
        if "space.channels" not in self.config:
            return None
        try:
            space = _section(SpaceSection, "space", self.config)
            budget = _section(BudgetSection, "budget", self.config)
            shorter, longer = self.config["data.image_size"]
            return section_cost(METHODS["msnas"], space, budget, image_size=(shorter, longer))
        except (KeyError, TypeError, ValueError):  # written by another version
            return None

    @cached_property
    def window(self) -> tuple[float, float] | None:
        """Least and largest cost of a proposal in 1e9 multiply-adds, None without a budget."""
        if self._budget is None:
            return None
        low, high = window_around(*self._budget)
        return low / 1e9, high / 1e9

    @cached_property
    def feasibility(self) -> Feasibility | None:
        """The counted space and the window of the stored configuration, None without one."""
        if self._budget is None or self.cost is None or self.space is None:
            return None
        target, tolerance = self._budget
        return feasibility(
            METHODS["msnas"], self.space, self.cost, target=target, tolerance=tolerance
        )

    @cached_property
    def _budget(self) -> tuple[float, float] | None:
        """Centre of the window in multiply-adds, and half its width as a fraction of it."""
        if self.cost is None or self.space is None:
            return None
        section = _section(BudgetSection, "budget", self.config)
        gflops = section.target_gflops
        target = self.cost.total(self.space.fpn_like()) if gflops is None else gflops * 1e9
        return target, section.tolerance

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
    def _history(self) -> History[Architecture] | None:
        if self.space is None:
            return None
        try:
            return Ledger(self.space).read(self._trials, self.study.directions)
        except ValueError:  # plans of another version
            return None

    def population(self, generation: int) -> list[Observation]:
        """The best P architectures up to a generation, best first (Alg. 1, l. 9).

        What is measured several times counts with the mean, and has its first number.
        """
        if self._history is None:
            return []
        best = self._history.population(generation + 1, size=self.population_size)
        return [self._mean(self.by_number[r.number]) for r in best if r.number in self.by_number]

    def populations(self, most: int) -> dict[int, list[Observation]]:
        """The population by generation, of at most about `most` generations and the last.

        They are evenly spread; those in which nothing was measured yet are left out.
        """
        shown = thinned(len(self.generations), keep=self.generations[-1:], limit=most)
        return {g: population for g in shown if (population := self.population(g))}

    @cached_property
    def _ap_of(self) -> dict[Architecture, float]:
        measured: dict[Architecture, list[float]] = {}
        for o in self.observations:
            measured.setdefault(o.architecture, []).append(o.ap)
        return {architecture: sum(aps) / len(aps) for architecture, aps in measured.items()}

    def _mean(self, observation: Observation) -> Observation:
        return replace(observation, ap=self._ap_of[observation.architecture])

    @cached_property
    def distinct(self) -> list[Observation]:
        """Every architecture once, by its first trial, with its mean AP; best first."""
        first: dict[Architecture, Observation] = {}
        for o in self.observations:
            first.setdefault(o.architecture, o)
        return sorted(map(self._mean, first.values()), key=lambda o: (-o.ap, o.number))

    def _observe(self, trial: FrozenTrial) -> Observation | None:
        seen = None if self.space is None else observe(trial, self.space)
        if seen is None:
            return None
        return replace(
            seen,
            gflops=seen.gflops or self._gflops(seen.architecture),
            latency_ms=seen.latency_ms or self._latency(trial),
        )

    def _gflops(self, architecture: Architecture) -> float | None:
        return None if self.cost is None else self.cost.total(architecture) / 1e9

    @cached_property
    def _latency_at(self) -> int | None:
        """Which objective is the latency."""
        names = self.study.metric_names or []
        label = METRICS["latency"].label
        return names.index(label) if label in names else None

    def _latency(self, trial: FrozenTrial) -> float | None:
        return None if self._latency_at is None else number_in(trial.values[self._latency_at])


def _section(section: type[_S], name: str, config: Mapping[str, Any]) -> _S:
    prefix = f"{name}."
    values = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return section(**values)


Source = Study | Observed
"""A study, or what was read of it; who draws many figures reads it once."""
