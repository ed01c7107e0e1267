"""The verbs about the storage itself: storage-proxy, export-study, import-study."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer

from msnas_optuna.cli.terminal import (
    AsJson,
    StorageUrl,
    StudyFile,
    app,
    err,
    out,
    print_json,
    session,
    show_warning,
)
from msnas_optuna.storage import serve_storage
from msnas_optuna.study import portability
from msnas_optuna.study.portability import Transfer
from msnas_optuna.study.setting import Setting


@app.command()
def storage_proxy(
    study_file: StudyFile,
    storage: StorageUrl = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; it asks nobody for a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 13000,
) -> None:
    """Serve the study's storage to workers that open grpc://HOST:PORT, until Ctrl-C."""
    with session():
        setting = Setting.load(study_file, storage=storage)
        line = f"serving {setting.storage_url} as grpc://{host}:{port}; Ctrl-C ends it"
        served, ready = setting.storage, partial(err.print, line, soft_wrap=True)
        with suppress(KeyboardInterrupt):  # it ends so
            serve_storage(served, host=host, port=port, ready=ready)


@app.command()
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


@app.command()
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
        show_warning(
            f"{len(moved.missing)} of {moved.artifacts} artifacts have no file, "
            f"for example {moved.missing[0]}"
        )
    if moved.unfinished:
        show_warning(
            f"{moved.unfinished} of the trials were being evaluated; the copy evaluates "
            "them again, and what their workers find now is lost to it"
        )
    if as_json:
        print_json(dataclasses.asdict(moved))
        return
    for name, trials in moved.studies.items():
        out.print(f"{verb} {name}: {trials} trials")
    present = moved.artifacts - len(moved.missing)
    if moved.copied:
        out.print(f"{verb} {present} artifacts")
    elif moved.artifacts:
        out.print(
            f"{present} artifacts stay in {setting.artifact_dir}; "
            "only a .zip file takes them along"
        )
