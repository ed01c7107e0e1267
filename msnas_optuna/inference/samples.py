"""Detections of an architecture on a few validation images, for people to look at."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from msnas_optuna.inference.predict import predict
from msnas_optuna.report.detections import SCORE, Drawing
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import Selection

SAMPLES: Final = 4  # images


def sample_detections(experiment: Experiment, selected: Selection) -> Drawing:
    """Pictures with boxes; raises what `Experiment.retrained` and `Experiment.one_shot` do."""
    if selected.one_shot:
        load, weights = experiment.one_shot, experiment.supernet_path
    else:
        load, weights = experiment.retrained, experiment.retrained_path(selected.architecture)
    records = experiment.task.val.dataset.records
    spread = range(0, len(records), max(len(records) // SAMPLES, 1))
    paths = [records[i].path for i in spread][:SAMPLES]
    with tempfile.TemporaryDirectory() as folder:
        model = load(selected.architecture)
        found = predict(experiment, model, paths, folder=Path(folder), score=SCORE)
        return Drawing(
            weights.relative_to(experiment.setting.run_dir).as_posix(),
            {picture.drawn.name: picture.drawn.read_bytes() for picture in found.pictures},
        )
