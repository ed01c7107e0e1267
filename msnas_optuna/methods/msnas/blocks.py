"""The candidate blocks of a mixed block.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2.

Symbols: C channels of a block, s its stride. Shapes: B images, H x W cells.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from msnas_optuna.methods.msnas.cost import BOTTLENECK_EXPANSION
from msnas_optuna.methods.msnas.published import Block
from msnas_optuna.models import Norm
from msnas_optuna.models.blocks import conv_norm


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
