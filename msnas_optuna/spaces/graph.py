"""What may follow what in a path, and at which cost.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2-3.3
(what is valid), Eq. 4-6 (laterals), Eq. 7 (utilisation).

A path is built block by block. What its remainder may do, and cost, depends only on its state:
the current absolute stride and the set of absolute strides at which a stage has ended. Both
form an interval that holds 4 or 8, so a few dozen states exist.

Symbols: N blocks, a absolute stride in pixels, level l with a = 4 * 2^l, V the absolute strides
an encoder has, s feature strides, k FLOPs so far in units of the greatest common divisor of all
costs that a path sums. Stem, first block (it reads the stem's channels) and heads are exact
constants beside k. FLOPs are multiply-adds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Final, NamedTuple, Protocol

from msnas_optuna.methods.msnas.space import (
    FEATURE_STRIDES,
    STRIDES,
    Architecture,
    feature_stride_vectors,
)

HUGE: Final = 2**61
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


class NoCost:
    """Counts nothing: every valid architecture has cost 0."""

    def stem(self) -> int:
        """No multiply-adds."""
        return 0

    def mixed_block(self, index: int, *, absolute_stride: int, stride: float) -> int:
        """No multiply-adds."""
        return 0

    def lateral(self, absolute_stride: int) -> int:
        """No multiply-adds."""
        return 0

    def heads(self, feature_strides: tuple[int, ...]) -> int:
        """No multiply-adds."""
        return 0

    def total(self, architecture: Architecture) -> int:
        """No multiply-adds."""
        return 0


# A state is one small integer, because a draw looks up dozens: level + 8 * finished, where bit l
# of `finished` says that a stage has ended at level l.


def level_of(state: int) -> int:
    """L of the current absolute stride."""
    return state & 7


def absolute(state: int) -> int:
    """The current absolute stride in pixels."""
    return FEATURE_STRIDES[state & 7]


def visited_of(state: int) -> int:
    """V as a bit set: the last block ends a stage too."""
    return state >> 3 | 1 << (state & 7)


def pays_lateral(state: int) -> bool:
    """Whether ending a stage here meets an earlier stage end of equal absolute stride (Eq. 4)."""
    return bool(state >> 3 >> level_of(state) & 1)


def successor(state: int, stride: float) -> int | None:
    """The state after a further block, or None where it leaves 4 <= a <= 64 (V1)."""
    if stride == 1:
        return state
    level = level_of(state) + (1 if stride == 2 else -1)
    return level + 8 * visited_of(state) if 0 <= level < len(FEATURE_STRIDES) else None


class Root(NamedTuple):
    """A choice for the first block: the state after it, the FLOPs of stem and first block."""

    state: int
    base: int


class Utilisations(NamedTuple):
    """The utilisations that an encoder may feed (V2, V3), cheapest first, and their FLOPs."""

    costs: list[int]
    vectors: list[tuple[int, ...]]

    def between(self, low: int, high: int) -> tuple[int, int]:
        """The positions [first, end) of those that cost low..high."""
        return bisect_left(self.costs, low), bisect_right(self.costs, high)


Steps = dict[int, dict[float, tuple[int, int]]]
"""State -> stride of the next block -> (state after it, units of k)."""


@dataclass(frozen=True)
class Graph:
    """What may follow what, and at which cost.

    Attributes:
        unit: multiply-adds of one unit of k.
        roots: choices for the first block by stride.
        steps: one entry for each of the blocks 2..N.
        closing: state after block N -> units of k of the lateral connection that it receives.
        utilisations: V as a bit set -> utilisations.
    """

    unit: int
    roots: dict[float, Root]
    steps: tuple[Steps, ...]
    closing: dict[int, int]
    utilisations: dict[int, Utilisations]

    @classmethod
    def of(cls, n_blocks: int, cost: AdditiveCost) -> Graph:
        """All valid architectures (V1-V3)."""
        roots = {}
        for stride in STRIDES:
            state = successor(0, stride)
            if state is not None:
                state = level_of(state)  # the stem ends no stage
                first = cost.mixed_block(0, absolute_stride=absolute(state), stride=stride)
                roots[stride] = Root(state, cost.stem() + first)
        steps, states = [], {root.state for root in roots.values()}
        for block in range(1, n_blocks):
            steps.append({state: _moves(state, block, cost) for state in sorted(states)})
            states = {after for moves in steps[-1].values() for after, _ in moves.values()}
        closing = {s: cost.lateral(absolute(s)) if pays_lateral(s) else 0 for s in states}
        graph = cls(1, roots, tuple(steps), closing, _utilisations(map(visited_of, states), cost))
        return graph._in_units()

    def _in_units(self) -> Graph:
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
    ) -> Graph:
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

    def reading(self, feature_strides: tuple[int | None, ...]) -> dict[int, Utilisations]:
        """The utilisations that agree with every feature stride that is not None."""
        return {
            visited: Utilisations(
                [c for c, s in zip(costs, vectors, strict=True) if _agrees(s, feature_strides)],
                [s for s in vectors if _agrees(s, feature_strides)],
            )
            for visited, (costs, vectors) in self.utilisations.items()
        }


def _moves(state: int, block: int, cost: AdditiveCost) -> dict[float, tuple[int, int]]:
    """What the 0-based block may do after `state`, with its multiply-adds."""
    moves = {}
    for stride in STRIDES:
        after = successor(state, stride)
        if after is None:
            continue
        paid = cost.mixed_block(block, absolute_stride=absolute(after), stride=stride)
        if stride != 1 and pays_lateral(state):  # the block before ends a stage
            paid += cost.lateral(absolute(state))
        moves[stride] = (after, paid)
    return moves


def _utilisations(visited: Iterable[int], cost: AdditiveCost) -> dict[int, Utilisations]:
    priced = sorted((cost.heads(s), s) for s in feature_stride_vectors())  # V2
    level = {a: i for i, a in enumerate(FEATURE_STRIDES)}
    found = {}
    for strides in set(visited):
        fed = [(c, s) for c, s in priced if all(strides >> level[a] & 1 for a in s)]  # V3
        found[strides] = Utilisations([c for c, _ in fed], [s for _, s in fed])
    return found


def _agrees(values: Sequence[float], fixed: Sequence[float | None]) -> bool:
    return all(f is None or f == v for v, f in zip(values, fixed, strict=True))


def require_exact(n_blocks: int) -> None:
    """Keeps every count below 2^63: each block has at most three strides."""
    if 3**n_blocks * len(feature_stride_vectors()) >= 2**63:
        raise ValueError(f"counts of {n_blocks} blocks may exceed 64 bits; use at most 35 blocks")
