"""How training went, and whether the one-shot AP ranks architectures as the AP after it does.

Source: Tables 2 and 4 of the MSNAS paper (Kendall's tau between one-shot and stand-alone AP).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from optuna.study import Study
from scipy.stats import kendalltau

from msnas_optuna.report.figures.style import (
    GREEN,
    ONE_SHOT,
    PALETTE,
    VERMILION,
    counted,
    legend_below,
    message,
    padded,
    rounded,
    styled,
    thinned,
)
from msnas_optuna.storage import read_curves
from msnas_optuna.study.view import Result, StudyView


class Pair(NamedTuple):
    """One architecture: AP in percent under the supernet's weights, and trained alone."""

    name: str
    one_shot: float
    alone: float  # mean over seeds
    error: float | None  # standard error of it; None of one seed


class TransferInfo(NamedTuple):
    """One-shot against stand-alone AP; the baseline is part of tau only if among the best."""

    pairs: list[Pair]  # the retrained architectures, best one-shot AP first
    tau: float | None  # Kendall's; None with fewer than two pairs or where all are tied
    baseline: Pair | None  # None if it is not measured both ways


def get_transfer_info(view: StudyView[Any]) -> TransferInfo:
    """Pairs the APs of the architectures that are measured both ways."""
    pairs, gap = [], False
    for result in view.results:
        by_hand = view.baseline is not None and result.architecture == view.baseline.architecture
        pair = _pair(result)
        if pair is None:
            gap = True
        elif not gap or not by_hand:  # behind the best, it is there for comparison
            pairs.append(pair)
    return TransferInfo(
        pairs,
        tau=kendall_tau([p.one_shot for p in pairs], [p.alone for p in pairs]),
        baseline=None if view.baseline is None else _pair(view.baseline),
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Tau-b of two rankings of the same n things, -1..1; None where one of them is all ties."""
    if len(first) < 2:
        return None
    tau = float(kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau


def _pair(result: Result[Any]) -> Pair | None:
    alone = result.trainings
    if alone is None or not result.values:
        return None
    error = None if alone.error is None else 100 * alone.error
    return Pair(result.name, 100 * result.ap, 100 * alone.mean, error)


def plot_transfer(study: Study | StudyView[Any]) -> go.Figure:
    """Plots one-shot against stand-alone AP of the retrained architectures.

    Their stand-alone AP is in the study of the retraining, in the same storage.
    """
    title, view = "One-shot against stand-alone AP", StudyView.of(study)
    info = get_transfer_info(view)
    pairs = [*info.pairs, *filter(None, [info.baseline])]
    if not pairs:
        return message(title, "no architecture is retrained yet: `msnas retrain` does it")
    figure = go.Figure()
    if info.pairs:
        shown = [info.pairs[i] for i in thinned(len(info.pairs), limit=300)]
        figure.add_scatter(
            x=rounded([p.one_shot for p in shown]),
            y=rounded([p.alone for p in shown]),
            error_y=_bars(shown),
            mode="markers+text" if len(shown) <= 12 else "markers",
            text=[p.name for p in shown],
            textposition="bottom center",
            hoverinfo="x+y+text",
            name="best of the search",
            marker={"size": 10, "color": VERMILION},
        )
    if info.baseline is not None:
        figure.add_scatter(
            x=rounded([info.baseline.one_shot]),
            y=rounded([info.baseline.alone]),
            error_y=_bars([info.baseline]),
            mode="markers",
            name=info.baseline.name,
            marker={"size": 13, "symbol": "cross", "color": GREEN},
        )
    note = counted(len(info.pairs), "retrained architecture")
    if info.tau is not None:
        note += f", Kendall's tau {info.tau:.2f}"
    if any(pair.error is not None for pair in pairs):
        note += "; bars are standard errors over seeds"
    y = f"mAP after training from scratch ({view.reported_images})"
    styled(figure, title, note=note, x=ONE_SHOT, y=y)
    figure.update_xaxes(range=padded([p.one_shot for p in pairs]))
    ends = [p.alone + sign * (p.error or 0) for p in pairs for sign in (-1, 1)]
    figure.update_yaxes(range=padded(ends))
    return legend_below(figure)


def _bars(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Error bars of the stand-alone APs, of no length where there is one seed."""
    errors = [pair.error or 0.0 for pair in pairs]
    return {"array": rounded(errors), "visible": any(errors)}


def plot_training_curves(study: Study | StudyView[Any]) -> go.Figure:
    """Plots the losses of the supernet and of the retrained architectures."""
    title, view = "Training", StudyView.of(study)
    curves = {} if view.study is None else read_curves(view.study)
    if not curves:
        text = "no losses are stored yet: `msnas search` and `msnas retrain` store them"
        return message(title, text)
    figure = go.Figure()
    for (name, curve), color in zip(curves.items(), PALETTE, strict=False):  # the first alone
        figure.add_scatter(
            x=list(curve.steps),
            y=rounded(curve.losses, 3),
            mode="lines",
            name=name,
            line={"color": color, "width": 2},
        )
    note = "sum of the detector's losses, averaged over steps"
    styled(figure, title, note=note, x="step", y="loss").update_yaxes(rangemode="tozero")
    return legend_below(figure)
