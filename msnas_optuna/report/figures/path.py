"""An architecture as plotly draws it: resolution against depth, lateral connections, heads.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Fig. 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any, Final

import plotly.graph_objects as go

from msnas_optuna.report.figures.layout import ArchitectureInfo, arc, head_depth
from msnas_optuna.report.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, rounded

MOVES: Final = {2.0: ("stride 2", BLUE), 1.0: ("stride 1", SKY), 0.5: ("stride 0.5", ORANGE)}
"""Name and colour of what a block does to the resolution."""

_SYMBOLS: Final = {2.0: "triangle-down", 1.0: "square", 0.5: "triangle-up"}


def path_traces(info: ArchitectureInfo, *, legend: bool) -> list[go.Scatter]:
    """The picture of an architecture: blocks, lateral connections and heads."""
    levels = [-log2(a) for a in info.absolute]
    common = {"showlegend": legend, "hoverinfo": "skip"}
    traces = [
        go.Scatter(
            x=list(range(len(levels))),
            y=rounded(levels),
            mode="lines",
            line={"color": INK, "width": 1.5},
            showlegend=False,
            hoverinfo="skip",
        )
    ]
    traces.append(_segments(_arcs(info), "lateral connection", PURPLE, "dash", common))
    traces.append(_segments(_readings(info), "head reads", GREEN, "dot", common))
    traces.append(_stem_trace(info, legend=legend))
    traces += [_block_trace(info, stride, legend=legend) for stride in MOVES]
    traces.append(
        go.Scatter(
            x=rounded([head_depth(info, g) for g in range(len(info.heads))]),
            y=rounded([-log2(s) for _, s in info.heads]),
            mode="markers",
            name="detection head",
            marker={"symbol": "diamond", "size": 10, "color": GREEN},
            customdata=[[g + 1, s, depth] for g, (depth, s) in enumerate(info.heads)],
            hovertemplate="head %{customdata[0]} reads stride %{customdata[1]} from block "
            "%{customdata[2]}<extra></extra>",
            showlegend=legend,
        )
    )
    return traces


def _arcs(info: ArchitectureInfo) -> list[list[tuple[float, float]]]:
    """Start, top and end of each: the browser draws the curve, which keeps the JSON small."""
    return [arc(start, end, -log2(info.absolute[end]), pieces=2) for start, end in info.laterals]


def _readings(info: ArchitectureInfo) -> list[list[tuple[float, float]]]:
    """From each output to the last head that reads it."""
    last = {s: (depth, head_depth(info, g)) for g, (depth, s) in enumerate(info.heads)}
    return [[(depth, -log2(s)), (x, -log2(s))] for s, (depth, x) in last.items()]


def _segments(
    lines: Sequence[Sequence[tuple[float, float]]],
    name: str,
    colour: str,
    dash: str,
    common: dict[str, Any],
) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for line in lines:
        x += [*rounded([point[0] for point in line], 3), None]
        y += [*rounded([point[1] for point in line], 3), None]
    pen = {"color": colour, "dash": dash, "width": 2, "shape": "spline"}
    return go.Scatter(x=x or [None], y=y or [None], mode="lines", name=name, line=pen, **common)


def _stem_trace(info: ArchitectureInfo, *, legend: bool) -> go.Scatter:
    flops = f", {info.blocks[0]:.4g} GFLOPs" if info.blocks else ""
    text = f"stem: absolute stride {info.absolute[0]:g}{flops}<extra></extra>"
    return go.Scatter(
        x=[0],
        y=[-log2(info.absolute[0])],
        mode="markers",
        name="stem",
        marker={"symbol": "circle", "size": 10, "color": INK},
        hovertemplate=text,
        showlegend=legend,
    )


def _block_trace(info: ArchitectureInfo, stride: float, *, legend: bool) -> go.Scatter:
    name, colour = MOVES[stride]
    at = [i + 1 for i, own in enumerate(info.strides) if own == stride]
    nothing: list[float | None] = [None]  # keeps the entry of the legend
    flops = ", %{customdata[1]} GFLOPs" if info.blocks else ""
    return go.Scatter(
        x=at or nothing,
        y=rounded([-log2(info.absolute[i]) for i in at]) or nothing,
        mode="markers",
        name=name,
        marker={"symbol": _SYMBOLS[stride], "size": 12, "color": colour},
        customdata=[[info.absolute[i], *rounded(info.blocks[i : i + 1])] for i in at],
        hovertemplate=f"block %{{x}}: {name}, absolute stride %{{customdata[0]}}{flops}"
        "<extra></extra>",
        showlegend=legend,
    )
