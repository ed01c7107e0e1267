"""Multi-scale network architecture search (MSNAS): space, cost, networks, published results."""

from msnas_optuna.methods.msnas.method import MSNAS

__all__ = ["MSNAS"]
