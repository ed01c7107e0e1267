"""The best AP against what chance and hand would have found.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Table 1 (FPN
baselines) and Table 5 (random architectures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import plotly.graph_objects as go

from msnas_optuna.figures.observations import Observed, Source
from msnas_optuna.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
)

BRED: Final = ("recombination", "crossover", "mutation")
"""Kinds of children that have parents."""


@dataclass(frozen=True)
class ComparisonInfo:
    """AP in percent of what was drawn by chance, bred, and made by hand.

    Attributes:
        random: of the random architectures, ascending; they are a uniform sample of the window.
        bred: of the children of recombination, crossover and mutation, ascending.
        best: the best architecture's, and the number of its trial.
        by_hand: the FPN-like path's, None if it is not measured.
    """

    random: tuple[float, ...]
    bred: tuple[float, ...]
    best: tuple[float, int]
    by_hand: float | None

    @property
    def beaten(self) -> float | None:
        """Share of the random architectures that the best exceeds, 0..1."""
        if not self.random:
            return None
        return sum(ap < self.best[0] for ap in self.random) / len(self.random)


def plot_comparison(study: Source) -> go.Figure:
    """Plots the best AP beside that of random architectures and of the FPN-like path.

    Args:
        study: of the search.
    """
    title, info = "The best against chance and hand", get_comparison_info(Observed.of(study))
    return (
        _get_comparison_plot(info, title) if info else message(title, "no trial is finished yet")
    )


def get_comparison_info(observed: Observed) -> ComparisonInfo | None:
    """The best AP beside those of chance and hand, None before the first trial."""
    if not observed.distinct:
        return None
    best, hand = observed.distinct[0], observed.by_hand
    aps = {
        kinds: tuple(sorted(100 * o.ap for o in observed.distinct if o.kind in kinds))
        for kinds in (("random",), BRED)
    }
    return ComparisonInfo(
        random=aps["random",],
        bred=aps[BRED],
        best=(100 * best.ap, best.number),
        by_hand=None if hand is None else 100 * hand.ap,
    )


def _get_comparison_plot(info: ComparisonInfo, title: str) -> go.Figure:
    figure = go.Figure()
    for name, aps, colour in (
        ("random architectures", info.random, ORANGE),
        ("children", info.bred, BLUE),
    ):
        if aps:
            figure.add_trace(_box(f"{name} ({len(aps)})", aps, colour))
    marks = [(f"best: trial {info.best[1]}", info.best[0], VERMILION, "solid")]
    if info.by_hand is not None:
        marks.append(("FPN-like path", info.by_hand, GREEN, "dash"))
    for name, ap, colour, dash in marks:
        figure.add_vline(x=ap, line={"color": colour, "dash": dash, "width": 2})
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=f"{name}, {ap:.1f}",
            line={"color": colour, "dash": dash, "width": 2},
        )  # fmt: skip
    styled(figure, title, note=_comparison_note(info), height=360)
    figure.update_xaxes(title={"text": "one-shot mAP"})
    figure.update_yaxes(showgrid=False)
    return legend_below(figure, y=-0.25)


def _box(name: str, aps: Sequence[float], colour: str) -> go.Box:
    shown = np.quantile(aps, np.linspace(0, 1, 200)) if len(aps) > 200 else np.array(aps)
    return go.Box(
        x=rounded(shown.tolist()),
        name=name,
        boxpoints="all",
        jitter=0.5,
        pointpos=0,
        fillcolor="rgba(128, 128, 128, 0.15)",
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "size": 5, "opacity": 0.7},
        showlegend=False,
    )


def _comparison_note(info: ComparisonInfo) -> str:
    parts = []
    if info.beaten is not None:
        mean = sum(info.random) / len(info.random)
        parts.append(
            f"{info.best[0] - mean:+.1f} mAP over the mean of {len(info.random)} random "
            f"architectures, ahead of {info.beaten:.0%} of them"
        )
    if info.by_hand is not None:
        parts.append(f"{info.best[0] - info.by_hand:+.1f} over the FPN-like path")
    return "; ".join(parts)
