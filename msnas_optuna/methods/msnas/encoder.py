"""The MSNAS encoder: mixed blocks with lateral connections, one path active at a time.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2, §3.4.

Symbols: N mixed blocks MB_i, x_i merged output of block i, r the latest earlier stage end of the
same absolute stride as stage end i. Shapes: B images of H x W pixels, a absolute stride.
"""

from __future__ import annotations

from typing import Final, cast

from torch import Tensor, nn

from msnas_optuna.methods.msnas.blocks import ResidualBlock
from msnas_optuna.methods.msnas.cost import BOTTLENECK_EXPANSION
from msnas_optuna.methods.msnas.published import Block
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, STRIDES, Architecture
from msnas_optuna.models import Norm
from msnas_optuna.models.blocks import Stem, initialize

CANDIDATES: Final = {0.5: "doubles", 1.0: "keeps", 2.0: "halves"}
"""Stride -> name of the candidate block in a mixed block (module names cannot hold a dot)."""


class MSNASEncoder(nn.Module):
    """Supernet encoder, or with `only` the stand-alone encoder of one architecture.

    Both name their parts alike, so that the stand-alone encoder's state is a subset of the
    supernet's.

    Args:
        n_blocks: N.
        block: residual block of every candidate.
        channels: C, also the channels of every feature that the heads read.
        stem_channels: channels of the stem's output.
        norm: "batch" (batch norm) or "group" (group norm with weight standardization).
        only: build the parts of this architecture alone.
    """

    def __init__(
        self,
        n_blocks: int,
        block: Block,
        *,
        channels: int,
        stem_channels: int = 64,
        norm: Norm = "batch",
        only: Architecture | None = None,
    ) -> None:
        super().__init__()
        self.only = only
        C_out = channels * (BOTTLENECK_EXPANSION if block == "bottleneck" else 1)

        def mixed_block(i: int) -> nn.ModuleDict:
            C_in = stem_channels if i == 0 else C_out
            strides = STRIDES if only is None else (only.strides[i],)
            return nn.ModuleDict(
                {
                    CANDIDATES[s]: ResidualBlock(C_in, channels, stride=s, block=block, norm=norm)
                    for s in strides
                }
            )

        sources = range(n_blocks) if only is None else sorted(set(only.laterals.values()))
        features = FEATURE_STRIDES if only is None else sorted(set(only.feature_strides))
        self.stem = Stem(stem_channels, norm=norm)
        self.blocks = nn.ModuleList(mixed_block(i) for i in range(n_blocks))
        self.laterals = nn.ModuleDict({str(r): nn.Conv2d(C_out, C_out, 1) for r in sources})
        self.outputs = nn.ModuleDict(
            {str(s): nn.Conv2d(C_out, channels, 3, padding=1) for s in features}
        )
        initialize(self)

    def forward(self, images: Tensor, architecture: Architecture | None = None) -> list[Tensor]:
        """The feature of every object group.

        Args:
            images: [B, 3, H, W], H and W multiples of 64.
            architecture: the path; may be left out of a stand-alone encoder.

        Returns:
            G features [B, C, H/s_g, W/s_g]; groups that read one feature share the tensor.
        """
        path = architecture or self.only
        if path is None:
            raise ValueError("a supernet needs the path to evaluate: pass architecture=")
        outputs = {
            s: self.outputs[str(s)](x).float()  # boxes are decoded in full precision
            for s, x in self._stages(images, path).items()
            if s in path.feature_strides
        }
        return [outputs[s] for s in path.feature_strides]

    def _stages(self, images: Tensor, path: Architecture) -> dict[int, Tensor]:
        """The last merged stage end of each absolute stride."""
        ends = set(path.stage_ends)
        merged: dict[int, Tensor] = {}
        x = self.stem(images)  # [B, C, H/4, W/4]
        for i, stride in enumerate(path.strides):
            candidates = cast(nn.ModuleDict, self.blocks[i])
            x = candidates[CANDIDATES[stride]](x)  # [B, C_out, H/a_i, W/a_i]
            if i in path.laterals:
                r = path.laterals[i]
                x = x + self.laterals[str(r)](merged[r])  # Eq. 6
            if i in ends:
                merged[i] = x
        return {s: merged[end] for s, end in path.outputs.items()}
