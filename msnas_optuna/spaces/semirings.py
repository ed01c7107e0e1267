"""Three ways to sum over paths: how many, how heavy all together, how good the best.

A sweep over a trellis does the same for each: values of genes multiply along a path (`times`),
values of paths that meet add up (`add`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""One value for each number of units; shape (n,), or (limbs, n) for large counts."""

_LIMB: Final = 48
"""Bits of a limb; a sum of 2^15 parts of one limb each fits into 64."""


class Semiring:
    """Sums of products of weights: what paths in a row multiply, paths side by side add.

    Attributes:
        times: joins the values of genes that follow each other.
        zero: the value of no path at all.
    """

    times: ClassVar[np.ufunc] = np.multiply
    zero: ClassVar[float] = 0

    def zeros(self, n: int) -> Values:
        """A row of n values without any path."""
        return np.full(n, self.zero, np.float64)

    def one(self) -> Values:
        """The value of a path without genes, as a row of one."""
        return np.full(1, self.times.identity, np.float64)

    def add(self, total: Values, values: Values, value: float) -> None:
        """Adds to `total`, in place, paths that begin with a gene of this value."""
        total += value * values

    def closed(self, total: Values) -> Values:
        """A row whose sum is complete, in the form in which it is kept."""
        return total


class Scoring(Semiring):
    """The largest sum of scores (max-plus)."""

    times = np.add
    zero = -np.inf

    def add(self, total: Values, values: Values, value: float) -> None:
        """Of several paths the best counts."""
        np.maximum(total, values + value, out=total)


class Counting(Semiring):
    """Exact numbers of paths, whatever their genes' values.

    Args:
        limbs: 1 where 63 bits hold every count, else words of 48 bits, least first.
    """

    def __init__(self, limbs: int = 1) -> None:
        self.limbs = limbs

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
        """In as few bits as hold every count; carries from limb to limb."""
        if self.limbs == 1:
            largest = int(total.max(initial=0))
            return total.astype(np.min_scalar_type(largest)) if largest < 2**32 else total
        for lower, upper in pairwise(total):
            upper += lower >> _LIMB
            lower &= 2**_LIMB - 1
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
