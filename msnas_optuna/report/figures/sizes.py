"""How the AP falls from large objects to small ones.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Table 1.
"""

from __future__ import annotations

from typing import Any, Final

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import (
    GREEN,
    PALETTE,
    legend_below,
    message,
    rounded,
    styled,
)
from msnas_optuna.study.view import StudyView

SIZES: Final = ("small", "medium", "large")


def get_sizes_info(view: StudyView[Any], *, top: int) -> dict[str, tuple[float | None, ...]]:
    """AP in percent of small, medium and large objects by name, None where it is unknown.

    Args:
        view: of the search.
        top: how many of the best; the baseline comes last, and what has no AP by size is left
            out.
    """
    rows = {}
    for result in (*view.results[:top], *filter(None, [view.baseline])):
        aps = [result.metric(f"ap_{size}") for size in SIZES]
        if any(ap is not None for ap in aps):
            rows[result.name] = tuple(None if ap is None else 100 * ap for ap in aps)
    return rows


def plot_object_sizes(study: Study | StudyView[Any], *, top: int = 5) -> go.Figure:
    """Plots the AP of small, medium and large objects of the best, and of the baseline.

    Args:
        study: of the search.
        top: how many of the best.
    """
    view, title = StudyView.of(study), "AP by object size"
    rows = get_sizes_info(view, top=top)
    if not rows:
        return message(title, "no trial with AP by object size is finished yet")
    figure = go.Figure()
    for i, (name, aps) in enumerate(rows.items()):
        color = GREEN if name == view.method.baseline else PALETTE[i % PALETTE.index(GREEN)]
        figure.add_bar(
            x=list(SIZES),
            y=[None if ap is None else rounded([ap])[0] for ap in aps],
            name=name,
            marker={"color": color, "line": {"width": 0}},
            hovertemplate="%{x}: %{y} mAP<extra>" + name + "</extra>",
        )
    styled(figure, title, note="one-shot")
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(title={"text": "objects"})
    figure.update_yaxes(title={"text": "one-shot mAP"})
    return legend_below(figure)
