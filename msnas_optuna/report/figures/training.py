"""How training went: the losses of the supernet and of the retrained architectures."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import PALETTE, legend_below, message, rounded, styled
from msnas_optuna.storage import read_curves
from msnas_optuna.study.view import StudyView


def plot_training_curves(study: Study | StudyView[Any]) -> go.Figure:
    """Plots the losses of the supernet and of the retrained architectures.

    Args:
        study: of the search; it keeps what `msnas search` and `msnas retrain` have stored.
    """
    title, view = "Training", StudyView.of(study)
    curves = {} if view.study is None else read_curves(view.study)
    if not curves:
        text = "no losses are stored yet: `msnas search` and `msnas retrain` store them"
        return message(title, text)
    figure = go.Figure()
    for (name, curve), color in zip(curves.items(), PALETTE, strict=False):  # the first alone
        figure.add_scatter(
            x=list(curve.steps),
            y=rounded(curve.losses, 3),
            mode="lines",
            name=name,
            line={"color": color, "width": 2},
        )
    styled(figure, title, note="sum of the detector's losses, averaged over steps")
    figure.update_xaxes(title={"text": "step"})
    figure.update_yaxes(title={"text": "loss"}, rangemode="tozero")
    return legend_below(figure)
