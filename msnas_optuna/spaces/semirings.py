"""Three ways to sum over paths: how many, how heavy all together, how good the best.

A sweep over a trellis does the same for each: values of genes multiply along a path (`times`),
values of paths that meet add up (`add`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""One value for each number of units; shape (n,), or (limbs, n) for large counts."""

_LIMB: Final = 48
"""Bits of a limb; a sum of 2^15 parts of one limb each fits into 64."""


class Semiring(Protocol):
    """Paths in a row multiply, paths side by side add."""

    @property
    def times(self) -> np.ufunc:
        """Joins the values of genes that follow each other."""

    @property
    def zero(self) -> float:
        """The value of no path at all."""

    def zeros(self, n: int) -> Values:
        """A row of n values without any path."""

    def one(self) -> Values:
        """The value of a path without genes, as part of a row."""

    def add(self, total: Values, values: Values, value: float) -> None:
        """Adds to `total`, in place, paths that begin with a gene of this value."""

    def closed(self, total: Values) -> Values:
        """A row whose sum is complete, in the form in which it is kept."""


@dataclass(frozen=True)
class Counting:
    """Exact numbers of paths.

    Attributes:
        limbs: 1 where 63 bits hold every count, else words of 48 bits, least first.
    """

    limbs: int = 1
    times: ClassVar[np.ufunc] = np.multiply
    zero: ClassVar[float] = 0

    @classmethod
    def up_to(cls, largest: int) -> Counting:
        """With as many words as counts up to `largest` need."""
        return cls(1 if largest < 2**63 else -(-largest.bit_length() // _LIMB))

    def zeros(self, n: int) -> Values:
        """No path; shape (n,) or (limbs, n)."""
        return np.zeros(n if self.limbs == 1 else (self.limbs, n), np.int64)

    def one(self) -> Values:
        """One path; shape (1,) or (limbs, 1)."""
        one = self.zeros(1)
        one.flat[0] = 1
        return one

    def add(self, total: Values, values: Values, value: float) -> None:
        """Counts have no weights."""
        total += values

    def closed(self, total: Values) -> Values:
        """In 32 bits where they hold every count; carries from limb to limb."""
        if self.limbs == 1:
            small = total.max(initial=0) <= np.iinfo(np.int32).max
            return total.astype(np.int32) if small else total
        for lower, upper in pairwise(total):
            upper += lower >> _LIMB
            lower &= 2**_LIMB - 1
        return total


@dataclass(frozen=True)
class Weighing:
    """Sums of products of weights."""

    times: ClassVar[np.ufunc] = np.multiply
    zero: ClassVar[float] = 0

    def zeros(self, n: int) -> Values:
        """No weight; shape (n,)."""
        return np.zeros(n)

    def one(self) -> Values:
        """The empty product; shape (1,)."""
        return np.ones(1)

    def add(self, total: Values, values: Values, value: float) -> None:
        """Weights multiply along a path and add up over paths."""
        total += value * values

    def closed(self, total: Values) -> Values:
        """As it is."""
        return total


@dataclass(frozen=True)
class Scoring:
    """The largest sum of scores (max-plus)."""

    times: ClassVar[np.ufunc] = np.add
    zero: ClassVar[float] = -np.inf

    def zeros(self, n: int) -> Values:
        """Worse than any path; shape (n,)."""
        return np.full(n, -np.inf)

    def one(self) -> Values:
        """The empty sum; shape (1,)."""
        return np.zeros(1)

    def add(self, total: Values, values: Values, value: float) -> None:
        """Scores add up along a path; of several paths the best counts."""
        np.maximum(total, values + value, out=total)

    def closed(self, total: Values) -> Values:
        """As it is."""
        return total


def as_integers(counts: Values) -> NDArray[Any]:
    """Counts as an array of whole numbers of any size; shape (n,)."""
    if counts.ndim == 1:
        return counts
    total: NDArray[Any] = counts[0].astype(object)
    for i, limb in enumerate(counts[1:], start=1):
        total += limb.astype(object) << (_LIMB * i)
    return total


class LimbedEntries:
    """Reads single counts out of limbs, as a memoryview reads them out of one word."""

    def __init__(self, counts: Values) -> None:
        self._limbs = [limb.data for limb in counts]

    def __len__(self) -> int:
        return len(self._limbs[0])

    def __getitem__(self, position: int) -> int:
        return sum(limb[position] << (_LIMB * i) for i, limb in enumerate(self._limbs))
