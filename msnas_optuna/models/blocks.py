"""The parts that encoders and heads are made of: stem, residual blocks and normalisation.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2.

Symbols: C channels of a block, a absolute stride in pixels. Shapes: B images, H x W cells.
"""

from __future__ import annotations

import math
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from msnas_optuna.models import BOTTLENECK_EXPANSION, Block, Norm

GROUP_CHANNELS: Final = 8
"""Channels of one normalisation group, where they divide C."""


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters are standardised (Qiao et al., 2019), for group norm."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C_out, H', W']
        weight = self.weight.float()
        mean = weight.mean(dim=(1, 2, 3), keepdim=True)
        std = weight.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
        standardised = (weight - mean) / (std + 1e-5)
        return F.conv2d(x, standardised, self.bias, self.stride, self.padding)


def normalised(C_in: int, C_out: int, *, kernel: int, norm: Norm, stride: int = 1) -> nn.Module:
    """A convolution without bias and its normalisation."""
    padding = kernel // 2
    if norm == "batch":
        convolution = nn.Conv2d(C_in, C_out, kernel, stride, padding, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(C_out))
    groups = math.gcd(C_out, max(C_out // GROUP_CHANNELS, 1))
    standardised = StandardisedConv2d(C_in, C_out, kernel, stride, padding, bias=False)
    return nn.Sequential(standardised, nn.GroupNorm(groups, C_out))


class Stem(nn.Module):
    """7x7 convolution of stride 2 and 3x3 max-pool of stride 2: absolute stride 4."""

    def __init__(self, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.convolution = normalised(3, channels, kernel=7, stride=2, norm=norm)

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, C, H/4, W/4]
        x = F.relu(self.convolution(images), inplace=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


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
                normalised(C_in, channels, kernel=3, stride=step, norm=norm),
                nn.ReLU(inplace=True),
                normalised(channels, C_out, kernel=3, norm=norm),
            ]
        else:
            layers = [
                normalised(C_in, channels, kernel=1, norm=norm),
                nn.ReLU(inplace=True),
                normalised(channels, channels, kernel=3, stride=step, norm=norm),
                nn.ReLU(inplace=True),
                normalised(channels, C_out, kernel=1, norm=norm),
            ]
        self.residual = nn.Sequential(*layers)
        keeps_shape = stride == 1 and C_in == C_out
        self.shortcut: nn.Module = (
            nn.Identity()
            if keeps_shape
            else normalised(C_in, C_out, kernel=1, stride=step, norm=norm)
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C_out, H/s, W/s]
        if self.doubles:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution (fan out, ReLU); biases start at zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
