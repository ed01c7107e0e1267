"""What the one-shot AP is worth, how it falls by object size, and how training went.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Tables 2 and
4 (Kendall's tau between one-shot and stand-alone AP).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import plotly.graph_objects as go
from scipy.stats import kendalltau

from msnas_optuna.figures.observations import Observation, Observed, Source
from msnas_optuna.figures.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
    thinned,
)
from msnas_optuna.spaces.msnas import Architecture

SIZES: Final = ("small", "medium", "large")

_COLOURS: Final = (VERMILION, BLUE, ORANGE, SKY, PURPLE, GREEN, INK)

_CURVE_POINTS: Final = 150
"""Points of a training curve; each is the mean of the losses in between."""

_MOST_CURVES: Final = 7


@dataclass(frozen=True)
class Pair:
    """One architecture: AP in percent under the supernet's weights, and trained alone."""

    name: str
    one_shot: float
    alone: float


@dataclass(frozen=True)
class TransferInfo:
    """One-shot against stand-alone AP.

    Attributes:
        pairs: the retrained architectures, best one-shot AP first.
        tau: Kendall's tau, None with fewer than two pairs or where all are tied.
        by_hand: the FPN-like path, None if it is not measured both ways. It is a part of tau
            only where it is among the best.
    """

    pairs: tuple[Pair, ...]
    tau: float | None
    by_hand: Pair | None


@dataclass(frozen=True)
class SizesInfo:
    """AP in percent by object size: a name and small, medium, large; None where unknown."""

    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


@dataclass(frozen=True)
class CurvesInfo:
    """Losses by training step, averaged: name -> (steps, losses)."""

    curves: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]


def plot_transfer(
    study: Source, standalone: Source, *, by_hand: Source | None = None
) -> go.Figure:
    """Plots one-shot against stand-alone AP of the retrained architectures.

    Args:
        study: of the search.
        standalone: of the retraining.
        by_hand: the study that holds the one-shot AP of the FPN-like path.
    """
    title = "One-shot against stand-alone AP"
    info = get_transfer_info(
        Observed.of(study),
        Observed.of(standalone),
        None if by_hand is None else Observed.of(by_hand),
    )
    if not info.pairs and info.by_hand is None:
        return message(title, "no architecture is retrained yet")
    return _get_transfer_plot(info, title)


def plot_object_sizes(study: Source, *, top: int = 5, by_hand: Source | None = None) -> go.Figure:
    """Plots the AP of small, medium and large objects of the best architectures.

    Args:
        study: of the search.
        top: how many of the best.
        by_hand: the study that holds the FPN-like path, if it is to be shown.
    """
    title = "AP by object size"
    info = _get_sizes_info(
        Observed.of(study), None if by_hand is None else Observed.of(by_hand), top=top
    )
    if not info.rows:
        return message(title, "no trial with AP by object size is finished yet")
    return _get_sizes_plot(info, title)


def plot_training_curves(losses: Mapping[str, Sequence[float]]) -> go.Figure:
    """Plots the losses of training runs.

    Args:
        losses: of each step, by the name of the run.
    """
    title, info = "Training", _get_curves_info(losses)
    return (
        _get_curves_plot(info, title) if info.curves else message(title, "nothing is trained yet")
    )


# ---------------------------------------------------------------------- one-shot and stand-alone


def get_transfer_info(
    observed: Observed, standalone: Observed, by_hand: Observed | None = None
) -> TransferInfo:
    """Pairs the APs of the architectures that are measured both ways."""
    alone = {o.architecture: 100 * o.ap for o in standalone.distinct}
    path = None if observed.space is None else observed.space.fpn_like()
    pairs, gap = [], False
    for o in observed.distinct:
        if o.architecture not in alone:
            gap = True
        elif not gap or o.architecture != path:  # behind the best, it is there for comparison
            pairs.append(Pair(f"trial {o.number}", 100 * o.ap, alone[o.architecture]))
    return TransferInfo(tuple(pairs), _tau(pairs), _hand_pair(observed, by_hand, alone))


