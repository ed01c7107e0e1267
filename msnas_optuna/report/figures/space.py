"""The FLOPs of all architectures of a space, with the window of a search (MSNAS paper, §4.1)."""

from __future__ import annotations

from typing import Any, Final

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import GREEN, PURPLE, SKY, VERMILION, message, styled
from msnas_optuna.study.feasibility import Feasibility, histogram
from msnas_optuna.study.view import StudyView

_BINS: Final = 120

TITLE: Final = "FLOPs of the space"


def plot_flops_distribution(study: Study | StudyView[Any]) -> go.Figure:
    """Plots how many valid architectures have which FLOPs, and where the window lies.

    Space and window are those that the study was created with.
    """
    found = StudyView.of(study).feasibility
    if found is None:
        return message(TITLE, "no space is stored with the study yet: `msnas search` stores it")
    return plot_counted_space(found)


def plot_counted_space(found: Feasibility) -> go.Figure:
    """Plots the same of a space that is counted, whether or not it is searched.

    Target, baseline and published networks are marked.
    """
    bars = histogram(found.distribution, _BINS)
    edges = [edge / 1e9 for edge in bars.edges]
    figure = go.Figure(
        go.Bar(
            x=edges[:-1],
            y=list(bars.counts),
            offset=0,
            width=edges[1] - edges[0],
            marker={"color": SKY, "line": {"width": 0}},
            name="architectures",
            showlegend=False,
            hovertemplate="from %{x:,.4g} GFLOPs: %{y:,} architectures<extra></extra>",
        )
    )
    low, high = (edge / 1e9 for edge in found.window)
    figure.add_vrect(
        x0=low,
        x1=high,
        fillcolor=VERMILION,
        opacity=0.4,
        line_width=0,
        name=f"window: {low:,.4g} to {high:,.4g}",
        showlegend=True,
    )
    top = max(bars.counts) * 1.05
    marks = {"target": found.target, found.method.baseline: found.baseline, **found.references}
    pens = [(VERMILION, "solid", 1), (GREEN, "dash", 2)]
    for i, (name, cost) in enumerate(marks.items()):
        color, dash, width = pens[i] if i < len(pens) else (PURPLE, "dot", 2)
        figure.add_scatter(  # traces, because the legend can name and hide them
            x=[cost / 1e9, cost / 1e9],
            y=[0, top],
            mode="lines",
            name=f"{name}: {cost / 1e9:,.4g}",
            line={"color": color, "dash": dash, "width": width},
            hoverinfo="name",
        )
    note = f"{found.valid:,} architectures, {found.in_window:,} ({found.share:.2%}) in the window"
    x = f"GFLOPs (1e9 multiply-adds, {found.cost.scope})"
    styled(figure, TITLE, note=note, x=x, y="architectures").update_yaxes(range=[0, top])
    return figure.update_layout(legend={"x": 0.99, "xanchor": "right", "y": 0.98}, bargap=0)
