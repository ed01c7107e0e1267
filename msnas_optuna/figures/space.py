"""The FLOPs of all architectures of a space, with the window of a search.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import plotly.graph_objects as go

from msnas_optuna.feasibility import Feasibility, histogram

_BINS: Final = 120

# Okabe and Ito's colours, which colour-blind readers can tell apart; lines differ in dash too.
_BARS, _WINDOW, _FPN_LIKE, _BASELINE = "#56B4E9", "#D55E00", "#009E73", "#CC79A7"

_INK: Final = "#808080"
"""Text and axes: legible on white and on black."""

_GRID: Final = "rgba(128, 128, 128, 0.25)"


class _Mark(NamedTuple):
    """A cost to be marked, 1e9 multiply-adds."""

    name: str
    gflops: float
    colour: str
    dash: str
    width: float  # pixels


class _FlopsDistributionInfo(NamedTuple):
    """What the figure shows; costs in 1e9 multiply-adds."""

    title: str
    edges: list[float]  # one more than counts
    counts: list[int]
    window: tuple[float, float]
    marks: list[_Mark]


def plot_flops_distribution(found: Feasibility) -> go.Figure:
    """Plots how many valid architectures have which FLOPs, and where the window lies.

    Args:
        found: the counted space.
    """
    return _get_flops_distribution_plot(_get_flops_distribution_info(found))


def _get_flops_distribution_info(found: Feasibility) -> _FlopsDistributionInfo:
    bars = histogram(found.distribution, _BINS)
    marks = [
        _Mark("target", found.target / 1e9, _WINDOW, "solid", 1),
        _Mark("FPN-like path", found.fpn_like / 1e9, _FPN_LIKE, "dash", 2),
    ]
    if found.fpn_baseline is not None:
        marks.append(_Mark("ResNet-FPN", found.fpn_baseline / 1e9, _BASELINE, "dot", 2))
    return _FlopsDistributionInfo(
        title=(
            f"FLOPs of {found.valid:,} architectures: {found.space.n_blocks} blocks, "
            f"{found.cost.channels} channels<br><sup>{found.in_window:,} "
            f"({found.share:.2%}) in the window</sup>"
        ),
        edges=[edge / 1e9 for edge in bars.edges],
        counts=list(bars.counts),
        window=(found.window[0] / 1e9, found.window[1] / 1e9),
        marks=marks,
    )


def _get_flops_distribution_plot(info: _FlopsDistributionInfo) -> go.Figure:
    figure = go.Figure(_bars(info))
    low, high = info.window
    figure.add_vrect(
        x0=low,
        x1=high,
        fillcolor=_WINDOW,
        opacity=0.4,
        line_width=0,
        name=f"window: {low:,.4g} to {high:,.4g}",
        showlegend=True,
    )
    top = max(info.counts) * 1.05
    for mark in info.marks:  # traces, because the legend can name and hide them
        figure.add_scatter(
            x=[mark.gflops, mark.gflops],
            y=[0, top],
            mode="lines",
            name=f"{mark.name}: {mark.gflops:,.4g}",
            line={"color": mark.colour, "dash": mark.dash, "width": mark.width},
            hoverinfo="name",
        )
    axis = {"gridcolor": _GRID, "linecolor": _INK, "zerolinecolor": _GRID}
    figure.update_layout(
        template=None,
        title={"text": info.title, "x": 0.02, "xanchor": "left"},
        xaxis={"title": {"text": "GFLOPs (1e9 multiply-adds, encoder + RPN head)"}, **axis},
        yaxis={"title": {"text": "architectures"}, "range": [0, top], **axis},
        legend={"x": 0.99, "xanchor": "right", "y": 0.98},
        font={"color": _INK},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        bargap=0,
        height=450,
    )
    return figure


def _bars(info: _FlopsDistributionInfo) -> go.Bar:
    return go.Bar(
        x=info.edges[:-1],
        y=info.counts,
        offset=0,
        width=info.edges[1] - info.edges[0],
        marker={"color": _BARS, "line": {"width": 0}},
        name="architectures",
        showlegend=False,
        hovertemplate="from %{x:,.4g} GFLOPs: %{y:,} architectures<extra></extra>",
    )
