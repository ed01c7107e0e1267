"""Builds MSNAS's networks from the sections of a study file; what `method` imports when called."""

from __future__ import annotations

import dataclasses
from typing import Any

from msnas_optuna.methods.msnas.detector import ASPECT_RATIOS, Detector
from msnas_optuna.methods.msnas.encoder import MSNASEncoder
from msnas_optuna.methods.msnas.sections import DetectorSection, SpaceSection
from msnas_optuna.methods.msnas.single import SingleImageDetector
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.models.torchvision_parts import PIXEL_MEAN, PIXEL_STD

__all__ = ["SingleImageDetector", "detector", "facts"]


def detector(
    section: SpaceSection,
    settings: DetectorSection,
    *,
    n_classes: int,
    canonical_size: float,
    only: Architecture | None,
) -> Detector:
    """The detector of one architecture, or the supernet, with fresh weights.

    Args:
        section: of the encoder.
        settings: of anchors, proposals and heads.
        n_classes: of objects, without background.
        canonical_size: side in pixels of a RoI of level 4 in the routing rule.
        only: the architecture; None makes the supernet.
    """
    encoder = MSNASEncoder(
        section.n_blocks,
        section.block,
        channels=section.channels,
        stem_channels=section.stem_channels,
        norm=section.norm,
        only=only,
    )
    given = {**dataclasses.asdict(settings), "canonical_size": canonical_size}
    return Detector(encoder, n_classes, channels=section.channels, norm=section.norm, **given)


def facts(section: SpaceSection, settings: DetectorSection, network: Detector) -> dict[str, Any]:
    """Facts that using a stand-alone detector elsewhere takes."""
    heads, rpn, path = network.roi_heads, network.rpn, network.encoder.only
    assert path is not None
    return {
        "strides": list(path.strides),
        "feature_strides": list(path.feature_strides),
        "absolute_strides": list(path.absolute_strides),
        "block": section.block,
        "channels": section.channels,
        "stem_channels": section.stem_channels,
        "norm": section.norm,
        "pixel_mean": list(PIXEL_MEAN),
        "pixel_std": list(PIXEL_STD),
        "anchor_sides": [side for (side,) in rpn.anchor_generator.sizes],
        "anchor_aspect_ratios": list(ASPECT_RATIOS),
        "canonical_size": heads.box_roi_pool.canonical_size,
        "pool_size": settings.pool_size,
        "score_threshold": heads.score_thresh,
        "nms_iou": heads.nms_thresh,
        "max_detections": heads.detections_per_img,
        "proposals": settings.proposals_test,
        "proposal_nms_iou": rpn.nms_thresh,
    }
