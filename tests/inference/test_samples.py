"""Detections in the note and in the report, from a real search, retraining and prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna_dashboard import get_note

from msnas_optuna.cli.experiments import open_experiment
from msnas_optuna.inference.predict import predict
from msnas_optuna.inference.samples import SAMPLES
from msnas_optuna.report.detections import Detections, stored_detections
from msnas_optuna.report.overview import Overview
from msnas_optuna.report.page import report_page
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import select
from msnas_optuna.study.setting import Setting

STEP = "detections"


def stored(study_file: Path) -> Detections:
    setting = Setting.load(study_file)
    found = stored_detections(setting, setting.stored_study())
    assert found is not None
    return found


def predicted(study_file: Path, folder: Path, *, one_shot: bool) -> dict[str, bytes]:
    """The pictures that the best detector of these weights draws of all validation images."""
    experiment = Experiment.load(study_file)
    selected = select(experiment.setting, "best", one_shot=one_shot)
    load = experiment.one_shot if one_shot else experiment.retrained
    paths = [record.path for record in experiment.task.val.dataset.records]
    found = predict(experiment, load(selected.architecture), paths, folder=folder)
    return {picture.drawn.name: picture.drawn.read_bytes() for picture in found.pictures}


def content(found: Detections) -> dict[str, bytes]:
    return {name: picture.content for name, picture in found.pictures.items()}


def test_they_follow_the_best_from_the_supernet_s_weights_to_its_own(searched, tmp_path):
    steps: list[str] = []
    experiment = open_experiment(Setting.load(searched), lambda step, *_: steps.append(step))
    experiment.search(5)  # nothing is left but to refresh
    setting, found = experiment.setting, stored(searched)
    study = setting.stored_study()
    assert (found.source.trial, found.source.one_shot) == (study.best_trial.number, True)
    assert found.source.ap == study.best_value
    assert (setting.run_dir / found.source.weights) == experiment.supernet_path
    assert len(found.pictures) == SAMPLES
    assert content(found) == predicted(searched, tmp_path / "shot", one_shot=True)

    assert steps.count(STEP) == SAMPLES
    open_experiment(Setting.load(searched), lambda step, *_: steps.append(step)).search(5)
    assert steps.count(STEP) == SAMPLES  # they are there already

    experiment.retrain(top=2)
    found, best = stored(searched), select(setting, "best")
    assert (found.source.trial, found.source.one_shot) == (best.trial, False)
    assert setting.run_dir / found.source.weights == experiment.retrained_path(best.architecture)
    assert (setting.run_dir / found.source.weights).is_file()
    assert content(found) == predicted(searched, tmp_path / "alone", one_shot=False)
    for shown in (get_note(study), report_page(Overview(setting))):
        assert f"What trial {best.trial} detects" in shown
        assert f"({found.source.weights})" in shown


def test_a_lost_picture_is_drawn_again(searched):
    open_experiment(Setting.load(searched)).search(5)
    lost = next(iter(stored(searched).pictures.values())).artifact_id
    setting = Setting.load(searched)
    (setting.artifact_dir / lost).unlink()
    with pytest.raises(AssertionError):
        stored(searched)
    open_experiment(Setting.load(searched)).search(5)
    assert len(stored(searched).pictures) == SAMPLES
