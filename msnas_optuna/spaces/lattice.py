"""Exact counting and uniform drawing of the valid architectures inside a FLOPs window.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2-3.3
(what is valid), Eq. 4-6 (laterals), Eq. 7 (utilisation), §4.1 (the constraint C).

A path is built block by block. What its remainder may do, and cost, depends only on its state:
the current absolute stride and the set of absolute strides at which a stage has ended. Both
form an interval that holds 4 or 8, so a few dozen states exist. Counting the completions of
every (block, state, FLOPs so far) backwards numbers the feasible set from 0 to count - 1; a
uniform draw is a uniform number.

Symbols: N blocks, a absolute stride in pixels, level l with a = 4 * 2^l, V the absolute strides
an encoder has, s feature strides, k FLOPs so far in units of the greatest common divisor of all
costs that a path sums. Stem, first block (it reads the stem's channels) and heads are exact
constants beside k. FLOPs are multiply-adds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from operator import index
from typing import Any, Final, overload

import numpy as np

from msnas_optuna.methods.msnas.space import (
    N_GROUPS,
    Architecture,
    MSNASSpace,
)
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.distribution import FlopsDistribution
from msnas_optuna.spaces.graph import (
    HUGE,
    AdditiveCost,
    Graph,
    NoCost,
    Utilisations,
    require_exact,
    visited_of,
)
from msnas_optuna.spaces.pool import WeightedDraw
from msnas_optuna.spaces.tables import Tables, Weights

_MAX_LEAVES: Final = 3**8
"""Ways to fill free strides that a conditional draw lists one by one; beyond, tables pay off."""


class EmptyWindowError(InvalidArchitectureError):
    """No valid architecture has a cost inside the window."""


class _Numbering:
    """The architectures of a graph inside a window, numbered from 0."""

    def __init__(self, graph: Graph, window: tuple[int, int]) -> None:
        self.graph = graph
        self.tables = {s: Tables(graph, root, window) for s, root in graph.roots.items()}
        self.count = sum(int(tables.total) for tables in self.tables.values())

    def at(self, index: int) -> Architecture:
        for stride, tables in self.tables.items():
            if index < tables.total:
                return tables.complete([stride], tables.root.state, 0, index=index)
            index -= int(tables.total)
        raise IndexError(f"index must lie in 0..{self.count - 1}")


_Leaf = tuple[float, int, int, tuple[float, ...]]
"""Stride of the first block, state, k, and the strides chosen for the free blocks."""


def _leaves(graph: Graph, strides: Sequence[float | None]) -> list[_Leaf]:
    """Every way to fill the free strides (None) of a path's beginning."""
    leaves: list[_Leaf] = [
        (stride, root.state, 0, (stride,) if strides[0] is None else ())
        for stride, root in graph.roots.items()
        if strides[0] in (None, stride)
    ]
    block = 1
    while block < len(strides):
        if strides[block] is None:
            steps = graph.steps[block - 1]
            leaves = [
                (root, after, k + units, (*free, stride))
                for root, state, k, free in leaves
                for stride, (after, units) in steps[state].items()
            ]
            block += 1
        else:  # once for each state, not for each leaf
            end = next((i for i in range(block, len(strides)) if strides[i] is None), len(strides))
            states = {leaf[1] for leaf in leaves}
            runs = {
                state: _run(graph, state, block, strides=strides[block:end]) for state in states
            }
            leaves = [
                (root, run[0], k + run[1], free)
                for root, state, k, free in leaves
                if (run := runs[state])
            ]
            block = end
    return leaves


def _run(
    graph: Graph, state: int, block: int, *, strides: Sequence[float | None]
) -> tuple[int, int] | None:
    """The state after some fixed blocks and the k that they add, or None where V1 breaks."""
    k = 0
    for steps, stride in zip(graph.steps[block - 1 :], strides, strict=False):
        move = steps[state].get(stride) if stride is not None else None
        if move is None:
            return None
        state, k = move[0], k + move[1]
    return state, k


