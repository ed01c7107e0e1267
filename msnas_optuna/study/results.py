"""What a search has found, read from its stored trials. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.spaces.base import Space
from msnas_optuna.storage import StudyMismatchError, finished_slots
from msnas_optuna.study.setting import RETRAIN, Setting


@dataclass(frozen=True)
class Result:
    """One architecture with all that is known about it.

    Attributes:
        architecture: strides and feature strides.
        gflops: encoder + RPN head, 1e9 multiply-adds.
        trial: number of its first trial in the search, None for the hand-made path.
        one_shot_ap: COCO AP in [0, 1] under the supernet's fine-tuned weights; the mean where it
            is measured several times.
        measurements: the one-shot AP of each of its trials.
        latency_ms: mean time of a forward pass, None if the search does not measure it.
        standalone_ap: COCO AP in [0, 1] after training from scratch, None if not retrained.
    """

    architecture: Any
    gflops: float
    trial: int | None
    one_shot_ap: float | None
    measurements: tuple[float, ...]
    latency_ms: float | None
    standalone_ap: float | None


@dataclass(frozen=True)
class Evaluated:
    """An architecture that the search has measured.

    Attributes:
        architecture: strides and feature strides.
        trials: its finished trials, by number.
        values: the mean of each objective.
    """

    architecture: Any
    trials: tuple[FrozenTrial, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """A search in numbers; AP in [0, 1].

    Attributes:
        completed: trials with a value.
        failed: trials that failed for good.
        architectures: how many architectures these trials measured.
        one_shot_mean: mean one-shot AP over the architectures, None before the first.
        one_shot_min: the least.
        one_shot_max: the largest.
        retrained: how many of the best are retrained, from the first without a gap.
        standalone_mean: mean stand-alone AP of these (Table 1), None before the first.
        standalone_variance: their population variance, as in Table 1.
        standalone_max: the largest.
    """

    completed: int
    failed: int
    architectures: int
    one_shot_mean: float | None
    one_shot_min: float | None
    one_shot_max: float | None
    retrained: int
    standalone_mean: float | None
    standalone_variance: float | None
    standalone_max: float | None


def evaluated(setting: Setting, stage: str | None = None) -> list[Evaluated]:
    """The architectures of the search, or of a stage, by mean AP, best first."""
    study = setting.stored_study(stage)
    return [] if study is None else evaluated_in(study, setting.space)


def evaluated_in(study: Study, space: Space[Any]) -> list[Evaluated]:
    """The architectures that a study has measured, by mean AP, best first."""
    groups: dict[Any, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        groups.setdefault(space.decode(trial.params), []).append(trial)
    found = [
        Evaluated(a, tuple(ts), tuple(map(fmean, zip(*(t.values for t in ts), strict=True))))
        for a, ts in groups.items()
    ]
    return sorted(found, key=lambda e: (-e.values[0], e.trials[0].number))


def ranked(setting: Setting) -> list[Evaluated]:
    """The result of the search, highest AP first.

    All architectures, or the Pareto front where there are several objectives.

    Raises:
        StudyMismatchError: the stored study has other objectives.
    """
    everything = evaluated(setting)
    if len(setting.metrics) == 1 or not everything:
        return everything
    if any(len(e.values) != len(setting.metrics) for e in everything):
        raise StudyMismatchError(
            f"study {setting.study_name()} was made with other study.objectives than "
            f"{list(setting.config.study.objectives)}; restore the stored ones"
        )
    signs = np.array([-1 if m.direction == "maximize" else 1 for m in setting.metrics])
    losses = signs * np.array([e.values for e in everything])  # [architectures, objectives]
    return [e for e, loss in zip(everything, losses, strict=True) if not _dominated(loss, losses)]


def _dominated(loss: NDArray[np.float64], losses: NDArray[np.float64]) -> bool:
    return bool(((losses <= loss).all(axis=1) & (losses < loss).any(axis=1)).any())


def best_results(setting: Setting, top: int | None) -> tuple[list[Result], Result]:
    """The best architectures of the search and, beside them, the hand-made FPN-like path.

    Args:
        setting: the study.
        top: how many at most; None for all that `ranked` gives.
    """
    alone = {e.architecture: e.values[0] for e in evaluated(setting, RETRAIN)}

    def result(found: Evaluated, trial: int | None) -> Result:
        values = dict(zip(setting.config.study.objectives, found.values, strict=False))
        return Result(
            architecture=found.architecture,
            gflops=setting.cost.total(found.architecture) / 1e9,
            trial=trial,
            one_shot_ap=values.get("ap"),
            measurements=tuple(t.values[0] for t in found.trials),
            latency_ms=values.get("latency"),
            standalone_ap=alone.get(found.architecture),
        )

    best = [result(e, e.trials[0].number) for e in ranked(setting)[:top]]
    stage = setting.method.baseline_stage
    by_hand = next(iter(evaluated(setting, stage)), Evaluated(setting.baseline, (), ()))
    return best, result(by_hand, None)


def summarise(setting: Setting) -> Summary:
    """The search in numbers."""
    study = setting.stored_study()
    best, _ = best_results(setting, top=None)
    everything = evaluated(setting)
    one_shot = [e.values[0] for e in everything]
    completed = sum(len(e.trials) for e in everything)
    retrained = takewhile(lambda r: r.standalone_ap is not None, best)
    alone = [r.standalone_ap for r in retrained if r.standalone_ap is not None]
    return Summary(
        completed=completed,
        failed=0 if study is None else finished_slots(study) - completed,
        architectures=len(everything),
        one_shot_mean=float(np.mean(one_shot)) if one_shot else None,
        one_shot_min=min(one_shot, default=None),
        one_shot_max=max(one_shot, default=None),
        retrained=len(alone),
        standalone_mean=float(np.mean(alone)) if alone else None,
        standalone_variance=float(np.var(alone)) if alone else None,
        standalone_max=max(alone, default=None),
    )
