"""The detector: encoder, RPN and RoI heads around torchvision's parts (§3.3, §4.1, Table 6).

`MultiScaleRoIAlign` is replaced by `GroupRoIPool`: it caches the scales of its first forward and
takes the levels for consecutive, which a path that reads one stride twice breaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Generator, Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from msnas_optuna.methods.msnas import heads
from msnas_optuna.methods.msnas.baselines import ResNetFPN
from msnas_optuna.methods.msnas.encoder import MSNASEncoder
from msnas_optuna.methods.msnas.space import N_GROUPS, Architecture
from msnas_optuna.models import Norm
from msnas_optuna.models.network import DetectionNetwork, Losses, Targets
from msnas_optuna.models.torchvision_parts import (
    PIXEL_MEAN,
    PIXEL_STD,
    CenteredAnchorGenerator,
    ImageWiseSampler,
    MaskPredictor,
    normalized,
)

ASPECT_RATIOS: Final = (0.5, 1.0, 2.0)


class Detector(DetectionNetwork):
    """Faster or Mask R-CNN whose object groups read the features that the architecture says.

    The path is an argument of `forward`, so that one detector serves as supernet; built around
    a stand-alone encoder it is one architecture alone.

    Args:
        encoder: gives one feature with `channels` channels for every object group.
        n_classes: without background.
        anchor_base: pixels; the square anchor of group g has sides of anchor_base * 2^(g-1).
        canonical_size: side in pixels of a RoI of level 4 in the routing rule.
        share_rpn_convolution: one 3x3 in the RPN head for all groups.
        rpn_batch: anchors of an image that enter the RPN loss.
        roi_batch: RoIs of an image that enter the box loss, a quarter of them positive.
        proposals_train: of a group before, and of an image after, NMS in training.
        proposals_test: likewise in evaluation.
        pool_size: cells of a pooled RoI in each direction.
        masks: an instance mask for every detection (Table 6).
        mask_pool_size: cells of a RoI that is pooled for its mask, which has twice as many.
        mask_channels: of the mask head's 3x3 convolutions.
        mask_convolutions: how many there are.
    """

    def __init__(
        self,
        encoder: MSNASEncoder | ResNetFPN,
        n_classes: int,
        *,
        channels: int,
        norm: Norm,
        anchor_base: float,
        canonical_size: float,
        share_rpn_convolution: bool = False,
        rpn_batch: int = 256,
        roi_batch: int = 512,
        proposals_train: int = 2000,
        proposals_test: int = 1000,
        pool_size: int = 7,
        hidden: int = 1024,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        masks: bool = False,
        mask_pool_size: int = 14,
        mask_channels: int = 256,
        mask_convolutions: int = 4,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        proposals = {"training": proposals_train, "testing": proposals_test}
        self.rpn = RegionProposalNetwork(
            CenteredAnchorGenerator(
                sizes=tuple((anchor_base * 2**g,) for g in range(N_GROUPS)),
                aspect_ratios=(ASPECT_RATIOS,) * N_GROUPS,
            ),
            heads.GroupRPNHead(channels, share_convolution=share_rpn_convolution),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=rpn_batch,
            positive_fraction=0.5,
            pre_nms_top_n=proposals,
            post_nms_top_n=proposals,
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            heads.GroupRoIPool(pool_size, canonical_size),
            heads.BoxHead(channels, pool_size, hidden=hidden, norm=norm),
            heads.BoxPredictor(hidden, n_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=roi_batch,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=0.5,
            detections_per_img=max_detections,
        )
        if masks:
            self.roi_heads.mask_roi_pool = heads.GroupRoIPool(mask_pool_size, canonical_size)
            widths = [mask_channels] * mask_convolutions
            self.roi_heads.mask_head = MaskRCNNHeads(channels, widths, 1)
            self.roi_heads.mask_predictor = MaskPredictor(
                mask_channels, mask_channels, n_classes + 1
            )
        self.rpn.fg_bg_sampler = ImageWiseSampler(rpn_batch, 0.5)
        self.roi_heads.fg_bg_sampler = ImageWiseSampler(roi_batch, 0.25)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        *,
        targets: Targets | None = None,
        architecture: Architecture | None = None,
        generators: Sequence[Generator] | None = None,
    ) -> tuple[list[dict[str, Tensor]], Losses]:
        """See `DetectionNetwork.forward`; H and W are multiples of 64.

        The losses are four, or five with masks.
        """
        strides = self.encoder.feature_strides(architecture)
        self.rpn.fg_bg_sampler.generators = generators
        self.roi_heads.fg_bg_sampler.generators = generators
        unpadded = torch.tensor(sizes, device=images.device)  # [B, 2]
        x = normalized(images, unpadded, mean=self.mean, std=self.std)
        x = x.contiguous(memory_format=torch.channels_last)
        features = heads.GroupFeatures(self.encoder(x, architecture), strides)
        proposals, rpn_losses = self.rpn(ImageList(x, list(sizes)), features, targets)
        detections, roi_losses = self.roi_heads(features, proposals, list(sizes), targets)
        for found in detections if self.roi_heads.has_mask() else ():
            found["masks"] = found["masks"][:, 0]  # [n, 1, m, m] -> [n, m, m]
        return detections, {**rpn_losses, **roi_losses}

    @property
    def n_drawn(self) -> dict[str, int]:
        """How many anchors or RoIs each loss of the last batch is a mean over.

        The loss of the masks is one over the positive RoIs; there may be none.
        """
        anchors, rois = self.rpn.fg_bg_sampler.n_drawn, self.roi_heads.fg_bg_sampler.n_drawn
        positive = self.roi_heads.fg_bg_sampler.n_positive
        masks = {"loss_mask": positive} if self.roi_heads.has_mask() else {}
        return {
            "loss_objectness": anchors,
            "loss_rpn_box_reg": anchors,
            "loss_classifier": rois,
            "loss_box_reg": rois,
            **masks,
        }