def _hand_pair(
    observed: Observed, by_hand: Observed | None, alone: Mapping[Architecture, float]
) -> Pair | None:
    if observed.space is None or by_hand is None or not by_hand.distinct:
        return None
    path = observed.space.fpn_like()
    if path not in alone or by_hand.distinct[0].architecture != path:
        return None
    return Pair("FPN-like path", 100 * by_hand.distinct[0].ap, alone[path])


def _tau(pairs: Sequence[Pair]) -> float | None:
    if len(pairs) < 2:
        return None
    tau = kendalltau([p.one_shot for p in pairs], [p.alone for p in pairs]).statistic
    return float(tau) if math.isfinite(tau) else None


def _get_transfer_plot(info: TransferInfo, title: str) -> go.Figure:
    figure = go.Figure()
    if info.pairs:
        shown = [info.pairs[i] for i in thinned(len(info.pairs), limit=300)]
        figure.add_scatter(
            x=rounded([p.one_shot for p in shown]),
            y=rounded([p.alone for p in shown]),
            mode="markers+text" if len(shown) <= 12 else "markers",
            text=[p.name for p in shown],
            textposition="top center",
            hoverinfo="x+y+text",
            name="best of the search",
            marker={"size": 10, "color": VERMILION},
        )
    if info.by_hand is not None:
        figure.add_scatter(
            x=rounded([info.by_hand.one_shot]),
            y=rounded([info.by_hand.alone]),
            mode="markers",
            name="FPN-like path",
            marker={"size": 13, "symbol": "cross", "color": GREEN},
        )
    note = f"{len(info.pairs)} retrained architectures"
    if info.tau is not None:
        note += f", Kendall's tau {info.tau:.2f}"
    styled(figure, title, note=note)
    figure.update_xaxes(title={"text": "one-shot mAP"})
    figure.update_yaxes(title={"text": "mAP after training from scratch"})
    return legend_below(figure)


# ---------------------------------------------------------------------- sizes and losses


def _get_sizes_info(observed: Observed, by_hand: Observed | None, *, top: int) -> SizesInfo:
    rows = [(f"trial {o.number}", _percent(o)) for o in observed.distinct[:top]]
    if by_hand is not None and by_hand.distinct:
        rows.append(("FPN-like path", _percent(by_hand.distinct[0])))
    return SizesInfo(tuple(row for row in rows if any(ap is not None for ap in row[1])))


def _percent(observation: Observation) -> tuple[float | None, ...]:
    return tuple(None if ap is None else 100 * ap for ap in observation.ap_by_size)


def _get_sizes_plot(info: SizesInfo, title: str) -> go.Figure:
    figure = go.Figure()
    for i, (name, aps) in enumerate(info.rows):
        colour = GREEN if name == "FPN-like path" else _COLOURS[i % 5]  # all but green
        figure.add_bar(
            x=list(SIZES),
            y=[None if ap is None else rounded([ap])[0] for ap in aps],
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{x}: %{y} mAP<extra>" + name + "</extra>",
        )
    styled(figure, title, note="one-shot")
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(title={"text": "objects"})
    figure.update_yaxes(title={"text": "one-shot mAP"})
    return legend_below(figure)


def _get_curves_info(losses: Mapping[str, Sequence[float]]) -> CurvesInfo:
    curves = {}
    for name, values in list(losses.items())[:_MOST_CURVES]:
        if len(values):
            steps = np.array_split(np.arange(1, len(values) + 1), min(_CURVE_POINTS, len(values)))
            parts = np.array_split(np.asarray(values, dtype=float), len(steps))
            curves[name] = (
                tuple(float(part[-1]) for part in steps),
                tuple(float(part.mean()) for part in parts),
            )
    return CurvesInfo(curves)


def _get_curves_plot(info: CurvesInfo, title: str) -> go.Figure:
    figure = go.Figure()
    for i, (name, (steps, losses)) in enumerate(info.curves.items()):
        figure.add_scatter(
            x=[int(step) for step in steps],
            y=rounded(losses, 3),
            mode="lines",
            name=name,
            line={"color": _COLOURS[i % len(_COLOURS)], "width": 2},
        )
    styled(figure, title, note="sum of the detector's losses, averaged over steps")
    figure.update_xaxes(title={"text": "step"})
    figure.update_yaxes(title={"text": "loss"}, rangemode="tozero")
    return legend_below(figure)
