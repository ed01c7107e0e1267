"""Searches that cost nothing: every architecture of a small window, evaluated once and kept."""

from msnas_optuna.benchmarks.tabular import (
    Measurement,
    TabularBenchmark,
    TabularObjective,
    load_table,
)

__all__ = ["Measurement", "TabularBenchmark", "TabularObjective", "load_table"]
