"""A study as people see it: results, figures, report, dashboard and command line share this view.

Populations are those of Algorithm 1, line 9, of the MSNAS paper (ICLR 2021 submission). P
population size, g generation, AP in [0, 1], GFLOPs are 1e9 multiply-adds. Trials are decoded,
averaged over repeats and sorted here, through `samplers.history`, and nowhere else. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from itertools import takewhile
from typing import Any, Final, Generic, TypeVar

import numpy as np
import optuna
from optuna.study import Study, StudyDirection

from msnas_optuna.methods import METHODS
from msnas_optuna.methods.base import Method, MethodCost
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.samplers.history import Candidate, Ledger, Record, averaged, pareto_front, top
from msnas_optuna.spaces.base import A, Space
from msnas_optuna.spaces.window import violation
from msnas_optuna.storage import CONFIG, finished_slots
from msnas_optuna.storage.optuna_private import storage_of
from msnas_optuna.study.config import DEFAULT_METHOD, RETRAIN, BudgetSection
from msnas_optuna.study.feasibility import Feasibility, study_feasibility
from msnas_optuna.study.seeds import Trainings
from msnas_optuna.study.setting import VALIDATION, Setting, budget_target, section_cost, stage_name

_S = TypeVar("_S")

TESTED: Final = "data.test_annotations.sha256"  # key of a stage that has test images of its own

AP: Final = "ap"  # the first objective of every study

KINDS: Final = ("random", "recombination", "crossover", "mutation", "substitute", "other")
"""How an architecture can have come about: the first word of its origin."""

MOST_GENERATIONS: Final = 250  # populations that are shown; of more, some are left out evenly
_DEFAULT_POPULATION: Final = 50  # P of the paper (§4.1), where a study does not say


@dataclass(frozen=True)
class Result(Generic[A]):
    """An architecture with all that is known about it."""

    name: str  # "trial 52", by its first trial, or what the method calls its baseline
    architecture: A
    number: int | None  # of its first trial in the search, None for the baseline
    records: tuple[Record[A], ...]  # its finished trials, by number
    values: Mapping[str, float]  # objective -> mean over these; empty where not measured
    cost: MethodCost[A] | None  # None where it is unknown
    standalone: Result[A] | None  # its trainings from scratch, None before

    @property
    def ap(self) -> float:
        """COCO AP under the supernet's fine-tuned weights; NaN where it is not measured."""
        return self.values.get(AP, math.nan)

    @property
    def standalone_ap(self) -> float | None:
        """COCO AP after training from scratch, the mean over seeds; None before."""
        return None if self.trainings is None else self.trainings.mean

    @property
    def trainings(self) -> Trainings | None:
        """COCO AP of each training from scratch; None before."""
        return None if self.standalone is None else self.standalone.by_seed

    @cached_property
    def gflops(self) -> float | None:
        """Those of the study's input size, or what its first trial has stored, or None."""
        if self.cost is None:
            return self.metric("gflops")
        return self.cost.total(self.architecture) / 1e9

    @property
    def generation(self) -> int:
        """0 for the first population and for what somebody else has added."""
        return self.records[0].generation

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        plan = self.records[0].plan
        kind = "" if plan is None else plan.origin.partition("_")[0]
        return kind if kind in KINDS else "other"

    @property
    def parents(self) -> tuple[int, ...]:
        """Numbers of the trials that the architecture was made from."""
        plan = self.records[0].plan
        return () if plan is None else plan.parents

    @property
    def by_seed(self) -> Trainings:
        """The AP of each of its trials, which are those of a stage that trains from scratch."""
        found: dict[int, float] = {}
        for record in self.records:
            repeat = record.repeat
            while repeat in found:  # somebody has added the trial
                repeat += 1
            found[repeat] = record.trial.values[0]
        return Trainings(dict(sorted(found.items())))

    def metric(self, name: str) -> float | None:
        """A finite number that its first trial has stored beside the objectives, or None."""
        return next((_stored(record, name) for record in self.records), None)

    def mean(self, name: str) -> float | None:
        """The mean over its trials of an objective, or of a number that they have stored."""
        if name in self.values:
            return self.values[name]
        found = [v for record in self.records if (v := _stored(record, name)) is not None]
        return float(np.mean(found)) if found else None


