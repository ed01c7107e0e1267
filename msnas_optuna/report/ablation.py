"""The arms of an ablation in numbers, beside the paper's row (Tables 2-5).

Of the best k architectures of a search, trained from scratch: mean, variance (of the population)
and maximum of their mAP in percent, and Kendall's tau between one-shot and stand-alone AP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.stats import t as student

from msnas_optuna.report.figures.training import kendall_tau
from msnas_optuna.study.ablation import BASE, Ablation
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

CONFIDENCE: Final = 0.95  # of the interval of a difference

_TITLES: Final = {"mean": "mean", "variance": "variance", "max": "max", "tau": "Kendall's tau"}
_FORMATS: Final = {"mean": ".2f", "variance": ".3f", "max": ".1f", "tau": ".3f"}

Numbers = Mapping[str, float | None]  # by the keys of `_TITLES`


def outcome(setting: Setting, *, top: int) -> dict[str, float | None] | None:
    """The numbers of a study of which the `top` best are retrained, None before."""
    view = StudyView.load(setting)
    summary, best = view.summary, view.best[:top]
    alone = [100 * r.standalone_ap for r in best if r.standalone_ap is not None]
    searched = summary.completed + summary.failed >= setting.n_trials()
    if not searched or not alone or len(alone) < len(best):
        return None
    return {
        "mean": float(np.mean(alone)),
        "variance": float(np.var(alone)),
        "max": max(alone),
        "tau": kendall_tau([r.ap for r in best], alone),
    }


def comparison(
    ablation: Ablation, outcomes: Mapping[str, Mapping[int, Numbers | None]], *, top: int
) -> dict[str, Any]:
    """Both arms and their difference, in types that JSON has.

    `outcomes` are by arm and seed. The difference, base less changed arm, is taken seed by seed;
    its interval is Student's and needs two seeds.
    """
    arms = []
    for name, arm in ablation.arms.items():
        done = {str(seed): found for seed, found in outcomes[name].items() if found is not None}
        ours = {key: _spread([found[key] for found in done.values()]) for key in _TITLES}
        arms.append(
            {"name": name, "title": arm.title, "paper": dict(arm.paper)}
            | {"seeds": done, "ours": ours}
        )
    (changed,) = (name for name in ablation.arms if name != BASE)
    first, second = ablation.arms[changed].paper, ablation.arms[BASE].paper
    pairs = [
        (found, outcomes[BASE][seed])
        for seed, found in outcomes[changed].items()
        if found is not None and outcomes[BASE].get(seed) is not None
    ]
    difference = {
        key: {
            "paper": second[key] - first[key] if key in first and key in second else None,
            "ours": _spread([_less(b, a, key) for a, b in pairs]),
        }
        for key in _TITLES
    }
    return {
        "ablation": ablation.name,
        "title": ablation.title,
        "top": top,
        "arms": arms,
        "difference": difference,
    }


def _less(base: Numbers | None, changed: Numbers | None, key: str) -> float | None:
    b, a = (base or {}).get(key), (changed or {}).get(key)
    return None if a is None or b is None else b - a


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean over n seeds, its standard error, and the half width of its interval."""
    known = [value for value in values if value is not None]
    n = len(known)
    error = float(np.std(known, ddof=1)) / math.sqrt(n) if n > 1 else None
    width = None if error is None else error * float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
    mean = float(np.mean(known)) if known else None
    return {"n": n, "mean": mean, "standard_error": error, "interval": width}


def comparison_rows(numbers: Mapping[str, Any]) -> list[list[str]]:
    """The table of a `comparison`: a heading, then the paper's row and ours for each arm."""
    rows = [["", "", *_TITLES.values()]]
    for arm in numbers["arms"]:
        ours = arm["ours"]
        rows.append([arm["title"], "paper", *(_cell(k, arm["paper"].get(k)) for k in _TITLES)])
        cells = (_cell(k, ours[k]["mean"], error=ours[k]["standard_error"]) for k in _TITLES)
        rows.append(["", f"ours, {_counted(ours['mean']['n'], 'seed')}", *cells])
    difference = numbers["difference"]
    published = (_cell(k, difference[k]["paper"], sign="+") for k in _TITLES)
    ours = {key: difference[key]["ours"] for key in _TITLES}
    cells = (_cell(k, own["mean"], sign="+") + _range(k, own) for k, own in ours.items())
    return [
        *rows,
        ["difference", "paper", *published],
        ["", f"ours, {_counted(ours['mean']['n'], 'pair')}", *cells],
    ]


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _cell(key: str, value: float | None, *, error: float | None = None, sign: str = "") -> str:
    """A number of the table, with its standard error where that is known."""
    if value is None:
        return "-"
    end = "" if error is None else f" ± {error:{_FORMATS[key]}}"
    return f"{value:{sign}{_FORMATS[key]}}{end}"


def _range(key: str, spread: Mapping[str, Any]) -> str:
    """The interval of a difference, where there is one."""
    mean, width = spread["mean"], spread["interval"]
    if width is None:
        return ""
    low, high = (f"{end:+{_FORMATS[key]}}" for end in (mean - width, mean + width))
    return f" ({low} to {high})"
