"""The FLOPs of all architectures of a space, with the window of a search.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import GREEN, PURPLE, SKY, VERMILION, message, styled
from msnas_optuna.study.feasibility import Feasibility, histogram
from msnas_optuna.study.view import StudyView

_BINS: Final = 120

TITLE: Final = "FLOPs of the space"


class FlopsDistributionInfo(NamedTuple):
    """The data of the figure; costs in 1e9 multiply-adds.

    Attributes:
        note: about the space, in words.
        edges: of the bins, one more than counts.
        counts: architectures in each bin.
        window: least and largest cost of a proposal.
        marks: costs to be marked, by name: the target, the baseline, published networks.
    """

    note: str
    edges: list[float]
    counts: list[int]
    window: tuple[float, float]
    marks: dict[str, float]


def get_flops_distribution_info(found: Feasibility) -> FlopsDistributionInfo:
    """The distribution of the cost over a space."""
    bars = histogram(found.distribution, _BINS)
    marks = {"target": found.target, found.method.baseline: found.baseline, **found.references}
    low, high = found.window
    return FlopsDistributionInfo(
        note=(
            f"{found.valid:,} architectures, {found.in_window:,} ({found.share:.2%}) in the window"
        ),
        edges=[edge / 1e9 for edge in bars.edges],
        counts=list(bars.counts),
        window=(low / 1e9, high / 1e9),
        marks={name: cost / 1e9 for name, cost in marks.items()},
    )


def plot_flops_distribution(study: Study | StudyView[Any]) -> go.Figure:
    """Plots how many valid architectures have which FLOPs, and where the window lies.

    Args:
        study: of the search; space and window are those that it was created with.
    """
    found = StudyView.of(study).feasibility
    if found is None:
        return message(TITLE, "no space is stored with the study yet: `msnas search` stores it")
    return plot_counted_space(found)


def plot_counted_space(found: Feasibility) -> go.Figure:
    """Plots the same of a space that is counted, whether or not it is searched."""
    info = get_flops_distribution_info(found)
    figure = go.Figure(
        go.Bar(
            x=info.edges[:-1],
            y=info.counts,
            offset=0,
            width=info.edges[1] - info.edges[0],
            marker={"color": SKY, "line": {"width": 0}},
            name="architectures",
            showlegend=False,
            hovertemplate="from %{x:,.4g} GFLOPs: %{y:,} architectures<extra></extra>",
        )
    )
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
    pens = [(VERMILION, "solid", 1), (GREEN, "dash", 2)]
    top = max(info.counts) * 1.05
    for i, (name, gflops) in enumerate(info.marks.items()):
        color, dash, width = pens[i] if i < len(pens) else (PURPLE, "dot", 2)
        figure.add_scatter(  # traces, because the legend can name and hide them
            x=[gflops, gflops],
            y=[0, top],
            mode="lines",
            name=f"{name}: {gflops:,.4g}",
            line={"color": color, "dash": dash, "width": width},
            hoverinfo="name",
        )
    styled(figure, TITLE, note=info.note)
    figure.update_xaxes(title={"text": f"GFLOPs (1e9 multiply-adds, {found.cost.scope})"})
    figure.update_yaxes(title={"text": "architectures"}, range=[0, top])
    return figure.update_layout(legend={"x": 0.99, "xanchor": "right", "y": 0.98}, bargap=0)
