"""How many validation images a study of generated shapes needs: the noise of its AP.

python benchmarks/validation_noise.py STUDY.toml run/retrained/NAME.pt [--images 2000]

A trained detector is evaluated on fresh images, of the study's settings but another seed. Its COCO
AP is then bootstrapped over images (Efron and Tibshirani, "An Introduction to the Bootstrap",
1993): n of them are drawn with replacement, one that is drawn twice counts twice, and the
standard deviation over the draws is the sampling noise of a validation set of n images.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.shapes import CLASSES, generate_shapes
from msnas_optuna.data.transforms import ResizedImages
from msnas_optuna.study.config import StudyConfig, load_config
from msnas_optuna.training.evaluation import detect

SIZES = (150, 300, 600, 1000, 1500, 2000)
WANTED = 0.5  # AP points of sampling noise that a validation set may have
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class _Category:
    """The d detections of one category on all N images, best first, and its objects."""

    image: npt.NDArray[np.int64]  # [d]
    true: npt.NDArray[np.bool_]  # [10, d], matches an object, for each IoU
    counted: npt.NDArray[np.bool_]  # [10, d], is no crowd's
    objects: npt.NDArray[np.int64]  # [N], in each image


def matched(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> list[_Category]:
    """The matches of COCO results, which do not depend on which other images there are."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(list(results)), "bbox")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.maxDets = [100]
        evaluator.evaluate()
    n = len(evaluator.params.imgIds)
    found = []
    for k in range(len(evaluator.params.catIds)):
        images = [(i, e) for i, e in enumerate(evaluator.evalImgs[k * n : (k + 1) * n]) if e]
        objects = np.zeros(n, np.int64)
        for i, e in images:
            objects[i] = np.count_nonzero(~np.asarray(e["gtIgnore"], bool))
        order = np.argsort(-np.concatenate([e["dtScores"] for _, e in images]), kind="stable")
        image = np.concatenate([np.full(len(e["dtScores"]), i) for i, e in images])
        match = np.concatenate([e["dtMatches"] for _, e in images], axis=1) > 0
        counted = ~np.concatenate([e["dtIgnore"] for _, e in images], axis=1).astype(bool)
        found.append(
            _Category(image[order], (match & counted)[:, order], counted[:, order], objects)
        )
    return found


def weighted_ap(categories: Sequence[_Category], times: npt.NDArray[np.int64]) -> float:
    """COCO AP in [0, 1] of a set in which each of N images lies `times` [N] times."""
    parts = []
    for category in categories:
        if not (objects := int(times @ category.objects)):
            continue
        weight = times[category.image]
        true = np.cumsum(weight * category.true, axis=1)
        counted = np.cumsum(weight * category.counted, axis=1)
        precision = true / np.maximum(counted, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for recall, row in zip(true / objects, precision, strict=True):
            place = np.searchsorted(recall, _RECALLS)
            parts.append(np.append(row, 0.0)[place].mean())
    return float(np.mean(parts))


def noise(
    categories: Sequence[_Category], n: int, *, resamples: int, rng: np.random.Generator
) -> float:
    """Standard deviation of the AP of n images, in AP points."""
    pool = len(categories[0].objects)
    draws = (np.bincount(rng.integers(pool, size=n), minlength=pool) for _ in range(resamples))
    return 100 * float(np.std([weighted_ap(categories, times) for times in draws], ddof=1))


def detections(
    config: StudyConfig, checkpoint: Path, *, images: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and COCO results of a checkpoint's detector on fresh images."""
    shapes, method = config.data.shapes, config.method
    if shapes is None or shapes.seed == seed:
        raise SystemExit(f"the study needs [data.shapes] of another seed than {seed}")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = method.build_detector(
        config.space,
        config.detector,
        n_classes=len(CLASSES),
        image_size=config.data.image_size,
        only=method.parse(content["fingerprint"]["architecture"]),
    )
    model.load_state_dict(content["model"])
    with tempfile.TemporaryDirectory() as folder:
        fresh = replace(shapes, train=1, val=images, test=1, seed=seed)
        split = generate_shapes(Path(folder), fresh)["val"]
        data = CocoDetection(split.images, split.annotations)
        results = detect(
            model,
            ResizedImages(data, *config.data.image_size),
            device=torch.device("cpu"),
            precision=config.runtime.precision,
        )
        return data.ground_truth, results


def main() -> None:
    """Prints the noise of each size of a validation set, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="study file with [data.shapes]")
    parser.add_argument("checkpoint", type=Path, help="of a retrained detector")
    parser.add_argument("--images", type=int, default=2000, help="fresh images")
    parser.add_argument("--seed", type=int, default=1000, help="of the fresh images")
    parser.add_argument("--resamples", type=int, default=500, help="of each size, at least 2")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    config = load_config(arguments.study)
    torch.set_num_threads(config.runtime.threads or torch.get_num_threads())
    ground_truth, results = detections(
        config, arguments.checkpoint, images=arguments.images, seed=arguments.seed
    )
    categories, rng = matched(ground_truth, results), np.random.default_rng(arguments.seed)
    ap = 100 * weighted_ap(categories, np.ones(arguments.images, np.int64))
    found = {n: noise(categories, n, resamples=arguments.resamples, rng=rng) for n in SIZES}
    enough = next((n for n in SIZES if found[n] < WANTED), None)
    if arguments.json:
        print(json.dumps({"ap": ap, "noise": found, "enough": enough}, indent=2))
        return
    print(f"AP {ap:.2f} on {arguments.images} fresh images\n\nimages  standard deviation, AP")
    for n, deviation in found.items():
        print(f"{n:6}  {deviation:.3f}")
    said = "no size here is" if enough is None else f"{enough} images are"
    print(f"\n{said} enough for a standard deviation below {WANTED} AP")


if __name__ == "__main__":
    main()
