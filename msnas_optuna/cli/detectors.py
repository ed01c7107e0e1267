"""The verbs that put a trained detector to use: predict, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msnas_optuna.cli.terminal import (
    AsJson,
    OneShot,
    Quiet,
    StorageUrl,
    StudyFile,
    TrialWord,
    app,
    out,
    print_json,
    session,
    show_error,
)
from msnas_optuna.report.drawing import LabeledBox
from msnas_optuna.report.table import percent
from msnas_optuna.study.selection import Selection, select

if TYPE_CHECKING:  # it imports torch, which other verbs can do without
    from msnas_optuna.models.network import DetectionNetwork
    from msnas_optuna.study.experiment import Experiment


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
        selected, detector = _detector(experiment, trial, one_shot=one_shot)
        folder = folder or experiment.setting.inside("predictions")
        found = prediction.predict(experiment, detector, images, folder=folder, score=score)
        progress.stop()
        if as_json:
            pictures = [
                {
                    "image_id": picture.record.id,
                    "file_name": str(picture.record.path),
                    "picture": str(picture.drawn),
                    "boxes": [_box(box) for box in picture.boxes],
                }
                for picture in found.pictures
            ]
            unreadable = [{"file": str(f), "reason": reason} for f, reason in found.unreadable]
            print_json(
                _as_json(selected, experiment)
                | {"results": str(found.results), "images": pictures, "unreadable": unreadable}
            )
        else:
            out.print(_in_words(selected))
            for picture in found.pictures:
                names = [box.label for box in picture.boxes]
                counts = ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))
                out.print(f"{picture.record.path}: {counts or 'nothing'} -> {picture.drawn}")
            out.print(
                f"boxes with a score of {score:g} or more are drawn; COCO results of all: "
                f"{found.results}"
            )
        if bad := found.unreadable:
            reasons = "\n".join(f"  {reason}" for _, reason in bad)
            show_error(
                f"{len(bad)} of {len(bad) + len(found.pictures)} images could not be read; the "
                f"others are done\n{reasons}"
            )
            raise typer.Exit(1)


@app.command()
def export(
    study_file: StudyFile,
    trial: TrialWord = "best",
    folder: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the files; default RUN_DIR/exported."),
    ] = None,
    one_shot: OneShot = False,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a detector as torch.export and ONNX programs, with weights and a description."""
    with session(quiet=quiet, plain=as_json) as progress:
        from msnas_optuna.inference import export as exporting
        from msnas_optuna.study.experiment import Experiment

        exporting.require_exporters()
        experiment = Experiment.load(study_file, storage=storage, report=progress)
        selected, detector = _detector(experiment, trial, one_shot=one_shot)
        folder = folder or experiment.setting.inside("exported")
        exported = exporting.export_detector(experiment, detector, selected, folder=folder)
        progress.stop()
        if as_json:
            agreement = {f: dataclasses.asdict(a) for f, a in exported.agreement.items()}
            print_json(
                _as_json(selected, experiment)
                | {"folder": str(folder), "files": exported.files, "agreement": agreement}
            )
            return
        out.print(_in_words(selected))
        for name, size in exported.files.items():
            out.print(f"{folder / name}: {size:,} bytes")
        for name, a in exported.agreement.items():
            masks = "" if a.mask is None else f", masks by {a.mask:.1e}"
            out.print(
                f"{name} against PyTorch: {a.images} images, {a.detections} detections, "
                f"{a.unmatched} unmatched; boxes differ by at most {a.box:.1e} pixels, scores by "
                f"{a.score:.1e}{masks}"
            )


def _detector(
    experiment: Experiment, trial: str, *, one_shot: bool
) -> tuple[Selection, DetectionNetwork]:
    """The architecture that `--trial` names, and its detector with the weights asked for."""
    selected = select(experiment.setting, trial, one_shot=one_shot)
    load = experiment.one_shot if one_shot else experiment.retrained
    return selected, load(selected.architecture)


def _box(box: LabeledBox) -> dict[str, Any]:
    """A box in JSON types. Masks are in the COCO results alone: one can read like a password."""
    return {"corners": box.corners, "label": box.label, "score": box.score}


def _as_json(selected: Selection, experiment: Experiment) -> dict[str, Any]:
    return {
        "trial": selected.trial,
        **experiment.setting.method.as_json(selected.architecture),
        "gflops": selected.gflops,
        "weights": "one-shot" if selected.one_shot else "retrained",
        "ap": selected.ap,
    }


def _in_words(selected: Selection) -> str:
    weights = "one-shot weights" if selected.one_shot else "retrained"
    return (
        f"{selected.name}: {selected.architecture}, {selected.gflops:.4f} GFLOPs, "
        f"{percent(selected.ap)} mAP ({weights})"
    )
