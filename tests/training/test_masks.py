"""Instance masks through a whole study, and COCO's AP of them by the real pycocotools."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from pycocotools import mask as mask_coding
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.masks import area, compressed, decode
from msnas_optuna.data.shapes import ShapesSettings, generate_shapes
from msnas_optuna.data.transforms import collate
from msnas_optuna.report.drawing import draw_boxes
from msnas_optuna.report.overview import Overview
from msnas_optuna.runtime.distributed import Ranks
from msnas_optuna.storage import read_record
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import select
from msnas_optuna.study.view import StudyView
from msnas_optuna.training.evaluation import ImageDetections, average_precision, coco_results
from msnas_optuna.training.loop import reduce


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoDetection:
    wanted = ShapesSettings(train=1, val=12, test=1, size=96, extent=(30, 60), objects=(1, 3))
    split = generate_shapes(tmp_path_factory.mktemp("shapes"), wanted)["val"]
    return CocoDetection(split.images, split.annotations, masks=True)


def perfect(data: CocoDetection, index: int, *, m: int = 56) -> ImageDetections:
    """The outlines of an image as a network would give them: cells over boxes."""
    annotations = [
        a for a in data.ground_truth["annotations"] if a["image_id"] == data.records[index].id
    ]
    coco = COCO()
    coco.dataset = data.ground_truth
    coco.createIndex()
    masks = []
    for a in annotations:
        x, y, w, h = map(int, a["bbox"])
        cut = Image.fromarray(coco.annToMask(a)[y : y + h, x : x + w] * np.uint8(255))
        masks.append(np.asarray(cut.resize((m, m), Image.Resampling.BILINEAR)) / 255)
    record = data.records[index]
    return ImageDetections(
        index,
        torch.tensor(record.boxes),
        torch.ones(len(masks)),
        torch.tensor(record.labels),
        torch.from_numpy(np.array(masks)),
    )


def test_perfect_masks_score_one_and_coco_agrees(
    shapes: CocoDetection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = (perfect(shapes, i) for i in range(len(shapes)))
    results = [r for one in found for r in coco_results(shapes, one)]
    assert json.loads(json.dumps(results)) == results
    ours = average_precision(shapes.ground_truth, results, kind="segm")
    assert ours["ap"] == pytest.approx(1.0)
    (tmp_path / "results.json").write_text(json.dumps(results))
    theirs = COCO(shapes.annotations)
    evaluator = COCOeval(theirs, theirs.loadRes(str(tmp_path / "results.json")), "segm")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    capsys.readouterr()
    assert evaluator.stats[0] == pytest.approx(ours["ap"])


@settings(max_examples=25)
@given(st.data())
def test_the_mask_of_any_rectangle_scores_one(data: st.DataObject) -> None:
    x, y = (data.draw(st.integers(0, 30)) for _ in "xy")
    w, h = (2 * data.draw(st.integers(1, 15)) for _ in "wh")
    truth = truth_of(x, y, w, h)
    box = torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32)
    cells = torch.ones((1, 28, 28))
    results = results_of(box, cells)
    assert average_precision(truth, results, kind="segm")["ap"] == pytest.approx(1.0)
    cells[:, :, 14:] = 0.0  # the left half: an IoU of a half, right at the first of ten
    half = average_precision(truth, results_of(box, cells), kind="segm")
    assert half["ap"] == pytest.approx(0.1)
    assert average_precision(truth, results_of(box, cells))["ap"] == pytest.approx(1.0)


def truth_of(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "images": [{"id": 0, "width": 64, "height": 62}],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [
            {
                "id": 0, "image_id": 0, "category_id": 7, "iscrowd": 0, "area": w * h,
                "bbox": [x, y, w, h], "segmentation": outline,
            }
        ],
    }  # fmt: skip


def results_of(box: torch.Tensor, cells: torch.Tensor) -> list[dict[str, Any]]:
    from msnas_optuna.data.images import Category, ImageRecord, ImageSet

    none = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_)
    images = ImageSet([ImageRecord(0, Path("a.png"), 64, 62, *none)], [Category(7, "thing")])
    one = ImageDetections(0, box, torch.ones(1), torch.ones(1, dtype=torch.int64), cells)
    return coco_results(images, one)


def test_sizes_are_those_of_the_annotated_masks(shapes: CocoDetection) -> None:
    results = [r for i in range(len(shapes)) for r in coco_results(shapes, perfect(shapes, i))]
    for result, annotation in zip(results, shapes.ground_truth["annotations"], strict=True):
        assert area(result["segmentation"]) == pytest.approx(annotation["area"], rel=0.1)


def test_a_batch_without_a_mask_has_a_finite_loss_over_several_ranks() -> None:
    class Two(Ranks):
        def sum(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * values  # the other rank has the same

    losses = {"box": torch.tensor(3.0), "mask": torch.tensor(0.0)}
    loss, whole = reduce(losses, {"box": 4, "mask": 0}, Two(size=2))
    assert (float(loss), whole) == (3.0, 3.0)


# ---------------------------------------------------------------- a whole study


@pytest.fixture(scope="module")
def once(tiny_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked") / "study"
    folder.mkdir()
    text = tiny_text.replace("trials = 7", 'trials = 2\nobjectives = ["ap", "ap_mask"]')
    text = text.replace(
        "[supernet]",
        "masks = true\nmask_pool_size = 7\nmask_channels = 8\nmask_convolutions = 2\n\n[supernet]",
    )
    (folder / "tiny.toml").write_text(text)
    experiment = Experiment.load(folder / "tiny.toml")
    experiment.train_supernet()
    experiment.search()
    experiment.train_alone([StudyView.load(experiment.setting).best[0].architecture])
    return folder


@pytest.fixture
def masked(once: Path, tmp_path: Path) -> Path:
    """The study file of a study with masks, searched and retrained."""
    shutil.copytree(once, tmp_path / "study")
    return tmp_path / "study" / "tiny.toml"


def msnas(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_trials_and_results_have_the_ap_of_masks(masked: Path) -> None:
    setting = Experiment.load(masked).setting
    study, alone = setting.stored_study(), setting.stored_study(RETRAIN)
    assert study is not None
    assert alone is not None
    assert study.metric_names == ["AP", "mask AP"]
    for trial in study.trials:
        values = read_record(trial).values
        assert trial.values[1] == values["ap_mask"] <= values["ap50_mask"] <= 1
    found = json.loads(msnas("results", masked, "--json"))
    by_number = {t.number: t for t in study.trials}
    stored = {t.user_attrs["arch"]: t.user_attrs["ap_mask"] for t in alone.trials}
    for result in found["pareto_front"]:
        assert result["one_shot_ap_mask"] == by_number[result["trial"]].values[1]
        arch = by_number[result["trial"]].user_attrs["arch"]
        assert result["standalone_ap_mask"] == stored.get(arch)
    assert any(result["standalone_ap_mask"] is not None for result in found["pareto_front"])
    assert found["baseline"]["standalone_ap_mask"] is None
    assert "mask mAP" in msnas("results", masked)
    heading = Overview(setting).table()[0]  # of report and dashboard
    assert heading[-2:] == ["one-shot val mask mAP", "retrained test mask mAP"]


def test_predicted_masks_are_drawn_and_have_the_stored_ap(masked: Path) -> None:
    experiment = Experiment.load(masked)
    test_set = experiment.task.test.dataset
    paths = [record.path for record in test_set.records]
    found = json.loads(msnas("predict", masked, *paths, "--json", "--score", "0"))
    results = json.loads(Path(found["results"]).read_text())
    assert len(results) > 20
    alone = experiment.setting.stored_study(RETRAIN)
    assert alone is not None
    measured = {t.value: t.user_attrs["ap_mask"] for t in alone.trials}
    ids = {image["file_name"]: image["image_id"] for image in found["images"]}
    for image in test_set.ground_truth["images"]:
        record = next(r for r in test_set.records if r.id == image["id"])
        for result in results:  # predict numbers test images anew
            if result["image_id"] == ids[str(record.path)]:
                result["own"] = image["id"]
    own = [{**r, "image_id": r["own"]} for r in results]
    ap = average_precision(test_set.ground_truth, own, kind="segm")["ap"]
    assert ap == pytest.approx(measured[found["ap"]], abs=1e-9)
    assert all(decode(result["segmentation"]).shape == (128, 128) for result in results)
    plain = draw_boxes(Image.open(paths[0]), [], labels=())
    drawn = Image.open(found["images"][0]["picture"])
    differing = (np.abs(np.asarray(drawn, int) - np.asarray(plain, int)) > 20).any(axis=2)
    assert differing.mean() > 0.2  # boxes alone are thin lines


def test_flops_count_the_mask_head(masked: Path) -> None:
    counted = json.loads(msnas("flops", "--study", masked, "--architecture", "fpn-like", "--json"))
    parts = {part["part"]: part["gflops"] for part in counted["further_parts"]}
    assert list(parts) == ["box head, 30 proposals", "mask head, 100 detections"]
    assert counted["classes"] == 3
    assert counted["whole_gflops"] == pytest.approx(counted["gflops"] + sum(parts.values()))


@pytest.mark.slow
def test_programs_without_the_package_give_the_same_masks(masked: Path) -> None:
    folder = masked.with_name("exported")
    agreement = json.loads(msnas("export", masked, "--out", folder, "--json"))["agreement"]
    assert all(0 <= found["mask"] <= 1e-3 for found in agreement.values())
    assert json.loads((folder / "architecture.json").read_text())["masks"]
    experiment = Experiment.load(masked)
    val = experiment.task.val
    model = experiment.retrained(select(experiment.setting, "best").architecture).cpu()
    batch = collate([val[0]])
    with torch.no_grad():
        (found,), _ = model(batch.images, batch.sizes)  # in 32 bits, as the programs
    expected = coco_results(val.dataset, ImageDetections(0, **found))
    assert len(expected) > 10
    for option in ([], ["--onnx"]):
        command = [sys.executable, folder / "load.py", *option, val.dataset.records[0].path]
        done = subprocess.run(command, capture_output=True, check=True)
        detections = json.loads(done.stdout)["detections"]
        overlaps = [
            mask_coding.iou([compressed(d["segmentation"], (128, 128))], [e["segmentation"]], [0])
            for d, e in zip(detections, expected, strict=True)
        ]
        assert min(overlaps) > 0.98


def test_the_ap_of_masks_is_no_objective_without_masks(tiny: Path) -> None:
    text = tiny.read_text().replace("trials = 7", 'trials = 7\nobjectives = ["ap", "ap_mask"]')
    tiny.write_text(text)
    refused = CliRunner().invoke(app, ["space", str(tiny)])
    assert refused.exit_code == 1
    assert (
        "study.objectives: 'ap_mask' needs masks, got ['ap', 'ap_mask']; remove it or set "
        "detector.masks = true" in refused.stderr
    )
