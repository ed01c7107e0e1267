"""Figures of a space and of what a search found: plotly figures, made from plain data."""

from msnas_optuna.figures.files import write_figure
from msnas_optuna.figures.space import plot_flops_distribution

__all__ = ["plot_flops_distribution", "write_figure"]
