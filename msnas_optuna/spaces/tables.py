"""Continuations from every (position, state, cost so far): one sweep over a graph.

Symbols: k cost so far in units, see `Graph`; a row holds one value for each k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from msnas_optuna.spaces.base import Genes
from msnas_optuna.spaces.semirings import Semiring, Values
from msnas_optuna.spaces.trellis import HUGE, Beginning, Graph

_MOST_ENTRIES: Final = 2**28  # of all rows together; more would take gigabytes


class Row(NamedTuple):
    """Values for k = first, first + 1, ...; shape (n,)."""

    first: int
    values: Values


Part = tuple[int, Values, float]  # k of the first value, values, value of the gene before them
EMPTY: Final = Row(0, np.zeros(0, np.int64))


def summed(parts: Sequence[Part], low: int, high: int, *, semiring: Semiring) -> Row:
    """The sum of parts over low <= k <= high, without worthless ends."""
    parts = [part for part in parts if len(part[1])]
    first = max(min((k for k, _, _ in parts), default=low), low)
    end = min(max((k + len(values) for k, values, _ in parts), default=first), high + 1)
    if first >= end:
        return EMPTY
    total: Values = np.full(end - first, semiring.zero, semiring.dtype)
    for k, values, value in parts:
        a, b = max(k, first), min(k + len(values), end)
        if a < b:
            semiring.add(total[a - first : b - first], values[a - k : b - k], value)
    return _trimmed(first, total, semiring)


def _trimmed(first: int, total: Values, semiring: Semiring) -> Row:
    if total[0] == semiring.zero or total[-1] == semiring.zero:
        (used,) = (total != semiring.zero).nonzero()
        if not len(used):
            return EMPTY
        total, first = total[used[0] : used[-1] + 1], first + int(used[0])
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
        starts: the states in which the chain may begin, and k there.
        window: smallest and largest cost, both inside, less the remainder.

    Attributes:
        values: what may follow where the chain begins: (state, k) -> value.
        exits: one layer for each gene of the chain: state -> moves.
    """

    def __init__(
        self,
        graph: Graph,
        starts: Sequence[tuple[int, int]],
        window: tuple[int, int],
        *,
        semiring: Semiring,
    ) -> None:
        self.graph, self.window = graph, window
        cheapest = min((int(e.costs[0]) for e in graph.endings if len(e.costs)), default=0)
        most = (window[1] - cheapest) // graph.unit  # k of a path that may still close
        reach = reachable(graph, starts, most=most)
        rows: dict[int, Row] = {}
        for state, (low, high) in reach[-1].items():  # an ending counts where it closes inside
            costs, _, values = graph.endings[state]
            total: Values = np.full(high - low + 1, semiring.zero, semiring.dtype)
            firsts = np.maximum(-((costs - window[0]) // graph.unit) - low, 0)  # rounds up
            ends = np.minimum((window[1] - costs) // graph.unit + 1, high + 1) - low
            for first, end, value in zip(firsts.tolist(), ends.tolist(), values, strict=True):
                if first < end:
                    semiring.add(total[first:end], semiring.one, value)
            rows[state] = _trimmed(low, total, semiring)
        self.exits: list[dict[int, list[Exit]]] = []
        for moves, layer in zip(reversed(graph.chain), reversed(reach[:-1]), strict=True):
            entries = {t: _entries(row.values) for t, row in rows.items()}
            after, rows, exits = rows, {}, {}
            for state, (low, high) in layer.items():
                live = [m for m in moves[state] if m.after in after]
                parts = [(after[t].first - c, after[t].values, v) for _, t, c, v in live]
                rows[state] = summed(parts, low, high, semiring=semiring)
                exits[state] = [
                    Exit(gene, t, c, v, after[t].first - c, entries[t]) for gene, t, c, v in live
                ]
            self.exits.append(exits)
        self.exits.reverse()
        self.values = {
            (state, k): _entries(row.values)[k - row.first]
            for state, k in starts
            if state in rows and 0 <= k - (row := rows[state]).first < len(row.values)
        }

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


def _entries(values: Values) -> Any:
    """Quick access to single values: a memoryview or a list reads faster than an array."""
    return values.tolist() if values.dtype == object else values.data


def reachable(
    graph: Graph, starts: Iterable[tuple[int, int]], *, most: int = HUGE
) -> list[dict[int, tuple[int, int]]]:
    """State -> smallest and largest k <= most of a path there, for each layer of the chain.

    Raises:
        ValueError: rows of that length would not fit into memory.
    """
    reach: list[dict[int, tuple[int, int]]] = [{}]
    for state, k in starts:
        if k <= most:
            low, high = reach[0].get(state, (k, k))
            reach[0][state] = (min(low, k), max(high, k))
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
    """The values of all paths inside a window; beginnings whole units apart share tables."""
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
        value = tables[remainder].values.get((beginning.state, k), semiring.zero)
        found.append(Entrance(beginning, tables[remainder], k, value))
    return found