class _Listing:
    """The completions of a path's beginning, by listing the ways to fill its free strides.

    Args:
        numbering: all that is feasible.
        beginning: the strides, None where free; all blocks unless `reading` is None.
        reading: the utilisations to choose from, or None for all of them.
    """

    def __init__(
        self,
        numbering: _Numbering,
        beginning: Sequence[float | None],
        *,
        reading: dict[int, Utilisations] | None,
    ) -> None:
        self._tables, self._beginning, self._reading = numbering.tables, beginning, reading
        self._leaves = _leaves(numbering.graph, beginning)
        self._bounds = list(accumulate(map(self._weight, self._leaves)))
        self.count = self._bounds[-1] if self._bounds else 0

    def _weight(self, leaf: _Leaf) -> int:
        root, state, k, _ = leaf
        if self._reading is None:
            return int(self._tables[root].layers[len(self._beginning) - 1][state].at(k))
        first, end = self._reading[visited_of(state)].between(*self._tables[root].left(state, k))
        return end - first

    def at(self, index: int) -> Architecture:
        chosen = bisect_right(self._bounds, index)
        index -= self._bounds[chosen - 1] if chosen else 0
        root, state, k, choices = self._leaves[chosen]
        free = iter(choices)
        path = [next(free) if s is None else s for s in self._beginning]
        if self._reading is None:
            return self._tables[root].complete(path, state, k, index=index)
        reading = self._reading[visited_of(state)]
        first, _ = reading.between(*self._tables[root].left(state, k))
        return Architecture(tuple(path), reading.vectors[first + index])


