"""FLOPs in closed form: multiply-adds of the convolutions of encoder and RPN head (§4.1).

The RoI heads, which no budget limits, are counted apart: Table 6 has those of whole networks.

Symbols: C channels of a block, a absolute stride in pixels, cells(a) = H W / a^2 positions of a
feature, K classes. One multiply-add counts once; batch norm, activations and interpolation count
nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar, Final

from msnas_optuna.methods.msnas.published import PRESETS, Block
from msnas_optuna.methods.msnas.sections import DetectorSection
from msnas_optuna.methods.msnas.space import (
    FEATURE_STRIDES,
    STEM_STRIDE,
    Architecture,
    EncoderState,
    State,
)
from msnas_optuna.spaces.base import InvalidArchitectureError

ANCHORS_PER_CELL: Final = 3  # of one group: ratios 1:2, 1:1 and 2:1
BOTTLENECK_EXPANSION: Final = 4


@dataclass(frozen=True)
class Breakdown:
    """Multiply-adds of one architecture by part."""

    stem: int
    blocks: tuple[int, ...]  # each without its lateral connection
    laterals: tuple[int, ...]  # into each block, 0 where there is none
    outputs: dict[int, int]  # absolute stride of a selected feature -> its 3x3 convolution
    rpn: tuple[int, ...]  # one for each object group


@dataclass(frozen=True)
class EncoderCost:
    """Multiply-adds of encoder + RPN head for one input size (§4.1)."""

    scope: ClassVar = "encoder + RPN head"

    block: Block
    channels: int
    input_size: tuple[int, int]  # height and width in pixels, multiples of 64
    stem_channels: int = 64  # of the stem's output

    def __post_init__(self) -> None:
        if any(side <= 0 or side % 64 for side in self.input_size):
            raise ValueError(
                f"input_size must be multiples of 64 pixels (the largest absolute stride), "
                f"got {list(self.input_size)}"
            )

    @classmethod
    def from_preset(cls, name: str) -> EncoderCost:
        """The cost of a published setting: "r18", "r34" or "r50"."""
        preset = PRESETS[name]
        return cls(preset.block, preset.channels, preset.input_size)

    @property
    def out_channels(self) -> int:
        """Channels of a block's output: C, or 4C for a bottleneck."""
        return self.channels * (BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1)

    def cells(self, stride: int) -> int:
        """Positions of a feature with this absolute stride."""
        height, width = self.input_size
        return height * width // stride**2

    def mixed_block(self, index: int, *, absolute_stride: int, stride: float) -> int:
        """One candidate block; the first, of index 0, reads the stem's channels."""
        C, C_out = self.channels, self.out_channels
        C_in = self.stem_channels if index == 0 else C_out
        cells = self.cells(absolute_stride)
        if self.block == "basic":
            convolutions = 9 * C_in * C * cells + 9 * C * C * cells
        else:  # stride 2 sits on the 3x3, so the first 1x1 runs before it
            first = 4 * cells if stride == 2 else cells
            convolutions = C_in * C * first + 9 * C * C * cells + C * C_out * cells
        projected = stride != 1 or C_in != C_out
        return convolutions + (C_in * C_out * cells if projected else 0)

    def lateral(self, absolute_stride: int) -> int:
        """The 1x1 convolution of a lateral connection (Eq. 4-6)."""
        return self.out_channels**2 * self.cells(absolute_stride)

    def output(self, feature_stride: int) -> int:
        """The 3x3 output convolution of one selected resolution."""
        return 9 * self.out_channels * self.channels * self.cells(feature_stride)

    def rpn(self, feature_stride: int) -> int:
        """The RPN head of one object group: 3x3, then 1x1 for five outputs of each anchor."""
        C = self.channels
        return (9 * C**2 + C * 5 * ANCHORS_PER_CELL) * self.cells(feature_stride)

    def breakdown(self, architecture: Architecture) -> Breakdown:
        absolute = [int(a) for a in architecture.absolute_strides]
        return Breakdown(
            stem=self.base,
            blocks=tuple(
                self.mixed_block(i, absolute_stride=a, stride=stride)
                for i, (a, stride) in enumerate(zip(absolute, architecture.strides, strict=True))
            ),
            laterals=tuple(
                self.lateral(a) if i in architecture.laterals else 0
                for i, a in enumerate(absolute)
            ),
            outputs={s: self.output(s) for s in sorted(set(architecture.feature_strides))},
            rpn=tuple(self.rpn(s) for s in architecture.feature_strides),
        )

    def total(self, architecture: Architecture) -> int:
        own = self.breakdown(architecture)
        return own.stem + sum((*own.blocks, *own.laterals, *own.outputs.values(), *own.rpn))

    @property
    def base(self) -> int:
        """The stem, a 7x7 convolution of stride 2 from three channels."""
        return 7 * 7 * 3 * self.stem_channels * self.cells(2)

    def step(self, position: int, before: State, gene: float, after: State) -> int:
        """Cost of one gene: a block and the lateral of the stage that ends before it, or a head.

        The output convolution of a resolution is paid by the first group that reads it.
        """
        if isinstance(after, EncoderState):
            paid = self.mixed_block(position, absolute_stride=after.absolute_stride, stride=gene)
        else:
            paid = self.rpn(int(gene))
            if isinstance(before, EncoderState) or before.read != after.read:
                paid += self.output(int(gene))
        ends_stage = gene != 1 or not isinstance(after, EncoderState)
        if ends_stage and isinstance(before, EncoderState) and before.receives_lateral:
            paid += self.lateral(before.absolute_stride)
        return paid

    def text(self, amount: int) -> str:
        return f"{amount / 1e9:.9g} GFLOPs"


