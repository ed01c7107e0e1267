from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.inference import predict as prediction
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import select
from msnas_optuna.study.view import StudyView
from msnas_optuna.training.evaluation import average_precision


def msnas(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def predicted(study_file: Path, *arguments: str | Path, code: int = 0):
    """The answer for scripts, with every box: the tiny study is sure of none."""
    found = msnas("predict", study_file, *arguments, "--json", "--score", "0", code=code)
    return json.loads(found.stdout)


def images_of(study_file: Path, part: str = "val") -> list[Path]:
    return [r.path for r in getattr(Experiment.load(study_file).task, part).dataset.records]


def truth(study_file: Path, part: str = "val") -> dict:
    return getattr(Experiment.load(study_file).task, part).dataset.ground_truth


def stored(study_file: Path, stage: str | None) -> dict[str, float]:
    study = Experiment.load(study_file).setting.stored_study(stage)
    return {t.user_attrs["arch"]: t.value for t in study.trials}


@pytest.mark.parametrize("trial", ["best", "fpn-like", "number"])
def test_the_results_of_the_test_images_have_the_stored_ap(retrained, trial):
    word = (
        str(select(Experiment.load(retrained).setting, "best").trial)
        if trial == "number"
        else trial
    )
    found = predicted(retrained, *images_of(retrained, "test"), "--trial", word)
    results = json.loads(Path(found["results"]).read_text())
    assert average_precision(truth(retrained, "test"), results)["ap"] == found["ap"]
    assert found["ap"] in stored(retrained, RETRAIN).values()
    assert found["weights"] == "retrained"


@pytest.mark.parametrize("trial", ["0", "fpn-like"])
def test_one_shot_weights_are_those_of_the_search(retrained, trial):
    found = predicted(retrained, *images_of(retrained), "--trial", trial, "--one-shot")
    results = json.loads(Path(found["results"]).read_text())
    values = stored(retrained, "fpn-like" if trial == "fpn-like" else None)
    assert average_precision(truth(retrained), results)["ap"] == found["ap"]
    assert found["ap"] in values.values()


def test_the_best_has_the_highest_stand_alone_ap_of_the_search(retrained):
    setting = Experiment.load(retrained).setting
    values = stored(retrained, RETRAIN)
    del values[str(setting.baseline)]
    assert values[str(select(setting, "best").architecture)] == max(values.values())


def test_pictures_and_results_lie_in_the_run_folder(retrained):
    images = images_of(retrained)[:2]
    found = predicted(retrained, *images)
    folder = retrained.parent / "predictions"
    assert [Path(i["picture"]).parent for i in found["images"]] == [folder, folder]
    for path, entry in zip(images, found["images"], strict=True):
        original, drawn = Image.open(path), Image.open(entry["picture"])
        assert drawn.width / original.width == drawn.height / original.height == 3
    known = json.loads((folder / "images.json").read_text())
    assert [Path(i["file_name"]) for i in known["images"]] == images
    assert {r["image_id"] for r in json.loads((folder / "results.json").read_text())} <= {
        i["id"] for i in known["images"]
    }


def test_boxes_below_the_asked_score_are_in_the_results_alone(retrained):
    image = images_of(retrained)[0]
    results = json.loads(Path(predicted(retrained, image)["results"]).read_text())
    scores = sorted(result["score"] for result in results)
    asked = str(scores[len(scores) // 2])
    found = json.loads(msnas("predict", retrained, image, "--json", "--score", asked).stdout)
    drawn = [box["score"] for box in found["images"][0]["boxes"]]
    assert sorted(drawn) == [score for score in scores if score >= float(asked)]
    assert 0 < len(drawn) < len(json.loads(Path(found["results"]).read_text())) == len(scores)


KINDS = {
    "grey.png": lambda: Image.new("L", (90, 60), 99),
    "alpha.png": lambda: Image.new("RGBA", (60, 90), (9, 99, 200, 128)),
    "palette.gif": lambda: Image.new("P", (80, 80), 3),
    "deep.png": lambda: Image.fromarray(np.full((50, 70), 40_000, np.uint16)),
    "cmyk.jpg": lambda: Image.new("CMYK", (300, 200)),
    "tiny.png": lambda: Image.new("RGB", (1, 1)),
    "thin.png": lambda: Image.new("RGB", (900, 3)),
    "long.png": lambda: Image.new("RGB", (66_000, 2)),
}


def test_images_of_any_mode_and_size_are_read(retrained, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, make in KINDS.items():
        make().save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 80)).save(folder / "turned.jpg", exif=exif)
    paths = [folder / name for name in (*KINDS, "turned.jpg")]
    found = predicted(retrained, *paths, "--out", tmp_path / "out")
    assert [Path(i["file_name"]) for i in found["images"]] == paths
    turned = json.loads((tmp_path / "out" / "images.json").read_text())["images"][-1]
    assert (turned["width"], turned["height"]) == (80, 120)
    for entry in found["images"]:
        assert Image.open(entry["picture"]).mode == "RGB"


def test_an_image_is_found_the_same_on_beside_larger_ones(retrained, tmp_path):
    rng = np.random.default_rng(0)
    for i, (w, h) in enumerate([(60, 60), (40, 100), (100, 40), (60, 61)]):
        Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.glob("*.png"))
    together = predicted(retrained, *paths, "--out", tmp_path / "out")["images"]
    assert [image["file_name"] for image in together] == [str(path) for path in paths]
    for path, image in zip(paths, together, strict=True):
        (alone,) = predicted(retrained, path, "--out", tmp_path / "alone")["images"]
        pairs = list(zip(image["boxes"], alone["boxes"], strict=True))
        assert len(pairs) > 3
        for a, b in pairs:
            assert a["score"] == pytest.approx(b["score"], abs=0.02)  # in bfloat16


def test_unreadable_images_are_named_and_the_others_done(retrained, tmp_path):
    good = images_of(retrained)[0]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:500])
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "eps.png", "EPS")  # Pillow would ask Ghostscript
    bad = [broken, *(tmp_path / name for name in ("text.png", "eps.png", "absent.png"))]
    result = msnas("predict", retrained, *bad, good, code=1)
    for path in bad:
        assert str(path) in result.stderr
    assert "4 of 5 images could not be read" in result.stderr
    assert str(good) in result.stdout
    found = predicted(retrained, *bad, good, code=1)
    assert {u["file"] for u in found["unreadable"]} == {str(path) for path in bad}
    assert [i["file_name"] for i in found["images"]] == [str(good)]


