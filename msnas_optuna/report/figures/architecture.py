"""One architecture as a picture: resolution against depth, lateral connections, heads, FLOPs.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Fig. 1.

Symbols: a absolute stride in pixels, s feature strides. FLOPs are 1e9 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, STEM_STRIDE
from msnas_optuna.report.figures.layout import (
    MOST_ARC_HEIGHT,
    ArchitectureInfo,
    get_architecture_info,
    head_depth,
)
from msnas_optuna.report.figures.observation import Observation
from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.path import path_traces
from msnas_optuna.report.figures.style import (
    AXIS,
    GREEN,
    HEIGHT,
    INK,
    PURPLE,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
)


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
    if not observed.distinct or observed.space is None:
        return message("The best architectures", "no trial is finished yet")
    n = len(observed.distinct[:top])
    best = "The best architecture" if n == 1 else f"The best {n} architectures"
    by = " by AP" if len(observed.study.directions) > 1 else ""  # not the front
    cost = cost or observed.cost
    infos = [
        get_architecture_info(o.architecture, name=_name(o), cost=cost)
        for o in observed.distinct[:top]
    ]
    by_hand = observed.space.fpn_like()
    infos.append(get_architecture_info(by_hand, name="FPN-like path", cost=cost))
    return _get_grid_plot(infos, f"{best}{by}, and the FPN-like path")


def _name(observation: Observation) -> str:
    return f"trial {observation.number}: {100 * observation.ap:.1f} mAP"


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
    for trace in path_traces(info, legend=True):
        figure.add_trace(trace, row=1, col=1)
    if costs:
        for bars in _cost_traces(info):
            figure.add_trace(bars, row=2, col=1)
    budget = "" if info.total is None else f", {info.total:.4g} GFLOPs"
    styled(figure, title, note=info.name + budget, height=HEIGHT)
    figure.update_yaxes(_resolution_axis("absolute stride"), row=1, col=1)
    figure.update_xaxes(_depth_axis(info))
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
        "range": [-log2(FEATURE_STRIDES[-1]) - 0.4, -log2(STEM_STRIDE) + MOST_ARC_HEIGHT + 0.1],
    }


_MOST_NAMED: Final = 24
"""Blocks beside which each head has room for a name of its own."""


def _depth_axis(info: ArchitectureInfo) -> dict[str, Any]:
    n = len(info.strides)
    every = 1 if n <= 13 else 2
    blocks = range(every, n + 1, every)
    heads = [head_depth(info, g) for g in range(len(info.heads))]
    names = [f"h{g + 1}" for g in range(len(heads))]
    if n > _MOST_NAMED:
        names = ["heads" if g == len(heads) // 2 else "" for g in range(len(heads))]
    return {
        "tickvals": [0, *blocks, *heads],
        "ticktext": ["stem", *map(str, blocks), *names],
        "range": [-0.6, heads[-1] + 0.6],
        "tickangle": 0,
        "showgrid": False,
    }


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
        for trace in path_traces(info, legend=i == 0):
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
