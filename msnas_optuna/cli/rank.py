"""The verb that tells how well one-shot scores rank architectures: rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msnas_optuna.cli.records import RecordFile, write_result
from msnas_optuna.cli.terminal import (
    AsJson,
    Quiet,
    Seeds,
    StorageUrl,
    StudyFile,
    Workers,
    app,
    out,
    print_json,
    session,
    table,
)
from msnas_optuna.cli.workers import trainers
from msnas_optuna.runtime.processes import torchrun_place
from msnas_optuna.study.rank import Ranking, measure
from msnas_optuna.study.setting import Setting

if TYPE_CHECKING:
    from msnas_optuna.report.ranking import RankReport


@app.command()
def rank(
    study_file: StudyFile,
    architectures: Annotated[
        int, typer.Option(min=2, help="Architectures of the sample, evenly over the scores.")
    ] = 60,
    seeds: Seeds = 3,
    fine_tuning: Annotated[
        str,
        typer.Option(
            metavar="STEPS",
            help="Steps of fine-tuning, a score for each; 0 takes the weights as they are.",
        ),
    ] = "0,10,20,50,100",
    half_width: Annotated[
        float,
        typer.Option(min=0.01, max=0.5, help="Half width of an interval of tau to plan for."),
    ] = 0.1,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Measure nothing: tell what is finished.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the scores against the truth, .html or .json."),
    ] = None,
    workers: Workers = 1,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    record: RecordFile = None,
    quiet: Quiet = False,
) -> None:
    """Tell how well one-shot scores rank architectures that are trained from scratch.

    A sample of the window is scored with the supernet's weights and trained from scratch; the
    same command continues. docs/rank.md says what the numbers mean.
    """
    with session(quiet=quiet, plain=as_json) as progress:
        from msnas_optuna.report.ranking import RankReport  # slow to import

        if torchrun_place() is not None:
            raise ValueError("`msnas rank` runs without torchrun; several processes: --workers")
        setting, steps = Setting.load(study_file, storage=storage), _steps(fine_tuning)
        if not so_far:
            with trainers(setting, storage, progress, workers=workers) as (experiment, run):
                measure(experiment, size=architectures, seeds=seeds, steps=steps, run=run)
        progress.stop()
        found = RankReport(Ranking.load(setting), half_width, setting.config.study.seed)
        if figure is not None:
            from msnas_optuna.report.figures import write_figure
            from msnas_optuna.report.figures.ranking import plot_ranking

            write_figure(plot_ranking(found.ranking), figure)
        if as_json:
            print_json({"study": setting.study_name(), **found.as_json()})
        else:
            print_ranking(found)
        if record is not None:
            most = max(map(len, found.ranking.trained), default=0)
            write_result(record, setting, seeds=most, numbers=found.as_json(), workers=workers)


def _steps(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise ValueError(
            f"--fine-tuning must be whole numbers from 0 on with commas between, got {text!r}; "
            f"write for example 0,10,20"
        )
    return sorted({int(word) for word in words})


def print_ranking(found: RankReport) -> None:
    """Prints each score against the truth, and what the truth can tell."""
    from msnas_optuna.report.ranking import CORRELATIONS, DECISIONS, SCORE, plan_columns

    trained, sample = found.ranking.trained, found.ranking.sample
    out.print(
        f"{len(trained)} of {len(sample)} architectures are trained from scratch, "
        f"{sum(map(len, trained))} trainings"
    )
    out.print(table([SCORE, *CORRELATIONS], found.rows))
    out.print()
    out.print(table([SCORE, *DECISIONS], found.rows))
    out.print("\nIn brackets: intervals of 95 %, over the architectures.")
    if found.ceiling is None or found.reliability is None:
        out.print("No ceiling is known: that takes two trainings of an architecture (--seeds 2).")
        return
    halves = "" if found.halves is None else f" (by halves of the seeds {found.halves.tau:.2f})"
    out.print(
        f"Ceiling: {found.reliability:.0%} of the variance of the truth is not noise, so a "
        f"perfect score would have tau {found.ceiling.tau:.2f}{halves}, "
        f"rho {found.ceiling.rho:.2f}."
    )
    if found.plans and found.widest is not None:
        out.print(
            f"\nAn interval of tau +-{found.half_width:g}, for the score {found.widest.score!r} "
            f"(the widest), takes:"
        )
        out.print(table(plan_columns(), found.plans))
