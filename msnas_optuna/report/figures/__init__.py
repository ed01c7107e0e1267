"""Figures of a space and of what a search found: plotly figures, made from plain data.

Each takes the study of a search, as those of `optuna.visualization` do, or a view of one: who
draws many reads the study once.

The MSNAS paper is "Multi-Scale Network Architecture Search for Object Detection", ICLR 2021
submission.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.methods.base import Method
from msnas_optuna.report.figures.architecture import plot_architecture, plot_best_architectures
from msnas_optuna.report.figures.comparison import plot_comparison, plot_object_sizes
from msnas_optuna.report.figures.evolution import plot_evolution, plot_survivors
from msnas_optuna.report.figures.family import plot_family_tree
from msnas_optuna.report.figures.heatmap import plot_heatmap
from msnas_optuna.report.figures.space import plot_flops_distribution
from msnas_optuna.report.figures.tradeoff import plot_tradeoff
from msnas_optuna.report.figures.training import plot_training_curves, plot_transfer
from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.study.view import StudyView

__all__ = [
    "figures_of",
    "plot_architecture",
    "plot_best_architectures",
    "plot_comparison",
    "plot_evolution",
    "plot_family_tree",
    "plot_flops_distribution",
    "plot_heatmap",
    "plot_object_sizes",
    "plot_survivors",
    "plot_tradeoff",
    "plot_training_curves",
    "plot_transfer",
    "study_figures",
    "write_figure",
]

_BOTH_SCHEMES: Final = '<head><meta name="color-scheme" content="light dark" />'
"""Lets the page behind a figure without background follow the reader's light or dark scheme."""


def figures_of(method: Method[Any]) -> dict[str, Callable[[StudyView[Any]], go.Figure]]:
    """The figures of a study of a method by name, in the order of their numbers."""
    return {
        "architecture": plot_architecture,
        "best-architectures": plot_best_architectures,
        "comparison": plot_comparison,
        "evolution": plot_evolution,
        "survivors": plot_survivors,
        **{name: partial(plot_heatmap, name=name) for name in method.heatmaps},
        "family-tree": plot_family_tree,
        "tradeoff": plot_tradeoff,
        "object-sizes": plot_object_sizes,
        "transfer": plot_transfer,
        "space": plot_flops_distribution,
        "training": plot_training_curves,
    }


def study_figures(study: Study | StudyView[Any]) -> dict[str, go.Figure]:
    """All figures of a study by name; their titles are numbered, for readers that sort them."""
    view = StudyView.of(study)
    drawn = {name: plot(view) for name, plot in figures_of(view.method).items()}
    for number, figure in enumerate(drawn.values(), start=1):
        figure.update_layout(title_text=f"{number}. {figure.layout.title.text}")
    return drawn


def write_figure(figure: go.Figure, path: Path) -> None:
    """Writes a page that needs no network, or the figure's JSON where the name ends in .json.

    Raises:
        ValueError: the name ends neither in .html nor in .json.
        OSError: the file cannot be written.
    """
    if path.suffix not in (".html", ".json"):
        raise ValueError(f"a figure is written to a .html or .json file, got {path}")
    if path.suffix == ".json":
        text = figure.to_json()
    else:
        page = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
        text = page.replace("<head>", _BOTH_SCHEMES, 1)
    with atomic_write(path) as file:
        file.write(text.encode())
