"""The published settings (§4.1, targets of Table 1) and the fifteen published architectures.

Tables 7-9: architectures with the COCO mAP after retraining.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from msnas_optuna.methods.base import PublishedArchitecture
from msnas_optuna.methods.msnas.space import Architecture

Block = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class Preset:
    """A published setting: N blocks with C channels."""

    n_blocks: int
    block: Block
    channels: int
    target_gflops: float  # of encoder + RPN head, 1e9 multiply-adds (Table 1)
    input_size: tuple[int, int] = (832, 1280)  # height and width of the count, pixels (§4.1)


PRESETS: Final = {
    "r18": Preset(n_blocks=13, block="basic", channels=180, target_gflops=145.45),
    "r34": Preset(n_blocks=21, block="basic", channels=160, target_gflops=182.20),
    "r50": Preset(n_blocks=21, block="bottleneck", channels=144, target_gflops=197.33),
}

_TABLES = {
    "r18": (  # Table 7
        ("1 2 2 1 2 1 .5 1 1 .5 1 1 .5 | 8 8 16 16 32", 36.7),
        ("1 2 2 2 .5 2 .5 1 .5 1 .5 2 2 | 8 8 16 16 32", 36.8),
        ("1 2 2 2 1 1 .5 1 .5 .5 2 1 2 | 8 8 16 16 16", 37.0),
        ("1 2 2 2 .5 2 .5 1 1 .5 1 .5 2 | 8 8 16 16 32", 37.0),
        ("1 2 .5 2 1 2 1 2 1 .5 1 .5 2 | 8 8 16 16 32", 37.2),
    ),
    "r34": (  # Table 8
        ("1 2 1 2 1 1 2 1 .5 .5 1 1 2 1 .5 1 .5 2 2 2 1 | 4 8 16 32 32", 39.0),
        ("1 2 1 2 1 2 1 1 .5 .5 1 1 2 1 .5 1 .5 2 2 2 2 | 4 8 16 32 64", 38.7),
        ("1 2 1 2 1 2 1 1 .5 .5 1 1 2 1 .5 1 .5 2 2 2 2 | 4 8 16 16 64", 38.4),
        ("1 2 1 2 1 1 2 1 2 1 .5 .5 1 1 2 .5 .5 .5 1 2 2 | 4 8 16 32 32", 39.2),
        ("1 2 1 2 1 2 1 1 .5 .5 1 1 2 1 .5 1 .5 2 2 2 .5 | 4 8 16 32 32", 39.0),
    ),
    "r50": (  # Table 9
        ("1 2 1 2 1 1 2 1 1 1 1 2 .5 .5 1 .5 .5 2 2 1 2 | 8 8 16 32 32", 39.4),
        ("1 2 1 2 1 1 2 1 1 1 1 2 .5 .5 1 .5 .5 2 1 2 2 | 8 16 32 32 32", 39.1),
        ("1 2 1 2 1 1 2 1 1 1 1 2 .5 .5 1 .5 .5 2 1 2 2 | 8 8 32 32 64", 39.5),
        ("1 2 1 2 1 1 2 1 1 1 1 2 .5 .5 1 .5 .5 2 2 1 2 | 8 8 16 32 64", 39.4),
        ("1 2 1 2 1 1 1 2 1 1 .5 .5 1 .5 2 2 2 2 .5 1 1 | 8 8 32 32 32", 39.1),
    ),
}

PUBLISHED: Final = {
    f"{preset}-{row}": PublishedArchitecture(Architecture.parse(text), coco_map, preset)
    for preset, table in _TABLES.items()
    for row, (text, coco_map) in enumerate(table, start=1)
}
"""The published architectures by name, r18-1 to r50-5."""
