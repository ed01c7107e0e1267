"""Detections to COCO average precision.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014: precision at 101 recalls,
averaged over IoU .50, .55, .. .95 and categories, as pycocotools computes it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from msnas_optuna.data.images import ImageSet
from msnas_optuna.data.masks import area, encode, paste
from msnas_optuna.data.transforms import Batch, ResizedImages, evaluation_batches
from msnas_optuna.training.metrics import Measurements

Progress = Callable[[int, int], None]  # number of images done, and in all
EVALUATION_BATCH: Final = 16  # images of a forward pass


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The detections of one image, best first."""

    index: int  # position of the image in its data set
    boxes: Tensor  # [n, 4], x1 y1 x2 y2 in original pixels
    scores: Tensor  # [n], 0..1
    labels: Tensor  # [n], 1..K
    masks: Tensor | None = None  # [n, m, m], probabilities over the boxes


def coco_results(dataset: ImageSet, found: ImageDetections) -> list[dict[str, Any]]:
    """The detections of one image in COCO's result format, boxes as x y width height.

    Masks become run-length encodings of the image's pixels.

    Raises:
        ValueError: the lengths differ, a number is not finite, or a label is not in 1..K.
    """
    boxes, scores = found.boxes.detach().cpu().double(), found.scores.detach().cpu().double()
    labels = [int(label) for label in found.labels]
    image = dataset.records[found.index]
    if not len(boxes) == len(scores) == len(labels):
        raise ValueError(
            f"detections need one score and label per box, got {len(boxes)} boxes, "
            f"{len(scores)} scores, {len(labels)} labels"
        )
    if not (boxes.isfinite().all() and scores.isfinite().all()):
        raise ValueError(f"detections must be finite, got others for {image.path}")
    if not set(labels) <= set(range(1, dataset.n_classes + 1)):
        raise ValueError(f"labels must lie in 1..{dataset.n_classes}, got {sorted(set(labels))}")
    xywh = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)
    results: list[dict[str, Any]] = [
        {
            "image_id": image.id,
            "category_id": dataset.categories[label - 1].id,
            "bbox": bbox,
            "score": score,
        }
        for bbox, score, label in zip(xywh.tolist(), scores.tolist(), labels, strict=True)
    ]
    if found.masks is not None:
        size, masks = (image.height, image.width), found.masks.detach().cpu().double().numpy()
        for result, mask, box in zip(results, masks, boxes.tolist(), strict=True):
            result["segmentation"] = encode(paste(mask, box, size))
    return results


def average_precision(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    size_bounds: tuple[float, float] = (32.0, 96.0),
    max_detections: int = 100,
    kind: Literal["bbox", "segm"] = "bbox",
) -> Measurements:
    """COCO's metrics of results (see `coco_results`) against a COCO dict; neither is changed.

    Those of boxes, or of the masks of all results and annotations, "segm".

    Medium and large objects begin at `size_bounds`: side in pixels of the square with the `area`
    of the annotation. Of each image and category the best `max_detections` count.

    Returns:
        "ap" (the mean over IoU .50 to .95), "ap50", "ap75", "ap_small", "ap_medium" and
        "ap_large", in [0, 1], unrounded; without sizes that the ground truth has no objects of.

    Raises:
        ValueError: there is no object to find, a result names an unknown image, or a number is
            out of range.
    """
    if not 0 < size_bounds[0] <= size_bounds[1]:
        raise ValueError(f"size_bounds must be positive and in order, got {size_bounds}")
    if max_detections < 1:
        raise ValueError(f"max_detections must be positive, got {max_detections}")
    if all(a.get("iscrowd", 0) for a in ground_truth["annotations"]):
        raise ValueError(
            f"average precision needs objects to find, got {len(ground_truth['images'])} images "
            f"without any that is not a crowd; evaluate on images with objects"
        )
    unknown = {r["image_id"] for r in results} - {image["id"] for image in ground_truth["images"]}
    if unknown:
        raise ValueError(
            f"results must name images of the ground truth, got image_id {min(unknown)}; "
            f"evaluate on the data set that was detected on"
        )
    with_area = [{**r, "area": _area(r, kind)} for r in results]
    evaluator = _pycocotools("cocoeval").COCOeval(
        _indexed(ground_truth, ground_truth["annotations"]),
        _indexed(ground_truth, with_area),
        kind,
    )
    small, medium = (bound**2 for bound in size_bounds)
    everything = 1e10
    evaluator.params.areaRng = [[0, everything], [0, small], [small, medium], [medium, everything]]
    evaluator.params.areaRngLbl = labels = ["all", "small", "medium", "large"]
    evaluator.params.maxDets = [max_detections]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0]  # [IoU, recall, category, size]
    parts = {"ap": precision[..., 0], "ap50": precision[0, ..., 0], "ap75": precision[5, ..., 0]}
    parts |= {f"ap_{size}": precision[..., i] for i, size in enumerate(labels) if i > 0}
    defined = {name: part[part > -1] for name, part in parts.items()}  # -1: no ground truth
    return {name: float(values.mean()) for name, values in defined.items() if values.size}


def _area(result: dict[str, Any], kind: str) -> float:
    """Square pixels of a box, or of a mask."""
    if kind == "segm":
        return float(area(result["segmentation"]))
    w, h = result["bbox"][2:]
    return float(w * h)


def _indexed(ground_truth: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> Any:
    """A pycocotools COCO object over copies of the annotations, which it adds keys to.

    Numbered from 1: COCOeval marks "not matched" by the id 0, and counts a match with it as false.
    """
    coco = _pycocotools("coco").COCO()
    coco.dataset = {
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": [
            {**a, "id": i, "iscrowd": a.get("iscrowd", 0)} for i, a in enumerate(annotations, 1)
        ],
    }
    coco.createIndex()
    return coco


@cache
def _pycocotools(name: str) -> ModuleType:
    """A private copy of a pycocotools module, whose print does nothing.

    Redirecting stdout would silence, with trials in threads even lose, everybody else's output.
    """
    spec = importlib.util.find_spec(f"pycocotools.{name}")
    if spec is None or spec.loader is None:
        raise ImportError(f"evaluation needs pycocotools.{name}; install pycocotools")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.print = lambda *_: None  # type: ignore[attr-defined]
    return module


@torch.no_grad()
def detect_batch(
    model: nn.Module, batch: Batch, *, device: torch.device, precision: Literal["bf16", "fp32"]
) -> list[ImageDetections]:
    """The detections of every image of a batch; see `detect`."""
    model.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        detections, _ = model(batch.images.to(device), batch.sizes)
    return [
        ImageDetections(
            index, batch.to_original(i, d["boxes"]), d["scores"], d["labels"], d.get("masks")
        )
        for i, (index, d) in enumerate(zip(batch.indices, detections, strict=True))
    ]


def detect(
    model: nn.Module,
    dataset: ResizedImages[ImageSet],
    *,
    device: torch.device,
    precision: Literal["bf16", "fp32"] = "bf16",
    workers: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The detections of every image, in order, in COCO's result format and original pixels.

    Those of an image do not depend on the other images, but for rounding. The
    `models.network.DetectionNetwork`, of one architecture, is put into evaluation mode;
    `progress` is called after every batch.
    """
    results: dict[int, list[dict[str, Any]]] = {}
    for batch in evaluation_batches(dataset, batch_size=EVALUATION_BATCH, workers=workers):
        for found in detect_batch(model, batch, device=device, precision=precision):
            results[found.index] = coco_results(dataset.dataset, found)
        if progress is not None:
            progress(len(results), len(dataset))
    return [result for index in sorted(results) for result in results[index]]
