"""How well anchors fit the boxes of a data set, and the base size that fits them best.

Level g has anchors of base * 2^(g-1) pixels with ratios 1:2, 1:1 and 2:1 (Lin et al., CVPR 2017).
The criterion is the mean over all boxes, in pixels of the resized image, of the best IoU with an
anchor in the middle of the cells of the feature that its level reads: small anchors on a coarse
feature match the shape of small boxes, and miss them. n boxes, G levels of strides s_g in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.images import resized_size
from msnas_optuna.study.setting import Setting

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the boxes' sides
MOST_BOXES: Final = 20_000  # larger sets are judged by so many, evenly spread over the file

_RATIOS: Final = (0.5, 1.0, 2.0)  # height : width
_STEPS_PER_OCTAVE: Final = 12
_FINEST_LEVEL: Final = 2  # of the routing rule: that of the first level

_Boxes = npt.NDArray[np.float64]
_Sizes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnchorFit:
    """Best IoUs of boxes with the anchors of a base size."""

    base: float  # side in pixels of the first level's square anchor
    mean_iou: float  # over the boxes, 0..1
    at_half: float  # share of the boxes with at least 0.5, 0..1
    at_foreground: float  # likewise with 0.7, the RPN's threshold for a positive


@dataclass(frozen=True)
class AnchorReport:
    """Boxes of the training images and the anchors for them; pixels of the resized image."""

    boxes: int  # without crowds
    judged: int  # how many of them the fits rest on
    sides: dict[float, float]  # share of the boxes -> side, sqrt(w h), that so many stay below
    proposed: AnchorFit  # of the largest mean best IoU
    configured: AnchorFit  # of the study file
    canonical_size: float  # side of a RoI of level 4 in the routing rule
    routed: tuple[float, ...]  # share of the boxes that each level pools, small ones first


def anchor_report(setting: Setting, dataset: CocoDetection) -> AnchorReport | None:
    """The fit of a study's anchors; None where there are no anchors or no training boxes."""
    config = setting.config
    boxes = resized_boxes(dataset, *config.data.image_size)
    layout = setting.method.anchors(
        config.space, config.detector, image_size=config.data.image_size
    )
    if layout is None or not len(boxes):
        return None
    judged, strides, base = thin(boxes), layout.strides, layout.base
    sides = np.quantile(_sides(boxes), QUANTILES).tolist()
    return AnchorReport(
        boxes=len(boxes),
        judged=len(judged),
        sides=dict(zip(QUANTILES, sides, strict=True)),
        proposed=propose_base(judged, strides, configured=base),
        configured=fit(judged, strides, base=base),
        canonical_size=layout.canonical_size,
        routed=routed_shares(boxes, layout.canonical_size, levels=len(strides)),
    )


def resized_boxes(dataset: CocoDetection, shorter: int, longer: int) -> _Boxes:
    """Every object but crowds, x1 y1 x2 y2 in resized pixels, [n, 4]; see `resized_size`."""
    boxes = [np.zeros((0, 4))]
    for record in dataset.records:
        h, w = resized_size((record.height, record.width), shorter, longer)
        scale = np.array([w / record.width, h / record.height] * 2)
        boxes.append(record.boxes[~record.crowd] * scale)
    return np.concatenate(boxes)


def _sides(boxes: _Boxes) -> npt.NDArray[np.float64]:
    """sqrt(w h) of every box, [n]."""
    sides: npt.NDArray[np.float64] = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return sides


def thin(boxes: _Boxes) -> _Boxes:
    """At most `MOST_BOXES` of the boxes, evenly spread."""
    if len(boxes) <= MOST_BOXES:
        return boxes
    spread: _Boxes = boxes[np.linspace(0, len(boxes) - 1, MOST_BOXES).round().astype(int)]
    return spread


def anchor_shapes(base: float, levels: int) -> _Sizes:
    """Width and height of the anchors of G levels in pixels, whole as torchvision's, [G, 3, 2]."""
    root = np.sqrt(np.array(_RATIOS))
    sides = base * 2.0 ** np.arange(levels)
    exact = sides[:, None, None] * np.stack([1 / root, root], axis=1)
    rounded: _Sizes = 2 * np.round(exact / 2)  # torchvision rounds the corners
    return rounded


def fit(boxes: _Boxes, strides: Sequence[int], *, base: float) -> AnchorFit:
    """How well the anchors of a base size fit boxes, x1 y1 x2 y2 in pixels, [n, 4], n > 0."""
    sizes, centers = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    best = np.zeros(len(boxes))
    every_shape = anchor_shapes(base, len(strides))
    for stride, shapes in zip(strides, every_shape, strict=True):
        shift = np.abs(centers % stride - stride / 2)  # to the middle of the own cell
        for shape in shapes:
            overlap = np.minimum(np.minimum(sizes, shape), (sizes + shape) / 2 - shift).clip(0)
            common = overlap.prod(axis=1)
            union = sizes.prod(axis=1) + shape.prod() - common
            np.maximum(best, common / union, out=best)
    return AnchorFit(
        float(base), float(best.mean()), float((best >= 0.5).mean()), float((best >= 0.7).mean())
    )


def propose_base(boxes: _Boxes, strides: Sequence[int], *, configured: float) -> AnchorFit:
    """The base of the largest mean best IoU; of equal ones the nearest to the configured.

    Candidates are that one and whole pixels from 2 to the largest box, twelve or fewer to an
    octave. Boxes as in `fit`.
    """
    largest = max(float((boxes[:, 2:] - boxes[:, :2]).max()), 2.0)  # above, all are too large
    exponents = np.arange(int(np.log2(largest / 2) * _STEPS_PER_OCTAVE) + 2) / _STEPS_PER_OCTAVE
    bases = [*sorted(set(np.round(2 * 2.0**exponents).tolist())), configured]
    fits = [fit(boxes, strides, base=base) for base in bases]
    return max(fits, key=lambda f: (f.mean_iou, -abs(np.log2(f.base / configured))))


def routed_shares(boxes: _Boxes, canonical_size: float, *, levels: int) -> tuple[float, ...]:
    """Share of the boxes that each level pools, by FPN's rule (Lin et al., 2017, Eq. 1)."""
    level = np.floor(4 + np.log2(_sides(boxes) / canonical_size + 1e-6))
    group = (level - _FINEST_LEVEL).clip(0, levels - 1).astype(int)
    return tuple((np.bincount(group, minlength=levels) / len(boxes)).tolist())
