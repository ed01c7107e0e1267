"""What a space offers before anything is trained: counts, FLOPs, and the width that suits them.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1: the
constraint C and the widths 180, 160 and 144, chosen for it by hand. Needs no torch.

FLOPs are multiply-adds of encoder + RPN head. Counts are exact.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Final

from msnas_optuna.methods.msnas.cost import EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, MSNASSpace
from msnas_optuna.spaces.distribution import FlopsDistribution, counts_inside
from msnas_optuna.study.setting import Setting, window_around

QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Of the FLOPs over the space."""

PUBLISHED_TOLERANCE: Final = 0.01
"""Half width of the published windows as a fraction of the target (§4.1)."""

WIDTH_STEP: Final = 4
"""Widths that are proposed are multiples of this."""

_MOST_WIDTHS: Final = 100
"""Wider spaces are scanned in larger steps, so that about as many widths are counted."""


@dataclass(frozen=True)
class Histogram:
    """How many architectures cost edges[i] up to, and without, edges[i + 1].

    Attributes:
        edges: round multiply-adds, ascending, equally far apart; one more than counts.
        counts: every architecture is in one bin.
    """

    edges: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class WidthCount:
    """Valid architectures inside the window with this width.

    Attributes:
        channels: C.
        in_window: exact.
    """

    channels: int
    in_window: int


@dataclass(frozen=True, eq=False)
class Feasibility:
    """What a space and a window around a target hold; FLOPs in multiply-adds.

    Attributes:
        space: the valid architectures.
        cost: of one architecture.
        target: centre of the window.
        tolerance: half width of the window as a fraction of the target.
        window: least and largest cost, both inside.
        paths: valid stride paths (V1), whatever the heads read.
        distribution: of the cost over all valid architectures.
        fpn_baseline: cost of the published setting's ResNet-FPN baseline, None elsewhere.
    """

    space: MSNASSpace
    cost: EncoderCost
    target: float
    tolerance: float
    window: tuple[int, int]
    paths: int
    distribution: FlopsDistribution
    fpn_baseline: int | None = None

    @property
    def valid(self) -> int:
        """Valid architectures (V1-V3)."""
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
    def nearest(self) -> tuple[int | None, int | None]:
        """The reachable costs next to the target, at most and at least it; None beyond all."""
        target = int(self.target)
        if self.target == target:
            return self.distribution.at_most(target), self.distribution.at_least(target)
        return self.distribution.at_most(target), self.distribution.at_least(target + 1)

    @property
    def fpn_like(self) -> int:
        """Cost of the hand-made FPN-like path."""
        return self.cost.total(self.space.fpn_like())


def study_feasibility(setting: Setting) -> Feasibility:
    """The space and window of a study file; an empty window is no error here."""
    tolerance = setting.config.budget.tolerance
    return feasibility(setting.space, setting.cost, target=setting.target, tolerance=tolerance)


def preset_feasibility(name: str) -> Feasibility:
    """The space and window of a published setting (Table 1).

    Args:
        name: "r18", "r34" or "r50".

    Raises:
        ValueError: there is no such setting.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    preset = PRESETS[name]
    found = feasibility(
        MSNASSpace(preset.n_blocks),
        EncoderCost.from_preset(name),
        target=preset.target_gflops * 1e9,
        tolerance=PUBLISHED_TOLERANCE,
    )
    baseline = fpn_baseline(name, preset.input_size)
    return dataclasses.replace(found, fpn_baseline=baseline)


def feasibility(
    space: MSNASSpace, cost: EncoderCost, *, target: float, tolerance: float
) -> Feasibility:
    """Counts a space.

    Args:
        space: the valid architectures.
        cost: of one architecture.
        target: centre of the window in multiply-adds.
        tolerance: half width of the window as a fraction of the target.
    """
    return Feasibility(
        space,
        cost,
        target=target,
        tolerance=tolerance,
        window=window_around(target, tolerance),
        paths=count_paths(space.n_blocks),
        distribution=_distribution(space, cost),
    )


@lru_cache(maxsize=4)
def _distribution(space: MSNASSpace, cost: EncoderCost) -> FlopsDistribution:
    return FlopsDistribution.of(space, cost)  # seconds for a large space


def count_paths(n_blocks: int) -> int:
    """Sequences of N strides that keep every block at 4 <= a <= 64 (V1), exactly."""
    levels = len(FEATURE_STRIDES)
    paths = [1] + [0] * (levels - 1)  # by level after the stem, a = 4 * 2^level
    for _ in range(n_blocks):
        paths = [sum(paths[max(level - 1, 0) : level + 2]) for level in range(levels)]
    return sum(paths)


# ---------------------------------------------------------------------- distribution


def histogram(distribution: FlopsDistribution, bins: int) -> Histogram:
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


# ---------------------------------------------------------------------- channel width


def scan_widths(found: Feasibility) -> tuple[WidthCount, ...]:
    """Counts the window of the target for many widths, C's own among them, narrow to wide.

    FLOPs grow with C^2, so that widths from half to twice the one whose median meets the target
    hold the best.
    """
    own = found.cost.channels
    centre = own * sqrt(found.target / found.distribution.quantile(0.5))
    step = WIDTH_STEP * max(round(1.5 * centre / WIDTH_STEP / _MOST_WIDTHS), 1)
    first = max(int(centre / 2) // step, 1) * step
    widths = sorted({own, *range(first, int(2 * centre) + step, step)})
    costs = (dataclasses.replace(found.cost, channels=C) for C in widths)
    counts = counts_inside(found.space, costs, window=found.window)
    return tuple(WidthCount(C, n) for C, n in zip(widths, counts, strict=True))


def best_width(scanned: tuple[WidthCount, ...], own: int) -> WidthCount:
    """The width with the most architectures; of equal ones that nearest to `own`."""
    return max(scanned, key=lambda w: (w.in_window, -abs(w.channels - own)))
