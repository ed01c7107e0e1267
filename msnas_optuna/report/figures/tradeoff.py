"""AP against what it costs: GFLOPs, and latency where it is measured (MSNAS paper, §4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import plotly.graph_objects as go
from optuna.study import Study
from plotly.subplots import make_subplots

from msnas_optuna.report.figures.style import (
    GREEN,
    INK,
    KIND_COLORS,
    ONE_SHOT,
    VERMILION,
    counted,
    legend_below,
    message,
    padded,
    rounded,
    styled,
    thinned,
)
from msnas_optuna.samplers.history import Candidate, pareto_front
from msnas_optuna.study.view import Result, StudyView

_SYMBOLS: Final = {
    "random": "x-thin",
    "recombination": "triangle-up",
    "crossover": "circle",
    "mutation": "square",
    "substitute": "cross-thin",
    "other": "diamond",
}


class Point(NamedTuple):
    """One architecture: cost, AP in percent, origin and name."""

    x: float
    ap: float
    kind: str
    name: str


class TradeoffInfo(NamedTuple):
    """AP against one cost."""

    cost: str  # its name and unit
    points: list[Point]  # every architecture once, the highest AP first
    front: list[Point]  # the Pareto front, by cost
    window: tuple[float, float] | None  # least and largest cost of a proposal
    baseline: Point | None  # None if it is not measured


def get_tradeoff_infos(view: StudyView[Any]) -> list[TradeoffInfo]:
    """AP against GFLOPs, and against each further objective."""
    aps = {name for name, metric in view.method.metrics.items() if metric.is_ap}
    costs = ["gflops", *(name for name in view.objectives if name not in aps | {"gflops"})]
    infos = []
    for name in costs:
        points = [p for r in view.results if (p := _point(r, name)) is not None]
        front = pareto_front([Candidate(p, (p.x, -p.ap), ()) for p in points])
        metric, window = view.method.metrics.get(name), None
        if name == "gflops" and view.window is not None:
            window = view.window[0] / 1e9, view.window[1] / 1e9
        info = TradeoffInfo(
            cost=name if metric is None else metric.label,
            points=points,
            front=sorted(c.architecture for c in front),
            window=window,
            baseline=None if view.baseline is None else _point(view.baseline, name),
        )
        infos += [info] if points else []
    return infos


def _point(result: Result[Any], name: str) -> Point | None:
    cost = result.gflops if name == "gflops" else result.values.get(name)
    if cost is None or not result.values:
        return None
    return Point(cost, 100 * result.ap, result.kind, result.name)


def plot_tradeoff(study: Study | StudyView[Any]) -> go.Figure:
    """Plots AP against GFLOPs, and latency where it is measured, with window and Pareto front."""
    title, infos = "AP against cost", get_tradeoff_infos(StudyView.of(study))
    if not infos:
        return message(title)
    figure = make_subplots(rows=1, cols=len(infos), horizontal_spacing=0.1)
    note = counted(len(infos[0].points), "architecture")
    for col, info in enumerate(infos, start=1):
        for trace in _traces(info):
            figure.add_trace(trace.update(showlegend=col == 1), row=1, col=col)
        shown = (*info.points, *filter(None, [info.baseline]))
        costs = padded([*(p.x for p in shown), *(info.window or ())])
        figure.update_xaxes(title={"text": info.cost}, range=costs, row=1, col=col)
        if info.window is not None:
            low, high = info.window
            shade = {"fillcolor": VERMILION, "opacity": 0.12, "line_width": 0}
            figure.add_vrect(x0=low, x1=high, **shade, row=1, col=col)
            note += f"; the window, {low:.4g} to {high:.4g} {info.cost}, is shaded"
    styled(figure, title, note=note).update_yaxes(title={"text": ONE_SHOT}, col=1)
    return legend_below(figure)


def _traces(info: TradeoffInfo) -> list[go.Scatter]:
    shown = [info.points[i] for i in thinned(len(info.points))]  # with the best, which is first
    traces = []
    for kind, color in KIND_COLORS.items():
        points = [point for point in shown if point.kind == kind]
        edge = {"color": color, "width": 2 if _SYMBOLS[kind].endswith("thin") else 0}
        marker = {"symbol": _SYMBOLS[kind], "size": 7, "color": color, "line": edge}
        if points:
            traces.append(_markers(points, kind, marker))
    ring = {"symbol": "circle-open", "size": 13, "color": GREEN, "line": {"width": 2}}
    front = _markers(info.front[-100:], "Pareto front", ring)
    line = {"color": GREEN, "width": 2, "shape": "hv"}
    front.update(mode="lines+markers", line=line, hoverinfo="skip")
    front.update(hovertext=None, hovertemplate=None)
    best, large = info.points[0], {"size": 15, "line": {"color": INK, "width": 1}}
    star, cross = {"symbol": "star", "color": VERMILION}, {"symbol": "cross", "color": GREEN}
    traces += [front, _markers([best], f"best: {best.name}", star | large)]
    if info.baseline is not None:
        traces.append(_markers([info.baseline], info.baseline.name, cross | large))
    return traces


def _markers(points: Sequence[Point], name: str, marker: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=rounded([p.x for p in points], 6),
        y=rounded([p.ap for p in points]),
        hovertext=[p.name for p in points],
        hovertemplate="%{hovertext}: %{y} mAP at %{x}<extra></extra>",
        mode="markers",
        name=name,
        marker=marker,
    )
