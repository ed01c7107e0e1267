"""AP against what it costs: GFLOPs, and latency where it is measured.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1
(constraint C).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from msnas_optuna.report.figures.observation import KINDS, Observation
from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    GREEN,
    INK,
    KIND_COLOURS,
    VERMILION,
    legend_below,
    message,
    padded,
    rounded,
    styled,
    thinned,
)

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


def plot_tradeoff(study: Source) -> go.Figure:
    """Plots AP against GFLOPs, and latency where it is measured, with window and Pareto front.

    Args:
        study: of the search.
    """
    title, infos = "AP against cost", _get_tradeoff_infos(Observed.of(study))
    return (
        _get_tradeoff_plot(infos, title) if infos else message(title, "no trial is finished yet")
    )


def _get_tradeoff_infos(observed: Observed) -> list[TradeoffInfo]:
    hand = [] if observed.by_hand is None else [observed.by_hand]
    infos = []
    for name, attribute, window in (
        ("GFLOPs", "gflops", observed.window),
        ("latency, ms", "latency_ms", None),
    ):
        points = _points(observed.distinct, attribute)
        if points:
            marked = _points(hand, attribute)
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
    """Of the costs, with the window."""
    marked = [] if info.by_hand is None else [info.by_hand]
    return padded([*(p.x for p in (*info.points, *marked)), *(info.window or ())])


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
            mode="lines+markers",
            name="Pareto front",
            line={"color": GREEN, "width": 2, "shape": "hv"},
            marker={"symbol": "circle-open", "size": 13, "color": GREEN, "line": {"width": 2}},
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