RESNETS: Final[dict[str, tuple[Block, tuple[int, ...]]]] = {  # stages (He et al., 2016, Table 1)
    "r18": ("basic", (2, 2, 2, 2)),
    "r34": ("basic", (3, 4, 6, 3)),
    "r50": ("bottleneck", (3, 4, 6, 3)),
}
RESNET_WIDTHS: Final = (64, 128, 256, 512)  # channels of the stages (likewise)
FPN_CHANNELS: Final = 256  # (Lin et al., 2017)
_LEAST_WIDTH: Final = 4  # of the first stage of a scaled ResNet
_MOST_WIDTH: Final = 4096
SCALED_WITHIN: Final = 0.02  # of the target


def fpn_baseline(
    name: str,
    input_size: tuple[int, int] = (832, 1280),
    *,
    widths: tuple[int, ...] = RESNET_WIDTHS,
    channels: int = FPN_CHANNELS,
) -> int:
    """Multiply-adds of ResNet-FPN (strides 4 to 64; Lin et al., 2017) + RPN head.

    The stem has as many channels as the blocks of the first stage, the pyramid has `channels`.
    """
    block, depths = RESNETS[name]
    C_in = widths[0]
    total = EncoderCost(block, C_in, input_size, stem_channels=C_in).base
    for stage, (C, depth) in enumerate(zip(widths, depths, strict=True)):
        a = STEM_STRIDE * 2**stage
        cost = EncoderCost(block, C, input_size, stem_channels=C_in)
        first = 1.0 if stage == 0 else 2.0
        total += cost.mixed_block(0, absolute_stride=a, stride=first)
        total += (depth - 1) * cost.mixed_block(1, absolute_stride=a, stride=1.0)
        C_in = cost.out_channels
        total += (C_in * channels + 9 * channels**2) * cost.cells(a)  # 1x1 and 3x3
    pyramid = EncoderCost("basic", channels, input_size)
    return total + sum(pyramid.rpn(stride) for stride in FEATURE_STRIDES)


def scaled_widths(
    name: str, target: float, *, input_size: tuple[int, int], channels: int
) -> tuple[int, ...]:
    """The widths, about 1:2:4:8, of a ResNet-FPN whose cost is nearest to a target.

    Raises:
        InvalidArchitectureError: none is within `SCALED_WITHIN` of it.
    """

    def widths(last: int) -> tuple[int, ...]:
        return tuple(round(last * width / RESNET_WIDTHS[-1]) for width in RESNET_WIDTHS)

    def cost(last: int) -> int:
        return fpn_baseline(name, input_size, widths=widths(last), channels=channels)

    ratio = RESNET_WIDTHS[-1] // RESNET_WIDTHS[0]
    every = range(_LEAST_WIDTH * ratio, _MOST_WIDTH * ratio)
    above = every[min(bisect_left(every, target, key=cost), len(every) - 1)]
    last = min((above, max(above - 1, every[0])), key=lambda w: abs(cost(w) - target))
    if abs(cost(last) - target) > SCALED_WITHIN * target:
        raise InvalidArchitectureError(
            f"a ResNet-{name[1:]}-FPN must cost within {SCALED_WITHIN:.0%} of the budget's "
            f"{target / 1e9:.4g} GFLOPs, its nearest widths {list(widths(last))} with a pyramid "
            f"of {channels} channels cost {cost(last) / 1e9:.4g}; raise the budget, or lower "
            f"space.channels"
        )
    return widths(last)


def box_head(detector: DetectorSection, channels: int, n_classes: int) -> int:
    """Multiply-adds of "2 conv + 1 fc" (§4.1), scores and deltas, for one RoI."""
    cells, C = detector.pool_size**2, channels
    outputs = 5 * (n_classes + 1)
    return 2 * 9 * C**2 * cells + C * cells * detector.hidden + detector.hidden * outputs


def mask_head(detector: DetectorSection, channels: int, n_classes: int) -> int:
    """Multiply-adds of the mask head for one RoI (He et al., 2017, Fig. 4).

    3x3 convolutions, a 2x2 deconvolution that doubles the cells, a 1x1 for every class.
    """
    cells, M = detector.mask_pool_size**2, detector.mask_channels
    convolutions = 9 * (channels + (detector.mask_convolutions - 1) * M) * M * cells
    return convolutions + 4 * M**2 * cells + M * (n_classes + 1) * 4 * cells
