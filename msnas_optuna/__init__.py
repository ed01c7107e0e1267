"""Multi-scale network architecture search for object detection, as an Optuna study."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from msnas_optuna.methods.msnas.cost import EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.samplers import ArchitectureSampler, queue_architectures, suggest
from msnas_optuna.spaces.lattice import Lattice

if TYPE_CHECKING:
    from msnas_optuna.study.experiment import Experiment
    from msnas_optuna.training.objectives import OneShotObjective, StandaloneObjective

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "Architecture",
    "ArchitectureSampler",
    "EncoderCost",
    "Experiment",
    "Lattice",
    "MSNASSpace",
    "OneShotObjective",
    "StandaloneObjective",
    "fpn_baseline",
    "queue_architectures",
    "suggest",
]

_TORCH = {  # imported when first used: they take seconds, the rest takes none
    "Experiment": "msnas_optuna.study.experiment",
    "OneShotObjective": "msnas_optuna.training.objectives",
    "StandaloneObjective": "msnas_optuna.training.objectives",
}


def __getattr__(name: str) -> Any:
    if name in _TORCH:
        return getattr(importlib.import_module(_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
