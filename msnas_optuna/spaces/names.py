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
        """One parameter."""
        return {self.parameter: CategoricalDistribution(self.names)}

    @property
    def parts(self) -> dict[str, slice]:
        """One part."""
        return {self.parameter: slice(0, 1)}

    def genes(self, architecture: str) -> tuple[str]:
        """The name."""
        return (architecture,)

    def architecture(self, genes: Genes) -> str:
        """The name."""
        return str(genes[0])

    def automaton(self) -> NameSpace:
        """The space itself."""
        return self

    @property
    def choices(self) -> list[tuple[str, ...]]:
        """The names."""
        return [self.names]

    def next(self, position: int, state: str, gene: str) -> str:
        """The name is the state."""
        return gene

    def accepts(self, state: str) -> bool:
        """True behind a name."""
        return bool(state)

    def violation(self, architecture: str) -> str | None:
        """A word about another name."""
        if architecture in self.names:
            return None
        return f"{self.parameter} must be one of {', '.join(self.names)}, got {architecture!r}"
