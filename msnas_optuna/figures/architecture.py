"""One architecture as a picture: resolution against depth, lateral connections, heads, FLOPs.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Fig. 1.

Symbols: a absolute stride in pixels, s feature strides. FLOPs are 1e9 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from msnas_optuna.cost import EncoderCost
from msnas_optuna.figures.observations import Observation, Observed, Source
from msnas_optuna.figures.style import (
    AXIS,
    BLUE,
    GREEN,
    HEIGHT,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
)
from msnas_optuna.spaces.msnas import FEATURE_STRIDES, STEM_STRIDE, Architecture

MOVES: Final = {2.0: ("stride 2", BLUE), 1.0: ("stride 1", SKY), 0.5: ("stride 0.5", ORANGE)}
"""Name and colour of what a block does to the resolution."""

_SYMBOLS: Final = {2.0: "triangle-down", 1.0: "square", 0.5: "triangle-up"}

_ARC: Final = 8
"""Straight pieces that draw a lateral connection."""

_ARC_HEIGHT: Final = 0.32
"""Of an arc over neighbouring blocks, in octaves of the resolution."""

HEAD_GAP: Final = 0.8
"""From the last block to the first head, and then from head to head, in blocks."""


@dataclass(frozen=True)
class ArchitectureInfo:
    """What the picture of an architecture shows; depth 0 is the stem, 1..N are the blocks.

    Attributes:
        name: above the picture.
        strides: of the N blocks.
        absolute: absolute stride after the stem and after each block, N + 1 values.
        laterals: pairs of depths (from, to) that a lateral connection joins.
        heads: for each object group the depth of the block that it reads, and its stride.
        total: GFLOPs, None where the cost is unknown.
        blocks: GFLOPs of the stem and of each block, N + 1 values; empty where unknown.
        lateral: GFLOPs of the lateral connection into each of these.
        head: GFLOPs of each group's RPN head, with its share of the output convolutions.
    """

    name: str
    strides: tuple[float, ...]
    absolute: tuple[float, ...]
    laterals: tuple[tuple[int, int], ...]
    heads: tuple[tuple[int, int], ...]
    total: float | None
    blocks: tuple[float, ...]
    lateral: tuple[float, ...]
    head: tuple[float, ...]


def plot_architecture(
    study: Source, *, trial: int | None = None, cost: EncoderCost | None = None
) -> go.Figure:
    """Plots the architecture of one trial (Fig. 1) with the FLOPs of its parts.

    Args:
        study: of the search.
        trial: number of a finished trial; the default is the one with the best AP.
        cost: FLOPs of encoder + RPN head; the default is that of the stored configuration.

    Raises:
        ValueError: the study has no such finished trial.
    """
    observed = Observed.of(study)
    title = "Best architecture" if trial is None else f"Architecture of trial {trial}"
    if trial is not None and trial not in observed.by_number:
        raise ValueError(f"trial must be the number of a finished trial, got {trial}")
    if not observed.distinct:
        return message(title, "no trial is finished yet")
    shown = observed.distinct[0] if trial is None else observed.by_number[trial]
    info = get_architecture_info(shown.architecture, name=_name(shown), cost=cost or observed.cost)
    return _get_architecture_plot(info, title)


def plot_best_architectures(
    study: Source, *, top: int = 5, cost: EncoderCost | None = None
) -> go.Figure:
    """Plots the best architectures side by side, with the hand-made FPN-like path beside them.

    Args:
        study: of the search.
        top: how many of the best.
        cost: FLOPs of encoder + RPN head; the default is that of the stored configuration.
    """
    observed = Observed.of(study)
    title = f"The best {top} architectures, and the FPN-like path"
    if not observed.distinct or observed.space is None:
        return message(title, "no trial is finished yet")
    cost = cost or observed.cost
    infos = [
        get_architecture_info(o.architecture, name=_name(o), cost=cost)
        for o in observed.distinct[:top]
    ]
    by_hand = observed.space.fpn_like()
    infos.append(get_architecture_info(by_hand, name="FPN-like path", cost=cost))
    return _get_grid_plot(infos, title)


def _name(observation: Observation) -> str:
    return f"trial {observation.number}: {100 * observation.ap:.1f} mAP"


def get_architecture_info(
    architecture: Architecture, *, name: str, cost: EncoderCost | None = None
) -> ArchitectureInfo:
    """What a picture of a valid architecture shows, see `ArchitectureInfo`."""
    laterals = tuple((r + 1, i + 1) for i, r in sorted(architecture.laterals.items()))
    blocks: tuple[float, ...] = ()
    lateral: tuple[float, ...] = ()
    head: tuple[float, ...] = ()
    total = None
    if cost is not None:
        parts = cost.breakdown(architecture)
        readers = {s: architecture.feature_strides.count(s) for s in parts.outputs}
        total = parts.total / 1e9
        blocks = tuple(flops / 1e9 for flops in (parts.stem, *parts.blocks))
        lateral = (0.0, *(flops / 1e9 for flops in parts.laterals))
        head = tuple(
            (rpn + parts.outputs[s] / readers[s]) / 1e9
            for s, rpn in zip(architecture.feature_strides, parts.rpn, strict=True)
        )
    return ArchitectureInfo(
        name=name,
        strides=architecture.strides,
        absolute=(STEM_STRIDE, *architecture.absolute_strides),
        laterals=laterals,
        heads=tuple((architecture.outputs[s] + 1, s) for s in architecture.feature_strides),
        total=total,
        blocks=blocks,
        lateral=lateral,
        head=head,
    )


# ---------------------------------------------------------------------- one architecture


def _get_architecture_plot(info: ArchitectureInfo, title: str) -> go.Figure:
    costs = bool(info.blocks)
    figure = make_subplots(
        rows=2 if costs else 1,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[0.62, 0.38] if costs else None,
    )
    for trace in _path_traces(info, legend=True):
        figure.add_trace(trace, row=1, col=1)
    if costs:
        for bars in _cost_traces(info):
            figure.add_trace(bars, row=2, col=1)
    budget = "" if info.total is None else f", {info.total:.4g} GFLOPs"
    styled(figure, title, note=info.name + budget, height=HEIGHT)
    figure.update_yaxes(_resolution_axis("absolute stride"), row=1, col=1)
    figure.update_xaxes(_depth_axis(info), row=2 if costs else 1, col=1)
    figure.update_layout(barmode="stack", bargap=0.35)
    if costs:
        figure.update_xaxes(showticklabels=False, row=1, col=1)
        figure.update_yaxes({"title": {"text": "GFLOPs"}, **AXIS}, row=2, col=1)
    return legend_below(figure, y=-0.1)


def _resolution_axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "tickvals": [-log2(a) for a in FEATURE_STRIDES],
        "ticktext": [str(a) for a in FEATURE_STRIDES],
        "range": [-6.4, -1.4],
    }


def _depth_axis(info: ArchitectureInfo) -> dict[str, Any]:
    n = len(info.strides)
    every = 1 if n <= 13 else 2
    blocks = range(every, n + 1, every)
    heads = [head_depth(info, g) for g in range(len(info.heads))]
    return {
        "tickvals": [0, *blocks, *heads],
        "ticktext": ["stem", *map(str, blocks), *(f"h{g + 1}" for g in range(len(heads)))],
        "range": [-0.6, heads[-1] + 0.6],
        "tickangle": 0,
        "showgrid": False,
    }


def head_depth(info: ArchitectureInfo, group: int) -> float:
    """Where the head of an object group stands, in blocks."""
    return len(info.strides) + HEAD_GAP * (group + 1.5)


def arc(start: int, end: int, level: float) -> list[tuple[float, float]]:
    """Points (depth, level) of a lateral connection over the blocks that it passes."""
    height = _ARC_HEIGHT * min(1 + 0.15 * (end - start - 1), 2.4)
    points = []
    for i in range(_ARC + 1):
        t = i / _ARC
        points.append((start + t * (end - start), level + 4 * t * (1 - t) * height))
    return points


def _path_traces(info: ArchitectureInfo, *, legend: bool) -> list[go.Scatter]:
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
    traces += [_block_trace(info, stride, legend=legend) for stride in MOVES]
    traces.append(
        go.Scatter(
            x=rounded([head_depth(info, g) for g in range(len(info.heads))]),
            y=[-log2(s) for _, s in info.heads],
            mode="markers",
            name="detection head",
            marker={"symbol": "diamond", "size": 10, "color": GREEN},
            hovertext=[
                f"head {g + 1} reads stride {s} from block {depth}"
                for g, (depth, s) in enumerate(info.heads)
            ],
            hoverinfo="text",
            showlegend=legend,
        )
    )
    return traces


def _arcs(info: ArchitectureInfo) -> list[list[tuple[float, float]]]:
    return [arc(start, end, -log2(info.absolute[end])) for start, end in info.laterals]


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
        x += [*rounded([point[0] for point in line]), None]
        y += [*rounded([point[1] for point in line]), None]
    pen = {"color": colour, "dash": dash, "width": 2}
    return go.Scatter(x=x or [None], y=y or [None], mode="lines", name=name, line=pen, **common)


def _block_trace(info: ArchitectureInfo, stride: float, *, legend: bool) -> go.Scatter:
    name, colour = MOVES[stride]
    at = [i + 1 for i, own in enumerate(info.strides) if own == stride]
    nothing: list[float | None] = [None]  # keeps the entry of the legend
    return go.Scatter(
        x=at or nothing,
        y=[-log2(info.absolute[i]) for i in at] or nothing,
        mode="markers",
        name=name,
        marker={"symbol": _SYMBOLS[stride], "size": 12, "color": colour},
        hovertext=[
            f"block {i}: stride {stride:g}, absolute stride {info.absolute[i]:g}"
            + (f", {info.blocks[i]:.4g} GFLOPs" if info.blocks else "")
            for i in at
        ],
        hoverinfo="text",
        showlegend=legend,
    )


def _cost_traces(info: ArchitectureInfo) -> list[go.Bar]:
    heads = [head_depth(info, g) for g in range(len(info.head))]
    bars = (
        ("block", list(range(len(info.blocks))), info.blocks, VERMILION),
        ("lateral", list(range(len(info.lateral))), info.lateral, PURPLE),
        ("head", heads, info.head, GREEN),
    )
    return [
        go.Bar(
            x=rounded(x),
            y=rounded(y),
            width=0.6,
            name=f"GFLOPs: {name}",
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{y:.4g} GFLOPs<extra>" + name + "</extra>",
        )
        for name, x, y, colour in bars
    ]


# ---------------------------------------------------------------------- side by side

_COLUMNS: Final = 3


def _get_grid_plot(infos: Sequence[ArchitectureInfo], title: str) -> go.Figure:
    rows = -(-len(infos) // _COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=_COLUMNS,
        subplot_titles=[_heading(info) for info in infos],
        horizontal_spacing=0.07,
        vertical_spacing=0.36 / rows,
    )
    for i, info in enumerate(infos):
        row, col = divmod(i, _COLUMNS)
        for trace in _path_traces(info, legend=i == 0):
            figure.add_trace(trace, row=row + 1, col=col + 1)
    styled(figure, title, note="absolute stride against depth", height=HEIGHT)
    figure.update_layout(margin={"t": 95, "l": 35, "r": 10})
    for i, info in enumerate(infos):
        row, col = divmod(i, _COLUMNS)
        figure.update_xaxes(_small_depth_axis(info), row=row + 1, col=col + 1)
        figure.update_yaxes(_resolution_axis(""), row=row + 1, col=col + 1)
    figure.update_annotations(font={"size": 11, "color": INK})
    figure.update_traces(marker={"size": 7}, selector={"mode": "markers"})
    return legend_below(figure, y=-0.12)


def _small_depth_axis(info: ArchitectureInfo) -> dict[str, Any]:
    n, axis = len(info.strides), _depth_axis(info)
    every = -(-n // 5)
    middle = head_depth(info, 2)
    blocks = list(range(every, n + 1, every))
    return axis | {
        "tickvals": [0, *blocks, middle],
        "ticktext": ["stem", *map(str, blocks), "heads"],
        "tickfont": {"size": 10},
    }


def _heading(info: ArchitectureInfo) -> str:
    return info.name if info.total is None else f"{info.name}, {info.total:.4g} G"
