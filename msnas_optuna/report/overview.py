"""A study in words and numbers, for the dashboard's note and the report alike.

FLOPs are 1e9 multiply-adds, AP is in percent where it is called mAP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from optuna.study import Study

from msnas_optuna.report.figures.comparison import get_comparison_info, margin
from msnas_optuna.report.figures.style import counted
from msnas_optuna.report.figures.training import get_transfer_info
from msnas_optuna.report.table import cells, result_columns
from msnas_optuna.storage import is_external, wanted_trials
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

TOP: Final = 5  # of the best are shown, as in Table 1


class NothingToShowError(ValueError):
    """The search has not begun, so that nothing is stored."""


def begun(setting: Setting) -> Study:
    """The study of the search.

    Raises:
        NothingToShowError: the search has not begun.
        StudyMismatchError: the stored study was made with other settings.
    """
    study = setting.stored_study()
    if study is None:
        raise NothingToShowError(
            f"study {setting.study_name()} has not begun; run `msnas train` and `msnas search` "
            f"first"
        )
    return study


class Overview:
    """All there is to say about a study at one moment; raises as `begun`.

    Attributes:
        shown: the best architectures, and the baseline behind them.
        comparison: the best beside chance and hand, None before the first trial.
        transfer: one-shot beside stand-alone AP; without pairs before the retraining.
        wanted: how many trials the search was last told to have.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.study, self.view = setting, begun(setting), StudyView.load(setting)
        self.best = self.view.best[:TOP]
        self.shown = (*self.best, *filter(None, [self.view.baseline]))
        self.comparison = get_comparison_info(self.view)
        self.transfer = get_transfer_info(self.view)
        self.wanted = setting.n_trials(wanted_trials(self.study))

    def commands(self, top: int) -> list[str]:
        """The lines that make the study, or go on with it and retrain the `top` best."""
        command, study = self.setting.command, self.setting.config.study
        if is_external(self.study):
            values = ",".join(study.objectives).upper()
            search = [command("ask"), command("tell", "--trial", "NUMBER", "--values", values)]
        else:
            trials = ["--trials", str(self.wanted)] if self.wanted != study.trials else []
            search = [command("train"), command("search", *trials)]
        report = command("report", "-o", "report.html")
        return [*search, command("retrain", "--top", str(top)), command("results"), report]

    def table(self) -> list[list[str]]:
        """The best architectures and the baseline, as in Tables 7-9, with a heading."""
        return cells(result_columns(self.view), self.shown)

    def sentences(self) -> list[str]:
        """The study in words: space, window, the winner and its margins."""
        return [*_about_the_space(self), *_about_the_search(self), *_about_the_retraining(self)]


def _about_the_space(overview: Overview) -> Iterator[str]:
    setting, found = overview.setting, overview.view.feasibility
    assert found is not None  # a study file has a budget
    low, high = found.window
    height, width = found.cost.input_size
    yield (
        f"Searched: {setting.method.describe(setting.config.space)}: {found.valid:,} valid "
        f"architectures, {found.in_window:,} of them inside the window."
    )
    yield (
        f"Window: {low / 1e9:.4f} to {high / 1e9:.4f} GFLOPs, that is {found.target / 1e9:.4f} "
        f"within {found.tolerance:.2%} (1e9 multiply-adds of {found.cost.scope} for an image of "
        f"{height}x{width} pixels)."
    )


def _about_the_search(overview: Overview) -> Iterator[str]:
    view, summary, found = overview.view, overview.view.summary, overview.comparison
    failed = f", {summary.failed} failed" if summary.failed else ""
    yield (
        f"So far: {summary.completed} of {overview.wanted} trials finished{failed}, "
        f"{counted(view.n_generations, 'generation')}."
    )
    if found is None or view.window is None:
        return
    best, (low, high) = view.best[0], view.window
    gflops = best.gflops or 0.0
    place = "inside" if low <= gflops * 1e9 <= high else "outside"
    yield (
        f"Best: {best.name} with {100 * best.ap:.1f} one-shot mAP on the validation images; "
        f"its {gflops:.4f} GFLOPs are {place} the window."
    )
    if found.beaten is not None:
        mean = sum(found.random) / len(found.random)
        yield (
            f"Against chance: {len(found.random)} random architectures of the window have "
            f"{mean:.1f} mAP on average and {found.random[-1]:.1f} at best; the best of the "
            f"search is {found.over_random} against their mean and ahead of {found.beaten}. It is "
            f"the best of {found.measured} for its measured value, so a part of the margins is "
            f"luck; training from scratch shows what is left."
        )
    if found.baseline is not None:
        yield (
            f"Against the hand-made {view.method.baseline}: {found.best[0]:.1f} and "
            f"{found.baseline:.1f} one-shot mAP, {found.over_baseline}."
        )


def _about_the_retraining(overview: Overview) -> Iterator[str]:
    found = overview.transfer
    if not found.pairs:
        return
    best = max(found.pairs, key=lambda pair: pair.alone)
    view, error = overview.view, "" if best.error is None else f" ± {best.error:.1f}"
    text = (
        f"Trained from scratch: {counted(len(found.pairs), 'architecture')}, the best is "
        f"{best.name} with {best.alone:.1f}{error} mAP on the {view.reported_images} images"
    )
    if found.baseline is not None:
        ahead = margin(best.alone, found.baseline.alone)
        text += f" ({ahead} against the {found.baseline.name}'s {found.baseline.alone:.1f})"
    if view.several_seeds:
        text += ", means over seeds ± their standard errors"
    yield text + (f"; Kendall's tau {found.tau:.2f}." if found.tau is not None else ".")
