"""Three ways to sum over paths: how many, how heavy all together, how good the best."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]  # one value for each number of units; shape (n,)


class Semiring:
    """Sums of products of weights: genes in a row multiply, paths add up."""

    one: ClassVar[float] = 1  # a path without genes
    zero: ClassVar[float] = 0  # no path at all
    dtype: type = np.float64  # of a row of values

    def times(self, value: float, following: float) -> float:
        """The value of a gene and of what follows it."""
        return value * following

    def add(self, total: Values, values: Values | float, value: float) -> None:
        """Adds to `total`, in place, paths that begin with a gene of this value."""
        total += value * values

    def closed(self, total: Values) -> Values:
        """A row whose sum is complete, in the form in which it is kept."""
        return total


class Scoring(Semiring):
    """The largest sum of scores (max-plus)."""

    one = 0
    zero = -np.inf

    def times(self, value: float, following: float) -> float:
        """Scores add up."""
        return value + following

    def add(self, total: Values, values: Values | float, value: float) -> None:
        """Of several paths the best counts."""
        np.maximum(total, values + value, out=total)


class Counting(Semiring):
    """Exact numbers of up to `largest` paths, whatever their genes' values."""

    def __init__(self, largest: int) -> None:
        self.dtype = np.int64 if largest < 2**63 else object  # Python's numbers have no end

    def add(self, total: Values, values: Values | float, value: float) -> None:
        """Counts have no weights."""
        total += values

    def closed(self, total: Values) -> Values:
        """In as few bits as hold every count."""
        largest = int(total.max(initial=0))
        return total.astype(np.min_scalar_type(largest)) if largest < 2**32 else total
