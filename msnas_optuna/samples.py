"""What an architecture detects on a few validation images, for people to look at."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from msnas_optuna.prediction import predict
from msnas_optuna.results import Result
from msnas_optuna.study import Experiment

SAMPLES: Final = 4
"""Images that are shown."""


def with_detections(experiment: Experiment) -> Experiment:
    """The same experiment; what it publishes shows detections, too."""
    experiment.publisher.detections = partial(sample_detections, experiment)
    return experiment


def sample_detections(experiment: Experiment, result: Result) -> dict[str, bytes]:
    """Pictures with boxes, by file name.

    Args:
        experiment: the study.
        result: the architecture; its weights are those of the retraining, or else those of the
            supernet, fine-tuned as in the search.

    Raises:
        CheckpointError, NonFiniteLossError: see `Experiment.retrained` and `Experiment.one_shot`.
    """
    retrained = result.standalone_ap is not None
    load = experiment.retrained if retrained else experiment.one_shot
    records = experiment.bench.val.dataset.records
    spread = range(0, len(records), max(len(records) // SAMPLES, 1))
    paths = [records[i].path for i in spread][:SAMPLES]
    with tempfile.TemporaryDirectory() as folder:
        found = predict(experiment, load(result.architecture), paths, folder=Path(folder))
        return {picture.drawn.name: picture.drawn.read_bytes() for picture in found.pictures}
