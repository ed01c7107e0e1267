"""Stem, normalized convolutions, initialization. Shapes: B images, C channels, H x W cells."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from msnas_optuna.models import Norm

GROUP_CHANNELS: Final = 8  # of one normalization group, where 8 divides C


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose filters are standardized (Qiao et al., 2019), for group norm."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, H, W] -> [B, C_out, H', W']
        weight = self.weight.float()
        mean = weight.mean(dim=(1, 2, 3), keepdim=True)
        std = weight.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
        standardized = (weight - mean) / (std + 1e-5)
        return F.conv2d(x, standardized, self.bias, self.stride, self.padding)


def group_channels(C: int) -> int:
    """Channels of one normalization group: the divisor of C, at least 2, that is nearest to 8.

    Of two that are equally near it is the smaller. A group of one channel would turn a feature of
    one cell into zeros.
    """
    divisors = [d for d in range(2, C + 1) if C % d == 0]
    return min(divisors, key=lambda d: abs(d - GROUP_CHANNELS))


def conv_norm(C_in: int, C_out: int, *, kernel: int, norm: Norm, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its normalization."""
    padding = kernel // 2
    if norm == "batch":
        convolution = nn.Conv2d(C_in, C_out, kernel, stride, padding, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(C_out))
    standardized = StandardizedConv2d(C_in, C_out, kernel, stride, padding, bias=False)
    return nn.Sequential(standardized, nn.GroupNorm(C_out // group_channels(C_out), C_out))


class Stem(nn.Module):
    """7x7 convolution of stride 2 and 3x3 max-pool of stride 2: absolute stride 4."""

    def __init__(self, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.convolution = conv_norm(3, channels, kernel=7, stride=2, norm=norm)

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, C, H/4, W/4]
        x = F.relu(self.convolution(images), inplace=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def initialize(module: nn.Module) -> None:
    """He initialization of every convolution (fan out, ReLU); biases start at zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
