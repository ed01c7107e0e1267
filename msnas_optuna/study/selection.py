"""Which architecture of a study a person means: the best, a trial's, the baseline.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.study.results import Evaluated, evaluated, ranked
from msnas_optuna.study.setting import RETRAIN, Setting

BEST = "best"


@dataclass(frozen=True)
class Selected:
    """An architecture of a study and the weights that belong to it.

    Attributes:
        name: "trial 52", or that of the baseline.
        architecture: of the search space.
        gflops: 1e9 multiply-adds.
        trial: number of its (first) trial in the search, None for the baseline.
        one_shot: its weights are the supernet's, fine-tuned; else those of the retraining.
        ap: stored COCO AP in [0, 1] of these weights; None where it was not measured.
    """

    name: str
    architecture: Any
    gflops: float
    trial: int | None
    one_shot: bool
    ap: float | None


def select(setting: Setting, trial: str, *, one_shot: bool = False) -> Selected:
    """The architecture that a word names.

    Args:
        setting: the study.
        trial: "best", the word of the baseline or the number of a finished trial of the search. The best is
            that of the search with the highest stand-alone AP, or with `one_shot` with the
            highest one-shot AP.
        one_shot: take the supernet's weights, fine-tuned as in the search.

    Raises:
        ValueError: there is no such trial, or it is not retrained.
        StudyMismatchError: the stored study was made with other settings.
    """
    found, alone = evaluated(setting), _values(evaluated(setting, RETRAIN))
    if trial == setting.method.baseline_stage:
        architecture, number, shots = setting.baseline, None, evaluated(setting, trial)
    else:
        best = trial == BEST
        architecture = (
            _best(found, alone, baseline=setting.method.baseline_stage, one_shot=one_shot)
            if best
            else _numbered(setting, trial)
        )
        number = next(e.trials[0].number for e in found if e.architecture == architecture)
        shots = found
    name = f"the {setting.method.baseline}" if number is None else f"trial {number}"
    if not one_shot and architecture not in alone:
        raise ValueError(
            f"{name} ({architecture}) is not retrained; {retraining(setting, architecture)}"
        )
    gflops = setting.cost.total(architecture) / 1e9
    ap = (_values(shots) if one_shot else alone).get(architecture)
    return Selected(name, architecture, gflops, number, one_shot, ap)


def select_trained(setting: Setting) -> Selected | None:
    """The best of the retrained architectures, or before the retraining of all, by one-shot AP.

    Returns:
        None before the first finished trial.

    Raises:
        StudyMismatchError: the stored study was made with other settings.
    """
    found, alone = evaluated(setting), _values(evaluated(setting, RETRAIN))
    if not found:
        return None
    one_shot = not any(e.architecture in alone for e in found)
    return select(setting, BEST, one_shot=one_shot)


def _values(found: list[Evaluated]) -> dict[Any, float]:
    return {e.architecture: e.values[0] for e in found}


def retraining(setting: Setting, architecture: Any) -> str:
    """What makes the weights of an architecture's retraining, or stands in for them."""
    ranks = {e.architecture: rank for rank, e in enumerate(ranked(setting), start=1)}
    shots = "give --one-shot to use the supernet's weights, fine-tuned"
    if architecture == setting.baseline and architecture not in ranks:
        return f"run `msnas retrain STUDY.toml --top 1`, or {shots}"
    if architecture not in ranks:
        return f"it is not on the Pareto front, so `msnas retrain` leaves it out; {shots}"
    return f"run `msnas retrain STUDY.toml --top {ranks[architecture]}`, or {shots}"


def _best(
    found: list[Evaluated], alone: dict[Any, float], *, baseline: str, one_shot: bool
) -> Any:
    if not found:
        raise ValueError(
            "--trial best needs a finished trial, the search has none; "
            f"run `msnas search STUDY.toml` first, or give --trial {baseline}"
        )
    if one_shot:
        return found[0].architecture
    retrained = [e.architecture for e in found if e.architecture in alone]
    if not retrained:
        raise ValueError(
            "--trial best is the best of the retrained architectures, none is retrained; "
            "run `msnas retrain STUDY.toml --top 1`, or give --one-shot to use the supernet's "
            "weights, fine-tuned"
        )
    return max(retrained, key=alone.__getitem__)


def _numbered(setting: Setting, word: str) -> Any:
    baseline = setting.method.baseline_stage
    rule = f"--trial must be best, {baseline} or the number of a finished trial"
    study = setting.stored_study()
    trials: list[FrozenTrial] = [] if study is None else study.get_trials(deepcopy=False)
    complete = [t.number for t in trials if t.state == TrialState.COMPLETE]
    if not complete:
        raise ValueError(f"{rule}, got {word}; the search has none: run `msnas search STUDY.toml`")
    if not word.isdecimal() or int(word) not in complete:
        known = word.isdecimal() and int(word) < len(trials)
        state = f" (state {trials[int(word)].state.name})" if known else ""
        raise ValueError(
            f"{rule}, got {word}{state}; finished are {len(complete)} trials, {complete[0]} to "
            f"{complete[-1]}: see `msnas results STUDY.toml`"
        )
    return setting.space.decode(trials[int(word)].params)
