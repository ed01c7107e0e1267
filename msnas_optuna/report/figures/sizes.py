"""How the AP falls from large objects to small ones.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from msnas_optuna.report.figures.observation import Observation
from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
)

SIZES: Final = ("small", "medium", "large")

_COLOURS: Final = (VERMILION, BLUE, ORANGE, SKY, PURPLE)
"""Of the best; the hand-made path is green."""


@dataclass(frozen=True)
class SizesInfo:
    """AP in percent by object size: a name and small, medium, large; None where unknown."""

    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


def plot_object_sizes(study: Source, *, top: int = 5) -> go.Figure:
    """Plots the AP of small, medium and large objects of the best, and of the FPN-like path.

    Args:
        study: of the search.
        top: how many of the best.
    """
    title, info = "AP by object size", _get_sizes_info(Observed.of(study), top=top)
    if not info.rows:
        return message(title, "no trial with AP by object size is finished yet")
    return _get_sizes_plot(info, title)


def _get_sizes_info(observed: Observed, *, top: int) -> SizesInfo:
    rows = [(f"trial {o.number}", _percent(o)) for o in observed.distinct[:top]]
    if observed.by_hand is not None:
        rows.append(("FPN-like path", _percent(observed.by_hand)))
    return SizesInfo(tuple(row for row in rows if any(ap is not None for ap in row[1])))


def _percent(observation: Observation) -> tuple[float | None, ...]:
    return tuple(None if ap is None else 100 * ap for ap in observation.ap_by_size)


def _get_sizes_plot(info: SizesInfo, title: str) -> go.Figure:
    figure = go.Figure()
    for i, (name, aps) in enumerate(info.rows):
        colour = GREEN if name == "FPN-like path" else _COLOURS[i % len(_COLOURS)]
        figure.add_bar(
            x=list(SIZES),
            y=[None if ap is None else rounded([ap])[0] for ap in aps],
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{x}: %{y} mAP<extra>" + name + "</extra>",
        )
    styled(figure, title, note="one-shot")
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(title={"text": "objects"})
    figure.update_yaxes(title={"text": "one-shot mAP"})
    return legend_below(figure)
