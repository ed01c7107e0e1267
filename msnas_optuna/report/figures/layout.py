"""What the picture of an architecture shows, and where: shared by all that draw one.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Fig. 1.

Symbols: a absolute stride in pixels, s feature strides. FLOPs are 1e9 multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import STEM_STRIDE, Architecture

_ARC: Final = 8
"""Straight pieces that draw a lateral connection."""

_ARC_HEIGHT: Final = 0.32
"""Of an arc over neighbouring blocks, in octaves of the resolution."""

MOST_ARC_HEIGHT: Final = 0.77
"""Of the longest arcs, in octaves of the resolution."""

HEAD_GAP: Final = 0.8
"""From the last block to the first head, and then from head to head, in blocks."""


@dataclass(frozen=True)
class ArchitectureInfo:
    """What the picture of an architecture shows; depth 0 is the stem, 1..N are the blocks.

    Attributes:
        name: above the picture.
        strides: of the N blocks.
        absolute: absolute stride after the stem and after each block, N + 1 values.
        laterals: pairs of depths (from, to) that a lateral connection joins.
        heads: for each object group the depth of the block that it reads, and its stride.
        total: GFLOPs, None where the cost is unknown.
        blocks: GFLOPs of the stem and of each block, N + 1 values; empty where unknown.
        lateral: GFLOPs of the lateral connection into each of these.
        head: GFLOPs of each group's RPN head, with its share of the output convolutions.
    """

    name: str
    strides: tuple[float, ...]
    absolute: tuple[float, ...]
    laterals: tuple[tuple[int, int], ...]
    heads: tuple[tuple[int, int], ...]
    total: float | None
    blocks: tuple[float, ...]
    lateral: tuple[float, ...]
    head: tuple[float, ...]


def get_architecture_info(
    architecture: Architecture, *, name: str, cost: EncoderCost | None = None
) -> ArchitectureInfo:
    """What a picture of a valid architecture shows, see `ArchitectureInfo`."""
    laterals = tuple((r + 1, i + 1) for i, r in sorted(architecture.laterals.items()))
    blocks: tuple[float, ...] = ()
    lateral: tuple[float, ...] = ()
    head: tuple[float, ...] = ()
    total = None
    if cost is not None:
        parts = cost.breakdown(architecture)
        readers = {s: architecture.feature_strides.count(s) for s in parts.outputs}
        total = parts.total / 1e9
        blocks = tuple(flops / 1e9 for flops in (parts.stem, *parts.blocks))
        lateral = (0.0, *(flops / 1e9 for flops in parts.laterals))
        head = tuple(
            (rpn + parts.outputs[s] / readers[s]) / 1e9
            for s, rpn in zip(architecture.feature_strides, parts.rpn, strict=True)
        )
    return ArchitectureInfo(
        name=name,
        strides=architecture.strides,
        absolute=(STEM_STRIDE, *architecture.absolute_strides),
        laterals=laterals,
        heads=tuple((architecture.outputs[s] + 1, s) for s in architecture.feature_strides),
        total=total,
        blocks=blocks,
        lateral=lateral,
        head=head,
    )


def head_depth(info: ArchitectureInfo, group: int) -> float:
    """Where the head of an object group stands, in blocks."""
    return len(info.strides) + HEAD_GAP * (group + 1.5)


def arc(start: int, end: int, level: float, *, pieces: int = _ARC) -> list[tuple[float, float]]:
    """Points (depth, level) of a lateral connection over the blocks that it passes."""
    height = min(_ARC_HEIGHT * (1 + 0.15 * (end - start - 1)), MOST_ARC_HEIGHT)
    points = []
    for i in range(pieces + 1):
        t = i / pieces
        points.append((start + t * (end - start), level + 4 * t * (1 - t) * height))
    return points
