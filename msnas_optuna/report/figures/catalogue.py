"""All figures of one study, numbered, for the dashboard and the report alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import plotly.graph_objects as go

from msnas_optuna.report import figures
from msnas_optuna.report.figures.observations import Observed, Source

FIGURES: Final[dict[str, Callable[[Source], go.Figure]]] = {
    "architecture": figures.plot_architecture,
    "best-architectures": figures.plot_best_architectures,
    "comparison": figures.plot_comparison,
    "evolution": figures.plot_evolution,
    "survivors": figures.plot_survivors,
    "block-strides": figures.plot_block_strides,
    "feature-strides": figures.plot_feature_strides,
    "family-tree": figures.plot_family_tree,
    "tradeoff": figures.plot_tradeoff,
    "object-sizes": figures.plot_object_sizes,
    "transfer": figures.plot_transfer,
    "space": figures.plot_flops_distribution,
    "training": figures.plot_training_curves,
}
"""The figures by their name in the order of their numbers."""


def study_figures(study: Source) -> dict[str, go.Figure]:
    """All figures of a study by name; their titles are numbered, for readers that sort them.

    Args:
        study: of the search.
    """
    observed, drawn = Observed.of(study), {}
    for number, (name, plot) in enumerate(FIGURES.items(), start=1):
        figure = plot(observed)
        figure.update_layout(title_text=f"{number}. {figure.layout.title.text}")
        drawn[name] = figure
    return drawn
