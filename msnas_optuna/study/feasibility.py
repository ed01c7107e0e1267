"""A space and a window of its cost, counted before anything is trained, and the best width.

Costs are multiply-adds. Counts are exact. Needs no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from math import ceil, floor, sqrt
from typing import Any, Final

from msnas_optuna.methods import METHODS
from msnas_optuna.methods.base import Method, MethodCost
from msnas_optuna.spaces.base import Space
from msnas_optuna.spaces.distribution import CostDistribution, counts_inside
from msnas_optuna.study.setting import Setting, window_around

QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)  # of the cost
WIDTH_STEP: Final = 4  # proposed widths are multiples of it
_MOST_WIDTHS: Final = 100  # wider spaces are scanned in larger steps


@dataclass(frozen=True)
class Histogram:
    """How many architectures cost edges[i] up to, and without, edges[i + 1]."""

    edges: tuple[int, ...]  # round multiply-adds, equally far apart; one more than counts
    counts: tuple[int, ...]


@dataclass(frozen=True)
class WidthCount:
    """How many valid architectures of a width lie inside the window."""

    width: int
    in_window: int


@dataclass(frozen=True, eq=False)
class Feasibility:
    """The numbers of a space and of a window around a target, counted when asked for."""

    method: Method[Any]
    space: Space[Any]
    cost: MethodCost[Any]
    _: KW_ONLY
    target: float  # center of the window in multiply-adds
    tolerance: float  # half width of the window as a fraction of the target
    references: Mapping[str, int] = field(default_factory=dict)  # costs of networks to compare

    @property
    def window(self) -> tuple[int, int]:
        """Least and largest cost, both inside."""
        return window_around(self.target, self.tolerance)

    @property
    def distribution(self) -> CostDistribution:
        """Of the cost over all valid architectures."""
        return _distribution(self.space, self.cost)

    @property
    def valid(self) -> int:
        """Valid architectures."""
        return self.distribution.count()

    @property
    def in_window(self) -> int:
        """Valid architectures inside the window; it may hold none."""
        return self.distribution.count(*self.window)

    @property
    def share(self) -> float:
        """Of the valid architectures, those inside the window, 0..1."""
        return self.in_window / self.valid

    @property
    def range(self) -> tuple[int, int]:
        """Least and largest cost of a valid architecture."""
        return self.distribution.minimum, self.distribution.maximum

    @property
    def nearest(self) -> tuple[int | None, int | None]:
        """The reachable costs next to the target, at most and at least it; None beyond all."""
        below, above = floor(self.target), ceil(self.target)
        return self.distribution.at_most(below), self.distribution.at_least(above)

    @property
    def baseline(self) -> int:
        """Cost of the method's baseline."""
        return self.cost.total(self.method.baseline_architecture(self.space))


def study_feasibility(setting: Setting) -> Feasibility:
    """The space and window of a study file; an empty window is no error here."""
    return Feasibility(
        setting.method,
        setting.space,
        setting.cost,
        target=setting.target,
        tolerance=setting.config.budget.tolerance,
    )


def preset_feasibility(name: str) -> tuple[Feasibility, Any]:
    """The space and window of a published setting, and its [space]; ValueError if unknown."""
    presets = {key: (m, preset) for m in METHODS.values() for key, preset in m.presets.items()}
    if name not in presets:
        raise ValueError(f"--preset must be one of {', '.join(presets)}, got {name!r}")
    method, preset = presets[name]
    found = Feasibility(
        method,
        method.space(preset.section),
        method.cost(preset.section, input_size=preset.input_size),
        target=preset.target,
        tolerance=preset.tolerance,
        references=preset.references,
    )
    return found, preset.section


_distribution: Callable[[Any, Any], CostDistribution]
_distribution = lru_cache(maxsize=4)(CostDistribution.of)  # seconds for a large space


def histogram(distribution: CostDistribution, bins: int) -> Histogram:
    """Exact counts in bins of a round width: `bins` + 1 or fewer, down to 2 in 5 of them."""
    width = _round_width((distribution.maximum - distribution.minimum) / bins)
    first, last = distribution.minimum // width, distribution.maximum // width
    edges = tuple(width * i for i in range(first, last + 2))
    counts = (distribution.count(edge, edge + width - 1) for edge in edges[:-1])
    return Histogram(edges, tuple(counts))


def _round_width(least: float) -> int:
    """The smallest 1, 2, 2.5 or 5 times a power of ten that is at least `least`."""
    power = 1
    while power * 10 < least:
        power *= 10
    steps = (power * m // 10 for m in (10, 20, 25, 50))
    return next((step for step in steps if step >= least), power * 10)


def scan_widths(found: Feasibility, section: Any) -> tuple[WidthCount, ...]:
    """Counts the window of the target for many widths, the own of [space] among them.

    A cost grows with the square of the width, so that widths from half to twice the one whose
    median meets the target hold the best. Narrow to wide.
    """
    method, size = found.method, found.cost.input_size
    own = getattr(section, method.width)
    center = own * sqrt(found.target / found.distribution.quantile(0.5))
    step = WIDTH_STEP * max(round(1.5 * center / WIDTH_STEP / _MOST_WIDTHS), 1)
    first = max(int(center / 2) // step, 1) * step
    widths = sorted({own, *range(first, int(2 * center) + step, step)})
    sections = (dataclasses.replace(section, **{method.width: width}) for width in widths)
    costs = (method.cost(changed, input_size=size) for changed in sections)
    counts = counts_inside(found.space, costs, window=found.window)
    return tuple(WidthCount(width, n) for width, n in zip(widths, counts, strict=True))


def best_width(scanned: Sequence[WidthCount], own: int) -> WidthCount:
    """The width with the most architectures; of equal ones that nearest to `own`."""
    return max(scanned, key=lambda w: (w.in_window, -abs(w.width - own)))
