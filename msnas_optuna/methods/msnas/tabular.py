"""A small window of the MSNAS space with the one-shot AP of each of its architectures (§4.1).

Measured once, with one supernet on generated images, as `TabularBenchmark.provenance` says, by
benchmarks/tabular/make.py. Some are trained from scratch, too (§4.1): that is their truth, which
benchmarks/tabular/make_truth.py writes into a second file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    truth: Mapping[Architecture, tuple[float, ...]] = field(default_factory=dict)
    """AP in [0, 1] of some after training from scratch, one a seed."""
    truth_provenance: Mapping[str, Any] = field(default_factory=dict)  # empty without a truth

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
    """Reads the table that comes with the package, or another of its kind, and its truth.

    Raises:
        OSError: there is no such file.
        ValueError: a file is no table, or holds other architectures than its window does.
    """
    content = _read(Path(path), "columns", "rows", "space", "provenance")
    rows = _rows(content)
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
    truth_path = truth_file(path)
    if not truth_path.exists():
        return TabularBenchmark(feasible, measurements, content["provenance"])
    found = _read(truth_path, "columns", "rows", "provenance")
    truth = {Architecture.parse(row["architecture"]): tuple(row["ap"]) for row in _rows(found)}
    for architecture in truth.keys() - measurements.keys():
        raise ValueError(
            f"{truth_path} must hold architectures of the window of {path} alone, got "
            f"{architecture}: {feasible.violation(architecture)}; make it anew with "
            f"benchmarks/tabular/make_truth.py from a study of that window"
        )
    return TabularBenchmark(
        feasible, measurements, content["provenance"], truth, found["provenance"]
    )


def truth_file(table: Path | str) -> Path:
    """The file of the truth beside that of a table: msnas_n7_truth.json for msnas_n7.json."""
    path = Path(table)
    return path.with_name(f"{path.stem}_truth{path.suffix}")


def _read(path: Path, *keys: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if missing := set(keys) - set(content):
        raise ValueError(f"{path} is no table: it lacks {', '.join(sorted(missing))}")
    return content


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]
