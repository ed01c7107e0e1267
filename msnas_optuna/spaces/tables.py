"""The completions of every (block, state, FLOPs so far), counted backwards from the last block.

Where genes have weights, a completion counts as the product of the weights of its genes.

Symbols: N blocks, k FLOPs so far in units, see `Graph`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, STRIDES, Architecture
from msnas_optuna.spaces.graph import Graph, Root, visited_of

Counts = NDArray[Any]
"""int64, or float64 where genes have weights."""

Part = tuple[int, Counts]
"""Counts by k: the k of the first entry, then one count for each k."""


@dataclass(frozen=True)
class Weights:
    """How likely each gene is, before anything is known of the others.

    Attributes:
        strides: stride -> weight, finite and at least 0, for each of the N blocks.
        feature_strides: feature stride -> weight for each of the five object groups.

    Raises:
        ValueError: a gene has other values than the space, or a weight is out of range.
    """

    strides: Sequence[Mapping[float, float]]
    feature_strides: Sequence[Mapping[int, float]]

    def __post_init__(self) -> None:
        """Checks every gene."""
        _require_weights("strides", self.strides, STRIDES)
        _require_weights("feature_strides", self.feature_strides, FEATURE_STRIDES)

    def scaled(self) -> Weights:
        """The same chances with 1 as the largest weight of each gene: products stay in range."""
        return Weights(*([*map(_scaled, genes)] for genes in (self.strides, self.feature_strides)))

    def of_utilisation(self, vector: Sequence[int]) -> float:
        """The product of the weights of five feature strides."""
        return prod(w[s] for w, s in zip(self.feature_strides, vector, strict=True))


def _scaled(weights: Mapping[Any, float]) -> dict[Any, float]:
    largest = max(weights.values()) or 1.0
    return {gene: weight / largest for gene, weight in weights.items()}


def _require_weights(
    name: str, genes: Sequence[Mapping[Any, float]], choices: Sequence[float]
) -> None:
    for i, weights in enumerate(genes):
        if set(weights) != set(choices) or not all(0 <= w < inf for w in weights.values()):
            raise ValueError(
                f"{name}[{i}] must give each of {list(choices)} a finite weight of at least 0, "
                f"got {dict(weights)}"
            )


def span(parts: Sequence[Part]) -> tuple[int, int]:
    """The smallest [first, end) that holds all parts."""
    return min(k for k, _ in parts), max(k + len(counts) for k, counts in parts)


def summed(parts: Sequence[Part], first: int, end: int) -> Counts:
    """The sum of the parts over first <= k < end."""
    dtype = np.result_type(*(counts.dtype for _, counts in parts), np.int64)
    total: Counts = np.zeros(max(end - first, 0), dtype)
    for k, counts in parts:
        low, high = max(k, first), min(k + len(counts), end)
        if low < high:
            total[low - first : high - first] += counts[low - k : high - k]
    return total


class Table(NamedTuple):
    """Completions by k; a memoryview, because it reads single entries faster than an array."""

    first: int
    counts: memoryview[int] | memoryview[float]

    def at(self, k: int) -> float:
        """The completions at k; an integer unless genes have weights."""
        return self.counts[k - self.first] if 0 <= k - self.first < len(self.counts) else 0


def table(first: int, counts: Counts) -> Table:
    """Drops zeros at both ends and halves the memory where 32 bits hold every count."""
    (used,) = counts.nonzero()
    if not len(used):
        return Table(0, np.zeros(0, np.int64).data)
    counts = counts[used[0] : used[-1] + 1]
    if counts.dtype == np.int64 and counts.max() <= np.iinfo(np.int32).max:
        counts = counts.astype(np.int32)
    return Table(first + int(used[0]), np.ascontiguousarray(counts).data)


class Tables:
    """The completions of every path that starts with one root.

    Args:
        graph: what may follow what.
        root: the first block.
        window: smallest and largest cost in multiply-adds, both inside.
        weights: of the genes of blocks 2..N and of the utilisations; None counts each as 1.
    """

    def __init__(
        self,
        graph: Graph,
        root: Root,
        window: tuple[int, int],
        *,
        weights: Weights | None = None,
    ) -> None:
        self._graph, self._window, self._weights, self.root = graph, window, weights, root
        self._sums = {} if weights is None else _sums(graph, weights)
        reach = self._reach()
        layer = {state: self._last(state, *span) for state, span in reach[-1].items()}
        layers = [layer]
        for block in range(len(graph.steps), 0, -1):
            spans = reach[block - 1].items()
            layer = {s: self._before(block, s, layer, *span) for s, span in spans}
            layers.append(layer)
        self.layers = layers[::-1]

    @property
    def total(self) -> float:
        """All completions; an integer unless genes have weights."""
        return self.layers[0][self.root.state].at(0)

    def _reach(self) -> list[dict[int, tuple[int, int]]]:
        """State -> smallest and largest k that a path may have there, for each block."""
        reach = [{self.root.state: (0, 0)}]
        for steps in self._graph.steps:
            layer: dict[int, tuple[int, int]] = {}
            for state, (low, high) in reach[-1].items():
                for after, k in steps[state].values():
                    was = layer.get(after, (low + k, high + k))
                    layer[after] = (min(was[0], low + k), max(was[1], high + k))
            reach.append(layer)
        return reach

    def _last(self, state: int, low: int, high: int) -> Table:
        """After block N a completion is a utilisation that ends inside the window."""
        reading = self._graph.utilisations[visited_of(state)]
        costs = np.array(reading.costs, np.int64)
        paid = np.arange(low, high + 1) + self._graph.closing[state]
        totals = self.root.base + self._graph.unit * paid
        end = np.searchsorted(costs, self._window[1] - totals, "right")
        start = np.searchsorted(costs, self._window[0] - totals, "left")
        sums = self._sums.get(visited_of(state))
        return table(low, end - start if sums is None else sums[start, end])

    def _before(
        self, block: int, state: int, after: dict[int, Table], low: int, high: int
    ) -> Table:
        """A completion is a next block (0-based position) with a completion after it."""
        parts = []
        for stride, (reached, k) in self._graph.steps[block - 1][state].items():
            counts = np.asarray(after[reached].counts)
            if self._weights is not None:
                counts = self._weights.strides[block][stride] * counts
            if len(counts):
                parts.append((after[reached].first - k, counts))
        if not parts:
            return table(0, np.zeros(0, np.int64))
        first, end = span(parts)
        first, end = max(first, low), min(end, high + 1)
        return table(first, summed(parts, first, end))

    def complete(self, path: list[float], state: int, k: int, *, index: int) -> Architecture:
        """Completion number `index` of a path that stands at `state` with `k` spent.

        Only without weights.
        """
        for block in range(len(path), len(self.layers)):
            layer = self.layers[block]
            for stride, (after, units) in self._graph.steps[block - 1][state].items():
                first, counts = layer[after]
                at = k + units - first
                if 0 <= at < len(counts):
                    if index < counts[at]:
                        path.append(stride)
                        state, k = after, k + units
                        break
                    index -= int(counts[at])
        reading = self._graph.utilisations[visited_of(state)]
        first, _ = reading.between(*self.left(state, k))
        return Architecture(tuple(path), reading.vectors[first + index])

    def left(self, state: int, k: int) -> tuple[int, int]:
        """What the window leaves for the heads of a path that ends at `state` with `k` spent."""
        paid = self.root.base + self._graph.unit * (k + self._graph.closing[state])
        return self._window[0] - paid, self._window[1] - paid


def _sums(graph: Graph, weights: Weights) -> dict[int, NDArray[np.float64]]:
    """[i, j] -> the weight of utilisations i to j - 1, for each set of strides to read.

    Not differences of running sums, which lose a small weight behind a large one.
    """
    sums = {}
    for visited, reading in graph.utilisations.items():
        each = np.array([weights.of_utilisation(v) for v in reading.vectors])
        running = np.triu(np.tile(each, (len(each), 1))).cumsum(axis=1)
        sums[visited] = np.pad(running, ((0, 1), (1, 0)))
    return sums
