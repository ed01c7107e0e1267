"""The verb that shows a detector at work: predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msnas_optuna.cli.app import app
from msnas_optuna.cli.experiments import selected_detector
from msnas_optuna.cli.terminal import (
    AsJson,
    OneShot,
    Quiet,
    StorageUrl,
    StudyFile,
    TrialWord,
    out,
    print_json,
    session,
)
from msnas_optuna.report.table import percent
from msnas_optuna.study.selection import Selected
from msnas_optuna.study.setting import Setting

if TYPE_CHECKING:  # it imports torch, which other verbs can do without
    from msnas_optuna.inference.predict import ImagePrediction, Prediction


@app.command()
def predict(
    study_file: StudyFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    trial: TrialWord = "best",
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for what is written; default RUN_DIR/predictions."),
    ] = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Least score of a box that is drawn.")
    ] = 0.5,
    one_shot: OneShot = False,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Detect objects on images: draw them, and write COCO-format results."""
    with session(quiet=quiet, plain=as_json) as progress:
        from msnas_optuna.inference import predict as prediction
        from msnas_optuna.study.experiment import Experiment

        experiment = Experiment.load(study_file, storage=storage, report=progress)
        selected, detector = selected_detector(experiment, trial, one_shot=one_shot)
        found = prediction.predict(
            experiment,
            detector,
            images,
            folder=folder or experiment.setting.inside("predictions"),
            score=score,
        )
        progress.stop()
        if as_json:
            print_json(
                {
                    **selected_json(selected, experiment.setting),
                    "results": str(found.results),
                    "images": [_picture_json(picture) for picture in found.pictures],
                    "unreadable": [{"file": str(f), "reason": why} for f, why in found.unreadable],
                }
            )
        else:
            _print_prediction(selected, found, score)
        if found.unreadable:
            n, total = len(found.unreadable), len(found.unreadable) + len(found.pictures)
            reasons = "\n".join(f"  {reason}" for _, reason in found.unreadable)
            raise ValueError(
                f"{n} of {total} images could not be read; the others are done\n{reasons}"
            )


def selected_json(selected: Selected, setting: Setting) -> dict[str, Any]:
    """An architecture of a study and its weights."""
    return {
        "trial": selected.trial,
        **setting.method.as_json(selected.architecture),
        "gflops": selected.gflops,
        "weights": "one-shot" if selected.one_shot else "retrained",
        "ap": selected.ap,
    }


def describe(selected: Selected) -> str:
    """One line about an architecture and its weights."""
    weights = "one-shot weights" if selected.one_shot else "retrained"
    return (
        f"{selected.name}: {selected.architecture}, {selected.gflops:.4f} GFLOPs, "
        f"{percent(selected.ap)} mAP ({weights})"
    )


def _picture_json(picture: ImagePrediction) -> dict[str, Any]:
    return {
        "image_id": picture.record.id,
        "file_name": str(picture.record.path),
        "picture": str(picture.drawn),
        "boxes": [
            {"label": box.label, "score": box.score, "corners": list(box.corners)}
            for box in picture.boxes
        ],
    }


def _print_prediction(selected: Selected, found: Prediction, score: float) -> None:
    out.print(describe(selected), highlight=False)
    for picture in found.pictures:
        names = [box.label for box in picture.boxes]
        counts = ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))
        out.print(
            f"{picture.record.path}: {counts or 'nothing'} -> {picture.drawn}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    out.print(
        f"boxes with a score of {score:g} or more are drawn; COCO results of all: {found.results}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
