"""What a study may optimise: the objectives by name, each with its direction.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1: COCO AP
is the objective and FLOPs are the constraint; here FLOPs or latency may be objectives too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal

MetricName = Literal["ap", "gflops", "latency"]


@dataclass(frozen=True)
class Metric:
    """One objective.

    Attributes:
        direction: as Optuna names it.
        label: its name in Optuna's tables and figures.
        attribute: where an `objectives.Score` holds it.
    """

    direction: Literal["maximize", "minimize"]
    label: str
    attribute: str

    def of(self, score: object) -> float:
        """The value of a score."""
        value: Any = attrgetter(self.attribute)(score)
        return float(value)


METRICS: Final[Mapping[str, Metric]] = {
    "ap": Metric("maximize", "AP", "metrics.ap"),
    "gflops": Metric("minimize", "GFLOPs", "gflops"),
    "latency": Metric("minimize", "latency ms", "latency_ms"),
}
