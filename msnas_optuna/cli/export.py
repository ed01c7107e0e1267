"""The verb that makes a detector usable elsewhere: export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msnas_optuna.cli.app import app
from msnas_optuna.cli.experiments import selected_detector
from msnas_optuna.cli.predict import describe, selected_json
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
from msnas_optuna.study.selection import Selected

if TYPE_CHECKING:  # it imports torch, which other verbs can do without
    from msnas_optuna.inference.export import ExportResult


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
        selected, detector = selected_detector(experiment, trial, one_shot=one_shot)
        exported = exporting.export_detector(
            experiment,
            detector,
            selected,
            folder=folder or experiment.setting.inside("exported"),
        )
        progress.stop()
        if as_json:
            print_json(
                selected_json(selected, experiment.setting)
                | {
                    "folder": str(exported.folder),
                    "files": exported.files,
                    "agreement": {f: dataclasses.asdict(a) for f, a in exported.agreement.items()},
                }
            )
        else:
            _print_exported(selected, exported)


def _print_exported(selected: Selected, exported: ExportResult) -> None:
    lines = [describe(selected)]
    lines += [f"{exported.folder / name}: {size:,} bytes" for name, size in exported.files.items()]
    lines += [
        f"{name} against PyTorch: {a.images} images, {a.detections} detections, {a.unmatched} "
        f"unmatched; boxes differ by at most {a.box:.1e} pixels, scores by {a.score:.1e}"
        for name, a in exported.agreement.items()
    ]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
