"""Detection heads of the object groups: RPN head, RoI routing and box head (§3.3).

Object group g reads the feature of stride s_g and has a detection head of its own.
Symbols: G object groups, A = 3 anchors at a position, C channels. Shapes: B images, R RoIs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from msnas_optuna.methods.msnas.cost import ANCHORS_PER_CELL
from msnas_optuna.methods.msnas.space import N_GROUPS
from msnas_optuna.models import Norm
from msnas_optuna.models.blocks import conv_norm, initialize

FINEST_LEVEL = 2  # k of the finest object group in FPN's rule (Lin et al., 2017, Eq. 1)


class GroupFeatures(OrderedDict[str, Tensor]):
    """One feature [B, C, H/s_g, W/s_g] of each object group, finest first; some may be equal."""

    def __init__(self, features: Sequence[Tensor], strides: Sequence[int]) -> None:
        super().__init__((str(g), feature) for g, feature in enumerate(features))
        self.strides = tuple(strides)


class GroupRPNHead(nn.Module):
    """An RPN head for every object group: 3x3 convolution, objectness and box deltas.

    Two groups that read one feature need different outputs for their different anchors; only the
    3x3 convolution may be shared.
    """

    def __init__(self, channels: int, *, share_convolution: bool = False) -> None:
        super().__init__()
        n_convolutions = 1 if share_convolution else N_GROUPS
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(n_convolutions)
        )
        self.objectness = nn.ModuleList(
            nn.Conv2d(channels, ANCHORS_PER_CELL, 1) for _ in range(N_GROUPS)
        )
        self.deltas = nn.ModuleList(
            nn.Conv2d(channels, 4 * ANCHORS_PER_CELL, 1) for _ in range(N_GROUPS)
        )
        initialize(self.convolutions)
        for output in (*self.objectness, *self.deltas):
            nn.init.normal_(output.weight, std=0.01)
            nn.init.zeros_(output.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness [B, A, H/s_g, W/s_g] and deltas [B, 4A, H/s_g, W/s_g] of each group."""
        objectness, deltas = [], []
        for g, feature in enumerate(features):
            convolution = self.convolutions[g % len(self.convolutions)]
            x = F.relu(convolution(feature), inplace=True)
            objectness.append(self.objectness[g](x).float())
            deltas.append(self.deltas[g](x).float())
        return objectness, deltas


class GroupRoIPool(nn.Module):
    """RoIAlign from the feature of the object group that a RoI belongs to (§3.3, Fig. 2b).

    `canonical_size` is the side in pixels of a RoI of level 4 (224 at 800x1333, in proportion to
    the input elsewhere).
    """

    def __init__(self, output_size: int, canonical_size: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.canonical_size = canonical_size

    def group_of(self, boxes: Tensor) -> Tensor:
        """0-based object group [R] of boxes [R, 4] (x1, y1, x2, y2)."""
        sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        level = torch.floor(4 + torch.log2(sides / self.canonical_size + 1e-6))  # FPN, Eq. 1
        return (level - FINEST_LEVEL).clamp(0, N_GROUPS - 1).long()

    def forward(
        self, features: GroupFeatures, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Pools RoIs [R_b, 4] of every image to [R, C, output_size, output_size]."""
        images = [p.new_full((len(p), 1), float(b)) for b, p in enumerate(proposals)]
        rois = torch.cat([torch.cat(images), torch.cat(proposals)], dim=1)
        return self.pool([*features.values()], features.strides, rois)

    def pool(self, features: Sequence[Tensor], strides: Sequence[int], rois: Tensor) -> Tensor:
        """Pools RoIs [R, 5] (image, x1, y1, x2, y2) to [R, C, output_size, output_size]."""
        read = torch.tensor(strides, device=rois.device)[self.group_of(rois[:, 1:])]
        side = self.output_size
        pooled = features[0].new_zeros(rois.shape[0], features[0].shape[1], side, side)
        for stride, feature in dict(zip(strides, features, strict=True)).items():
            (chosen,) = torch.where(read == stride)
            part = roi_align(
                feature, rois[chosen], side,
                spatial_scale=1 / stride, sampling_ratio=2, aligned=True,
            )  # fmt: skip
            pooled = pooled.index_put((chosen,), part)
        return pooled


class BoxHead(nn.Module):
    """The paper's "2 conv + 1 fc" (§4.1), with normalized convolutions and `hidden` outputs."""

    def __init__(self, channels: int, pool_size: int, *, hidden: int, norm: Norm) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_norm(channels, channels, kernel=3, norm=norm),
            nn.ReLU(inplace=True),
            conv_norm(channels, channels, kernel=3, norm=norm),
            nn.ReLU(inplace=True),
        )
        self.linear = nn.Linear(channels * pool_size**2, hidden)
        initialize(self.convolutions)
        nn.init.kaiming_uniform_(self.linear.weight, a=math.sqrt(5))

    def forward(self, pooled: Tensor) -> Tensor:  # [R, C, p, p] -> [R, hidden]
        return F.relu(self.linear(self.convolutions(pooled).flatten(1)), inplace=True)


class BoxPredictor(nn.Module):
    """Class scores and per-class box deltas of every RoI, in full precision."""

    def __init__(self, hidden: int, n_classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden, n_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * (n_classes + 1))
        for linear, std in ((self.scores, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [R, hidden] -> [R, K+1], [R, 4(K+1)]
        return self.scores(x).float(), self.deltas(x).float()
