from __future__ import annotations

import numpy as np
import pytest

from msnas_optuna.training.evaluation import average_precision

N = 30


def scene(seed: int):
    """Objects of two classes, one of them a crowd, with detections around most of them."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, N + 1):
        for _ in range(rng.integers(4)):
            x, y, side = rng.uniform(0, 60, 3) + 4
            category, crowd = int(rng.integers(1, 3)), int(rng.random() < 0.1)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category,
                 "bbox": [x, y, side, side], "area": side**2, "iscrowd": crowd}
            )  # fmt: skip
            for _ in range(rng.integers(3)):
                near = np.array([x, y, side, side]) + rng.normal(0, 2, 4)
                results.append(
                    {"image_id": image, "category_id": category if rng.random() < 0.8 else 1,
                     "bbox": near.tolist(), "score": float(rng.random())}
                )  # fmt: skip
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    images = [{"id": i, "width": 128, "height": 128} for i in range(1, N + 1)]
    return {"images": images, "categories": categories, "annotations": annotations}, results


def repeated(ground_truth, results, drawn):
    """The images `drawn`, each under an id of its own, with their objects and detections."""
    new = dict(ground_truth, images=[], annotations=[])
    found = []
    for i, image in enumerate(drawn, 1):
        new["images"].append({"id": i, "width": 128, "height": 128})
        for entries, copies in (
            (ground_truth["annotations"], new["annotations"]),
            (results, found),
        ):
            copies += [{**e, "image_id": i} for e in entries if e["image_id"] == image + 1]
    return new, found


@pytest.mark.parametrize("seed", range(3))
def test_an_image_that_is_drawn_twice_counts_as_two_images(validation_noise, seed):
    ground_truth, results = scene(seed)
    categories = validation_noise.matched(ground_truth, results)
    drawn = np.random.default_rng(seed).integers(N, size=2 * N)
    for images in (np.arange(N), drawn):
        expected = average_precision(*repeated(ground_truth, results, images))["ap"]
        times = np.bincount(images, minlength=N)
        assert 0.1 < expected < 0.9
        assert validation_noise.weighted_ap(categories, times) == pytest.approx(expected, rel=1e-9)


def test_four_times_the_images_have_half_the_noise(validation_noise):
    categories = validation_noise.matched(*scene(0))
    few, many = (
        validation_noise.noise(categories, n, resamples=300, rng=np.random.default_rng(0))
        for n in (100, 400)
    )
    assert few / many == pytest.approx(2, rel=0.2)
