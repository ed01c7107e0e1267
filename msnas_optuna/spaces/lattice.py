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

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import accumulate
from math import ceil, gcd
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.msnas import (
    FEATURE_STRIDES,
    N_GROUPS,
    STRIDES,
    Architecture,
    MSNASSpace,
    feature_stride_vectors,
)

_MAX_LEAVES: Final = 3**8
"""Ways to fill free strides that a conditional draw lists one by one; beyond, tables pay off."""

_HUGE: Final = 2**61
"""Window ends are cut to -1..2^61, which int64 arithmetic survives and no cost comes near."""


class AdditiveCost(Protocol):
    """A cost that is a sum over blocks, lateral connections and heads, in multiply-adds."""

    def stem(self) -> int:
        """What every architecture pays."""

    def mixed_block(self, index: int, *, absolute_stride: int, stride: float) -> int:
        """One block, by 0-based position, absolute stride of its output and own stride."""

    def lateral(self, absolute_stride: int) -> int:
        """One lateral connection (Eq. 4-6)."""

    def heads(self, feature_strides: tuple[int, ...]) -> int:
        """Everything that depends on the utilisation alone."""

    def total(self, architecture: Architecture) -> int:
        """The sum of the above over a valid architecture."""


class EmptyWindowError(InvalidArchitectureError):
    """No valid architecture has a cost inside the window."""


class _NoCost:
    """Counts nothing: every valid architecture has cost 0."""

    def stem(self) -> int:
        return 0

    def mixed_block(self, index: int, *, absolute_stride: int, stride: float) -> int:
        return 0

    def lateral(self, absolute_stride: int) -> int:
        return 0

    def heads(self, feature_strides: tuple[int, ...]) -> int:
        return 0

    def total(self, architecture: Architecture) -> int:
        return 0


# A state is one small integer, because a draw looks up dozens: level + 8 * finished, where bit l
# of `finished` says that a stage has ended at level l.


def _level(state: int) -> int:
    return state & 7


def _absolute(state: int) -> int:
    return FEATURE_STRIDES[state & 7]


def _visited(state: int) -> int:
    """V as a bit set: the last block ends a stage too."""
    return state >> 3 | 1 << (state & 7)


def _pays_lateral(state: int) -> bool:
    """Whether ending a stage here meets an earlier stage end of equal absolute stride (Eq. 4)."""
    return bool(state >> 3 >> _level(state) & 1)


def _successor(state: int, stride: float) -> int | None:
    """The state after a further block, or None where it leaves 4 <= a <= 64 (V1)."""
    if stride == 1:
        return state
    level = _level(state) + (1 if stride == 2 else -1)
    return level + 8 * _visited(state) if 0 <= level < len(FEATURE_STRIDES) else None


class _Root(NamedTuple):
    """A choice for the first block: the state after it, the FLOPs of stem and first block."""

    state: int
    base: int


class _Utilisations(NamedTuple):
    """The utilisations that an encoder may feed (V2, V3), cheapest first, and their FLOPs."""

    costs: list[int]
    vectors: list[tuple[int, ...]]

    def between(self, low: int, high: int) -> tuple[int, int]:
        """The positions [first, end) of those that cost low..high."""
        return bisect_left(self.costs, low), bisect_right(self.costs, high)


_Steps = dict[int, dict[float, tuple[int, int]]]
"""State -> stride of the next block -> (state after it, units of k)."""