def test_ids_are_those_of_the_study_and_unique(retrained, tmp_path):
    experiment = Experiment.load(retrained)
    val, train = experiment.task.val.dataset, experiment.task.train.dataset
    foreign = tmp_path / "new.png"
    Image.new("RGB", (9, 9)).save(foreign)
    paths = [train.records[0].path, foreign, val.records[0].path, val.records[0].path]
    records, unreadable = prediction.assign_ids(paths, [val, train])
    assert unreadable == []
    assert [r.path for r in records] == paths[:3]
    assert records[2].id == val.records[0].id
    assert len({r.id for r in records}) == 3
    assert records[1].id > max(r.id for d in (val, train) for r in d.records)
    alone, _ = prediction.assign_ids(paths[:1], [val, train])
    assert alone[0].id == train.records[0].id


def test_pictures_of_equal_names_do_not_overwrite_each_other(retrained, tmp_path):
    paths = [tmp_path / folder / "same.png" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (40, 40)).save(path)
    found = predicted(retrained, *paths)
    assert len({i["picture"] for i in found["images"]}) == 2


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("best", "none is retrained; run `msnas retrain STUDY.toml --top 1`"),
        ("fpn-like", "is not retrained; run `msnas retrain STUDY.toml --trial fpn-like`"),
        (
            "worst",
            "is not retrained; run `msnas retrain STUDY.toml --trial WORST`, or give --one-shot",
        ),
        ("99", "the number of a finished trial, got 99; finished are 5 trials, 0 to 4"),
        ("bset", "--trial must be best, fpn-like or the number of a finished trial, got bset"),
    ],
)
def test_a_trial_without_weights_is_refused_with_the_repair(searched, trial, message):
    setting = Experiment.load(searched).setting
    word = str(StudyView.load(setting).results[-1].number) if trial == "worst" else trial
    refused = msnas("predict", searched, "any.png", "--trial", word, code=1)
    assert message.replace("WORST", word) in refused.stderr
    assert refused.stdout == ""


def test_a_study_without_trials_is_refused(trained):
    assert "run `msnas search STUDY.toml`" in msnas("predict", trained, "x.png", code=1).stderr


def test_predict_leaves_the_generators_alone(retrained):
    experiment = Experiment.load(retrained)
    selected = select(experiment.setting, "best", one_shot=True)
    state = torch.get_rng_state()
    experiment.one_shot(selected.architecture)
    assert torch.equal(torch.get_rng_state(), state)
