"""The evolutionary search for architectures as an Optuna sampler.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1
and §4.1 (P = 50, 50 children and about 10 random children an iteration).

    1  pop_0 = GetValidRandomSample(P)
    2  for i = 1..T:
    3    pop_i = {} ; j = 0
    4    while j < M and |pop_i| <= P:
    5      children = CrossoverEncoder(pop_{i-1}) | MutationEncoder(pop_{i-1})
    6               | CrossoverFeatureStride(pop_{i-1}) | MutationFeatureStride(pop_{i-1})
    7      pop_i |= Select(children, C) ; j += 1
    8    pop_i |= Select(GetValidRandomSample(R), C)
    9    pop_i = Topk(pop_i | pop_{i-1}, P)
    10 return Topk(pop_T, k)

Symbols: P population size, R random children of an iteration, M attempts at a child, C the
budget, i generation. A slot is a place in the sequence of proposals.

The sampler keeps no state: slot, random numbers, parents and repeats all follow from the trials
in storage, so that a resumed study proposes what an uninterrupted one would.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any, Final, Literal, cast, get_args
from zlib import crc32

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.samplers import operators as ops
from msnas_optuna.samplers.history import History, Ledger, Record, Schedule, next_repeat
from msnas_optuna.samplers.recombination import GenePool, Recombination
from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError
from msnas_optuna.storage import (
    Plan,
    Worker,
    known_params,
    mark_interrupted,
    read_plan,
    withdraw_claimed,
    write_plan,
)

_logger = logging.getLogger(__name__)

OperatorKind = Literal["exact", "rejection"]

_MAX_REPLANS: Final = 100
"""How often a proposal is made anew because another worker has made the same one meanwhile."""

_MOST_DRAWS: Final = 10_000
"""How often the open part of a queued trial is drawn until it is new; all may be taken."""


class SpaceExhaustedError(RuntimeError):
    """Every feasible architecture has been proposed in the study."""


@dataclass(frozen=True)
class Proposal:
    """An architecture, how it came about and how many measurements of it came before."""

    architecture: Architecture
    origin: str
    parents: tuple[int, ...] = ()
    repeat: int = 0


class MSNASSampler(BaseGASampler):
    """Algorithm 1: evolution of whole architectures inside a budget.

    A child is planned before its trial starts and stored as one attribute of the trial. No
    architecture is proposed twice in a study, by however many workers, except to measure it
    again. Queued trials are evaluated as they are, and compete for parenthood as all others do.
    What is measured several times is ranked by the mean.

    Trials of any generation but the first descend from the best P trials of earlier generations
    that are complete at that moment; with several workers, late ones become parents later.

    Without `feasible` this is a genetic algorithm for parameters of any kind: uniform crossover
    and random resets.

    A child is, by default, a recombination of all parents (not in the paper: its four operators
    are `recombination_probability=0`). The numbers of parents and children are tuned for a few
    hundred trials; the paper's, 50, 50 and 10, are as good from five hundred trials on, and suit
    a front of several objectives and dozens of workers. One or two parents have hardly any new
    child to recombine, so that most children are random then; use the four operators there, with
    a wide `window`.

    Args:
        feasible: the architectures that may be proposed.
        population_size: P, trials of generation 0 and number of parents.
        n_children: children of the operators in each later generation.
        n_random: R, random architectures in each later generation (Table 5).
        n_reevaluated: in each later generation, measure one of the this many best architectures
            again, this many times; for noisy objectives. The one with the fewest measurements is
            next (of several objectives, among the best P). Needs `feasible`.
        mutation_probability: of the four operators, chance of a mutation rather than a
            crossover. Like the next two, without effect where all children are recombinations.
        encoder_probability: chance to vary the encoder rather than the utilisation.
        window: without effect.
        gene_probability: chance of each gene to be reset by a recombination, before the budget
            is known (children are drawn in proportion, among the feasible ones), or by a
            rejecting mutation.
        operators: "exact" recombines, "rejection" varies blindly and drops what is not feasible,
            as the paper does.
        recombination_probability: chance that an exact child takes each gene from any of the P
            parents, rather than by one of the four operators of Algorithm 1.
        max_attempts: M, attempts at a child; then a random architecture takes its place, and
            says so by its origin. Those of "rejection" mostly fail, and want hundreds.
        seed: makes the sequence of proposals reproducible; None draws it anew.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        feasible: FeasibleSet[Architecture] | None = None,
        *,
        population_size: int = 10,
        n_children: int = 10,
        n_random: int = 1,
        n_reevaluated: int = 0,
        mutation_probability: float = 0.5,
        encoder_probability: float = 0.5,
        window: int = 4,
        gene_probability: float = 0.05,
        operators: OperatorKind = "exact",
        recombination_probability: float = 1.0,
        max_attempts: int = 50,
        seed: int | None = None,
    ) -> None:
        _at_least("population_size", population_size, 1)
        _at_least("n_children", n_children, 0)
        _at_least("n_random", n_random, 0)
        _at_least("n_reevaluated", n_reevaluated, 0)
        _at_least("n_children + n_random", n_children + n_random, 1)
        _at_least("window", window, 1)
        _at_least("max_attempts", max_attempts, 1)
        _probability("mutation_probability", mutation_probability)
        _probability("encoder_probability", encoder_probability)
        _probability("gene_probability", gene_probability)
        _probability("recombination_probability", recombination_probability)
        _check_operators(operators)
        if feasible is None and n_reevaluated:
            raise ValueError(
                f"n_reevaluated needs a feasible set, because parameters of any kind are not "
                f"measured again, got {n_reevaluated}; give one, or leave it 0"
            )
        if seed is not None:
            _at_least("seed", seed, 0)
        super().__init__(population_size)
        self._feasible = feasible
        self._schedule = Schedule(population_size, n_children, n_random, n_reevaluated)
        self._mutation_probability = mutation_probability
        self._encoder_probability = encoder_probability
        self._operators = _operators(gene_probability)
        self._recombination_probability = recombination_probability if operators == "exact" else 0
        self._recombination = Recombination(gene_probability)
        self._max_attempts = max_attempts
        self._entropy = _fresh_entropy() if seed is None else operator.index(seed)
        self._ledger = Ledger(feasible, self._schedule)

    # What Optuna calls

    def reseed_rng(self) -> None:
        """Draws new random numbers from here on; Optuna asks for it where n_jobs > 1."""
        self._entropy = _fresh_entropy()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Plans the trial; this is the only hook that sees queued and repeated trials too.

        Raises:
            SpaceExhaustedError: every feasible architecture has been proposed.
        """
        if self._feasible is None:
            return
        try:
            self._plan(study, trial, self._feasible)
        except SpaceExhaustedError:
            withdraw_claimed(study, trial)
            raise
        except BaseException:  # else the trial would stay RUNNING for ever
            mark_interrupted(study, trial)
            study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            raise

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters of the space; without a space, those that all trials have shared."""
        if self._feasible is not None:
            return dict(self._feasible.space.distributions)
        shared = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: d for name, d in shared.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The planned values; random ones for parameters that are not part of the space.

        Raises:
            ValueError: some of the space's parameters are left out, as `PartialFixedSampler` does.
        """
        if self._feasible is None:
            return self._generic_child(study, trial, search_space)
        if read_plan(trial) is None:
            self.before_trial(study, trial)
        plan = read_plan(trial)
        assert plan is not None
        missing = plan.params.keys() - search_space.keys()
        if missing and search_space.keys() <= plan.params.keys():
            raise ValueError(
                f"all parameters of an architecture are proposed at once, {_names(missing)} "
                "cannot be left out; to fix some, `study.enqueue_trial` them, and what fits them "
                "is drawn"
            )
        return {
            name: plan.params[name]
            if name in plan.params
            else self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value, for parameters that are not part of the space."""
        rng = np.random.default_rng([self._entropy, trial.number, crc32(param_name.encode())])
        return _random_value(study, trial, param_name, param_distribution, rng)

    # What BaseGASampler offers; its own versions keep state that parallel workers disagree on

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The best P trials of all earlier generations, best first."""
        history = self._history(study)
        return [r.trial for r in self._parents(history, generation, len(history.records))]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The same as `select_parent`: storage holds all it depends on."""
        return self.select_parent(study, generation)

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The generation of a trial; 0 for one that another sampler has made."""
        return self._history(study).records[trial.number].generation

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The complete trials of a generation."""
        return [
            record.trial
            for record in self._history(study).records
            if record.generation == generation and record.trial.state == TrialState.COMPLETE
        ]

    # Planning

    def _history(self, study: Study) -> History:
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        return self._ledger.read(trials, study.directions)

    def _parents(self, history: History, generation: int, before: int) -> list[Record]:
        return history.parents(  # Alg. 1, l. 9
            generation, before=before, size=self._schedule.population_size
        )

    def _plan(self, study: Study, trial: FrozenTrial, feasible: FeasibleSet[Architecture]) -> None:
        plan = read_plan(trial)
        if plan is not None and plan.worker.trial != trial.number:  # a retry keeps its plan
            write_plan(study, trial, replace(plan, worker=Worker.current(trial.number)))
            return
        history = self._history(study)
        slot = history.records[trial.number].slot
        rng = np.random.default_rng([self._entropy, slot])
        fixed = known_params(trial, None)
        if fixed and feasible.space.distributions.keys() & fixed.keys():
            queued = self._queued(fixed, history, trial.number, rng, feasible)
            repeat = _repeat_of_queued(queued, history, slot, feasible)
            plan = self._as_plan(trial, slot, queued, origin="queued", repeat=repeat)
            write_plan(study, trial, plan)
            _warn_unless_feasible(trial.number, queued, feasible)
            return
        for attempt in range(_MAX_REPLANS):
            proposal = self._propose(history, slot, trial.number, rng, feasible)
            if proposal.repeat and attempt:  # else two workers might go on counting in step
                jitter = int(rng.integers(attempt + 1))
                proposal = replace(proposal, repeat=proposal.repeat + jitter)
            params = feasible.space.encode(proposal.architecture)
            plan = self._as_plan(
                trial,
                slot,
                params,
                origin=proposal.origin,
                parents=proposal.parents,
                repeat=proposal.repeat,
            )
            write_plan(study, trial, plan)
            history = self._history(study)
            # Of two workers with the same child at least the later writer sees the other's. It
            # may be the one with the lower number, so numbers cannot decide who yields.
            if not _is_taken(proposal, history, slot, trial.number):
                return
        _logger.warning("trial %d repeats an architecture of another worker", trial.number)

    def _as_plan(
        self,
        trial: FrozenTrial,
        slot: int,
        params: Mapping[str, Any],
        *,
        origin: str,
        parents: tuple[int, ...] = (),
        repeat: int = 0,
    ) -> Plan:
        generation, worker = self._schedule.generation(slot), Worker.current(trial.number)
        return Plan(params, generation, origin, parents, slot, worker, repeat)

    def _propose(
        self,
        history: History,
        slot: int,
        number: int,
        rng: np.random.Generator,
        feasible: FeasibleSet[Architecture],
    ) -> Proposal:
        if self._schedule.is_reevaluation(slot):
            again = self._reevaluation(history, slot, number)
            if again is not None:
                return again
        elif not self._schedule.is_random(slot):
            parents = self._parents(history, self._schedule.generation(slot), number)
            pool = self._gene_pool(parents, feasible)
            taken = partial(history.holds, besides=number)
            for _ in range(self._max_attempts if parents else 0):  # Alg. 1, l. 4
                # Deviation: repeats are dropped, because to evaluate one again tells nothing new.
                child = self._child(parents, pool, rng, feasible, taken=taken)
                if child is not None:
                    return child
        # Deviation: pop_0 is drawn inside C, because else the heaviest win every Topk; random
        # children come before the others, because they need not wait for their parents.
        try:
            return _random_child(history, number, rng, feasible)  # Alg. 1, l. 1 and 8
        except SpaceExhaustedError:
            again = self._reevaluation(history, slot, number)
            if again is None:
                raise
            return again

    def _reevaluation(self, history: History, slot: int, number: int) -> Proposal | None:
        """The best of earlier generations that has the fewest measurements, once more.

        Deviation: the paper trusts one measurement, but one-shot AP is noisy, and the best of
        many noisy values is the luckiest one.
        """
        if not self._schedule.n_reevaluated:
            return None
        generation = max(1, self._schedule.generation(slot))  # the first may exhaust the space
        best = self._parents(history, generation, number)
        if best and best[0].loss is not None and len(best[0].loss) == 1:
            best = best[: self._schedule.n_reevaluated]
        known = [(r.architecture, r.number) for r in best if r.architecture is not None]
        if not known:
            return None
        measured = [history.slots_of(architecture, besides=slot) for architecture, _ in known]
        (architecture, first), slots = min(
            zip(known, measured, strict=True), key=lambda pair: len(pair[1])
        )
        return Proposal(architecture, "reevaluated", (first,), next_repeat(slots))

    def _gene_pool(
        self, parents: list[Record], feasible: FeasibleSet[Architecture]
    ) -> GenePool | None:
        """What recombined children are drawn from; None where there are none."""
        if not (parents and self._recombination_probability):
            return None
        known = (r.architecture for r in parents if r.architecture is not None)  # all are
        return self._recombination.pool(known, feasible)

    def _child(
        self,
        parents: list[Record],
        pool: GenePool | None,
        rng: np.random.Generator,
        feasible: FeasibleSet[Architecture],
        *,
        taken: Callable[[Architecture], bool],
    ) -> Proposal | None:
        """One attempt at a child that is not taken."""
        if rng.random() < self._recombination_probability and pool is not None:
            return _recombined(parents, pool, rng, taken=taken)
        mutate = rng.random() < self._mutation_probability or len(parents) < 2
        encoder = rng.random() < self._encoder_probability
        origin = ("mutate" if mutate else "crossover") + (
            "_encoder" if encoder else "_feature_strides"
        )
        chosen = rng.choice(len(parents), size=1 if mutate else 2, replace=False).tolist()
        child = self._operators[origin](  # Alg. 1, l. 5-7
            *(parents[i].architecture for i in chosen), feasible=feasible, rng=rng
        )
        if child is None or taken(child):
            return None
        return Proposal(child, origin, tuple(parents[i].number for i in chosen))

    def _queued(
        self,
        fixed: dict[str, Any],
        history: History,
        number: int,
        rng: np.random.Generator,
        feasible: FeasibleSet[Architecture],
    ) -> dict[str, Any]:
        """A queued trial's parameters; those that it leaves open are drawn to fit the others.

        Whether they are feasible is for the objective to judge, which can refuse with a reason.
        """
        names = feasible.space.distributions
        if names.keys() <= fixed.keys():
            return _as_choices(fixed, feasible)
        values = [fixed.get(name) for name in names]
        tries = ops.bounded_tries(history.n_held(besides=number) + 1, 1)
        for _ in range(min(tries, _MOST_DRAWS)):
            drawn = feasible.complete(rng, values)
            if drawn is None or not history.holds(drawn, besides=number):
                break
        filling = feasible.space.encode(drawn if drawn is not None else feasible.sample(rng))
        return {**filling, **fixed}

    # Without a space

    def _generic_child(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Each parameter from one of two parents, or random."""
        history = self._history(study)
        slot = history.records[trial.number].slot
        rng = np.random.default_rng([self._entropy, slot])
        parents = []
        if not self._schedule.is_random(slot):
            generation = self._schedule.generation(slot)
            parents = self._parents(history, generation, trial.number)
        pair = [parents[i].trial for i in rng.integers(len(parents), size=2)] if parents else []
        child = {}
        for name, distribution in search_space.items():
            inherited = [p.params[name] for p in pair if _inheritable(p, name, distribution)]
            if inherited and rng.random() >= 1 / len(search_space):
                child[name] = inherited[int(rng.integers(len(inherited)))]
            else:
                child[name] = _random_value(study, trial, name, distribution, rng)
        return child


def _operators(gene_probability: float) -> dict[str, Callable[..., Architecture | None]]:
    """The operators by origin."""
    return {
        "crossover_encoder": ops.rejecting_crossover_encoder,
        "mutate_encoder": partial(ops.rejecting_mutate_encoder, probability=gene_probability),
        "crossover_feature_strides": ops.rejecting_crossover_feature_strides,
        "mutate_feature_strides": partial(
            ops.rejecting_mutate_feature_strides, probability=gene_probability
        ),
    }


def _recombined(
    parents: list[Record],
    pool: GenePool,
    rng: np.random.Generator,
    *,
    taken: Callable[[Architecture], bool],
) -> Proposal | None:
    child = pool.child(rng)
    if child is None or taken(child):
        return None
    numbers = tuple(parents[i].number for i in pool.contributors(child))
    return Proposal(child, "recombination", numbers)


def _random_child(
    history: History, number: int, rng: np.random.Generator, feasible: FeasibleSet[Architecture]
) -> Proposal:
    """Uniform over the feasible architectures that no trial has."""
    total, held = feasible.count(), history.n_held(besides=number)
    if held >= total:
        raise SpaceExhaustedError(
            f"all {total} feasible architectures have been proposed; widen the FLOPs window or "
            "ask for fewer trials"
        )
    for _ in range(ops.bounded_tries(total, total - held)):
        architecture = feasible.sample(rng)
        if not history.holds(architecture, besides=number):
            return Proposal(architecture, "random")
    raise RuntimeError(
        f"{total - held} of {total} feasible architectures are new, but `sample` returns none of "
        "them; it must draw uniformly"
    )


def _is_taken(proposal: Proposal, history: History, slot: int, number: int) -> bool:
    """Whether another trial has the architecture, or the same repeat of it."""
    if proposal.repeat:
        slots = history.slots_of(proposal.architecture, besides=slot)
        return proposal.repeat in slots.values()
    return history.holds(proposal.architecture, besides=number)


def _repeat_of_queued(
    params: dict[str, Any], history: History, slot: int, feasible: FeasibleSet[Architecture]
) -> int:
    try:
        architecture = feasible.space.decode(params)
    except InvalidArchitectureError:
        return 0
    slots = history.slots_of(architecture, besides=slot).items()
    return next_repeat({other: repeat for other, repeat in slots if other < slot})


def _warn_unless_feasible(
    number: int, params: dict[str, Any], feasible: FeasibleSet[Architecture]
) -> None:
    try:
        violation = feasible.violation(feasible.space.decode(params))
    except InvalidArchitectureError as error:
        violation = str(error)
    if violation is not None:
        _logger.warning(
            "what is queued as trial %d is not feasible, and never a parent: %s", number, violation
        )


def _names(parameters: Iterable[str]) -> str:
    return ", ".join(sorted(parameters))


def _as_choices(params: dict[str, Any], feasible: FeasibleSet[Architecture]) -> dict[str, Any]:
    """The parameters as the space writes them (1.0 for 1), where it can read them."""
    try:
        return {**params, **feasible.space.encode(feasible.space.decode(params))}
    except InvalidArchitectureError:
        return params


def _inheritable(parent: FrozenTrial, name: str, distribution: BaseDistribution) -> bool:
    """Whether the parent's value is one that the distribution can give."""
    if name not in parent.params or parent.distributions[name] != distribution:
        return False
    return distribution._contains(distribution.to_internal_repr(parent.params[name]))


def _random_value(
    study: Study,
    trial: FrozenTrial,
    name: str,
    distribution: BaseDistribution,
    rng: np.random.Generator,
) -> Any:
    sampler = RandomSampler(seed=int(rng.integers(2**31)))
    return sampler.sample_independent(study, trial, name, distribution)


def _fresh_entropy() -> int:
    return cast("int", np.random.SeedSequence().entropy)


def _at_least(name: str, value: int, least: int) -> None:
    try:
        fits = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _probability(name: str, value: float) -> None:
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number in 0..1, got {value!r}")


def _check_operators(kind: str) -> None:
    if kind not in get_args(OperatorKind):
        raise ValueError(f"operators must be 'exact' or 'rejection', got {kind!r}")
