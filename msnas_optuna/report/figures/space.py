"""The FLOPs of all architectures of a space, with the window of a search.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import plotly.graph_objects as go

from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import GREEN, PURPLE, SKY, VERMILION, message, styled
from msnas_optuna.study.feasibility import Feasibility, histogram

_BINS: Final = 120

TITLE: Final = "FLOPs of the space"


class _Mark(NamedTuple):
    """A cost to be marked, 1e9 multiply-adds."""

    name: str
    gflops: float
    colour: str
    dash: str
    width: float  # pixels


class _FlopsDistributionInfo(NamedTuple):
    """What the figure shows; costs in 1e9 multiply-adds."""

    note: str
    edges: list[float]  # one more than counts
    counts: list[int]
    window: tuple[float, float]
    marks: list[_Mark]


def plot_flops_distribution(study: Source) -> go.Figure:
    """Plots how many valid architectures have which FLOPs, and where the window lies.

    Args:
        study: of the search; space and window are those that it was created with.
    """
    found = Observed.of(study).feasibility
    if found is None:
        text = "no space is stored with the study yet: `msnas search` stores it"
        return message(TITLE, text)
    return plot_counted_space(found)


def plot_counted_space(found: Feasibility) -> go.Figure:
    """Plots the same of a space that is counted, whether or not it is searched.

    Args:
        found: the space and the window.
    """
    return _get_flops_distribution_plot(_get_flops_distribution_info(found))


def _get_flops_distribution_info(found: Feasibility) -> _FlopsDistributionInfo:
    bars = histogram(found.distribution, _BINS)
    marks = [
        _Mark("target", found.target / 1e9, VERMILION, "solid", 1),
        _Mark(found.method.baseline, found.baseline / 1e9, GREEN, "dash", 2),
        *(_Mark(name, n / 1e9, PURPLE, "dot", 2) for name, n in found.references.items()),
    ]
    return _FlopsDistributionInfo(
        note=(
            f"{found.valid:,} architectures, {found.in_window:,} ({found.share:.2%}) in the window"
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
        fillcolor=VERMILION,
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
    styled(figure, TITLE, note=info.note)
    figure.update_xaxes(title={"text": "GFLOPs (1e9 multiply-adds, encoder + RPN head)"})
    figure.update_yaxes(title={"text": "architectures"}, range=[0, top])
    return figure.update_layout(legend={"x": 0.99, "xanchor": "right", "y": 0.98}, bargap=0)


def _bars(info: _FlopsDistributionInfo) -> go.Bar:
    return go.Bar(
        x=info.edges[:-1],
        y=info.counts,
        offset=0,
        width=info.edges[1] - info.edges[0],
        marker={"color": SKY, "line": {"width": 0}},
        name="architectures",
        showlegend=False,
        hovertemplate="from %{x:,.4g} GFLOPs: %{y:,} architectures<extra></extra>",
    )
