"""A small window of the MSNAS space with the one-shot AP of each of its architectures (§4.1).

Measured once, with one supernet on generated images, as `TabularBenchmark.provenance` says, by
benchmarks/tabular/make.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from optuna import Trial

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.spaces.base import InvalidArchitectureError, Space
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.storage import repeat_of

TABLE_FILE: Final = Path(__file__).with_name("msnas_n7.json")


@dataclass(frozen=True)
class Measurement:
    """The measurements of one architecture."""

    gflops: float  # of encoder and RPN head, 1e9 multiply-adds
    ap: tuple[float, ...]  # in [0, 1], for each seed of the fine-tuning; some have several
    ap50: tuple[float, ...]  # at IoU .50, likewise


@dataclass(frozen=True)
class TabularBenchmark:
    """A feasible set, and the AP of every architecture in it."""

    feasible: Lattice[Architecture]
    measurements: Mapping[Architecture, Measurement]
    provenance: Mapping[str, Any]  # command, settings, versions, date, seconds

    @property
    def space(self) -> Space[Architecture]:
        """The space that the architectures belong to."""
        return self.feasible.space

    def value(self, architecture: Architecture, repeat: int = 0) -> float:
        """AP of an architecture in [0, 1]; after the last `repeat` comes the first again.

        Raises:
            InvalidArchitectureError: the table does not hold it.
        """
        measurement = self.measurements.get(architecture)
        if measurement is None:
            why = self.feasible.violation(architecture)
            raise InvalidArchitectureError(f"the table does not hold {architecture}: {why}")
        return measurement.ap[repeat % len(measurement.ap)]

    def quantile(self, q: float) -> float:
        """The smallest value that at least the share `q`, 0..1, of all does not exceed."""
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in 0..1, got {q}")
        values = [*map(self.value, self.measurements)]
        return float(np.quantile(values, q, method="inverted_cdf"))


@dataclass(frozen=True, eq=False)
class TabularObjective:
    """`callable(trial) -> AP` of an architecture of a table."""

    table: TabularBenchmark

    def __call__(self, trial: Trial) -> float:
        """AP in [0, 1]; InvalidArchitectureError where the table does not hold it."""
        architecture = suggest(trial, self.table.space)
        return self.table.value(architecture, repeat_of(trial))


def suggest(trial: Trial, space: Space[Architecture]) -> Architecture:
    """The trial's architecture, feasible or not; every parameter is suggested."""
    every = space.distributions.items()
    return space.decode({n: trial.suggest_categorical(n, own.choices) for n, own in every})


def load_table(path: Path | str = TABLE_FILE) -> TabularBenchmark:
    """Reads the table that comes with the package, or another of its kind.

    Raises:
        OSError: there is no such file.
        ValueError: the file is no table, or holds other architectures than its window does.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    missing = {"columns", "rows", "space", "provenance"} - set(content)
    if missing:
        raise ValueError(f"{path} is no table: it lacks {', '.join(sorted(missing))}")
    names = content["columns"]
    rows = [dict(zip(names, row, strict=True)) for row in content["rows"]]
    measurements = {
        Architecture.parse(row["architecture"]): Measurement(
            gflops=row["gflops"], ap=tuple(row["ap"]), ap50=tuple(row["ap50"])
        )
        for row in rows
    }
    setting = content["space"]
    block, channels, size = setting["block"], setting["channels"], tuple(setting["input_size"])
    cost = EncoderCost(block, channels, size, setting["stem_channels"])
    feasible = Lattice(MSNASSpace(setting["n_blocks"]), cost, window=tuple(setting["window"]))
    if measurements.keys() != set(feasible):
        raise ValueError(
            f"{path} must hold the {feasible.count()} architectures of its window, each once; it "
            f"holds {len(rows)} rows; make it anew with benchmarks/tabular/make.py"
        )
    return TabularBenchmark(feasible, measurements, content["provenance"])
