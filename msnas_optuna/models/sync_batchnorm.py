"""Batch norm over the batch of all processes, so that their number changes no result.

PyTorch's `SyncBatchNorm` has no CPU version; here is one. The statistics of the ranks are merged
as in Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
1979. Symbols: n values of a channel, m their mean, v their biased variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


def convert_sync_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """Turns every batch norm of a model into one over all ranks, in place; its state stays.

    Only a forward in training mode talks to the other ranks.
    """
    if device.type == "cuda":
        convert = cast("Callable[[nn.Module], nn.Module]", nn.SyncBatchNorm.convert_sync_batchnorm)
        return convert(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, CPUSyncBatchNorm2d.of(child))
    return model


class SumOverRanks(torch.autograd.Function):
    """The sum of every rank's tensor, through which gradients pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of the sum over the ranks of what each has made of the sum."""
        return SumOverRanks.forward(ctx, gradients[0].contiguous())


class CPUSyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all ranks, which must share a process group."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> CPUSyncBatchNorm2d:
        """One with the parameters and statistics, not copies of them, of a plain batch norm."""
        made = cls(norm.num_features, norm.eps, norm.momentum, device=torch.device("meta"))
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        if not self.training:
            return super().forward(input)
        x = input.float()
        n, mean, variance = self._merged_statistics(x)
        scale = self.weight * torch.rsqrt(variance + self.eps)  # [C]
        shift = self.bias - mean * scale
        y = x * scale[:, None, None] + shift[:, None, None]
        self._update_statistics(n, mean.detach(), variance.detach())
        return y.to(input.dtype)

    def _merged_statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """n, [1], m, [C], and v, [C], over all ranks, of this rank's x, [B, C, H, W]."""
        count = x.new_tensor([x.numel() / x.shape[1]], dtype=torch.float64)
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)  # [C], [C]
        m, v = mean.double(), variance.double()  # m² is to be taken away from a sum of squares
        sums = SumOverRanks.apply(torch.cat((count, count * m, count * (v + m**2))))
        n, total, squares = sums.split((1, len(m), len(m)))
        mean = total / n
        return n, mean.float(), (squares / n - mean**2).clamp(min=0).float()

    @torch.no_grad()
    def _update_statistics(self, n: Tensor, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        plain = 1 / int(self.num_batches_tracked)  # momentum None: a plain average
        momentum = plain if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (n / (n - 1)).float(), momentum)
