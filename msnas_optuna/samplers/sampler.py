"""An Optuna sampler that proposes whole architectures.

It gives each trial a slot, asks a proposer for the slot's architecture, and stores it as the plan
of the trial before any parameter is suggested. It keeps no state: slot, random numbers and
parents follow from the stored trials, so a resumed study proposes what an uninterrupted one would.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Generic, cast
from zlib import crc32

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from msnas_optuna.samplers import algorithm1, recombination
from msnas_optuna.samplers.history import History, Ledger
from msnas_optuna.samplers.proposals import (
    Proposal,
    Proposer,
    Settings,
    SpaceExhaustedError,
    require_at_least,
)
from msnas_optuna.spaces.base import A, FeasibleSet, InvalidArchitectureError
from msnas_optuna.storage import (
    QUEUED_REPEAT,
    WITHDRAWN,
    Plan,
    Worker,
    identify,
    known_params,
    mark_interrupted,
    read_plan,
    write_plan,
)
from msnas_optuna.storage.optuna_private import fixed_params, set_state, set_trial_system_attr

_logger = logging.getLogger(__name__)

PROPOSERS: Final[dict[str, Proposer]] = {
    "algorithm1": algorithm1.propose,
    "recombination": recombination.propose,
}
_MAX_REPLANS: Final = 100  # of a slot, because another worker has made the same proposal meanwhile


class ArchitectureSampler(BaseGASampler, Generic[A]):
    """Evolution of whole architectures inside a budget.

    No architecture is proposed twice in a study, by however many workers, except to measure it
    again. Queued trials are evaluated as they are, and compete for parenthood as all others do.
    What is measured several times is ranked by the mean. Parameters that are not part of the
    space get random values.

    Trials of any generation but the first descend from the best P trials of earlier generations
    that are complete at that moment; with several workers, late ones become parents later.

    Trials that were not proposed in the study, such as those of another study or sampler that
    `study.add_trials` adds, count as generation 0. Those that hold no architecture of the feasible
    set are left out, with a warning that names them.

    The defaults are tuned for Algorithm 1 and a few hundred trials, see docs/samplers.md.

    Args:
        feasible: the architectures that may be proposed.
        proposer: "algorithm1", the paper's search, or "recombination" of the genes of all parents.
        population_size: P, trials of generation 0 and number of parents.
        n_children: children in each later generation.
        n_random: R, random architectures in each later generation (Table 5).
        n_reevaluated: in each later generation, measure one of the this many best architectures
            again, this many times; for noisy objectives. The one with the fewest measurements is
            next (of several objectives, among the best P).
        gene_probability: chance of each gene to be reset by a mutation, or by a recombination
            before the budget is known.
        max_attempts: M, attempts at a child; then a random architecture takes its place, of
            origin "substitute".
        seed: makes the sequence of proposals reproducible; None draws it anew.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        feasible: FeasibleSet[A],
        *,
        proposer: str = "algorithm1",
        population_size: int = 10,
        n_children: int = 10,
        n_random: int = 2,
        n_reevaluated: int = 0,
        gene_probability: float = 0.1,
        max_attempts: int = 3,
        seed: int | None = None,
    ) -> None:
        if proposer not in PROPOSERS:
            raise ValueError(f"proposer must be one of {', '.join(PROPOSERS)}, got {proposer!r}")
        if seed is not None:
            require_at_least("seed", seed, 0)
        self.settings = Settings(
            population_size=population_size,
            n_children=n_children,
            n_random=n_random,
            n_reevaluated=n_reevaluated,
            gene_probability=gene_probability,
            max_attempts=max_attempts,
        )
        super().__init__(population_size)
        self.feasible = feasible
        self._propose = PROPOSERS[proposer]
        self._entropy = _fresh_entropy() if seed is None else int(seed)
        self.ledger = Ledger(feasible.space, feasible.violation)

    # What Optuna calls

    def reseed_rng(self) -> None:
        """Draws new random numbers from here on; Optuna asks for it where n_jobs > 1."""
        self._entropy = _fresh_entropy()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Plans a queued or a repeated trial, whose parameters nobody may have to ask for.

        A new one is planned when the first parameter is asked for. Until then `Study.optimize`
        keeps no heartbeat, and the trial of a process that dies there stays RUNNING for ever.
        """
        known = known_params(trial, read_plan(trial))
        if not self.feasible.space.distributions.keys() & known.keys():
            return
        try:
            self._plan(study, trial)
        except BaseException:  # else the trial would stay RUNNING for ever
            mark_interrupted(study, trial)
            set_state(study, trial, TrialState.FAIL)
            raise

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters of the space."""
        return dict(self.feasible.space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The planned values; random ones for parameters that are not part of the space.

        Raises:
            SpaceExhaustedError: every feasible architecture has been proposed.
            ValueError: some of the space's parameters are left out, as `PartialFixedSampler` does.
        """
        plan = read_plan(trial)
        if plan is None:
            try:
                plan = self._plan(study, trial)
            except SpaceExhaustedError:
                set_trial_system_attr(study, trial, WITHDRAWN, trial.number)
                with suppress(RuntimeError):  # there is no loop of Optuna's
                    study.stop()  # else it goes on for ever where it is to `catch` this
                raise
        missing = plan.params.keys() - search_space.keys()
        if missing and search_space.keys() <= plan.params.keys():
            raise ValueError(
                "all parameters of an architecture are proposed at once, "
                f"{', '.join(sorted(missing))} cannot be left out; to fix some, "
                "`study.enqueue_trial` them, and what fits them is drawn"
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
        sampler = RandomSampler(seed=int(rng.integers(2**31)))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    # What BaseGASampler offers; its own versions keep state that parallel workers disagree on

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The first trials of the best P architectures of all earlier generations, best first."""
        best = self.ledger.read(study).population(generation, size=self.settings.population_size)
        return [candidate.records[0].trial for candidate in best]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The same as `select_parent`: storage holds all it depends on."""
        return self.select_parent(study, generation)

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The generation of a trial; 0 for one that another sampler has made."""
        return self.ledger.read(study).records[trial.number].generation

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The complete trials of a generation."""
        return [
            record.trial
            for record in self.ledger.read(study).records
            if record.generation == generation and record.trial.state == TrialState.COMPLETE
        ]

    # Planning

    def _plan(self, study: Study, trial: FrozenTrial) -> Plan:
        history = self.ledger.read(study, planned=trial.number)
        kept, worker = history.records[trial.number].plan, Worker.current(trial.number)
        if kept is not None and kept.worker.trial != trial.number:  # a retry keeps its plan
            plan = replace(kept, worker=worker)
            write_plan(study, trial, plan)
            return plan
        made_in = history.study or identify(study)
        slot = history.records[trial.number].slot
        generation = self.settings.generation(slot)
        rng = np.random.default_rng([self._entropy, slot])
        fixed = known_params(trial, None)
        if self.feasible.space.distributions.keys() & fixed.keys():
            params, repeat = self._queued(trial.number, fixed, history, rng=rng)
            plan = Plan(params, generation, "queued", (), slot, made_in, worker, repeat)
            write_plan(study, trial, plan)
            return plan
        for attempt in range(_MAX_REPLANS):
            proposal = self._proposal(history, slot, rng)
            repeat = proposal.repeat
            if repeat and attempt:  # else two workers might go on counting in step
                repeat += int(rng.integers(attempt + 1))
            params = self.feasible.space.encode(proposal.architecture)
            made = generation, proposal.origin, proposal.parents
            plan = Plan(params, *made, slot, made_in, worker, repeat)
            write_plan(study, trial, plan)
            history = self.ledger.read(study, planned=trial.number)
            # Of two workers with the same child at least the later writer sees the other's. It
            # may be the one with the lower number, so numbers cannot decide who yields.
            if repeat:
                taken = repeat in history.repeats(proposal.architecture).values()
            else:
                taken = history.holds(proposal.architecture)
            if not taken:
                break
        else:
            _logger.warning("trial %d repeats an architecture of another worker", trial.number)
        return plan

    def _proposal(self, history: History[A], slot: int, rng: np.random.Generator) -> Proposal[A]:
        if self.settings.is_reevaluation(slot) and (again := self._reevaluation(history, slot)):
            return again
        try:
            return self._propose(
                history, slot, rng=rng, feasible=self.feasible, settings=self.settings
            )
        except SpaceExhaustedError:
            again = self._reevaluation(history, slot)
            if again is None:
                raise
            return again

    def _reevaluation(self, history: History[A], slot: int) -> Proposal[A] | None:
        """The best of earlier generations that has the fewest measurements, once more.

        Deviation: the paper trusts one measurement, but one-shot AP is noisy, and the best of
        many noisy values is the luckiest one.
        """
        if not self.settings.n_reevaluated:
            return None
        generation = max(1, self.settings.generation(slot))  # the first may exhaust the space
        best = history.population(generation, size=self.settings.population_size)
        if not best:
            return None
        if len(best[0].loss) == 1:
            best = best[: self.settings.n_reevaluated]
        repeats = [history.repeats(candidate.architecture) for candidate in best]
        fewest = min(range(len(best)), key=lambda i: len(repeats[i]))
        again, repeat = best[fewest], _next_repeat(repeats[fewest])
        return Proposal(again.architecture, "reevaluated", (again.number,), repeat)

    def _queued(
        self,
        number: int,
        fixed: Mapping[str, Any],
        history: History[A],
        *,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], int]:
        """Parameters of a queued trial and its repeat; those left open are drawn to fit the rest.

        Whether they are feasible is for the objective to judge, which can refuse with a reason.
        """
        space = self.feasible.space
        params = {name: fixed[name] for name in space.distributions if name in fixed}
        if not space.distributions.keys() <= fixed.keys():
            fitting = self._completion(fixed, history, rng)
            filling = self.feasible.sample(rng) if fitting is None else fitting
            params = space.encode(filling) | params
        try:
            architecture = space.decode(params)
            violation = self.feasible.violation(architecture)
        except InvalidArchitectureError as error:
            violation = str(error)
        else:
            params |= space.encode(architecture)  # as the space writes them: 1.0 for 1
        if violation is not None:
            text = "what is queued as trial %d is not feasible, and never a parent: %s"
            _logger.warning(text, number, violation)
            return params, 0
        record = history.records[number]
        if (given := record.trial.system_attrs.get(QUEUED_REPEAT)) is not None:
            return params, given
        slot = record.slot
        earlier = {s: r for s, r in history.repeats(architecture).items() if s < slot}
        return params, _next_repeat(earlier)

    def _completion(
        self, fixed: Mapping[str, Any], history: History[A], rng: np.random.Generator
    ) -> A | None:
        """A feasible architecture with the fixed parameters, new if there is a new one."""
        genes = [fixed.get(name) for name in self.feasible.space.distributions]
        seen: set[A] = set()
        n_draws = 0
        while n_draws <= 40 * (len(seen) + 1):  # all are seen by then, but for odds of e^-40
            drawn = self.feasible.complete(rng, genes)
            if drawn is None or not history.holds(drawn):
                return drawn
            seen.add(drawn)
            n_draws += 1
        return drawn


def suggest(trial: Trial, feasible: FeasibleSet[A]) -> A:
    """The trial's architecture; an objective calls it first, for every parameter is suggested.

    Raises:
        InvalidArchitectureError: it breaks a rule of the space or lies outside the budget, or
            was queued with a value that no parameter of the space has.
    """
    params = {}
    for name, distribution in feasible.space.distributions.items():
        try:
            params[name] = trial.suggest_categorical(name, distribution.choices)
        except ValueError as error:
            if name not in fixed_params(trial):
                raise
            text = f"{name} is queued with a wrong value: {error}"
            raise InvalidArchitectureError(text) from error
    architecture = feasible.space.decode(params)
    if (violation := feasible.violation(architecture)) is not None:
        raise InvalidArchitectureError(f"{architecture}: {violation}")
    return architecture


def _next_repeat(repeats: Mapping[int, int]) -> int:
    """The number of a measurement after these, by slot."""
    return max(len(repeats), 1 + max(repeats.values(), default=-1))


def _fresh_entropy() -> int:
    return cast("int", np.random.SeedSequence().entropy)
