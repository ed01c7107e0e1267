"""How training went: the losses of the supernet and of the retrained architectures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

import plotly.graph_objects as go

from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    BLUE,
    GREEN,
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
from msnas_optuna.storage import Curve, read_curves

_COLOURS: Final = (VERMILION, BLUE, ORANGE, SKY, PURPLE, GREEN, INK)


def plot_training_curves(study: Source) -> go.Figure:
    """Plots the losses of the supernet and of the retrained architectures.

    Args:
        study: of the search; it keeps what `msnas search` and `msnas retrain` have stored.
    """
    title, curves = "Training", _get_curves_info(Observed.of(study))
    if not curves:
        text = "no losses are stored yet: `msnas search` and `msnas retrain` store them"
        return message(title, text)
    return _get_curves_plot(curves, title)


def _get_curves_info(observed: Observed) -> dict[str, Curve]:
    """The first of the runs, as many as have a colour."""
    return dict(islice(read_curves(observed.study).items(), len(_COLOURS)))


def _get_curves_plot(curves: Mapping[str, Curve], title: str) -> go.Figure:
    figure = go.Figure()
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        figure.add_scatter(
            x=list(curve.steps),
            y=rounded(curve.losses, 3),
            mode="lines",
            name=name,
            line={"color": colour, "width": 2},
        )
    styled(figure, title, note="sum of the detector's losses, averaged over steps")
    figure.update_xaxes(title={"text": "step"})
    figure.update_yaxes(title={"text": "loss"}, rangemode="tozero")
    return legend_below(figure)
