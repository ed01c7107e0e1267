"""The verbs that show a study to people: dashboard, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from msnas_optuna.cli.terminal import (
    AsJson,
    Quiet,
    StorageUrl,
    StudyFile,
    app,
    out,
    print_json,
    session,
)
from msnas_optuna.storage.optuna_private import study_id
from msnas_optuna.study.setting import Setting


@app.command()
def dashboard(
    study_file: StudyFile,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port on 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer as this host, too, behind a proxy; repeatable."),
    ] = None,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the study in optuna-dashboard, on this machine alone, until Ctrl-C."""
    with session(quiet=quiet, plain=as_json):
        from msnas_optuna.report.dashboard import HOST, dashboard_server  # slow to import

        setting = Setting.load(study_file, storage=storage)
        with dashboard_server(setting, port, allow_host or ()) as server:
            study = setting.stored_study()
            assert study is not None
            url = f"http://{HOST}:{server.server_port}/dashboard/studies/{study_id(study)}"
            if as_json:
                print_json({"study": study.study_name, "url": url})
            else:
                out.print(url)
            sys.stdout.flush()  # whoever waits for the address reads from a pipe
            chatty = not (as_json or quiet)
            if chatty:
                out.print("Ctrl-C ends it.")
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                if chatty:
                    out.print("ended")


@app.command()
def report(
    study_file: StudyFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")
    ] = Path("report.html"),
    storage: StorageUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the study as one page that opens offline: figures, tables, how to reproduce it."""
    with session(quiet=quiet, plain=as_json):
        if output.is_dir():
            page = output / "report.html"
            raise ValueError(f"--output must be a file, {output} is a folder; give {page}")
        if output.suffix not in (".html", ".htm"):
            raise ValueError(f"--output must end in .html, got {output}; give another name")
        from msnas_optuna.report.overview import Overview
        from msnas_optuna.report.page import write_report  # slow to import

        setting = Setting.load(study_file, storage=storage)
        write_report(Overview(setting), output)
        if as_json:
            print_json({"study": setting.study_name(), "report": str(output)})
        elif not quiet:
            out.print(f"wrote {output}")
