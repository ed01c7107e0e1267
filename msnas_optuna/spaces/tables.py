"""What may still come from every (position, state, cost so far): one sweep over a graph.

Symbols: k cost so far in units, see `Graph`; a row holds one value for each k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from msnas_optuna.spaces.base import Genes
from msnas_optuna.spaces.semirings import LimbedEntries, Semiring, Values
from msnas_optuna.spaces.trellis import HUGE, Beginning, Graph

_MOST_ENTRIES: Final = 2**28
"""Of all rows together; more would take gigabytes."""


class Row(NamedTuple):
    """Values by k.

    Attributes:
        first: k of the first value.
        values: for first, first + 1, ... shape (n,) or (limbs, n)
    """

    first: int
    values: Values

    @property
    def end(self) -> int:
        """One more than k of the last value."""
        return self.first + int(self.values.shape[-1])


Part = tuple[int, Values, float]
"""k of the first value, values, and the value of the gene before them."""

EMPTY: Final = Row(0, np.zeros(0, np.int64))


def summed(parts: Sequence[Part], low: int, high: int, *, semiring: Semiring) -> Row:
    """The sum of parts over low <= k <= high, without worthless ends.

    Args:
        parts: what to add up.
        low: smallest k of interest.
        high: largest k of interest.
        semiring: what a sum is.
    """
    parts = [part for part in parts if part[1].shape[-1]]
    if not parts:
        return EMPTY
    first = max(min(k for k, _, _ in parts), low)
    end = min(max(k + values.shape[-1] for k, values, _ in parts), high + 1)
    if first >= end:
        return EMPTY
    total = semiring.zeros(end - first)
    for k, values, value in parts:
        a, b = max(k, first), min(k + values.shape[-1], end)
        if a < b:
            semiring.add(total[..., a - first : b - first], values[..., a - k : b - k], value)
    return _trimmed(first, total, semiring)


def _trimmed(first: int, total: Values, semiring: Semiring) -> Row:
    ends = total[..., [0, -1]] if total.ndim == 1 else total[..., [0, -1]].max(axis=0)
    if (ends == semiring.zero).any():
        worth = (total if total.ndim == 1 else total.max(axis=0)) != semiring.zero
        (used,) = worth.nonzero()
        if not len(used):
            return EMPTY
        total, first = total[..., used[0] : used[-1] + 1], first + int(used[0])
    return Row(first, semiring.closed(total))


class Exit(NamedTuple):
    """A move, and the values of what may come after it, by k - `offset`."""

    gene: Any
    after: int
    cost: int
    value: float
    offset: int
    entries: Any


class Tables:
    """The rows of all paths whose cost leaves one remainder beside the units.

    Args:
        graph: what may follow what.
        starts: the states in which the chain may begin and k there.
        window: smallest and largest cost, both inside, less the remainder.
        semiring: what a sum is.
    """

    def __init__(
        self,
        graph: Graph,
        starts: Iterable[tuple[int, int]],
        window: tuple[int, int],
        *,
        semiring: Semiring,
    ) -> None:
        self.graph, self.window, self._nothing = graph, window, semiring.zero
        cheapest = min((int(e.costs[0]) for e in graph.endings if len(e.costs)), default=0)
        self.most = (window[1] - cheapest) // graph.unit  # k of a path that may still close
        reach = reachable(graph, starts, most=self.most)
        row = {s: self._last(s, low, high, semiring) for s, (low, high) in reach[-1].items()}
        self.rows, self.exits = [row], []
        for moves, layer in zip(reversed(graph.chain), reversed(reach[:-1]), strict=True):
            after, row, exits = self.rows[-1], {}, {}
            entries = {t: entries_of(values) for t, (_, values) in after.items()}
            for state, (low, high) in layer.items():
                live = [m for m in moves[state] if m.after in after]
                parts = [(after[t].first - c, after[t].values, v) for _, t, c, v in live]
                row[state] = summed(parts, low, high, semiring=semiring)
                exits[state] = [
                    Exit(gene, t, c, v, after[t].first - c, entries[t]) for gene, t, c, v in live
                ]
            self.rows.append(row)
            self.exits.append(exits)
        self.rows.reverse()
        self.exits.reverse()

    def _last(self, state: int, low: int, high: int, semiring: Semiring) -> Row:
        """After the chain, an ending counts where it closes inside the window."""
        costs, _, _, values = self.graph.endings[state]
        unit, total, one = self.graph.unit, semiring.zeros(high - low + 1), semiring.one()
        firsts = np.maximum(-((costs - self.window[0]) // unit) - low, 0)  # rounds up
        ends = np.minimum((self.window[1] - costs) // unit + 1, high + 1) - low
        for first, end, value in zip(firsts.tolist(), ends.tolist(), values.tolist(), strict=True):
            if first < end:
                semiring.add(total[..., first:end], one, value)
        return _trimmed(low, total, semiring)

    def value(self, state: int, k: int) -> Any:
        """The value of everything that may follow where the chain begins."""
        row = self.rows[0].get(state, EMPTY)
        inside = row.first <= k < row.end
        return entries_of(row.values)[k - row.first] if inside else self._nothing

    def open_endings(self, state: int, k: int) -> tuple[int, int]:
        """The positions [first, end) of the endings that close inside the window."""
        paid = self.graph.unit * k
        return self.graph.endings[state].between(self.window[0] - paid, self.window[1] - paid)

    def path(self, state: int, k: int, index: int) -> tuple[list[Any], Genes]:
        """The genes of path number `index` from the begin of the chain on; counts only."""
        genes = []
        for layer in self.exits:
            for gene, after, cost, _, offset, entries in layer[state]:
                at = k - offset
                if 0 <= at < len(entries):
                    here = entries[at]
                    if index < here:
                        genes.append(gene)
                        state, k = after, k + cost
                        break
                    index -= here
        first, _ = self.open_endings(state, k)
        return genes, self.graph.endings[state].genes[first + index]


def entries_of(values: Values) -> Any:
    """Quick access to single values: a memoryview reads faster than an array."""
    return values.data if values.ndim == 1 else LimbedEntries(values)


def reachable(
    graph: Graph, starts: Iterable[tuple[int, int]], *, most: int = HUGE
) -> list[dict[int, tuple[int, int]]]:
    """State -> smallest and largest k that a path may have there, for each layer of the chain.

    Args:
        graph: what may follow what.
        starts: the states in which the chain may begin and k there.
        most: paths with a larger k are left out.

    Raises:
        ValueError: rows of that length would not fit into memory.
    """
    first: dict[int, tuple[int, int]] = {}
    for state, k in starts:
        if k <= most:
            low, high = first.get(state, (k, k))
            first[state] = (min(low, k), max(high, k))
    reach = [first]
    for moves in graph.chain:
        layer: dict[int, tuple[int, int]] = {}
        for state, (low, high) in reach[-1].items():
            for _, after, cost, _ in moves[state]:
                if low + cost <= most:
                    first_k, last_k = layer.get(after, (low + cost, low + cost))
                    last_k = max(last_k, min(high + cost, most))
                    layer[after] = (min(first_k, low + cost), last_k)
        reach.append(layer)
    entries = sum(high - low + 1 for layer in reach for low, high in layer.values())
    if entries > _MOST_ENTRIES:
        raise ValueError(
            f"the costs lie on a grid of {graph.unit}, so fine that the tables would have "
            f"{entries} entries, more than {_MOST_ENTRIES}; round the costs to a coarser grid"
        )
    return reach


class Entrance(NamedTuple):
    """A beginning, the tables of what may follow it, and the value of all that may."""

    beginning: Beginning
    tables: Tables
    k: int
    value: Any


def sweep(graph: Graph, window: tuple[int, int], semiring: Semiring) -> list[Entrance]:
    """The values of all paths inside a window, by beginning.

    Beginnings whose costs differ by whole units share tables.
    """
    shared: dict[int, list[tuple[int, int]]] = {}
    for beginning in graph.beginnings:
        k, remainder = divmod(beginning.cost, graph.unit)
        shared.setdefault(remainder, []).append((beginning.state, k))
    tables = {
        r: Tables(graph, starts, (window[0] - r, window[1] - r), semiring=semiring)
        for r, starts in shared.items()
    }
    found = []
    for beginning in graph.beginnings:
        k, remainder = divmod(beginning.cost, graph.unit)
        value = tables[remainder].value(beginning.state, k)
        found.append(Entrance(beginning, tables[remainder], k, value))
    return found
