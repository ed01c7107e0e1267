"""The tables and the JSON of what a study has found."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table

from msnas_optuna.cli.terminal import out, percent, print_json
from msnas_optuna.storage import redacted
from msnas_optuna.study.results import Result, best_results, summarise
from msnas_optuna.study.setting import Setting

LIVE_ROWS = 5
"""Architectures in the table that is shown while the search runs."""


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "trial": result.trial,
        "strides": list(result.architecture.strides),
        "feature_strides": list(result.architecture.feature_strides),
        "gflops": result.gflops,
        "latency_ms": result.latency_ms,
        "one_shot_ap": result.one_shot_ap,
        "measurements": list(result.measurements),
        "standalone_ap": result.standalone_ap,
    }


def _pareto_json(setting: Setting) -> list[dict[str, Any]]:
    return [_result_json(result) for result in best_results(setting, None)[0]]


def print_results(setting: Setting, *, top: int, as_json: bool) -> None:
    """Prints the best architectures of a study, beside the FPN-like path."""
    several = len(setting.metrics) > 1  # then all of the Pareto front
    best, by_hand = best_results(setting, None if several and not as_json else top)
    summary = summarise(setting)
    if as_json:
        print_json(
            dataclasses.asdict(summary)
            | {
                "study": setting.study_name(),
                "storage": redacted(setting.storage_url),
                "objectives": list(setting.config.study.objectives),
                "best": [_result_json(result) for result in best],
                "pareto_front": _pareto_json(setting) if several else None,
                "fpn_like": _result_json(by_hand),
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
    out.print(_results_table(setting, best, by_hand))
    if summary.retrained > 1:
        out.print(
            f"retrained, best {summary.retrained}: mean {percent(summary.standalone_mean)}, "
            f"variance {1e4 * (summary.standalone_variance or 0):.4f}, "
            f"max {percent(summary.standalone_max)} mAP"
        )


def live_table(setting: Setting) -> Table:
    """The best architectures so far, to be shown while the search runs."""
    return _results_table(setting, *best_results(setting, LIVE_ROWS))


def _results_table(setting: Setting, best: list[Result], by_hand: Result) -> Table:
    latency = "latency" in setting.config.study.objectives
    table = Table(title=setting.ranking)
    table.add_column("", no_wrap=True)
    for column in ("strides", "reading"):
        table.add_column(column)
    costs = ("GFLOPs", "latency\nms") if latency else ("GFLOPs",)
    for column in (*costs, "one-shot\nmAP", "retrained\nmAP"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in best:
        table.add_row(f"trial {result.trial}", *_cells(result, latency=latency))
    table.add_section()
    table.add_row("FPN-like", *_cells(by_hand, latency=latency))
    return table


def _cells(result: Result, *, latency: bool) -> list[str]:
    strides, features = str(result.architecture).split(" | ")
    milliseconds = "-" if result.latency_ms is None else f"{result.latency_ms:.2f}"
    return [
        strides,
        features,
        f"{result.gflops:.4f}",
        *([milliseconds] if latency else []),
        percent(result.one_shot_ap),
        percent(result.standalone_ap),
    ]
