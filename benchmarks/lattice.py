"""Time and memory of counting and drawing in the published spaces, within 1 % of their target.

`weighted_*` is what a generation of recombined children takes once, and a draw of one.

python benchmarks/lattice.py [--json]
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.samplers.recombination import gene_weights
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.lattice import Lattice

DRAWS = 5000
POPULATION = 50  # parents of a recombination

_T = TypeVar("_T")


@dataclass(frozen=True)
class Measured:
    """One preset: exact counts, seconds, MB of tables, microseconds of draws."""

    preset: str
    valid: int
    in_window: int
    build_s: float
    distribution_s: float
    peak_mb: float
    draw_us: float
    fixed_features_ms: float
    best_s: float
    weighted_build_s: float
    weighted_peak_mb: float
    weighted_draw_us: float


def measure(name: str) -> Measured:
    """Builds and draws once for one preset."""
    preset = PRESETS[name]
    space, cost = MSNASSpace(preset.n_blocks), EncoderCost.from_preset(name)
    target = round(preset.target_gflops * 1e9)
    window = (-(-target * 99 // 100), target * 101 // 100)
    build_s = seconds(lambda: Lattice(space, cost, window=window))
    lattice, peak_mb = traced(lambda: Lattice(space, cost, window=window))

    rng = np.random.default_rng(0)
    parents: list[Architecture] = []
    draw_s = seconds(lambda: parents.extend(lattice.sample(rng) for _ in range(DRAWS)))
    features = [*[None] * space.n_blocks, *parents[0].feature_strides]
    weights = gene_weights(space, parents[:POPULATION], reset=0.05)
    weighted, weighted_mb = traced(lambda: lattice.weighted(weights))
    return Measured(
        preset=name,
        valid=Lattice(space).count(),
        in_window=lattice.count(),
        build_s=build_s,
        distribution_s=seconds(lambda: CostDistribution.of(space, cost)),
        peak_mb=peak_mb,
        draw_us=draw_s / DRAWS * 1e6,
        fixed_features_ms=seconds(lambda: lattice.complete(rng, features)) * 1e3,
        best_s=seconds(lambda: lattice.best(weights)),
        weighted_build_s=seconds(lambda: lattice.weighted(weights)),
        weighted_peak_mb=weighted_mb,
        weighted_draw_us=seconds(lambda: [weighted.sample(rng) for _ in range(DRAWS)])
        / DRAWS
        * 1e6,
    )


def traced(make: Callable[[], _T]) -> tuple[_T, float]:
    """What `make` returns and the largest memory that it took meanwhile, in MB."""
    tracemalloc.start()
    made = make()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return made, peak / 1e6


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Prints one column for each preset, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args().json
    rows = [asdict(measure(name)) for name in PRESETS]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for key in rows[0]:
        cells = (row[key] for row in rows)
        print(f"{key:18}", *(f"{c:>16.2f}" if isinstance(c, float) else f"{c:>16}" for c in cells))


if __name__ == "__main__":
    main()
