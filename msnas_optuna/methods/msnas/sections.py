"""[space] and [detector] of a study file for MSNAS (§3.2-3.3, §4.1)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from msnas_optuna.methods.base import CHECKED, PositiveInt
from msnas_optuna.methods.msnas.published import Block
from msnas_optuna.methods.msnas.space import FeatureStrides, MSNASSpace
from msnas_optuna.models import Norm

CANONICAL_SIZE: Final = 224 / 800  # RoI of level 4 by shorter side of the image (Lin et al., 2017)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SpaceSection:
    """[space]: N mixed blocks with C channels (§3.2, §4.1).

    Attributes:
        method: name of the method.
        n_blocks: N.
        block: residual block of every candidate.
        channels: C.
        stem_channels: channels of the stem's output.
        norm: "batch", or "group" (of 8 channels, or the divisor of C nearest to it, with weight
            standardization) for very small batches.
        feature_strides: "searched", or "fpn": the heads read 4, 8, 16, 32 and 64 as FPN's do, and
            the encoder alone is searched (Table 2).
        constraints: Eq. 7 limits the feature strides; without it, heads read whatever feature the
            encoder has (Table 3).
        unread_blocks: architectures may end in blocks that no head reads, as in the paper; false
            leaves those out, whose last blocks cost FLOPs and do nothing.
    """

    method: Literal["msnas"] = "msnas"
    n_blocks: Annotated[int, Field(ge=3, le=32)]
    block: Block = "basic"
    channels: Annotated[int, Field(ge=4, le=2048)]
    stem_channels: Annotated[int, Field(ge=4, le=2048)] = 64
    norm: Norm = "batch"
    feature_strides: FeatureStrides = "searched"
    constraints: bool = True
    unread_blocks: bool = True

    def __post_init__(self) -> None:
        self.space()

    def space(self) -> MSNASSpace:
        """The space of these settings; ValueError for one that holds nothing."""
        return MSNASSpace(
            self.n_blocks, self.feature_strides, self.constraints, self.unread_blocks
        )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DetectorSection:
    """[detector]: anchors, proposals and heads; see `detector.Detector`.

    Attributes:
        anchor_base: side in pixels of the first group's square anchor, in the resized image.
        canonical_size: side of a RoI of level 4 in the routing rule; the default is 224 in
            proportion to the shorter side of 800.
        masks: detect an instance mask with every box (Table 6); the annotations need outlines.
        mask_pool_size: cells of a RoI that is pooled for its mask, which has twice as many.
        mask_channels: channels of the mask head's convolutions.
        mask_convolutions: how many 3x3 convolutions the mask head has.
    """

    anchor_base: Annotated[float, Field(gt=0)] = 32.0
    canonical_size: Annotated[float, Field(gt=0)] | None = None
    share_rpn_convolution: bool = False
    rpn_batch: PositiveInt = 256
    roi_batch: PositiveInt = 512
    proposals_train: PositiveInt = 2000
    proposals_test: PositiveInt = 1000
    pool_size: PositiveInt = 7
    hidden: PositiveInt = 1024
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_detections: PositiveInt = 100
    masks: bool = False
    mask_pool_size: PositiveInt = 14
    mask_channels: PositiveInt = 256
    mask_convolutions: PositiveInt = 4


def canonical_size(detector: DetectorSection, image_size: tuple[int, int]) -> float:
    """Side in pixels, in the resized image, of a RoI of level 4 in the routing rule."""
    given = detector.canonical_size
    return CANONICAL_SIZE * image_size[0] if given is None else given
