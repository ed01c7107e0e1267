"""The spaces that every exact tool is tested on, from MSNAS to toys, and other methods' rules."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.base import Space


@dataclass(frozen=True)
class TupleSpace(Space[tuple]):
    """A space whose architectures are their genes, named g0, g1, ...; a base class."""

    @property
    def choices(self) -> Sequence[Sequence[Any]]:
        raise NotImplementedError

    @property
    def start(self) -> Hashable:
        return 0

    @property
    def listed(self) -> tuple[int, int]:
        return 0, 0

    def next(self, position: int, state: Any, gene: Any) -> Any:
        return state

    def accepts(self, state: Any) -> bool:
        return True

    def automaton(self) -> TupleSpace:
        return self

    @cached_property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        return {f"g{i}": CategoricalDistribution(c) for i, c in enumerate(self.choices)}

    @property
    def parts(self) -> dict[str, slice]:
        return {"all": slice(0, len(self.choices))}

    def genes(self, architecture: tuple) -> tuple:
        return architecture

    def architecture(self, genes: tuple) -> tuple:
        return tuple(genes)

    def violation(self, architecture: tuple) -> str | None:
        if len(architecture) != len(self.choices):
            return f"the space has {len(self.choices)} genes, the architecture {len(architecture)}"
        for i, (gene, choices) in enumerate(zip(architecture, self.choices, strict=True)):
            if gene not in choices:
                return f"g{i} must be one of {list(choices)}, got {gene}"
        return self.broken(architecture)

    def broken(self, genes: tuple) -> str | None:
        """The rules of the space, written down without its automaton."""
        return None


# --- a walk of steps that comes home ------------------------------------------------------------


@dataclass(frozen=True)
class Walk(TupleSpace):
    """Steps up, level or down, never below the ground, back on the ground at the end."""

    n: int = 6
    listed: tuple[int, int] = (0, 0)

    @property
    def choices(self) -> list[tuple[str, ...]]:
        return [("up", "level", "down")] * self.n

    def next(self, position: int, state: int, gene: str) -> int | None:
        height = state + {"up": 1, "level": 0, "down": -1}[gene]
        return height if height >= 0 else None

    def accepts(self, state: int) -> bool:
        return state == 0

    def broken(self, genes: tuple) -> str | None:
        heights = np.cumsum([{"up": 1, "level": 0, "down": -1}[g] for g in genes])
        if heights.min() < 0:
            return f"step {int(heights.argmin()) + 1} leads below the ground"
        return None if heights[-1] == 0 else f"the walk ends at height {heights[-1]}, not at 0"


@dataclass(frozen=True)
class Effort:
    """Climbing costs more the higher it begins, and every fourth step something odd."""

    base: int = 7
    odd: int = 1

    def step(self, position: int, before: int, gene: str, after: int) -> int:
        climb = 10 * (before + 1) if gene == "up" else 0
        return climb + (self.odd if position % 4 == 0 and gene == "level" else 0)

    def total(self, genes: tuple) -> int:
        heights = [0, *np.cumsum([{"up": 1, "level": 0, "down": -1}[g] for g in genes]).tolist()]
        climbs = sum(10 * (a + 1) for a, b in pairwise(heights) if b > a)
        return self.base + climbs + self.odd * genes[::4].count("level")

    def text(self, amount: int) -> str:
        return f"{amount} steps"


# --- CR-NAS: "Computation Reallocation for Object Detection", ICLR 2020, blocks of the stages ---


@dataclass(frozen=True)
class Allocations(TupleSpace):
    """Blocks of four stages, N together."""

    n: int

    @property
    def choices(self) -> list[tuple[int, ...]]:
        return [
            tuple(range(1, 11)),
            tuple(range(1, 11)),
            (2, 3, 5, 6, 9, 11, 14, 17, 20, 23),
            (2, 3, 4, 6, 7, 9, 11, 13, 15, 17),
        ]

    def next(self, position: int, state: int, gene: int) -> int | None:
        return state + gene if state + gene <= self.n else None

    def accepts(self, state: int) -> bool:
        return state == self.n

    def broken(self, genes: tuple) -> str | None:
        return None if sum(genes) == self.n else f"{sum(genes)} blocks, must be {self.n}"


@dataclass(frozen=True)
class Blocks:
    """The number of blocks, which all allocations share."""

    base: int = 0

    def step(self, position: int, before: int, gene: int, after: int) -> int:
        return gene

    def total(self, genes: tuple) -> int:
        return sum(genes)

    def text(self, amount: int) -> str:
        return f"{amount} blocks"


@dataclass(frozen=True)
class MobileAllocations(TupleSpace):
    """Blocks of five stages of MobileNetV2; weighted, 16 together (here in quarters)."""

    @property
    def choices(self) -> list[tuple[int, ...]]:
        two, three = tuple(range(1, 6)), tuple(range(2, 7))
        return [two, two, tuple(range(3, 8)), three, three]

    def next(self, position: int, state: int, gene: int) -> int | None:
        return state + (6, 4, 4, 3, 5)[position] * gene

    def accepts(self, state: int) -> bool:
        return state == 64

    def broken(self, genes: tuple) -> str | None:
        a, b, c, d, e = genes
        weight = 1.5 * a + b + c + 0.75 * d + 1.25 * e
        return None if weight == 16 else f"the blocks weigh {weight:g}, must weigh 16"


# --- DetNAS: "DetNAS: Backbone Search for Object Detection", NeurIPS 2019 ------------------------


@dataclass(frozen=True)
class BlockChoices(TupleSpace):
    """A shuffle block with kernel 3, 5 or 7, or an Xception block, in every place."""

    n: int

    @property
    def choices(self) -> list[tuple[int, ...]]:
        return [(0, 1, 2, 3)] * self.n


@dataclass(frozen=True)
class Backbone:
    """Multiply-adds of a backbone's convolutions.

    Attributes:
        channels: of the first convolution and of each stage's output.
        repeats: blocks of each stage; the first of them halves the resolution.
        size: side of the input in pixels.
    """

    channels: tuple[int, ...]
    repeats: tuple[int, ...]
    size: int = 224

    @property
    def base(self) -> int:
        """The first convolution: 3x3, stride 2."""
        return 27 * self.channels[0] * (self.size // 2) ** 2

    @cached_property
    def places(self) -> list[tuple[int, int, int, int]]:
        """Input channels, output channels, stride and side of the output, for each block."""
        found, side = [], self.size // 2
        for (c_in, c_out), n in zip(pairwise(self.channels), self.repeats, strict=True):
            side //= 2
            found += [(c_in, c_out, 2, side)] + [(c_out, c_out, 1, side)] * (n - 1)
        return found

    def step(self, position: int, before: int, gene: int, after: int) -> int:
        c_in, c_out, stride, side = self.places[position]
        mid, cells, kernel = c_out // 2, side**2, (3, 5, 7, 3)[gene]
        a, b = (c_in, c_out - c_in) if stride == 2 else (c_out // 2, c_out // 2)
        projection = (kernel**2 * c_in + c_in**2) * cells if stride == 2 else 0
        if gene == 3:
            return projection + (9 * a + a * mid + 2 * 9 * mid + mid * mid + mid * b) * cells
        return projection + (a * mid * stride**2 + kernel**2 * mid + mid * b) * cells

    def total(self, genes: tuple) -> int:
        return self.base + sum(self.step(i, 0, gene, 0) for i, gene in enumerate(genes))

    def text(self, amount: int) -> str:
        return f"{amount / 1e6:.6g} MFLOPs"


DETNAS_SMALL = BlockChoices(20), Backbone((16, 64, 160, 320, 640), (4, 4, 8, 4))
DETNAS_LARGE = BlockChoices(40), Backbone((48, 96, 240, 480, 960), (8, 8, 16, 8))


@pytest.fixture(scope="session")
def detnas_small() -> tuple[BlockChoices, Backbone]:
    return DETNAS_SMALL


@pytest.fixture(scope="session")
def detnas_large() -> tuple[BlockChoices, Backbone]:
    return DETNAS_LARGE


@pytest.fixture(scope="session")
def allocations() -> type[Allocations]:
    return Allocations


@pytest.fixture(scope="session")
def mobile_allocations() -> MobileAllocations:
    return MobileAllocations()


@pytest.fixture(scope="session")
def block_choices() -> type[BlockChoices]:
    return BlockChoices


# --- the registry -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A space and a cost, small enough to try every combination of genes."""

    space: Space[Any]
    cost: Any

    @cached_property
    def valid(self) -> list[Any]:
        """All valid architectures by brute force, without the automaton."""
        choices = (d.choices for d in self.space.distributions.values())
        every = map(self.space.architecture, product(*choices))
        return [a for a in every if self.space.violation(a) is None]

    @cached_property
    def totals(self) -> list[int]:
        """The cost of each, without the cost's steps."""
        return [self.cost.total(a) for a in self.valid]

    @cached_property
    def windows(self) -> list[tuple[int | None, int | None] | None]:
        """None, both ends, one end open, one value, the ends of the range and beyond them."""
        low, middle, high = (
            int(np.quantile(self.totals, q, method="lower")) for q in (0.2, 0.5, 0.8)
        )
        least, most = min(self.totals), max(self.totals)
        return [
            None,
            (low, high),
            (low + 1, None) if low < most else (low, None),
            (None, middle),
            (middle, middle),
            (least, least),
            (-(2**90), 2**90),
            (most, 2**70),
            (None, None),
        ]

    def inside(self, window: tuple[int | None, int | None] | None) -> list[Any]:
        """The architectures in a window by brute force."""
        low, high = window or (None, None)
        return [
            a
            for a, total in zip(self.valid, self.totals, strict=True)
            if (low is None or total >= low) and (high is None or total <= high)
        ]

    @property
    def middle(self) -> tuple[int, int]:
        """A window that holds some of the architectures and not all, if costs differ."""
        low, high = (int(np.quantile(self.totals, q, method="lower")) for q in (0.3, 0.9))
        return low, high


CASES = {
    "msnas": Case(MSNASSpace(3), EncoderCost("basic", 32, (128, 128), 32)),
    "msnas-bottleneck": Case(MSNASSpace(3), EncoderCost("bottleneck", 24, (128, 192))),
    "msnas-fpn": Case(MSNASSpace(7, "fpn"), EncoderCost("basic", 32, (128, 128), 32)),
    "msnas-free": Case(
        MSNASSpace(3, constraints=False), EncoderCost("bottleneck", 24, (128, 192))
    ),
    "msnas-read": Case(
        MSNASSpace(3, "searched", False, False), EncoderCost("basic", 32, (128, 128), 32)
    ),
    "walk": Case(Walk(6), Effort()),
    "walk-ends-listed": Case(Walk(6, (1, 2)), Effort(odd=3)),
    "walk-all-listed": Case(Walk(5, (2, 9)), Effort(odd=-3)),
    "cr-nas-r18": Case(Allocations(8), Blocks()),
    "cr-nas-r50": Case(Allocations(16), Blocks()),
    "detnas": Case(BlockChoices(5), Backbone((16, 64, 160), (3, 2))),
}


@pytest.fixture(params=CASES, scope="session")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]
