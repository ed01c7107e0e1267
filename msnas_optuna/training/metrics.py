"""The metrics that a study may optimize, by name, each with its direction.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1: COCO AP
is the objective and FLOPs are the constraint; here FLOPs or latency may be objectives too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Measurements = dict[str, float]
"""Numbers by the names that a trial stores them under."""


@dataclass(frozen=True)
class Metric:
    """A metric that a study may optimize.

    Attributes:
        direction: as Optuna names it.
        label: its name in Optuna's tables and figures.
        key: its name among the numbers that an objective measures, which a trial stores.
    """

    direction: Literal["maximize", "minimize"]
    label: str
    key: str


METRICS: Final[Mapping[str, Metric]] = {
    "ap": Metric("maximize", "AP", "ap"),
    "gflops": Metric("minimize", "GFLOPs", "gflops"),
    "latency": Metric("minimize", "latency ms", "latency_ms"),
}
