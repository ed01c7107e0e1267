"""All figures of one study, numbered, for the dashboard and the report alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from msnas_optuna.feasibility import Feasibility
from msnas_optuna.figures.architecture import plot_architecture, plot_best_architectures
from msnas_optuna.figures.evolution import plot_evolution, plot_survivors
from msnas_optuna.figures.observations import Observed, Source
from msnas_optuna.figures.population import (
    plot_block_strides,
    plot_family_tree,
    plot_feature_strides,
)
from msnas_optuna.figures.space import plot_flops_distribution
from msnas_optuna.figures.style import message
from msnas_optuna.figures.tradeoff import plot_comparison, plot_tradeoff
from msnas_optuna.figures.transfer import (
    plot_object_sizes,
    plot_training_curves,
    plot_transfer,
)


@dataclass(frozen=True)
class Stages:
    """The studies of one search, and the losses of its training runs.

    Attributes:
        search: the search itself.
        by_hand: holds the FPN-like path under the supernet's weights; None before it is measured.
        standalone: holds the architectures that are trained from scratch; None before.
        losses: of each training step, by the name of the run.
        feasibility: the counted space with its window.
    """

    search: Source
    by_hand: Source | None = None
    standalone: Source | None = None
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    feasibility: Feasibility | None = None


def _transfer(stages: Stages) -> go.Figure:
    if stages.standalone is None:
        return message("One-shot against stand-alone AP", "no architecture is retrained yet")
    return plot_transfer(stages.search, stages.standalone, by_hand=stages.by_hand)


def _space(stages: Stages) -> go.Figure:
    if stages.feasibility is None:
        return message("FLOPs of the space", "the space is not counted yet")
    return plot_flops_distribution(stages.feasibility)


FIGURES: dict[str, Callable[[Stages], go.Figure]] = {
    "architecture": lambda s: plot_architecture(s.search),
    "best-architectures": lambda s: plot_best_architectures(s.search),
    "comparison": lambda s: plot_comparison(s.search, by_hand=s.by_hand),
    "evolution": lambda s: plot_evolution(s.search),
    "survivors": lambda s: plot_survivors(s.search),
    "block-strides": lambda s: plot_block_strides(s.search),
    "feature-strides": lambda s: plot_feature_strides(s.search),
    "family-tree": lambda s: plot_family_tree(s.search),
    "tradeoff": lambda s: plot_tradeoff(s.search, by_hand=s.by_hand),
    "object-sizes": lambda s: plot_object_sizes(s.search, by_hand=s.by_hand),
    "transfer": _transfer,
    "space": _space,
    "training": lambda s: plot_training_curves(s.losses),
}
"""The figures by their name in the order of their numbers."""


def study_figures(stages: Stages) -> dict[str, go.Figure]:
    """All figures of a study by name; their titles are numbered, for readers that sort them.

    Args:
        stages: the search and what stands beside it.
    """
    figures = {}
    read = Stages(
        Observed.of(stages.search),
        None if stages.by_hand is None else Observed.of(stages.by_hand),
        None if stages.standalone is None else Observed.of(stages.standalone),
        stages.losses,
        stages.feasibility,
    )
    for number, (name, plot) in enumerate(FIGURES.items(), start=1):
        figure = plot(read)
        figure.update_layout(title_text=f"{number}. {figure.layout.title.text}")
        figures[name] = figure
    return figures
