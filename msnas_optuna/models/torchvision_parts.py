"""Parts of torchvision's Faster and Mask R-CNN, changed where a search needs them otherwise.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
NeurIPS 2015; He et al., "Mask R-CNN", ICCV 2017. The only file that inherits from torchvision's
private detection modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Generator, Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

PIXEL_MEAN: Final = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue in 0..1
PIXEL_STD: Final = (0.229, 0.224, 0.225)


def normalized(images: Tensor, sizes: Tensor, *, mean: Tensor, std: Tensor) -> Tensor:
    """Images [B, 3, H, W], uint8, with pixels of mean 0 and deviation 1, and padding of 0.

    `sizes` [B, 2] are height and width before padding, `mean` and `std` are [1, 3, 1, 1].
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)[:, None] < sizes[:, :1, None]  # [B, H, 1]
    columns = torch.arange(width, device=images.device) < sizes[:, 1:, None]  # [B, 1, W]
    return (images.float() / 255 - mean) / std * (rows & columns)[:, None]


class CenteredAnchorGenerator(AnchorGenerator):  # type: ignore[misc]
    """Anchors in the middle of their cell; torchvision puts them on its top-left corner."""

    def grid_anchors(  # -> [cells * A, 4] of every feature
        self, grid_sizes: list[list[int]], strides: list[list[Tensor]]
    ) -> list[Tensor]:
        corners: list[Tensor] = super().grid_anchors(grid_sizes, strides)
        return [
            anchors + torch.stack((width, height, width, height)) / 2
            for anchors, (height, width) in zip(corners, strides, strict=True)
        ]


class ImageWiseSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]
    """Draws the anchors or RoIs of each image from a generator of its own; None: the global one.

    torchvision draws those of all images from the global one, so that what an image gets depends
    on the images before it. `n_drawn` is how many the last call has drawn, over all images, and
    `n_positive` how many of these are positive.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__(batch_size_per_image, positive_fraction)
        self.generators: Sequence[Generator] | None = None
        self.n_drawn = self.n_positive = 0

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the positive and of the negative ones that were drawn in each image."""
        generators = self.generators or (None,) * len(matched_idxs)
        self.n_drawn = self.n_positive = 0
        masks: tuple[list[Tensor], list[Tensor]] = ([], [])
        for matches, generator in zip(matched_idxs, generators, strict=True):
            left = int(self.batch_size_per_image * self.positive_fraction)
            for found, candidates in zip(masks, (matches >= 1, matches == 0), strict=True):
                (places,) = torch.where(candidates)
                order = torch.randperm(len(places), generator=generator, device=matches.device)
                mask = torch.zeros_like(matches, dtype=torch.uint8)
                mask[places[order[:left]]] = 1
                found.append(mask)
                n = min(len(places), left)
                self.n_drawn += n
                left = self.batch_size_per_image - n
            self.n_positive += int(masks[0][-1].sum())
        return masks


class MaskPredictor(MaskRCNNPredictor):  # type: ignore[misc]
    """Mask logits of every RoI and class, with background, in full precision."""

    def forward(self, x: Tensor) -> Tensor:  # [R, C, p, p] -> [R, K+1, 2p, 2p]
        logits: Tensor = super().forward(x)
        return logits.float()
