"""The architecture of a study that a word names: the best, a trial's, the baseline. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import AP, Result, StudyView

BEST: Final = "best"


@dataclass(frozen=True)
class Selection:
    """An architecture of a study and the weights that belong to it."""

    name: str  # "trial 52", or that of the baseline
    architecture: Any
    gflops: float  # 1e9 multiply-adds
    trial: int | None  # number of its (first) trial in the search, None for the baseline
    one_shot: bool  # its weights are the supernet's, fine-tuned; else those of the retraining
    ap: float | None  # stored COCO AP in [0, 1] of these weights; None where not measured


def select(setting: Setting, trial: str, *, one_shot: bool = False) -> Selection:
    """The architecture that a word names: "best", the baseline's word, or a trial's number.

    The best has the highest stand-alone AP of the search (the mean over seeds; the weights are
    those of the first), or with `one_shot`, which takes the supernet's weights, fine-tuned, the
    highest one-shot AP.

    Raises:
        ValueError: there is no such trial, or it is not retrained.
        StudyMismatchError: the stored study was made with other settings.
    """
    view, baseline = StudyView.load(setting), setting.method.baseline_stage
    if trial == baseline:
        result = view.baseline
        assert result is not None  # the space of a study file is known
    elif trial != BEST:
        result = _numbered(view, trial, baseline=baseline)
    elif not view.results:
        raise ValueError(
            "--trial best needs a finished trial, the search has none; "
            f"run `msnas search STUDY.toml` first, or give --trial {baseline}"
        )
    elif one_shot:
        result = view.results[0]
    else:
        result = max(view.results, key=lambda r: -1.0 if (ap := r.standalone_ap) is None else ap)
        if result.standalone_ap is None:
            raise ValueError(
                "--trial best is the best of the retrained architectures, none is retrained; "
                "run `msnas retrain STUDY.toml --top 1`, or give --one-shot to use the "
                "supernet's weights, fine-tuned"
            )
    name = result.name if result.number is not None else f"the {result.name}"
    if not one_shot and result.standalone_ap is None:
        raise ValueError(
            f"{name} ({result.architecture}) is not retrained; "
            f"{retraining(setting, result.architecture)}"
        )
    return Selection(
        name,
        result.architecture,
        setting.cost.total(result.architecture) / 1e9,
        result.number,
        one_shot,
        result.values.get(AP) if one_shot else _first(result),
    )


def _first(result: Result[Any]) -> float | None:
    """The AP of the first training, whose weights are used; None where it has failed."""
    return None if result.trainings is None else result.trainings.values.get(0)


def select_trained(setting: Setting) -> Selection | None:
    """The best of the retrained, or before that of all, by one-shot AP; None without a trial."""
    results = StudyView.load(setting).results
    one_shot = all(result.standalone_ap is None for result in results)
    return select(setting, BEST, one_shot=one_shot) if results else None


def retraining(setting: Setting, architecture: Any) -> str:
    """The command that retrains an architecture, or what stands in for its weights."""
    view, word = StudyView.load(setting), setting.method.baseline_stage
    for result in view.results if architecture != setting.baseline else ():
        if result.architecture == architecture:
            word = str(result.number)
    return (
        f"run `msnas retrain STUDY.toml --trial {word}`, or give --one-shot to use the "
        f"supernet's weights, fine-tuned"
    )


def _numbered(view: StudyView[Any], word: str, *, baseline: str) -> Result[Any]:
    rule = f"--trial must be {BEST}, {baseline} or the number of a finished trial"
    if not view.measurements:
        raise ValueError(f"{rule}, got {word}; the search has none: run `msnas search STUDY.toml`")
    trials = [] if view.study is None else view.study.get_trials(deepcopy=False)
    number = int(word) if word.isdecimal() else -1
    for result in view.results:
        if number in (record.number for record in result.records):
            return result
    state = f" (state {trials[number].state.name})" if 0 <= number < len(trials) else ""
    finished = [measurement.number for measurement in view.measurements]
    raise ValueError(
        f"{rule}, got {word}{state}; finished are {len(finished)} trials, {finished[0]} to "
        f"{finished[-1]}: see `msnas results STUDY.toml`"
    )
