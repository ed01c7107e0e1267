"""Multi-scale network architecture search for object detection, as an Optuna study."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from msnas_optuna.cost import EncoderCost, fpn_baseline
from msnas_optuna.samplers import MSNASSampler, queue_architectures
from msnas_optuna.spaces import PRESETS, PUBLISHED, Architecture, MSNASSpace
from msnas_optuna.spaces.lattice import Lattice

if TYPE_CHECKING:
    from msnas_optuna.objectives import OneShotObjective, StandaloneObjective
    from msnas_optuna.study import Experiment

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "Architecture",
    "EncoderCost",
    "Experiment",
    "Lattice",
    "MSNASSampler",
    "MSNASSpace",
    "OneShotObjective",
    "StandaloneObjective",
    "fpn_baseline",
    "queue_architectures",
]

_TORCH = {  # imported when first used: they take seconds, the rest takes none
    "Experiment": "msnas_optuna.study",
    "OneShotObjective": "msnas_optuna.objectives",
    "StandaloneObjective": "msnas_optuna.objectives",
}


def __getattr__(name: str) -> Any:
    if name in _TORCH:
        return getattr(importlib.import_module(_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
