"""The best AP against what chance and hand would have found.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Table 1 (FPN
baselines) and Table 5 (random architectures).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import plotly.graph_objects as go

from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    GREEN,
    KIND_COLOURS,
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
        children: of those that have parents, by their kind, ascending.
        best: the best architecture's, and the number of its trial.
        best_kind: how the best came about.
        by_hand: the FPN-like path's, None if it is not measured.
        measured: how many architectures the best is the best of, however they came about.
    """

    random: tuple[float, ...]
    children: Mapping[str, tuple[float, ...]]
    best: tuple[float, int]
    best_kind: str
    by_hand: float | None
    measured: int

    @property
    def bred(self) -> tuple[float, ...]:
        """Of all children together, ascending."""
        return tuple(sorted(ap for aps in self.children.values() for ap in aps))

    @property
    def beaten(self) -> str | None:
        """What of the random architectures the best exceeds, in words; shares are rounded down.

        None where there is no random architecture but the best itself.
        """
        among = self.best_kind == "random"
        n = len(self.random)
        if n == among:
            return None
        beaten = sum(ap < self.best[0] for ap in self.random)
        if beaten == n - among:
            return "all others" if among else "all of them"
        return f"{100 * beaten // n}% of them"

    @property
    def over_random(self) -> str | None:
        """The margin over the mean of the random architectures, None without any."""
        return margin(self.best[0], sum(self.random) / len(self.random)) if self.random else None

    @property
    def over_hand(self) -> str | None:
        """The margin over the FPN-like path, None before that is measured."""
        return None if self.by_hand is None else margin(self.best[0], self.by_hand)


def margin(ap: float, other: float) -> str:
    """A difference of two APs in percent that agrees with the two as they are shown."""
    return f"{round(ap, 1) - round(other, 1):+.1f}"


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
        kind: tuple(sorted(100 * o.ap for o in observed.distinct if o.kind == kind))
        for kind in ("random", *BRED)
    }
    return ComparisonInfo(
        random=aps.pop("random"),
        children={kind: found for kind, found in aps.items() if found},
        best=(100 * best.ap, best.number),
        best_kind=best.kind,
        by_hand=None if hand is None else 100 * hand.ap,
        measured=len(observed.distinct),
    )


def _get_comparison_plot(info: ComparisonInfo, title: str) -> go.Figure:
    figure = go.Figure()
    for kind, aps in {"random": info.random, **info.children}.items():
        if aps:
            figure.add_trace(_box(f"{kind} ({len(aps)})", aps, KIND_COLOURS[kind]))
    marks = [(f"best: trial {info.best[1]}", info.best[0], VERMILION, "solid")]
    if info.by_hand is not None:
        marks.append(("FPN-like path", info.by_hand, GREEN, "dash"))
    for name, ap, colour, dash in marks:
        figure.add_vline(x=ap, line={"color": colour, "dash": dash, "width": 2})
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=f"{name}, {ap:.1f}",
            line={"color": colour, "dash": dash, "width": 2},
        )  # fmt: skip
    styled(figure, title, note=_comparison_note(info))
    figure.update_layout(margin={"t": 90})
    figure.update_xaxes(title={"text": "one-shot mAP"})
    figure.update_yaxes(showgrid=False)
    return legend_below(figure)


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
    lines, last = [], []
    if info.beaten is not None:
        lines.append(
            f"{info.over_random} mAP over the mean of {len(info.random)} random "
            f"architectures, ahead of {info.beaten}"
        )
    if info.by_hand is not None:
        last.append(f"{info.over_hand} over the FPN-like path")
    if info.measured > 1:
        last.append(f"the best of {info.measured} measured values: a part of it is luck")
    lines.append("; ".join(last))
    return "</sup><br><sup>".join(filter(None, lines))  # a narrow page cuts off what is long
