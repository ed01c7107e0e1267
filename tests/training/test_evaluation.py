"""Golden AP values, worked out by hand from COCO's definition, and the traps of pycocotools."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pycocotools.coco
import pytest
import torch
from PIL import Image

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.images import ImageSet, image_record
from msnas_optuna.data.transforms import ResizedImages, collate
from msnas_optuna.methods.msnas.single import SingleImageDetector
from msnas_optuna.training.evaluation import (
    ImageDetections,
    average_precision,
    coco_results,
    detect,
    detect_batch,
)


def truth(*boxes: list[float], images: int = 1, **extra: Any) -> dict[str, Any]:
    """A ground truth of category 7 with the boxes (x y width height) on image 0."""
    return {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [
            {
                "id": i,
                "image_id": 0,
                "category_id": 7,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                **extra,
            }
            for i, box in enumerate(boxes)
        ],
    }


def found(*boxes: list[float], score: float = 0.9, image_id: int = 0) -> list[dict[str, Any]]:
    return [{"image_id": image_id, "category_id": 7, "bbox": box, "score": score} for box in boxes]


A, B = [10.0, 10.0, 100.0, 100.0], [300.0, 200.0, 120.0, 110.0]
HALF = 51 / 101
"""AP of one hit for two objects: precision 1 at the 51 recalls 0, .01, .. .50 of 101, else 0."""


def test_a_perfect_detection_scores_one() -> None:
    """The object has id 0, by which COCOeval itself marks "not matched"."""
    metrics = average_precision(truth(A), found(A))
    assert metrics == pytest.approx({"ap": 1.0, "ap50": 1.0, "ap75": 1.0, "ap_large": 1.0})


def test_half_of_the_objects_score_51_of_101() -> None:
    assert average_precision(truth(A, B), found(A))["ap"] == pytest.approx(HALF)
    assert pytest.approx(0.504950495) == HALF


def test_a_false_detection_above_the_hit_halves_precision() -> None:
    results = found([400, 10, 50, 50], score=0.95) + found(A, score=0.9)
    assert average_precision(truth(A), results)["ap"] == pytest.approx(0.5)


def test_a_false_detection_below_the_hit_costs_nothing() -> None:
    results = found([400, 10, 50, 50], score=0.1) + found(A, score=0.9)
    assert average_precision(truth(A), results)["ap"] == pytest.approx(1.0)


def test_a_second_detection_of_an_object_is_false() -> None:
    results = found(A, score=0.9) + found(A, score=0.8) + found(B, score=0.7)
    # recall .5 at precision 1 (51 recalls), then recall 1 at precision 2/3 (50 recalls)
    expected = (51 + 50 * 2 / 3) / 101
    assert average_precision(truth(A, B), results)["ap"] == pytest.approx(expected)


def test_overlap_decides_at_which_thresholds_a_box_counts() -> None:
    # shifted by 18 of 100: IoU = 82 / 118 = 0.695, a hit at .50, .55, .60, .65
    metrics = average_precision(truth(A), found([28, 10, 100, 100]))
    assert (metrics["ap50"], metrics["ap75"]) == (pytest.approx(1.0), 0)
    assert metrics["ap"] == pytest.approx(0.4)


def test_no_detection_scores_zero() -> None:
    assert average_precision(truth(A), []) == {
        "ap": 0, "ap50": 0, "ap75": 0, "ap_large": 0,
    }  # fmt: skip


def test_the_wrong_category_scores_zero() -> None:
    ground_truth = truth(A)
    ground_truth["categories"].append({"id": 9, "name": "other"})
    wrong = [{**found(A)[0], "category_id": 9}]
    assert average_precision(ground_truth, wrong)["ap"] == 0


def test_categories_without_objects_do_not_count() -> None:
    ground_truth = truth(A)
    ground_truth["categories"].append({"id": 9, "name": "other"})
    assert average_precision(ground_truth, found(A))["ap"] == pytest.approx(1.0)


def test_detections_on_a_crowd_are_ignored() -> None:
    ground_truth = truth(A, B)
    ground_truth["annotations"][1]["iscrowd"] = 1
    results = found(B, score=0.99) + found(A, score=0.5)
    assert average_precision(ground_truth, results)["ap"] == pytest.approx(1.0)


def test_size_bounds_are_sides_of_squares_and_areas_those_of_the_annotations() -> None:
    ground_truth = truth([0, 0, 10, 10], [100, 100, 20, 20], [200, 200, 60, 60])
    results = found([0, 0, 10, 10], [200, 200, 60, 60])
    metrics = average_precision(ground_truth, results, size_bounds=(16, 40))
    sizes = (metrics["ap_small"], metrics["ap_medium"], metrics["ap_large"])
    assert sizes == (pytest.approx(1.0), 0, pytest.approx(1.0))
    coco = average_precision(ground_truth, results)
    assert coco["ap_small"] == pytest.approx(HALF)
    assert "ap_large" not in coco
    ground_truth["annotations"][2]["area"] = 30**2  # a thin object in a large box
    assert "ap_medium" not in average_precision(ground_truth, results)


def test_detections_beyond_the_maximum_do_not_count() -> None:
    results = found([400, 10, 50, 50], score=0.95) + found(A, score=0.9)
    assert average_precision(truth(A), results, max_detections=1)["ap"] == 0


def test_detections_on_images_without_objects_are_false() -> None:
    results = found(A, score=0.9, image_id=1) + found(A, score=0.8)
    assert average_precision(truth(A, images=2), results)["ap"] == pytest.approx(0.5)


def test_arguments_are_not_changed_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ground_truth, results = truth(A, B), found(A)
    before = copy.deepcopy((ground_truth, results))
    first = average_precision(ground_truth, results)
    assert (ground_truth, results) == before
    assert average_precision(ground_truth, results) == first
    assert capsys.readouterr() == ("", "")


def test_printing_of_others_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    average_precision(truth(A), found(A))
    pycocotools.coco.COCO().createIndex()
    assert "index created" in capsys.readouterr().out


@pytest.mark.parametrize("ground_truth", [truth(), truth(A, iscrowd=1)])
def test_a_ground_truth_without_objects_is_refused(ground_truth: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="average precision needs objects to find, got 1 images"):
        average_precision(ground_truth, [])


def test_results_for_an_unknown_image_are_refused() -> None:
    with pytest.raises(ValueError, match="got image_id 5"):
        average_precision(truth(A), found(A, image_id=5))


@pytest.mark.parametrize(
    "change", [{"size_bounds": (0, 5)}, {"size_bounds": (9, 5)}, {"max_detections": 0}]
)
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be positive"):
        average_precision(truth(A), [], **change)


# ---------------------------------------------------------------- results


@torch.no_grad()
def test_detections_depend_on_their_image_alone(tmp_path, random_detector, data) -> None:
    """In an evaluation with larger images, by itself, and in the program that is exported."""
    model, rng = random_detector("1 2 2 2 .5 .5 .5 | 4 8 16 32 32"), np.random.default_rng(0)
    sizes = [(96, 70), (128, 100), (64, 190), (60, 60), (190, 64), (128, 128), (96, 71)]
    for i, (w, h) in enumerate(sizes):
        noise = rng.integers(0, 256, (h, w, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    records = [image_record(tmp_path / f"{i}.png", i) for i in range(len(sizes))]
    images, seen = ResizedImages(ImageSet(records, data.categories * 2), 128, 192), []
    results = detect(
        model, images, device=torch.device("cpu"), precision="fp32",
        progress=lambda *done: seen.append(done),
    )  # fmt: skip
    assert [r["image_id"] for r in results] == sorted(r["image_id"] for r in results)
    assert seen[-1] == (7, 7)
    single = SingleImageDetector(model)
    for i in range(len(sizes)):
        batch = collate([images[i]])
        (alone,) = detect_batch(model, batch, device=torch.device("cpu"), precision="fp32")
        expected = coco_results(images.dataset, alone)
        exported = single(batch.images, torch.tensor(batch.sizes[0]))
        program = ImageDetections(i, batch.to_original(0, exported[0]), *exported[1:])
        assert len(expected) > 10
        for found_ in (
            [r for r in results if r["image_id"] == i],
            coco_results(images.dataset, program),
        ):
            assert [r["category_id"] for r in found_] == [r["category_id"] for r in expected]
            for a, b in zip(found_, expected, strict=True):
                assert a["score"] == pytest.approx(b["score"], abs=1e-4)
                assert a["bbox"] == pytest.approx(b["bbox"], abs=2e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoDetection:
    """Two images, ids 0 and 9; categories 1, 3 and 90."""
    folder = tmp_path_factory.mktemp("set")
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    content = {
        "images": [{"id": id, "file_name": "a.png", "width": 64, "height": 48} for id in (0, 9)],
        "categories": [{"id": id, "name": str(id)} for id in (90, 1, 3)],
        "annotations": [
            {"id": 0, "image_id": 9, "category_id": 90, "bbox": [4, 8, 16, 20]},
            {"id": 1, "image_id": 0, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 0, "category_id": 1, "bbox": [0, 0, 64, 48], "iscrowd": 1},
        ],
    }
    (folder / "set.json").write_text(json.dumps(content))
    return CocoDetection(folder, folder / "set.json")


def detections(index: int, boxes: Any, scores: Any, labels: Any) -> ImageDetections:
    return ImageDetections(index, *map(torch.as_tensor, (boxes, scores, labels)))


def test_results_have_original_ids_and_sizes(data: CocoDetection) -> None:
    boxes = torch.tensor([[4.0, 8.0, 20.0, 28.0], [0.0, 0.0, 1.0, 2.0]])
    before = boxes.tolist()
    results = coco_results(data, detections(1, boxes, [0.5, 0.25], [3, 1]))
    assert results == [
        {"image_id": 9, "category_id": 90, "bbox": [4, 8, 16, 20], "score": 0.5},
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 2], "score": 0.25},
    ]
    assert boxes.tolist() == before
    assert json.loads(json.dumps(results)) == results


def test_bfloat16_detections_with_gradient_are_fine(data: CocoDetection) -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], dtype=torch.bfloat16, requires_grad=True)
    (result,) = coco_results(data, detections(0, boxes, boxes[:, 2] / 8, [1]))
    assert (result["bbox"], result["score"]) == ([0, 0, 4, 4], 0.5)


def test_no_detections_give_no_results(data: CocoDetection) -> None:
    assert coco_results(data, detections(0, torch.empty((0, 4)), [], [])) == []


def test_the_targets_as_detections_score_one(data: CocoDetection) -> None:
    results = [
        result
        for i, record in enumerate(data.records)
        for result in coco_results(
            data,
            detections(
                i,
                record.boxes[~record.crowd],
                np.ones(int((~record.crowd).sum())),
                record.labels[~record.crowd],
            ),
        )
    ]
    assert average_precision(data.ground_truth, results)["ap"] == pytest.approx(1.0)


@pytest.mark.parametrize("label", [0, 4])
def test_labels_outside_the_classes_are_refused(data: CocoDetection, label: int) -> None:
    with pytest.raises(ValueError, match=rf"labels must lie in 1\.\.3, got \[{label}"):
        coco_results(data, detections(0, np.zeros((1, 4)), [1.0], [label]))


def test_detections_that_are_not_finite_are_refused(data: CocoDetection) -> None:
    with pytest.raises(ValueError, match="detections must be finite"):
        coco_results(data, detections(0, np.full((1, 4), np.nan), [1.0], [1]))


def test_detections_of_unequal_number_are_refused(data: CocoDetection) -> None:
    with pytest.raises(ValueError, match="got 2 boxes, 1 scores, 2 labels"):
        coco_results(data, detections(0, np.zeros((2, 4)), [1.0], [1, 1]))
