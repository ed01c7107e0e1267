"""Figures of a space and of what a search found: plotly figures, made from plain data."""

from msnas_optuna.report.figures.architecture import plot_architecture, plot_best_architectures
from msnas_optuna.report.figures.comparison import plot_comparison
from msnas_optuna.report.figures.evolution import plot_evolution, plot_survivors
from msnas_optuna.report.figures.family import plot_family_tree
from msnas_optuna.report.figures.files import write_figure
from msnas_optuna.report.figures.sizes import plot_object_sizes
from msnas_optuna.report.figures.space import plot_flops_distribution
from msnas_optuna.report.figures.strides import plot_block_strides, plot_feature_strides
from msnas_optuna.report.figures.svg import draw_architecture
from msnas_optuna.report.figures.tradeoff import plot_tradeoff
from msnas_optuna.report.figures.training import plot_training_curves
from msnas_optuna.report.figures.transfer import plot_transfer

__all__ = [
    "draw_architecture",
    "plot_architecture",
    "plot_best_architectures",
    "plot_block_strides",
    "plot_comparison",
    "plot_evolution",
    "plot_family_tree",
    "plot_feature_strides",
    "plot_flops_distribution",
    "plot_object_sizes",
    "plot_survivors",
    "plot_tradeoff",
    "plot_training_curves",
    "plot_transfer",
    "write_figure",
]