def _stored(record: Record[Any], name: str) -> float | None:
    """A finite number that a trial has stored beside the objectives, or None."""
    value = record.trial.user_attrs.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Summary:
    """A search in numbers; AP in [0, 1], one-shot AP over the architectures."""

    completed: int  # trials with a value
    failed: int  # trials that failed for good
    architectures: int  # that the completed trials measured
    one_shot_mean: float | None
    one_shot_min: float | None
    one_shot_max: float | None
    retrained: int  # how many of the best are retrained, from the first without a gap
    standalone_mean: float | None  # of these, each the mean over its seeds (Table 1)
    standalone_variance: float | None  # likewise, of the population
    standalone_max: float | None


@dataclass(frozen=True, eq=False)
class StudyView(Generic[A]):
    """A study at one moment, without the trials that `samplers.history` leaves out."""

    study: Study | None  # of the search; None before it has begun
    _: KW_ONLY
    method: Method[A]
    space: Space[A] | None  # None where it is unknown, so that no trial can be read
    feasibility: Feasibility | None = None  # cost and window; None where they are unknown
    stated_size: int | None = None  # P; None where it is unknown
    baseline_study: Study | None = None
    retrained_study: Study | None = None
    reported_images: str = VALIDATION  # that the retrained are measured on, see `Setting`
    ledger: Ledger[A] | None = None  # that has read the study before, and judges its trials

    @classmethod
    def load(cls, setting: Setting) -> StudyView[Any]:
        """The view of a study file's study, as far as it is stored.

        Raises:
            StudyMismatchError: the stored study was made with other settings.
        """
        return StudyView(
            setting.stored_study(),
            method=setting.method,
            space=setting.space,
            feasibility=study_feasibility(setting),
            stated_size=setting.config.sampler.population_size,
            baseline_study=setting.stored_study(setting.method.baseline_stage),
            retrained_study=setting.stored_study(RETRAIN),
            reported_images=setting.reported_images,
            ledger=setting.ledger,
        )

    @classmethod
    def of_stage(cls, setting: Setting, stage: str) -> StudyView[Any]:
        """The view of a stage beside the search, as far as it is stored."""
        study, space = setting.stored_study(stage), setting.evaluable(stage).space
        return StudyView(study, method=setting.method, space=space)

    @classmethod
    def of(cls, source: Study | StudyView[Any]) -> StudyView[Any]:
        """The view of a study with what is stored in it, unless it is a view already.

        A study without a configuration has the space of its sampler.
        """
        if isinstance(source, StudyView):
            return source
        config = source.user_attrs.get(CONFIG)
        method, space, found = stored_space(config)
        own = source.sampler if isinstance(source.sampler, ArchitectureSampler) else None
        if space is None and own is not None:
            space = own.feasible.space
        size = config.get("sampler.population_size") if isinstance(config, Mapping) else None
        retrained = _beside(source, RETRAIN)
        tested = TESTED in (retrained.user_attrs.get(CONFIG) or {}) if retrained else False
        return StudyView(
            source,
            method=method,
            space=space,
            feasibility=found,
            stated_size=size if isinstance(size, int) else None,
            baseline_study=_beside(source, method.baseline_stage),
            retrained_study=retrained,
            reported_images="test" if tested else VALIDATION,
            ledger=None if own is None else own.ledger,
        )

    # ------------------------------------------------------------------ what is measured

    @cached_property
    def measurements(self) -> tuple[Result[A], ...]:
        """Every finished trial on its own, by number."""
        alone = (averaged([record]) for record in self._records)
        return tuple(self._result(candidate) for found in alone for candidate in found)

    def measurement(self, trial: int) -> Result[A]:
        """That of a finished trial."""
        for measurement in self.measurements:
            if measurement.number == trial:
                return measurement
        raise ValueError(f"trial must be the number of a finished trial, got {trial}")

    @cached_property
    def results(self) -> tuple[Result[A], ...]:
        """Every architecture once, with its mean values; the highest AP first."""
        found = map(self._result, self._candidates)  # by number
        return tuple(sorted(found, key=lambda result: -result.values[AP]))

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives, the AP first."""
        return tuple(self._signs)

    @cached_property
    def best(self) -> tuple[Result[A], ...]:
        """The outcome of the search: all results, or the Pareto front of several objectives."""
        if len(self._signs) == 1:
            return self.results
        front = {candidate.architecture for candidate in pareto_front(self._candidates)}
        return tuple(result for result in self.results if result.architecture in front)

    @cached_property
    def baseline(self) -> Result[A] | None:
        """The hand-made architecture; None without a space."""
        if self.space is None:
            return None
        architecture = self.method.baseline_architecture(self.space)
        found = self._stage(self.baseline_study).results
        measured = next((r for r in found if r.architecture == architecture), None)
        return Result(
            name=self.method.baseline,
            architecture=architecture,
            number=None,
            records=() if measured is None else measured.records,
            values={} if measured is None else measured.values,
            cost=self.cost,
            standalone=self.retrained.get(architecture),
        )

    @cached_property
    def retrained(self) -> dict[A, Result[A]]:
        """The architectures that are trained from scratch, with their values after that."""
        return {r.architecture: r for r in self._stage(self.retrained_study).results}

    @property
    def several_seeds(self) -> bool:
        """True where an architecture is trained from scratch more than once."""
        return any(len(result.by_seed.values) > 1 for result in self.retrained.values())

    @cached_property
    def summary(self) -> Summary:
        """The search in numbers."""
        one_shot, completed = [r.ap for r in self.results], len(self.measurements)
        left_out = sum(record.misfit is not None for record in self._records)
        retrained = takewhile(lambda r: r.standalone_ap is not None, self.best)
        alone = [r.standalone_ap for r in retrained if r.standalone_ap is not None]
        return Summary(
            completed=completed,
            failed=0 if self.study is None else finished_slots(self.study) - completed - left_out,
            architectures=len(one_shot),
            one_shot_mean=float(np.mean(one_shot)) if one_shot else None,
            one_shot_min=min(one_shot, default=None),
            one_shot_max=max(one_shot, default=None),
            retrained=len(alone),
            standalone_mean=float(np.mean(alone)) if alone else None,
            standalone_variance=float(np.var(alone)) if alone else None,
            standalone_max=max(alone, default=None),
        )

    # ------------------------------------------------------------------ generation by generation

    @cached_property
    def population_size(self) -> int:
        """P; of a study that does not say, the size of the first population."""
        if self.stated_size is not None:
            return self.stated_size
        first = sum(m.generation == 0 for m in self.measurements)
        return min(first, _DEFAULT_POPULATION) or _DEFAULT_POPULATION

    @cached_property
    def n_generations(self) -> int:
        """Generations up to the last one that has a finished trial."""
        return 1 + max((m.generation for m in self.measurements), default=-1)

    @cached_property
    def populations(self) -> dict[int, tuple[Result[A], ...]]:
        """Generation -> its population, best first (Alg. 1, l. 9).

        Of more than `MOST_GENERATIONS` some are left out, and so are those in which nothing was
        measured yet.
        """
        by_architecture = {result.architecture: result for result in self.results}
        by_generation: dict[int, list[Record[A]]] = {}
        for record in self._records:
            by_generation.setdefault(record.generation, []).append(record)
        every = range(self.n_generations)
        step = -(-len(every) // MOST_GENERATIONS) or 1
        known: dict[A, Candidate[A]] = {}
        found = {}
        for g in every:
            for new in averaged(by_generation.get(g, [])):
                if (earlier := known.get(new.architecture)) is not None:
                    records = sorted((*earlier.records, *new.records), key=lambda r: r.number)
                    (new,) = averaged(records)
                known[new.architecture] = new
            if known and (g % step == 0 or g == every[-1]):
                best = top(known.values(), self.population_size)
                found[g] = tuple(by_architecture[c.architecture] for c in best)
        return found

    # ------------------------------------------------------------------ the space

    @property
    def cost(self) -> MethodCost[A] | None:
        """The cost of an architecture, None where it is unknown."""
        return None if self.feasibility is None else self.feasibility.cost

    @property
    def window(self) -> tuple[int, int] | None:
        """Least and largest multiply-adds of a proposal, None where they are unknown."""
        return None if self.feasibility is None else self.feasibility.window

    # ------------------------------------------------------------------ decoding

    @cached_property
    def _signs(self) -> dict[str, int]:
        """Objective -> its value is the loss times this."""
        if self.study is None:
            return {AP: -1}
        config, directions = self.study.user_attrs.get(CONFIG) or {}, self.study.directions
        known = {metric.label: name for name, metric in self.method.metrics.items()}
        labels = self.study.metric_names or [str(i) for i in range(len(directions))]
        names = config.get("objectives") or [known.get(label, label) for label in labels]
        signs = (-1 if d == StudyDirection.MAXIMIZE else 1 for d in directions)
        return dict(zip([AP, *names[1:]], signs, strict=True))

    @cached_property
    def _records(self) -> Sequence[Record[A]]:
        """The trials, decoded."""
        if self.study is None or self.space is None:
            return []
        allowed = partial(violation, self.space, self.cost, self.window)
        return (self.ledger or Ledger(self.space, allowed)).read(self.study).records

    @cached_property
    def _candidates(self) -> list[Candidate[A]]:
        return averaged(self._records)

    def _stage(self, study: Study | None) -> StudyView[A]:
        return StudyView(study, method=self.method, space=self.space)  # its window is not theirs

    def _result(self, candidate: Candidate[A]) -> Result[A]:
        number, values = candidate.number, zip(self._signs.items(), candidate.loss, strict=True)
        return Result(
            name=f"trial {number}",
            architecture=candidate.architecture,
            number=number,
            records=candidate.records,
            values={name: sign * value for (name, sign), value in values},
            cost=self.cost,
            standalone=self.retrained.get(candidate.architecture),
        )


def stored_space(config: object) -> tuple[Method[Any], Space[Any] | None, Feasibility | None]:
    """Method, space and window of a configuration that a study stores.

    Those that it does not tell are None, for example where another version has written it.
    """
    config = config if isinstance(config, Mapping) else {}
    method = METHODS.get(config.get("space.method", DEFAULT_METHOD), METHODS[DEFAULT_METHOD])
    space = None
    try:
        section = _section(method.section, "space", config)
        budget = _section(BudgetSection, "budget", config)
        space = method.space(section)
        cost = section_cost(method, section, budget, image_size=config["data.image_size"])
        target = budget_target(method, space, cost, budget)
    except (KeyError, TypeError, ValueError):
        return method, space, None
    found = Feasibility(method, space, cost, target=target, tolerance=budget.tolerance)
    return method, space, found


def _beside(study: Study, stage: str) -> Study | None:
    """The study of a stage, in the storage of the search."""
    name = stage_name(study.study_name, stage)
    try:
        return optuna.load_study(study_name=name, storage=storage_of(study))
    except KeyError:
        return None


def _section(section: type[_S], name: str, config: Mapping[str, Any]) -> _S:
    """A section of a study file, from the flat configuration that a study stores."""
    prefix = f"{name}."
    values = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
    return section(**values)
