"""What the one-shot AP is worth: whether it ranks architectures as training them alone does.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Tables 2 and
4 (Kendall's tau between one-shot and stand-alone AP).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from scipy.stats import kendalltau

from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    GREEN,
    VERMILION,
    legend_below,
    message,
    padded,
    rounded,
    styled,
    thinned,
)


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


def plot_transfer(study: Source) -> go.Figure:
    """Plots one-shot against stand-alone AP of the retrained architectures.

    Their stand-alone AP is in the study of the retraining, in the same storage.

    Args:
        study: of the search.
    """
    title, info = "One-shot against stand-alone AP", get_transfer_info(Observed.of(study))
    if not info.pairs and info.by_hand is None:
        return message(title, "no architecture is retrained yet: `msnas retrain` does it")
    return _get_transfer_plot(info, title)


def get_transfer_info(observed: Observed) -> TransferInfo:
    """Pairs the APs of the architectures that are measured both ways."""
    alone = {o.architecture: 100 * o.ap for o in observed.standalone}
    path = None if observed.space is None else observed.space.fpn_like()
    pairs, gap = [], False
    for o in observed.distinct:
        if o.architecture not in alone:
            gap = True
        elif not gap or o.architecture != path:  # behind the best, it is there for comparison
            pairs.append(Pair(f"trial {o.number}", 100 * o.ap, alone[o.architecture]))
    by_hand = observed.by_hand
    hand = None
    if by_hand is not None and by_hand.architecture == path and path in alone:
        hand = Pair("FPN-like path", 100 * by_hand.ap, alone[path])
    return TransferInfo(tuple(pairs), _tau(pairs), hand)


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
            textposition="bottom center",
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
    n = len(info.pairs)
    note = f"{n} retrained architecture{'' if n == 1 else 's'}"
    if info.tau is not None:
        note += f", Kendall's tau {info.tau:.2f}"
    styled(figure, title, note=note)
    all_pairs = [*info.pairs, *filter(None, [info.by_hand])]
    figure.update_xaxes(
        title={"text": "one-shot mAP"}, range=padded([p.one_shot for p in all_pairs])
    )
    figure.update_yaxes(
        title={"text": "mAP after training from scratch"},
        range=padded([p.alone for p in all_pairs]),
    )
    return legend_below(figure)
