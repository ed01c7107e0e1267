"""A space of names, for studies that compare a few things of different kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from optuna.distributions import CategoricalDistribution

from msnas_optuna.spaces.base import Genes, Space


@dataclass(frozen=True)
class NameSpace(Space[str]):
    """Different names, the values of one parameter; its own automaton of one gene."""

    parameter: str
    names: tuple[str, ...]  # at least one
    start: ClassVar = ""
    listed: ClassVar = (0, 0)

    @property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        return {self.parameter: CategoricalDistribution(self.names)}

    @property
    def parts(self) -> dict[str, slice]:
        return {self.parameter: slice(0, 1)}

    def genes(self, architecture: str) -> tuple[str]:
        return (architecture,)

    def architecture(self, genes: Genes) -> str:
        return str(genes[0])

    def automaton(self) -> NameSpace:
        return self

    @property
    def choices(self) -> list[tuple[str, ...]]:
        return [self.names]

    def next(self, position: int, state: str, gene: str) -> str:
        return gene

    def accepts(self, state: str) -> bool:
        return bool(state)

    def violation(self, architecture: str) -> str | None:
        if architecture in self.names:
            return None
        return f"{self.parameter} must be one of {', '.join(self.names)}, got {architecture!r}"
