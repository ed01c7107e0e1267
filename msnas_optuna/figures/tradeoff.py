"""AP against what it costs, and against what chance and hand would have found.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1
(constraint C), Table 1 (FPN baselines) and Table 5 (random architectures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from msnas_optuna.figures.evolution import KIND_COLOURS
from msnas_optuna.figures.observations import KINDS, Observation, Observed, Source
from msnas_optuna.figures.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
    thinned,
)

BRED: Final = ("recombination", "crossover", "mutation")
"""Kinds of children that have parents."""

_SYMBOLS: Final = {
    "random": "x-thin",
    "recombination": "triangle-up",
    "crossover": "circle",
    "mutation": "square",
    "other": "diamond",
}


@dataclass(frozen=True)
class Point:
    """One architecture: cost, AP in percent, origin and trial (None for the hand-made path)."""

    x: float
    ap: float
    kind: str
    trial: int | None


@dataclass(frozen=True)
class TradeoffInfo:
    """AP against one cost.

    Attributes:
        cost: name and unit of the cost.
        points: every architecture once.
        front: the Pareto front, by cost.
        window: least and largest cost of a proposal, None if there is none.
        by_hand: the FPN-like path, None if it is not measured.
    """

    cost: str
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    window: tuple[float, float] | None
    by_hand: Point | None


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


def plot_tradeoff(study: Source, *, by_hand: Source | None = None) -> go.Figure:
    """Plots AP against GFLOPs, and latency where it is measured, with window and Pareto front.

    Args:
        study: of the search.
        by_hand: the study that holds the FPN-like path, if it is to be marked.
    """
    title = "AP against cost"
    infos = _get_tradeoff_infos(
        Observed.of(study), None if by_hand is None else Observed.of(by_hand)
    )
    return (
        _get_tradeoff_plot(infos, title) if infos else message(title, "no trial is finished yet")
    )


def plot_comparison(study: Source, *, by_hand: Source | None = None) -> go.Figure:
    """Plots the best AP beside that of random architectures and of the FPN-like path.

    Args:
        study: of the search.
        by_hand: the study that holds the FPN-like path, if it is to be marked.
    """
    title = "The best against chance and hand"
    info = get_comparison_info(
        Observed.of(study), None if by_hand is None else Observed.of(by_hand)
    )
    return (
        _get_comparison_plot(info, title) if info else message(title, "no trial is finished yet")
    )


# ---------------------------------------------------------------------- trade-off


def _get_tradeoff_infos(observed: Observed, by_hand: Observed | None) -> list[TradeoffInfo]:
    hand = by_hand.distinct[0] if by_hand is not None and by_hand.distinct else None
    infos = []
    for name, attribute, window in (
        ("GFLOPs", "gflops", observed.window),
        ("latency, ms", "latency_ms", None),
    ):
        points = _points(observed.distinct, attribute)
        if points:
            marked = [] if hand is None else _points([hand], attribute)
            mark = Point(marked[0].x, marked[0].ap, "other", None) if marked else None
            infos.append(TradeoffInfo(name, tuple(points), _front(points), window, mark))
    return infos


def _points(observations: Sequence[Observation], attribute: str) -> list[Point]:
    return [
        Point(cost, 100 * o.ap, o.kind, o.number)
        for o in observations
        if (cost := getattr(o, attribute)) is not None
    ]


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Points that no other one beats in cost and AP, by cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.ap)):
        if not front or point.ap > front[-1].ap:
            front.append(point)
    return tuple(front)


def _get_tradeoff_plot(infos: Sequence[TradeoffInfo], title: str) -> go.Figure:
    figure = make_subplots(rows=1, cols=len(infos), horizontal_spacing=0.1)
    for col, info in enumerate(infos, start=1):
        for trace in _tradeoff_traces(info, legend=col == 1):
            figure.add_trace(trace, row=1, col=col)
        if info.window is not None:
            low, high = info.window
            figure.add_vrect(
                x0=low, x1=high, fillcolor=VERMILION, opacity=0.12, line_width=0, row=1, col=col
            )
    n, window = len(infos[0].points), infos[0].window
    note = f"{n} architectures"
    if window is not None:
        note += f"; the window, {window[0]:.4g} to {window[1]:.4g} GFLOPs, is shaded"
    styled(figure, title, note=note)
    for col, info in enumerate(infos, start=1):
        figure.update_xaxes(title={"text": info.cost}, range=_range(info), row=1, col=col)
    figure.update_yaxes(title={"text": "one-shot mAP"}, col=1)
    return legend_below(figure)


def _range(info: TradeoffInfo) -> list[float]:
    """From the least to the largest cost or end of the window, with some room beside it."""
    marked = [] if info.by_hand is None else [info.by_hand]
    costs = [p.x for p in (*info.points, *marked)] + list(info.window or ())
    room = 0.08 * (max(costs) - min(costs)) or 0.01 * max(costs)
    return [min(costs) - room, max(costs) + room]


def _tradeoff_traces(info: TradeoffInfo, *, legend: bool) -> list[go.Scatter]:
    best = max(range(len(info.points)), key=lambda i: info.points[i].ap)
    shown = [info.points[i] for i in thinned(len(info.points), keep=[best])]
    traces = [_scatter([p for p in shown if p.kind == kind], kind, legend) for kind in KINDS]
    traces = [trace for trace in traces if len(trace.x)]
    front = info.front[-100:]
    traces.append(
        go.Scatter(
            x=rounded([p.x for p in front], 6),
            y=rounded([p.ap for p in front]),
            mode="lines",
            name="Pareto front",
            line={"color": GREEN, "width": 2, "shape": "hv"},
            hoverinfo="skip",
            showlegend=legend,
        )
    )
    winner = info.points[best]
    traces.append(_star(winner, f"best: trial {winner.trial}", "star", VERMILION, legend))
    if info.by_hand is not None:
        traces.append(_star(info.by_hand, "FPN-like path", "cross", GREEN, legend))
    return traces


def _scatter(points: Sequence[Point], kind: str, legend: bool) -> go.Scatter:
    colour = KIND_COLOURS[kind]
    return go.Scatter(
        x=rounded([p.x for p in points], 6),
        y=rounded([p.ap for p in points]),
        customdata=[p.trial for p in points],
        mode="markers",
        name=kind,
        marker={
            "symbol": _SYMBOLS[kind],
            "size": 7,
            "color": colour,
            "line": {"color": colour, "width": 2 if kind == "random" else 0},
        },
        hovertemplate="trial %{customdata}: %{y} mAP at %{x}<extra></extra>",
        showlegend=legend,
    )


def _star(point: Point, name: str, symbol: str, colour: str, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=rounded([point.x], 6),
        y=rounded([point.ap]),
        mode="markers",
        name=name,
        marker={
            "symbol": symbol,
            "size": 15,
            "color": colour,
            "line": {"color": INK, "width": 1},
        },
        showlegend=legend,
    )


# ---------------------------------------------------------------------- against chance and hand


def get_comparison_info(observed: Observed, by_hand: Observed | None) -> ComparisonInfo | None:
    """The best AP beside those of chance and hand, None before the first trial."""
    if not observed.distinct:
        return None
    best = observed.distinct[0]
    aps = {
        kinds: tuple(sorted(100 * o.ap for o in observed.distinct if o.kind in kinds))
        for kinds in (("random",), BRED)
    }
    hand = by_hand.distinct[0].ap if by_hand is not None and by_hand.distinct else None
    return ComparisonInfo(
        random=aps["random",],
        bred=aps[BRED],
        best=(100 * best.ap, best.number),
        by_hand=None if hand is None else 100 * hand,
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
