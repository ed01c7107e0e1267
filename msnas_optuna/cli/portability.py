"""The verbs that move a study between storages: export-study, import-study."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Annotated

import typer

from msnas_optuna.cli.app import app
from msnas_optuna.cli.terminal import AsJson, StorageUrl, StudyFile, err, out, print_json, session
from msnas_optuna.study import portability
from msnas_optuna.study.portability import Transfer
from msnas_optuna.study.setting import Setting


@app.command("export-study")
def export_study(
    study_file: StudyFile,
    destination: Annotated[
        str, typer.Argument(metavar="FILE.zip|URL", help="A new file, or the URL of a storage.")
    ],
    storage: StorageUrl = None,
    as_json: AsJson = False,
) -> None:
    """Copy the search and its stages into a file, with artifacts, or into another storage."""
    with session() as bars:
        setting = Setting.load(study_file, storage=storage)
        moved = portability.export_study(setting, destination, progress=partial(bars, "trials"))
        bars.stop()
        _print("exported", moved, setting, as_json=as_json)


@app.command("import-study")
def import_study(
    study_file: StudyFile,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE.zip|URL", help="An exported file, or the URL of a storage."),
    ],
    storage: StorageUrl = None,
    as_json: AsJson = False,
) -> None:
    """Copy an exported search and its stages into the storage of the study file."""
    with session() as bars:
        setting = Setting.load(study_file, storage=storage)
        moved = portability.import_study(setting, source, progress=partial(bars, "trials"))
        bars.stop()
        _print("imported", moved, setting, as_json=as_json)


def _print(verb: str, moved: Transfer, setting: Setting, *, as_json: bool) -> None:
    if moved.missing:
        err.print(
            f"warning: {len(moved.missing)} of {moved.artifacts} artifacts have no file, "
            f"for example {moved.missing[0]}",
            style="yellow",
            soft_wrap=True,
        )
    if moved.unfinished:
        err.print(
            f"warning: {moved.unfinished} of the trials were being evaluated; the copy evaluates "
            "them again, and what their workers find now is lost to it",
            style="yellow",
            soft_wrap=True,
        )
    if as_json:
        print_json(dataclasses.asdict(moved))
        return
    for name, trials in moved.studies.items():
        out.print(f"{verb} {name}: {trials} trials", highlight=False)
    present = moved.artifacts - len(moved.missing)
    if moved.copied:
        out.print(f"{verb} {present} artifacts", highlight=False)
    elif moved.artifacts:
        out.print(
            f"{present} artifacts stay in {setting.artifact_dir}; "
            "only a .zip file takes them along",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
