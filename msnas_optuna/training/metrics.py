"""The metrics that a study may optimize, by name, each with its direction.

MSNAS has AP as objective and FLOPs as constraint (§4.1); here FLOPs or latency may be objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Measurements = dict[str, float]  # by the names that a trial stores them under


@dataclass(frozen=True)
class Metric:
    """A metric that a study may optimize."""

    direction: Literal["maximize", "minimize"]
    label: str  # in Optuna's tables and figures
    key: str  # in `Measurements`
    is_ap: bool = False  # shown in percent


METRICS: Final[Mapping[str, Metric]] = {
    "ap": Metric("maximize", "AP", "ap", is_ap=True),
    "gflops": Metric("minimize", "GFLOPs", "gflops"),
    "latency": Metric("minimize", "latency ms", "latency_ms"),
}

MASK_METRICS: Final[Mapping[str, Metric]] = {
    "ap_mask": Metric("maximize", "mask AP", "ap_mask", is_ap=True)
}
"""Of methods whose detectors may have instance masks."""
