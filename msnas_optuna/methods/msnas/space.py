"""The MSNAS search space: the stride of every block, the feature that every head reads (§3.2-3.3).

Symbols: N mixed blocks, G = 5 object groups, stride_i in {0.5, 1, 2}, absolute stride
a_i = 4 * prod_{j<=i} stride_j in pixels (the stem divides by 4), feature strides s = (s_1..s_G).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import ClassVar, Final, Literal, NamedTuple

from optuna.distributions import CategoricalDistribution

from msnas_optuna.spaces.base import Genes, InvalidArchitectureError, Space

STRIDES: Final = (0.5, 1.0, 2.0)  # of a block: double, keep or halve the resolution (§3.2)
FEATURE_STRIDES: Final = (4, 8, 16, 32, 64)  # pixels, of blocks' outputs and heads' inputs (§3.2)
N_GROUPS: Final = 5  # object groups, each with a detection head of its own (§3.3)
STEM_STRIDE: Final = 4  # absolute, of the stem's output, in pixels

FeatureStrides = Literal["searched", "fpn"]
"""Feature strides are genes, or fixed to FPN's 4, 8, 16, 32 and 64 (Table 2)."""


@dataclass(frozen=True)
class Architecture:
    """One detector of the space: encoder and utilization."""

    strides: tuple[float, ...]  # of each of the N blocks, from 0.5, 1 and 2
    feature_strides: tuple[int, ...]  # pixels, that the G groups read, small objects first

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(float(s) for s in self.strides))
        object.__setattr__(self, "feature_strides", tuple(int(s) for s in self.feature_strides))

    @cached_property
    def absolute_strides(self) -> tuple[float, ...]:
        """a_1..a_N in pixels (§3.2); whole numbers where the architecture is valid."""
        absolute, a = [], float(STEM_STRIDE)
        for stride in self.strides:
            a *= stride
            absolute.append(int(a) if a.is_integer() else a)
        return tuple(absolute)

    @cached_property
    def stage_ends(self) -> tuple[int, ...]:
        """0-based blocks that end a stage: the last one, and each before a stride other than 1."""
        n = len(self.strides)
        return tuple(i for i in range(n) if i == n - 1 or self.strides[i + 1] != 1)

    @cached_property
    def laterals(self) -> dict[int, int]:
        """Stage end i -> r, the latest earlier stage end of equal absolute stride (Eq. 4-6)."""
        latest: dict[float, int] = {}
        laterals = {}
        for end in self.stage_ends:
            a = self.absolute_strides[end]
            if a in latest:
                laterals[end] = latest[a]
            latest[a] = end
        return laterals

    @cached_property
    def outputs(self) -> dict[int, int]:
        """Absolute stride in pixels -> the last stage end that produces it."""
        return {int(self.absolute_strides[end]): end for end in self.stage_ends}

    def strides_text(self) -> str:
        """As in the paper's tables: "1 2 2 .5"."""
        return " ".join(f"{s:g}".removeprefix("0") for s in self.strides)

    def feature_strides_text(self) -> str:
        """As in the paper's tables: "8 8 16 16 32"."""
        return " ".join(map(str, self.feature_strides))

    def __str__(self) -> str:
        return f"{self.strides_text()} | {self.feature_strides_text()}"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Reads "1 2 2 .5 | 8 8 16 16 32" (Tables 7-9); raises InvalidArchitectureError."""
        try:
            strides, feature_strides = text.replace(",", " ").split("|")
            return cls(
                tuple(float(s) for s in strides.split()),
                tuple(int(s) for s in feature_strides.split()),
            )
        except ValueError:
            raise InvalidArchitectureError(
                f"an architecture reads '1 2 2 .5 | 8 8 16 16 32' (strides | feature strides); "
                f"got {text!r}"
            ) from None


def count_paths(n_blocks: int) -> int:
    """Sequences of N strides that keep every block at 4 <= a <= 64 (V1), exactly."""
    levels = len(FEATURE_STRIDES)
    paths = [1] + [0] * (levels - 1)  # by level after the stem, a = 4 * 2^level
    for _ in range(n_blocks):
        paths = [sum(paths[max(level - 1, 0) : level + 2]) for level in range(levels)]
    return sum(paths)


class EncoderState(NamedTuple):
    """The level l of the current absolute stride a = 4 * 2^l, and bits of levels."""

    level: int
    ended: int  # bit l: a stage has ended at level l

    @property
    def absolute_stride(self) -> int:
        return FEATURE_STRIDES[self.level]

    @property
    def outputs(self) -> int:
        """Bit l: the encoder has a feature of level l if it ends here."""
        return self.ended | 1 << self.level

    @property
    def receives_lateral(self) -> bool:
        """True where a stage that ends here follows an earlier one of its resolution (Eq. 4)."""
        return bool(self.ended >> self.level & 1)


class UtilizationState(NamedTuple):
    """Bits of levels."""

    outputs: int  # bit l: the encoder has a feature of level l
    read: int  # bit l: a group so far reads it
    wanted: int = 0  # bit l: some group must read it


State = EncoderState | UtilizationState


@dataclass(frozen=True)
class MSNASSpace(Space[Architecture]):
    """All valid architectures of N = 3..32 blocks (§3.2-3.3); its own automaton of N + 5 genes.

    Without `constraints`, Eq. 7 does not limit the feature strides (Table 3). FPN-style ones need
    N of at least 5, and have one choice each. Without `unread_blocks`, a head reads the feature
    of the last block.
    """

    n_blocks: int
    feature_strides: FeatureStrides = "searched"
    constraints: bool = True
    unread_blocks: bool = True
    listed: ClassVar = (1, N_GROUPS)  # the stem's channels; heads share no factor with blocks

    def __post_init__(self) -> None:
        least = len(FEATURE_STRIDES) if self.feature_strides == "fpn" else 3
        if not isinstance(self.n_blocks, Integral) or not least <= self.n_blocks <= 32:
            style = " with FPN-style feature strides" if least > 3 else ""
            raise ValueError(
                f"n_blocks must be a whole number in {least}..32{style}, got {self.n_blocks!r}"
            )

    @cached_property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        """stride_01..stride_N and feature_stride_1..5 with their real values."""
        names = [f"stride_{i + 1:02d}" for i in range(self.n_blocks)]
        names += [f"feature_stride_{g + 1}" for g in range(N_GROUPS)]
        return dict(zip(names, map(CategoricalDistribution, self.choices), strict=True))

    @property
    def parts(self) -> dict[str, slice]:
        n = self.n_blocks
        return {"encoder": slice(0, n), "feature_stride": slice(n, n + N_GROUPS)}

    def genes(self, architecture: Architecture) -> tuple[float, ...]:
        return (*architecture.strides, *architecture.feature_strides)

    def architecture(self, genes: Genes) -> Architecture:
        return Architecture(tuple(genes[: self.n_blocks]), tuple(genes[self.n_blocks :]))

    def automaton(self) -> MSNASSpace:
        return self

    @property
    def choices(self) -> list[tuple[float, ...]]:
        fixed: list[tuple[float, ...]] = [(s,) for s in FEATURE_STRIDES]
        searched: list[tuple[float, ...]] = [FEATURE_STRIDES] * N_GROUPS
        utilization = fixed if self.feature_strides == "fpn" else searched
        return [STRIDES] * self.n_blocks + utilization

    @property
    def start(self) -> EncoderState:
        """The stem: absolute stride 4, and no stage has ended."""
        return EncoderState(0, 0)

    def next(self, position: int, state: State, gene: float) -> State | None:
        """The state after a stride or feature stride, or None where it breaks V1, V2 or V3."""
        if position < self.n_blocks:
            assert isinstance(state, EncoderState)
            if gene == 1:
                return state
            level = state.level + (1 if gene == 2 else -1)
            ended = state.outputs if position else 0  # the stem ends no stage
            return EncoderState(level, ended) if 0 <= level < len(FEATURE_STRIDES) else None  # V1
        feature = 1 << FEATURE_STRIDES.index(int(gene))
        if not state.outputs & feature:  # V3
            return None
        if isinstance(state, EncoderState):
            read, wanted = 0, 0 if self.unread_blocks else 1 << state.level
        else:
            read, wanted = state.read, state.wanted
        if self.constraints and (2 * feature <= read or (not read and gene > 8)):  # Eq. 7
            return None
        return UtilizationState(state.outputs, read | feature, wanted & ~feature)

    def accepts(self, state: State) -> bool:
        """Eq. 7: not all feature strides are equal, so that the largest is at least 8."""
        if isinstance(state, EncoderState) or state.wanted:
            return False
        return not self.constraints or state.read.bit_count() > 1

    def violation(self, architecture: Architecture) -> str | None:
        """The first broken rule among shape, V1, V2 (Eq. 7) and V3, in words, or None."""
        strides, s = architecture.strides, architecture.feature_strides
        if len(strides) != self.n_blocks:
            return f"the space has {self.n_blocks} blocks, the architecture {len(strides)} strides"
        if len(s) != N_GROUPS:
            return f"there are {N_GROUPS} object groups, the architecture has {len(s)} features"
        for i, stride in enumerate(strides):
            if stride not in STRIDES:
                return f"stride_{i + 1:02d} must be 0.5, 1 or 2, got {stride:g}"
        for i, a in enumerate(architecture.absolute_strides):
            if not FEATURE_STRIDES[0] <= a <= FEATURE_STRIDES[-1]:  # V1
                return f"block {i + 1} has absolute stride {a:g}; every block must have 4 to 64"
        for g, stride in enumerate(s):
            if stride not in (every := self.choices[self.n_blocks + g]):
                return f"feature_stride_{g + 1} must be one of {list(every)}, got {stride}"
        if self.constraints and list(s) != sorted(s):
            return f"feature strides must not decrease from group to group (Eq. 7), got {list(s)}"
        if self.constraints and (min(s) > 8 or max(s) < 8):
            return f"feature strides must hold min <= 8 <= max (Eq. 7), got {list(s)}"
        if self.constraints and min(s) == max(s):
            return f"feature strides must not all be equal (Eq. 7), got {list(s)}"
        for g, stride in enumerate(s):
            if stride not in architecture.outputs:  # V3
                return (
                    f"feature_stride_{g + 1} is {stride}, but no block has that absolute stride "
                    f"(the encoder has {sorted(architecture.outputs)})"
                )
        if not self.unread_blocks and (last := architecture.absolute_strides[-1]) not in s:
            return (
                f"a head must read the last block (unread_blocks = false), which has absolute "
                f"stride {last:g}; the heads read {sorted(set(s))}"
            )
        return None

    def fpn_like(self) -> Architecture:
        """The hand-made path: down as a residual backbone, up as FPN's top-down pathway.

        N = 7 gives strides 1 2 2 2 .5 .5 .5 reading 4 8 16 32 32. More blocks deepen the stages
        of the way down in turn, fewer make the pyramid less deep. With FPN-style feature strides
        the way down ends at 64, and fewer than nine blocks cut the way up short.
        """
        utilization = (4, 8, 16, 32, 32)
        halvings = doublings = min(3, (self.n_blocks - 1) // 2)
        if self.feature_strides == "fpn":
            utilization, halvings = FEATURE_STRIDES, len(FEATURE_STRIDES) - 1
            doublings = min(halvings, self.n_blocks - 1 - halvings)
        depth = [0] * (halvings + 1)  # additional blocks of each stage on the way down
        for extra in range(self.n_blocks - 1 - halvings - doublings):
            depth[(extra + 1) % len(depth)] += 1
        strides = [1.0, *[1.0] * depth[0]]
        for extra in depth[1:]:
            strides += [2.0, *[1.0] * extra]
        strides += [0.5] * doublings
        top = STEM_STRIDE * 2**halvings
        return Architecture(tuple(strides), tuple(min(s, top) for s in utilization))
