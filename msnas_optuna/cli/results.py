"""The tables and the JSON of what a study has found."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table

from msnas_optuna.cli.table import record, table
from msnas_optuna.cli.terminal import out, print_json
from msnas_optuna.report.table import percent, result_columns
from msnas_optuna.storage import redacted
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

LIVE_ROWS = 5
"""Architectures in the table that is shown while the search runs."""


def print_results(setting: Setting, *, top: int, as_json: bool) -> None:
    """Prints the best architectures of a study, beside the baseline."""
    view = StudyView.load(setting)
    summary, several = view.summary, len(setting.metrics) > 1
    if as_json:
        columns = result_columns(view)
        best = [record(columns, result) for result in view.best]
        print_json(
            dataclasses.asdict(summary)
            | {
                "study": setting.study_name(),
                "storage": redacted(setting.storage_url),
                "objectives": list(setting.config.study.objectives),
                "best": best[:top],
                "pareto_front": best if several else None,
                "baseline": view.baseline and record(columns, view.baseline),
            }
        )
        return
    low, high = setting.window
    again = summary.completed - summary.architectures
    out.print(
        f"{summary.completed} trials finished{f' ({again} repeated)' if again else ''}, "
        f"{summary.failed} failed; window "
        f"{low / 1e9:.4f} to {high / 1e9:.4f} GFLOPs; one-shot mAP over "
        f"{'trials' if again == 0 else 'architectures'}: "
        f"mean {percent(summary.one_shot_mean)}, least {percent(summary.one_shot_min)}, "
        f"best {percent(summary.one_shot_max)}"
    )
    if summary.completed + summary.failed >= setting.feasible.count():
        out.print("Every architecture inside the window has been evaluated.")
    out.print(_table(view, setting.ranking, None if several else top))  # all of a front
    if summary.retrained > 1:
        out.print(
            f"retrained, best {summary.retrained}: mean {percent(summary.standalone_mean)}, "
            f"variance {1e4 * (summary.standalone_variance or 0):.4f}, "
            f"max {percent(summary.standalone_max)} mAP"
        )


def live_table(setting: Setting) -> Table:
    """The best architectures so far, to be shown while the search runs."""
    return _table(StudyView.load(setting), setting.ranking, LIVE_ROWS)


def _table(view: StudyView[Any], title: str, top: int | None) -> Table:
    baseline = filter(None, [view.baseline])
    return table(result_columns(view), view.best[:top], baseline, title=title)
