"""Network parts that methods share; their names and numbers are here, without torch."""

from __future__ import annotations

from typing import Final, Literal

Block = Literal["basic", "bottleneck"]
"""Residual blocks of ResNet (He et al., 2016)."""

BOTTLENECK_EXPANSION: Final = 4
"""Channels of a bottleneck's output are this many times those of its 3x3 convolution."""

Norm = Literal["batch", "group"]
"""Batch norm, or group norm with weight standardization for very small batches."""