class Lattice:
    """The valid architectures (V1-V3) whose cost lies in a closed window.

    Args:
        space: the valid architectures.
        cost: what the window limits; needed with a window only.
        window: smallest and largest cost in multiply-adds, both inside; None takes all valid
            architectures.

    Raises:
        EmptyWindowError: no valid architecture lies inside the window.
        ValueError: the window is not two whole numbers in order, or has no cost that it limits.
    """

    def __init__(
        self,
        space: MSNASSpace,
        cost: AdditiveCost | None = None,
        *,
        window: tuple[int, int] | None = None,
    ) -> None:
        _check(space.n_blocks, cost, window)
        self.space, self.cost, self.window = space, cost, window
        limited = NoCost() if cost is None or window is None else cost
        low, high = window or (0, 0)
        self._limits = (min(max(low, -1), HUGE), min(max(high, -1), HUGE))
        self._graph = Graph.of(space.n_blocks, limited)
        self._numbering = _Numbering(self._graph, self._limits)
        self._readings: dict[tuple[int | None, ...], dict[int, Utilisations]] = {}
        self._kept: tuple[object, _Numbering | _Listing] | None = None
        if not self.count():
            raise EmptyWindowError(_nothing_inside(space, limited, low=low, high=high))

    def __reduce__(self) -> tuple[Callable[[], Lattice], tuple[()]]:
        # Rebuilding takes less than reading the tables back.
        return partial(Lattice, self.space, self.cost, window=self.window), ()

    def count(self) -> int:
        """The exact number of feasible architectures."""
        return self._numbering.count

    def at(self, index: int) -> Architecture:
        """Feasible architecture number `index`: each of 0..count-1 names a different one.

        Raises:
            IndexError: no such number.
        """
        if not 0 <= index < self.count():
            raise IndexError(f"index must lie in 0..{self.count() - 1}, got {index}")
        return self._numbering.at(index)

    @overload
    def sample(self, rng: np.random.Generator) -> Architecture: ...

    @overload
    def sample(self, rng: np.random.Generator, n: int) -> list[Architecture]: ...

    def sample(
        self, rng: np.random.Generator, n: int | None = None
    ) -> Architecture | list[Architecture]:
        """One architecture, or `n` of them, drawn uniformly: path and feature strides jointly."""
        if n is None:
            return self._numbering.at(int(rng.integers(self.count())))
        return [self._numbering.at(i) for i in rng.integers(self.count(), size=n).tolist()]

    def weighted(self, genes: Sequence[Any]) -> WeightedDraw:
        """Draws in which some genes are likelier than others; takes a build of the tables.

        Raises:
            InvalidArchitectureError: the number of strides or of feature strides is wrong.
        """
        n = self.space.n_blocks
        weights = Weights(genes[:n], genes[n:])
        self._require_lengths(weights.strides, weights.feature_strides)
        return WeightedDraw(self._graph, self._limits, weights)

    def violation(self, architecture: Architecture) -> str | None:
        """The first broken rule of the space, or the window that the cost misses, or None."""
        broken = self.space.violation(architecture)
        if broken is not None or self.window is None or self.cost is None:
            return broken
        total = self.cost.total(architecture)
        low, high = self.window
        if low <= total <= high:
            return None
        window = f"{_giga(low)}..{_giga(high)} GFLOPs"
        return f"{_giga(total)} GFLOPs lie outside the window {window}"

    def complete(
        self,
        rng: np.random.Generator,
        genes: Sequence[float | None],
    ) -> Architecture | None:
        """Draws the free genes (None) uniformly from what the fixed ones leave feasible.

        Takes about as long as `sample` where all after a fixed beginning is free, grows with
        3^(free strides) up to eight free strides, and builds tables beyond. A further call with
        the same genes takes as long as `sample`.

        Returns:
            A feasible architecture with the fixed genes, or None where there is none.

        Raises:
            InvalidArchitectureError: the number of strides or of feature strides is wrong.
        """
        n = self.space.n_blocks
        found = self._completions(genes[:n], genes[n:])  # type: ignore[arg-type]
        return found.at(int(rng.integers(found.count))) if found.count else None

    def count_completions(
        self, strides: Sequence[float | None], feature_strides: Sequence[int | None]
    ) -> int:
        """The exact number of feasible architectures that agree with the fixed genes.

        Raises:
            InvalidArchitectureError: the number of strides or of feature strides is wrong.
        """
        return self._completions(strides, feature_strides).count

    def _completions(
        self, strides: Sequence[float | None], feature_strides: Sequence[int | None]
    ) -> _Numbering | _Listing:
        """The architectures that agree with the fixed genes, numbered."""
        self._require_lengths(strides, feature_strides)
        fixed = tuple(feature_strides)
        genes, kept = (*strides, *fixed), self._kept  # one read: other threads may draw too
        if kept is None or kept[0] != genes:
            kept = self._kept = (genes, self._agreeing(tuple(strides), fixed))
        return kept[1]

    def _require_lengths(self, strides: Sequence[Any], feature_strides: Sequence[Any]) -> None:
        n = self.space.n_blocks
        if len(strides) != n or len(feature_strides) != N_GROUPS:
            raise InvalidArchitectureError(
                f"{n} strides and {N_GROUPS} feature strides are needed (None where free), "
                f"got {len(strides)} and {len(feature_strides)}"
            )

    def _agreeing(
        self, strides: tuple[float | None, ...], fixed: tuple[int | None, ...]
    ) -> _Numbering | _Listing:
        n, free_heads = len(strides), fixed.count(None) == len(fixed)
        while free_heads and n and strides[n - 1] is None:
            n -= 1  # the tables know what a free remainder may do
        if n == 0:
            return self._numbering
        if 3 ** strides[:n].count(None) > _MAX_LEAVES:
            return _Numbering(self._graph.restrict(strides, fixed), self._limits)
        reading = None if free_heads else self._reading(fixed)
        return _Listing(self._numbering, strides[:n], reading=reading)

    def _reading(self, fixed: tuple[int | None, ...]) -> dict[int, Utilisations]:
        if fixed not in self._readings:
            self._readings[fixed] = self._graph.reading(fixed)
        return self._readings[fixed]


def _check(n_blocks: int, cost: AdditiveCost | None, window: tuple[int, int] | None) -> None:
    require_exact(n_blocks)
    if window is None:
        return
    if cost is None:
        raise ValueError(f"a window needs the cost that it limits, got window={window} alone")
    try:
        low, high = map(index, window)
    except (TypeError, ValueError):
        low, high = 1, 0
    if low > high:
        raise ValueError(
            f"window must be (low, high) in whole multiply-adds with low <= high, got {window}"
        )


def _nothing_inside(space: MSNASSpace, cost: AdditiveCost, *, low: int, high: int) -> str:
    reachable = FlopsDistribution.of(space, cost)
    below, above = reachable.at_most(low), reachable.at_least(high)
    return (
        f"no valid architecture of {space.n_blocks} blocks costs {_giga(low)}..{_giga(high)} "
        f"GFLOPs; they cost {_giga(reachable.minimum)}..{_giga(reachable.maximum)}, the nearest "
        f"{_giga(below)} below and {_giga(above)} above the window: move or widen the window, or "
        f"change the channels or the input size"
    )


def _giga(flops: int | None) -> str:
    return "nothing" if flops is None else f"{flops / 1e9:.9g}"