@dataclass(frozen=True)
class _Graph:
    """What may follow what, and at which cost.

    Attributes:
        unit: multiply-adds of one unit of k.
        roots: choices for the first block by stride.
        steps: one entry for each of the blocks 2..N.
        closing: state after block N -> units of k of the lateral connection that it receives.
        utilisations: V as a bit set -> utilisations.
    """

    unit: int
    roots: dict[float, _Root]
    steps: tuple[_Steps, ...]
    closing: dict[int, int]
    utilisations: dict[int, _Utilisations]

    @classmethod
    def of(cls, n_blocks: int, cost: AdditiveCost) -> _Graph:
        """All valid architectures (V1-V3)."""
        roots = {}
        for stride in STRIDES:
            state = _successor(0, stride)
            if state is not None:
                state = _level(state)  # the stem ends no stage
                first = cost.mixed_block(0, absolute_stride=_absolute(state), stride=stride)
                roots[stride] = _Root(state, cost.stem() + first)
        steps, states = [], {root.state for root in roots.values()}
        for block in range(1, n_blocks):
            steps.append({state: _moves(state, block, cost) for state in sorted(states)})
            states = {after for moves in steps[-1].values() for after, _ in moves.values()}
        closing = {s: cost.lateral(_absolute(s)) if _pays_lateral(s) else 0 for s in states}
        graph = cls(1, roots, tuple(steps), closing, _utilisations(map(_visited, states), cost))
        return graph._in_units()

    def _in_units(self) -> _Graph:
        moves = [m for steps in self.steps for after in steps.values() for m in after.values()]
        unit = gcd(*self.closing.values(), *(cost for _, cost in moves)) or 1
        steps = tuple(
            {
                state: {stride: (after, cost // unit) for stride, (after, cost) in moves.items()}
                for state, moves in layer.items()
            }
            for layer in self.steps
        )
        closing = {state: cost // unit for state, cost in self.closing.items()}
        return replace(self, unit=unit, steps=steps, closing=closing)

    def restrict(
        self, strides: Sequence[float | None], feature_strides: tuple[int | None, ...]
    ) -> _Graph:
        """The architectures that agree with every gene that is not None."""
        first, *others = strides
        return replace(
            self,
            roots={s: root for s, root in self.roots.items() if first in (None, s)},
            steps=tuple(
                {
                    state: {s: move for s, move in moves.items() if fixed in (None, s)}
                    for state, moves in layer.items()
                }
                for layer, fixed in zip(self.steps, others, strict=True)
            ),
            utilisations=self.reading(feature_strides),
        )

    def reading(self, feature_strides: tuple[int | None, ...]) -> dict[int, _Utilisations]:
        """The utilisations that agree with every feature stride that is not None."""
        return {
            visited: _Utilisations(
                [c for c, s in zip(costs, vectors, strict=True) if _agrees(s, feature_strides)],
                [s for s in vectors if _agrees(s, feature_strides)],
            )
            for visited, (costs, vectors) in self.utilisations.items()
        }


def _moves(state: int, block: int, cost: AdditiveCost) -> dict[float, tuple[int, int]]:
    """What the 0-based block may do after `state`, with its multiply-adds."""
    moves = {}
    for stride in STRIDES:
        after = _successor(state, stride)
        if after is None:
            continue
        paid = cost.mixed_block(block, absolute_stride=_absolute(after), stride=stride)
        if stride != 1 and _pays_lateral(state):  # the block before ends a stage
            paid += cost.lateral(_absolute(state))
        moves[stride] = (after, paid)
    return moves


def _utilisations(visited: Iterable[int], cost: AdditiveCost) -> dict[int, _Utilisations]:
    priced = sorted((cost.heads(s), s) for s in feature_stride_vectors())  # V2
    level = {a: i for i, a in enumerate(FEATURE_STRIDES)}
    found = {}
    for strides in set(visited):
        fed = [(c, s) for c, s in priced if all(strides >> level[a] & 1 for a in s)]  # V3
        found[strides] = _Utilisations([c for c, _ in fed], [s for _, s in fed])
    return found


def _agrees(values: Sequence[float], fixed: Sequence[float | None]) -> bool:
    return all(f is None or f == v for v, f in zip(values, fixed, strict=True))


_Counts = NDArray[np.int64]
_Part = tuple[int, _Counts]
"""Counts by k: the k of the first entry, then one count for each k."""


def _span(parts: Sequence[_Part]) -> tuple[int, int]:
    """The smallest [first, end) that holds all parts."""
    return min(k for k, _ in parts), max(k + len(counts) for k, counts in parts)


def _sum(parts: Iterable[_Part], first: int, end: int) -> _Counts:
    """The sum of the parts over first <= k < end."""
    total = np.zeros(max(end - first, 0), np.int64)
    for k, counts in parts:
        low, high = max(k, first), min(k + len(counts), end)
        if low < high:
            total[low - first : high - first] += counts[low - k : high - k]
    return total


class _Table(NamedTuple):
    """Completions by k; a memoryview, because it reads single entries faster than an array."""

    first: int
    counts: memoryview[int]

    def at(self, k: int) -> int:
        return self.counts[k - self.first] if 0 <= k - self.first < len(self.counts) else 0


def _table(first: int, counts: _Counts) -> _Table:
    """Drops zeros at both ends and halves the memory where 32 bits hold every count."""
    (used,) = counts.nonzero()
    if not len(used):
        return _Table(0, np.zeros(0, np.int64).data)
    counts = counts[used[0] : used[-1] + 1]
    small = counts.max() <= np.iinfo(np.int32).max
    return _Table(first + int(used[0]), counts.astype(np.int32 if small else np.int64).data)


class _Tables:
    """The completions of every path that starts with one root.

    Args:
        graph: what may follow what.
        root: the first block.
        window: smallest and largest cost in multiply-adds, both inside.
    """

    def __init__(self, graph: _Graph, root: _Root, window: tuple[int, int]) -> None:
        self._graph, self._window, self.root = graph, window, root
        reach = self._reach()
        layer = {state: self._last(state, *span) for state, span in reach[-1].items()}
        layers = [layer]
        for steps, spans in zip(graph.steps[::-1], reach[-2::-1], strict=True):
            layer = {s: self._before(steps[s], layer, *span) for s, span in spans.items()}
            layers.append(layer)
        self.layers = layers[::-1]

    @property
    def count(self) -> int:
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

    def _last(self, state: int, low: int, high: int) -> _Table:
        """After block N a completion is a utilisation that ends inside the window."""
        costs = np.array(self._graph.utilisations[_visited(state)].costs, np.int64)
        paid = np.arange(low, high + 1) + self._graph.closing[state]
        totals = self.root.base + self._graph.unit * paid
        end = np.searchsorted(costs, self._window[1] - totals, "right")
        return _table(low, end - np.searchsorted(costs, self._window[0] - totals, "left"))

    def _before(
        self,
        moves: dict[float, tuple[int, int]],
        after: dict[int, _Table],
        low: int,
        high: int,
    ) -> _Table:
        """A completion is a next block with one of the completions after it."""
        parts = [
            (after[state].first - k, np.asarray(after[state].counts))
            for state, k in moves.values()
            if len(after[state].counts)
        ]
        if not parts:
            return _table(0, np.zeros(0, np.int64))
        first, end = _span(parts)
        first, end = max(first, low), min(end, high + 1)
        return _table(first, _sum(parts, first, end))

    def complete(self, path: list[float], state: int, k: int, *, index: int) -> Architecture:
        """Completion number `index` of a path that stands at `state` with `k` spent."""
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
                    index -= counts[at]
        reading = self._graph.utilisations[_visited(state)]
        first, _ = reading.between(*self.left(state, k))
        return Architecture(tuple(path), reading.vectors[first + index])

    def left(self, state: int, k: int) -> tuple[int, int]:
        """What the window leaves for the heads of a path that ends at `state` with `k` spent."""
        paid = self.root.base + self._graph.unit * (k + self._graph.closing[state])
        return self._window[0] - paid, self._window[1] - paid


class _Numbering:
    """The architectures of a graph inside a window, numbered from 0."""

    def __init__(self, graph: _Graph, window: tuple[int, int]) -> None:
        self.graph = graph
        self.tables = {s: _Tables(graph, root, window) for s, root in graph.roots.items()}
        self.count = sum(tables.count for tables in self.tables.values())

    def at(self, index: int) -> Architecture:
        for stride, tables in self.tables.items():
            if index < tables.count:
                return tables.complete([stride], tables.root.state, 0, index=index)
            index -= tables.count
        raise IndexError(f"index must lie in 0..{self.count - 1}")


_Leaf = tuple[float, int, int, tuple[float, ...]]
"""Stride of the first block, state, k, and the strides chosen for the free blocks."""


def _leaves(graph: _Graph, strides: Sequence[float | None]) -> list[_Leaf]:
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
    graph: _Graph, state: int, block: int, *, strides: Sequence[float | None]
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
        reading: dict[int, _Utilisations] | None,
    ) -> None:
        self._tables, self._beginning, self._reading = numbering.tables, beginning, reading
        self._leaves = _leaves(numbering.graph, beginning)
        self._bounds = list(accumulate(map(self._weight, self._leaves)))
        self.count = self._bounds[-1] if self._bounds else 0

    def _weight(self, leaf: _Leaf) -> int:
        root, state, k, _ = leaf
        if self._reading is None:
            return self._tables[root].layers[len(self._beginning) - 1][state].at(k)
        first, end = self._reading[_visited(state)].between(*self._tables[root].left(state, k))
        return end - first

    def at(self, index: int) -> Architecture:
        chosen = bisect_right(self._bounds, index)
        index -= self._bounds[chosen - 1] if chosen else 0
        root, state, k, choices = self._leaves[chosen]
        free = iter(choices)
        path = [next(free) if s is None else s for s in self._beginning]
        if self._reading is None:
            return self._tables[root].complete(path, state, k, index=index)
        reading = self._reading[_visited(state)]
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
        ValueError: the window is upside down, or has no cost that it limits.
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
        limited = _NoCost() if cost is None or window is None else cost
        low, high = window or (0, 0)
        self._limits = (min(max(low, -1), _HUGE), min(max(high, -1), _HUGE))
        self._graph = _Graph.of(space.n_blocks, limited)
        self._numbering = _Numbering(self._graph, self._limits)
        self._readings: dict[tuple[int | None, ...], dict[int, _Utilisations]] = {}
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

    def sample(self, rng: np.random.Generator) -> Architecture:
        """One architecture, drawn uniformly: path and feature strides jointly."""
        return self._numbering.at(int(rng.integers(self.count())))

    def sample_many(self, rng: np.random.Generator, n: int) -> list[Architecture]:
        """`n` independent uniform draws."""
        return [self._numbering.at(i) for i in rng.integers(self.count(), size=n).tolist()]

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
        strides: Sequence[float | None],
        feature_strides: Sequence[int | None],
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
        found = self._completions(strides, feature_strides)
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
        n, fixed = self.space.n_blocks, tuple(feature_strides)
        if len(strides) != n or len(fixed) != N_GROUPS:
            raise InvalidArchitectureError(
                f"{n} strides and {N_GROUPS} feature strides are needed (None where free), "
                f"got {len(strides)} and {len(fixed)}"
            )
        genes, kept = (*strides, *fixed), self._kept  # one read: other threads may draw too
        if kept is None or kept[0] != genes:
            kept = self._kept = (genes, self._agreeing(tuple(strides), fixed))
        return kept[1]

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

    def _reading(self, fixed: tuple[int | None, ...]) -> dict[int, _Utilisations]:
        if fixed not in self._readings:
            self._readings[fixed] = self._graph.reading(fixed)
        return self._readings[fixed]


@dataclass(frozen=True, eq=False)
class FlopsDistribution:
    """How many valid architectures of a space have which cost, exactly.

    Attributes:
        totals: every cost that occurs, in multiply-adds, ascending. shape (T,)
        counts: valid architectures with that cost. shape (T,)
    """

    totals: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, space: MSNASSpace, cost: AdditiveCost) -> FlopsDistribution:
        """Counts all valid architectures of `space` (V1-V3) by cost."""
        _require_exact(space.n_blocks)
        graph = _Graph.of(space.n_blocks, cost)
        classes: defaultdict[int, list[_Part]] = defaultdict(list)
        for root in graph.roots.values():
            for visited, (k, counts) in _paths_by_cost(graph, root):
                for heads in graph.utilisations[visited].costs:
                    units, remainder = divmod(root.base + heads, graph.unit)
                    classes[remainder].append((k + units, counts))
        # Costs of different remainders never meet, so that each remainder sums on its own.
        summed = {r: (_span(parts)[0], _sum(parts, *_span(parts))) for r, parts in classes.items()}
        totals = [r + graph.unit * (k + c.nonzero()[0]) for r, (k, c) in summed.items()]
        flat, counts = (
            np.concatenate(totals),
            np.concatenate([c[c > 0] for _, c in summed.values()]),
        )
        order = np.argsort(flat)
        return cls(flat[order], counts[order])

    @cached_property
    def _up_to(self) -> NDArray[np.int64]:
        """Architectures among the i cheapest totals, 0 <= i <= T."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    @property
    def minimum(self) -> int:
        """The smallest cost."""
        return int(self.totals[0])

    @property
    def maximum(self) -> int:
        """The largest cost."""
        return int(self.totals[-1])

    def count(self, low: int | None = None, high: int | None = None) -> int:
        """Valid architectures that cost low..high, both inside; None leaves a side open."""
        first = 0 if low is None else self._below(low)
        end = len(self.totals) if high is None else self._below(high + 1)
        return int(self._up_to[end] - self._up_to[first]) if first < end else 0

    def at_most(self, target: int) -> int | None:
        """The largest cost of at most `target`, or None where all cost more."""
        end = self._below(target + 1)
        return int(self.totals[end - 1]) if end else None

    def at_least(self, target: int) -> int | None:
        """The smallest cost of at least `target`, or None where all cost less."""
        first = self._below(target)
        return int(self.totals[first]) if first < len(self.totals) else None

    def quantile(self, q: float) -> int:
        """The smallest cost that at least the share `q`, 0..1, of all architectures keep to.

        Raises:
            ValueError: `q` lies outside 0..1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in 0..1, got {q}")
        needed = max(ceil(Fraction(q) * self.count()), 1)
        return int(self.totals[np.searchsorted(self._up_to, needed) - 1])

    def _below(self, target: int) -> int:
        """How many totals are smaller than `target`."""
        return int(np.searchsorted(self.totals, min(max(target, -1), _HUGE)))


def _paths_by_cost(graph: _Graph, root: _Root) -> list[tuple[int, _Part]]:
    """V as a bit set and the number of paths by k, for each state after block N."""
    layer: dict[int, _Part] = {root.state: (0, np.ones(1, np.int64))}
    for steps in graph.steps:
        parts: defaultdict[int, list[_Part]] = defaultdict(list)
        for state, (k, counts) in layer.items():
            for after, units in steps[state].values():
                parts[after].append((k + units, counts))
        layer = {s: (_span(p)[0], _sum(p, *_span(p))) for s, p in parts.items()}
    return [(_visited(s), (k + graph.closing[s], counts)) for s, (k, counts) in layer.items()]


def counts_inside(
    space: MSNASSpace, costs: Iterable[AdditiveCost], *, window: tuple[int, int]
) -> list[int]:
    """Counts the valid architectures (V1-V3) inside a window under each of several costs.

    Costs whose blocks differ in one common factor, as those of several widths do, share the
    paths: each further one takes milliseconds.

    Args:
        space: the valid architectures.
        costs: each in multiply-adds.
        window: smallest and largest cost, both inside; it may hold nothing.
    """
    _require_exact(space.n_blocks)
    low, high = (min(max(end, -1), _HUGE) for end in window)
    counts, shared, paths = [], None, {}
    for cost in costs:
        graph = _Graph.of(space.n_blocks, cost)
        if shared is None or (graph.steps, graph.closing) != (shared.steps, shared.closing):
            shared = graph
            paths = {root.state: _paths_up_to(graph, root) for root in graph.roots.values()}
        counts.append(
            sum(
                _within(graph, part, low=low - root.base, high=high - root.base)
                for root in graph.roots.values()
                for part in paths[root.state]
            )
        )
    return counts


def _paths_up_to(graph: _Graph, root: _Root) -> list[tuple[int, _Part]]:
    """V as a bit set and, for each state after block N, the paths that cost less than each k."""
    return [
        (visited, (k, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])))
        for visited, (k, counts) in _paths_by_cost(graph, root)
    ]


def _within(graph: _Graph, paths: tuple[int, _Part], *, low: int, high: int) -> int:
    """Architectures of one state whose blocks 2..N, laterals and heads cost low..high."""
    visited, (k, up_to) = paths
    heads = np.array(graph.utilisations[visited].costs, np.int64)
    last = len(up_to) - 1
    first = np.clip(-((heads - low) // graph.unit) - k, 0, last)  # rounds up
    end = np.clip((high - heads) // graph.unit + 1 - k, 0, last)
    return int(np.maximum(up_to[end] - up_to[first], 0).sum())


def _check(n_blocks: int, cost: AdditiveCost | None, window: tuple[int, int] | None) -> None:
    _require_exact(n_blocks)
    if window is None:
        return
    if cost is None:
        raise ValueError(f"a window needs the cost that it limits, got window={window} alone")
    if window[0] > window[1]:
        raise ValueError(f"window must be (low, high) with low <= high, got {window}")


def _require_exact(n_blocks: int) -> None:
    """Keeps every count below 2^63: each block has at most three strides."""
    if 3**n_blocks * len(feature_stride_vectors()) >= 2**63:
        raise ValueError(f"counts of {n_blocks} blocks may exceed 64 bits; use at most 35 blocks")


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
