"""The verbs about the storage itself: storage-proxy."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from msnas_optuna.cli.app import app
from msnas_optuna.cli.terminal import StorageUrl, StudyFile, err, session
from msnas_optuna.storage import redacted, serve_storage
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
        line = f"serving {redacted(setting.storage_url)} as grpc://{host}:{port}; Ctrl-C ends it"
        ready = partial(err.print, line, markup=False, highlight=False, soft_wrap=True)
        served = setting.storage
        try:
            serve_storage(served, host=host, port=port, ready=ready)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None
