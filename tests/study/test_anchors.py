from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.transforms import ResizedImages
from msnas_optuna.methods.msnas.detector import ASPECT_RATIOS
from msnas_optuna.methods.msnas.heads import GroupRoIPool
from msnas_optuna.models.torchvision_parts import CenteredAnchorGenerator
from msnas_optuna.study import anchors
from msnas_optuna.study.anchors import (
    anchor_report,
    anchor_shapes,
    fit,
    propose_base,
    resized_boxes,
    routed_shares,
    thin,
)
from msnas_optuna.study.setting import Setting

STRIDES = (4, 8, 16, 32, 32)


def centered(*sizes, stride=32):
    """Boxes of these widths and heights in the middle of a cell of every finer stride's grid."""
    wh, center = np.array(sizes, float), 10 * stride + stride / 2
    return np.concatenate([center - wh / 2, center + wh / 2], axis=1)


def generator(base):
    return CenteredAnchorGenerator(
        sizes=tuple((base * 2**g,) for g in range(5)), aspect_ratios=(ASPECT_RATIOS,) * 5
    )


@pytest.mark.parametrize("base", [2.0, 5.0, 8.0, 12.0, 32.0, 20.5])
def test_shapes_are_those_of_the_detector(base):
    cells = torch.stack(generator(base).cell_anchors).numpy()
    assert anchor_shapes(base, 5) == pytest.approx(cells[..., 2:] - cells[..., :2])


def test_best_iou_is_that_of_all_anchors_on_their_grids():
    rng = np.random.default_rng(0)
    wh = np.exp(rng.uniform(1.5, 4.5, (50, 2)))
    start = rng.uniform(0, 256 - wh)
    boxes = np.concatenate([start, start + wh], axis=1)
    grids = [[256 // s, 256 // s] for s in STRIDES]
    steps = [[torch.tensor(s), torch.tensor(s)] for s in STRIDES]
    made = generator(12.0)
    every = torch.cat(made.grid_anchors(grids, steps)).double().numpy()  # [A, 4]
    low = np.maximum(boxes[:, None, :2], every[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], every[None, :, 2:])
    common = (high - low).clip(0).prod(axis=2)
    area = (every[:, 2:] - every[:, :2]).prod(axis=1)
    best = (common / (wh.prod(axis=1)[:, None] + area - common)).max(axis=1)
    found = fit(boxes, STRIDES, base=12.0)
    assert found.mean_iou == pytest.approx(best.mean())
    assert found.at_half == (best >= 0.5).mean()
    assert found.at_foreground == (best >= 0.7).mean()


def test_boxes_that_are_anchors_propose_their_base():
    boxes = np.concatenate(
        [centered((24 * 2**g, 24 * 2**g), stride=s) for g, s in enumerate(STRIDES)]
    )
    for configured in (5.0, 24.0, 100.0):
        best = propose_base(boxes, STRIDES, configured=configured)
        assert best == fit(boxes, STRIDES, base=24.0)
        assert (best.mean_iou, best.at_half, best.at_foreground) == (1.0, 1.0, 1.0)


def test_of_equal_bases_the_nearest_to_the_configured_is_proposed():
    boxes = centered((32, 32), stride=4)
    strides = (4,) * 5
    assert propose_base(boxes, strides, configured=8.0).base == 8
    assert propose_base(boxes, strides, configured=28.0).base == 32


def test_a_coarse_grid_asks_for_larger_anchors():
    rng = np.random.default_rng(2)
    start, wh = rng.uniform(0, 100, (1000, 2)), np.exp(rng.uniform(2, 4.5, (1000, 1)))
    boxes = np.concatenate([start, start + wh], axis=1)
    dense = propose_base(boxes, (1,) * 5, configured=8.0).base
    assert propose_base(boxes, STRIDES, configured=8.0).base > dense


def test_routing_is_that_of_the_detector():
    wh = np.exp(np.random.default_rng(1).uniform(0, 6.5, (400, 2)))
    boxes = np.concatenate([np.zeros_like(wh), wh], axis=1)
    groups = GroupRoIPool(5, 35.84).group_of(torch.from_numpy(boxes))
    shares = (np.bincount(groups, minlength=5) / 400).tolist()
    assert routed_shares(boxes, 35.84, levels=5) == tuple(shares)


def test_large_sets_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(anchors, "MOST_BOXES", 5)
    boxes = np.arange(84.0).reshape(21, 4)
    assert thin(boxes)[:, 0].tolist() == [0, 20, 40, 60, 80]
    assert len(thin(boxes[:3])) == 3


# ---------------------------------------------------------------------- data sets


def coco(folder, entries, *, size=(400, 200)):
    Image.new("RGB", size).save(folder / "a.png")
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": crowd}
        for i, (box, crowd) in enumerate(entries, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": annotations,
    }
    (folder / "a.json").write_text(json.dumps(content))
    return CocoDetection(folder, folder / "a.json")


def test_boxes_are_scaled_as_the_training_scales_them(tmp_path):
    dataset = coco(tmp_path, [([10, 20, 30, 40], 0), ([0, 0, 100, 100], 1), ([5, 5, 7, 9], 0)])
    boxes = resized_boxes(dataset, 100, 150)
    assert boxes == pytest.approx(ResizedImages(dataset, 100, 150)[0].boxes.numpy())
    assert len(boxes) == 2


def test_report_of_a_study(tiny, tmp_path):
    dataset = coco(tmp_path, [([8, 8, 16, 16], 0), ([16, 16, 64, 64], 0)], size=(128, 128))
    report = anchor_report(Setting.load(tiny), dataset)
    assert report is not None
    assert (report.boxes, report.judged) == (2, 2)
    assert (report.sides[0.0], report.sides[0.5], report.sides[1.0]) == (16, 40, 64)
    assert report.configured.base == 8
    assert report.proposed.mean_iou >= report.configured.mean_iou
    assert report.canonical_size == pytest.approx(224 * 128 / 800)
    assert sum(report.routed) == 1


def test_images_without_objects_ask_for_nothing(tiny, tmp_path):
    assert anchor_report(Setting.load(tiny), coco(tmp_path, [([0, 0, 9, 9], 1)])) is None
