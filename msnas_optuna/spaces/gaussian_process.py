"""A Gaussian process over architectures: what is measured on similar ones smooths each value.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2 and 5.4. The
covariance of two architectures is s^2 exp(-d / l), d the number of genes in which they differ (a
product of positive definite kernels, one a gene), that of two measurements of one
s^2 (1 + noise). Length l and noise maximize the marginal likelihood on a grid; mean and s^2
follow from them in closed form. n measured architectures of L genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic

import numpy as np
from numpy.typing import NDArray

from msnas_optuna.spaces.base import A, Space

_Floats = NDArray[np.float64]

LENGTHS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # genes
NOISES: Final = (1e-6, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)  # variance of the noise over s^2


class GaussianProcess(Generic[A]):
    """The posterior mean of a function of architectures, given noisy values of some.

    Args:
        space: says what the genes are.
        architectures: at least one; one that is measured twice stands here twice.
        values: [n], finite.

    Attributes:
        length: l, in genes.
        noise: variance of the noise over that of the function.
        log_likelihood: the largest, without its constant.

    Raises:
        ValueError: there is not one finite value for each architecture.
    """

    def __init__(
        self, space: Space[A], architectures: Sequence[A], values: Sequence[float]
    ) -> None:
        y = np.asarray(values, dtype=float)
        if not len(y) or len(y) != len(architectures) or not np.isfinite(y).all():
            raise ValueError(
                f"each architecture needs a finite value, got {len(y)} values for "
                f"{len(architectures)} architectures"
            )
        self._space = space
        self._genes = self._coded(architectures)  # [n, L]
        n, differing, ones = len(y), self._differing(self._genes), np.ones(len(y))
        self.log_likelihood = -np.inf
        for length in LENGTHS:
            eigenvalues, vectors = np.linalg.eigh(np.exp(-differing / length))
            rotated, rotated_ones = vectors.T @ y, vectors.T @ ones
            for noise in NOISES:
                d = np.maximum(eigenvalues, 0) + noise
                mean = (rotated_ones * rotated / d).sum() / (rotated_ones**2 / d).sum()
                residual = rotated - mean * rotated_ones
                scale = max(float((residual**2 / d).sum()) / n, np.finfo(float).tiny)  # s^2
                likelihood = -(n * np.log(scale) + float(np.log(d).sum())) / 2
                if likelihood > self.log_likelihood:
                    self.log_likelihood, self.length, self.noise = likelihood, length, noise
                    self._mean, self._weights = float(mean), vectors @ (residual / d)

    def mean(self, architectures: Sequence[A]) -> _Floats:
        """The posterior means of the function, without noise, [number of architectures]."""
        covariance = np.exp(-self._differing(self._coded(architectures)) / self.length)
        return self._mean + covariance @ self._weights  # type: ignore[no-any-return]

    def _coded(self, architectures: Sequence[A]) -> NDArray[np.intp]:
        """The position of each gene among its choices, [number of architectures, L]."""
        places = [
            {choice: i for i, choice in enumerate(d.choices)}
            for d in self._space.distributions.values()
        ]
        genes = map(self._space.genes, architectures)
        return np.array([[p[g] for p, g in zip(places, own, strict=True)] for own in genes])

    def _differing(self, genes: NDArray[np.intp]) -> _Floats:
        """In how many genes these differ from each measured architecture, [., n]."""
        return (genes[:, None] != self._genes).sum(axis=-1).astype(float)  # type: ignore[no-any-return]
