"""Rank fidelity: whether cheap scores order architectures as trainings from scratch do.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
recalibrates batch norm; the MSNAS paper (§3.4, Tables 2 and 4) fine-tunes. Each score is a stage
of its own beside the search, with an Optuna trial for each architecture, so that everything stops
and continues at any point; the truth is the stage of the retraining.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic

import numpy as np

from msnas_optuna.spaces.base import A, FeasibleSet
from msnas_optuna.spaces.gaussian_process import GaussianProcess
from msnas_optuna.storage import finished_slots, n_slots
from msnas_optuna.study.config import RETRAIN, FinetuneSection
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

if TYPE_CHECKING:
    from msnas_optuna.study.experiment import Experiment, Run

POOL: Final = 4  # architectures that are scored cheaply, for each one of the sample
RECALIBRATION_BATCHES: Final = 20  # where the study file has none
SAMPLE: Final = "sample"  # user attribute: the architectures of the last command, as texts
_STREAM: Final = 4  # separates the draws of the pool from other random numbers of the seed


@dataclass(frozen=True, order=True)
class Score:
    """A one-shot AP: the supernet's weights, after some steps of fine-tuning."""

    steps: int
    recalibrated: bool = False  # the statistics of batch norm, though nothing is trained

    @property
    def stage(self) -> str:
        """The stage that measures it; see `config.RANK_STAGES`."""
        return "rank-recalibrated" if self.recalibrated else f"rank-{self.steps}"

    @classmethod
    def of_stage(cls, stage: str) -> Score | None:
        """The score that a stage measures; None where it measures none."""
        if stage == RECALIBRATED.stage:
            return RECALIBRATED
        steps = stage.removeprefix("rank-")
        return cls(int(steps)) if steps != stage and steps.isdecimal() else None

    def __str__(self) -> str:
        if self.recalibrated:
            return "recalibrated"
        return f"fine-tuned {self.steps}" if self.steps else "as is"

    def recipe(self, finetune: FinetuneSection) -> FinetuneSection:
        """The recipe of the search with this score's steps."""
        batches = finetune.recalibration_batches
        if self.recalibrated:
            batches = batches or RECALIBRATION_BATCHES
        elif not self.steps:
            batches = 0
        return dataclasses.replace(finetune, steps=self.steps, recalibration_batches=batches)


RECALIBRATED: Final = Score(0, recalibrated=True)
"""The cheapest score that ranks at all; it stratifies the sample."""

SMOOTHED: Final = "recalibrated, smoothed"
"""The mean of a Gaussian process over the recalibrated scores of the whole pool."""


def pool(feasible: FeasibleSet[A], size: int, *, seed: int) -> list[A]:
    """Different architectures, drawn uniformly; a larger pool begins with the smaller one."""
    rng, drawn = np.random.default_rng([seed, _STREAM]), dict[A, None]()
    while len(drawn) < min(size, feasible.count()):
        drawn[feasible.sample(rng)] = None
    return list(drawn)


def stratified(scores: Mapping[A, float], size: int) -> list[A]:
    """A sample of a pool: one of each of `size` runs of equal length, ordered by score.

    Of each run the one that was drawn first, which is a uniform draw from it.
    """
    place = {architecture: i for i, architecture in enumerate(scores)}
    ranked = sorted(scores, key=lambda architecture: scores[architecture])
    runs = np.array_split(np.arange(len(ranked)), min(size, len(ranked)))
    return [min((ranked[i] for i in run), key=place.__getitem__) for run in runs if len(run)]


def measure(
    experiment: Experiment,
    *,
    size: int,
    seeds: int,
    steps: Sequence[int],
    run: Run | None = None,
) -> None:
    """Draws the sample, scores it, and trains it from scratch, each architecture `seeds` times.

    What is measured before is kept, also by a search and by other processes at the same time.

    Args:
        experiment: of the study file.
        size: architectures of the sample; all of a smaller window.
        seeds: trainings of each.
        steps: of fine-tuning, a score for each.
        run: lets others evaluate what is queued.

    Raises:
        CheckpointError: the supernet is not trained.
        StudyMismatchError: a stage was measured with other settings.
        RuntimeError: other processes have not ended with the pool, which the sample hangs on.
    """
    setting = experiment.setting
    candidates = pool(setting.feasible, POOL * size, seed=setting.config.study.seed)
    experiment.score(candidates, [RECALIBRATED], run=run)
    study = setting.stored_study(RECALIBRATED.stage)
    assert study is not None
    if left := n_slots(study) - finished_slots(study):
        raise RuntimeError(
            f"the sample is drawn when the whole pool is scored, {left} architectures are left to "
            f"other workers; the same command continues when they have ended"
        )
    scored = _scores(setting, RECALIBRATED)
    sample = stratified({a: scored[a] for a in candidates if a in scored}, size)
    study.set_user_attr(SAMPLE, [str(architecture) for architecture in sample])
    experiment.score(sample, map(Score, steps), run=run)
    experiment.train_alone(sample, seeds, run=run)


@dataclass(frozen=True, eq=False)
class Ranking(Generic[A]):
    """What is measured of the sample so far; AP in [0, 1].

    Attributes:
        sample: the architectures, the lowest recalibrated score first.
        scores: name of a score -> architecture -> value, of the sample and of others.
        truth: architecture -> AP of each training from scratch.
    """

    sample: tuple[A, ...]
    scores: Mapping[str, Mapping[A, float]]
    truth: Mapping[A, tuple[float, ...]]

    @classmethod
    def load(cls, setting: Setting) -> Ranking[Any]:
        """What the storage of a study file holds.

        Raises:
            ValueError: `measure` has not drawn its sample yet.
        """
        study = setting.stored_study(RECALIBRATED.stage)
        if study is None or SAMPLE not in study.user_attrs:
            raise ValueError(
                f"study {setting.study_name()} has no sample to rank yet; run "
                f"`{setting.command('rank')}` without --so-far"
            )
        stages = filter(None, setting.stages_in(setting.storage))
        measured = sorted(filter(None, map(Score.of_stage, stages)))
        scores = {str(score): _scores(setting, score) for score in measured}
        known = scores[str(RECALIBRATED)]
        model = GaussianProcess(setting.space, list(known), list(known.values()))
        smoothed = zip(known, model.mean(list(known)).tolist(), strict=True)
        return cls(
            sample=tuple(map(setting.method.parse, study.user_attrs[SAMPLE])),
            scores=scores | {SMOOTHED: dict(smoothed)},
            truth={
                r.architecture: tuple(r.by_seed.values.values())
                for r in StudyView.of_stage(setting, RETRAIN).results
            },
        )

    @property
    def trained(self) -> list[tuple[float, ...]]:
        """The trainings of each architecture of the sample that has any."""
        return [self.truth[a] for a in self.sample if a in self.truth]

    def pairs(self, score: str) -> dict[A, tuple[float, tuple[float, ...]]]:
        """Architecture of the sample -> score and trainings, where both are there."""
        values, truth = self.scores[score], self.truth
        return {a: (values[a], truth[a]) for a in self.sample if a in values and a in truth}


def _scores(setting: Setting, score: Score) -> dict[Any, float]:
    return {r.architecture: r.ap for r in StudyView.of_stage(setting, score.stage).results}
