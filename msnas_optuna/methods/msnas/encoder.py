"""The MSNAS encoder: mixed blocks with lateral connections, one path active (§3.2, §3.4).

Symbols: N mixed blocks, C channels of a block, s its stride, a its absolute stride in pixels,
r the latest earlier stage end of the absolute stride of stage end i. Shapes: B images of H x W.
"""

from __future__ import annotations

from typing import Final, cast

import torch.nn.functional as F
from torch import Tensor, nn

from msnas_optuna.methods.msnas.cost import BOTTLENECK_EXPANSION
from msnas_optuna.methods.msnas.published import Block
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, STRIDES, Architecture
from msnas_optuna.models import Norm
from msnas_optuna.models.blocks import Stem, conv_norm, initialize

CANDIDATES: Final = {0.5: "doubles", 1.0: "keeps", 2.0: "halves"}
"""Stride -> name of the candidate block in a mixed block (module names cannot hold a dot)."""


class ResidualBlock(nn.Module):
    """One candidate block: doubles (0.5), keeps (1) or halves (2) the resolution.

    "basic" has two 3x3 convolutions and C output channels, "bottleneck" 1x1, 3x3 and 1x1 and 4C.
    Stride 0.5 interpolates first, so that all convolutions run at the higher resolution; stride
    2 sits on the (first) 3x3. The shortcut is the identity where the shape is unchanged and a
    1x1 projection elsewhere.
    """

    def __init__(
        self, C_in: int, channels: int, *, stride: float, block: Block, norm: Norm
    ) -> None:
        super().__init__()
        self.doubles = stride == 0.5
        step = 2 if stride == 2 else 1
        C_out = channels * (BOTTLENECK_EXPANSION if block == "bottleneck" else 1)
        if block == "basic":
            layers = [
                conv_norm(C_in, channels, kernel=3, stride=step, norm=norm),
                nn.ReLU(inplace=True),
                conv_norm(channels, C_out, kernel=3, norm=norm),
            ]
        else:
            layers = [
                conv_norm(C_in, channels, kernel=1, norm=norm),
                nn.ReLU(inplace=True),
                conv_norm(channels, channels, kernel=3, stride=step, norm=norm),
                nn.ReLU(inplace=True),
                conv_norm(channels, C_out, kernel=1, norm=norm),
            ]
        self.residual = nn.Sequential(*layers)
        keeps_shape = stride == 1 and C_in == C_out
        self.shortcut: nn.Module = (
            nn.Identity()
            if keeps_shape
            else conv_norm(C_in, C_out, kernel=1, stride=step, norm=norm)
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C_out, H/s, W/s]
        if self.doubles:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class MSNASEncoder(nn.Module):
    """Supernet encoder, or with `only` the stand-alone encoder of one architecture.

    Both name their parts alike, so that the stand-alone encoder's state is a subset of the
    supernet's. The features that heads read have `channels` too; `norm` is of all convolutions
    but the laterals and outputs.
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

    def feature_strides(self, architecture: Architecture | None = None) -> tuple[int, ...]:
        """Pixels, of the features that `forward` gives."""
        return self._path(architecture).feature_strides

    def _path(self, architecture: Architecture | None) -> Architecture:
        path = architecture or self.only
        if path is None:
            raise ValueError("a supernet needs the path to evaluate: pass architecture=")
        return path

    def forward(self, images: Tensor, architecture: Architecture | None = None) -> list[Tensor]:
        """The features [B, C, H/s_g, W/s_g] of G groups from images [B, 3, H, W], multiples of 64.

        Groups that read one feature share the tensor; a stand-alone encoder needs no architecture.
        """
        path = self._path(architecture)
        merged: dict[int, Tensor] = {}
        x = self.stem(images)  # [B, C, H/4, W/4]
        for i, stride in enumerate(path.strides):
            candidates = cast(nn.ModuleDict, self.blocks[i])
            x = candidates[CANDIDATES[stride]](x)  # [B, C_out, H/a_i, W/a_i]
            if i in path.laterals:
                r = path.laterals[i]
                x = x + self.laterals[str(r)](merged[r])  # Eq. 6
            if i in path.stage_ends:
                merged[i] = x
        outputs = {  # boxes are decoded in full precision
            s: self.outputs[str(s)](merged[path.outputs[s]]).float()
            for s in sorted(set(path.feature_strides))
        }
        return [outputs[s] for s in path.feature_strides]
