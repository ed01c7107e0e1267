"""A study in words and numbers, for the dashboard's note and the report alike.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1 and
Tables 1, 2 and 4. FLOPs are 1e9 multiply-adds, AP is in percent where it is called mAP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.report.figures.comparison import ComparisonInfo, get_comparison_info, margin
from msnas_optuna.report.figures.observations import Observed
from msnas_optuna.report.figures.transfer import TransferInfo, get_transfer_info
from msnas_optuna.storage import is_external, wanted_trials
from msnas_optuna.study.feasibility import Feasibility, study_feasibility
from msnas_optuna.study.results import Result, Summary, best_results, summarise
from msnas_optuna.study.setting import Setting

TOP: Final = 5
"""How many of the best are shown, as in Table 1."""


class NothingToShowError(ValueError):
    """The search has not begun, so that nothing is stored."""


class Overview:
    """What there is to say about a study at one moment.

    Args:
        setting: the study.

    Raises:
        NothingToShowError: the search has not begun.
        StudyMismatchError: the stored study was made with other settings.
    """

    def __init__(self, setting: Setting) -> None:
        search = setting.stored_study()
        if search is None:
            raise NothingToShowError(
                f"study {setting.study_name()} has not begun; run `msnas train` and "
                f"`msnas search` first"
            )
        self.setting, self.search = setting, search
        self.observed = Observed(search)
        self.best, self.by_hand = best_results(setting, TOP)
        self.summary: Summary = summarise(setting)

    @cached_property
    def feasibility(self) -> Feasibility:
        """The space and the window."""
        return study_feasibility(self.setting)

    @cached_property
    def comparison(self) -> ComparisonInfo | None:
        """The best beside chance and hand, None before the first trial."""
        return get_comparison_info(self.observed)

    @property
    def wanted(self) -> int:
        """How many trials the search was last told to have."""
        return wanted_trials(self.search) or self.setting.config.study.trials

    def commands(self, top: int) -> list[str]:
        """The lines that make the study, or go on with it.

        Args:
            top: how many architectures to retrain.
        """
        command = self.setting.command
        if is_external(self.search):
            values = ",".join(self.setting.config.study.objectives).upper()
            search = [command("ask"), command("tell", "--trial", "NUMBER", "--values", values)]
        else:
            told = self.wanted != self.setting.config.study.trials
            trials = ["--trials", str(self.wanted)] if told else []
            search = [command("train"), command("search", *trials)]
        return [*search, command("retrain", "--top", str(top))]

    @cached_property
    def transfer(self) -> TransferInfo:
        """One-shot beside stand-alone AP; without pairs before the retraining."""
        return get_transfer_info(self.observed)


@dataclass(frozen=True)
class Part:
    """A part of an architecture and its GFLOPs."""

    name: str
    gflops: float


def budget_parts(architecture: Architecture, cost: Any) -> list[Part]:
    """What the FLOPs of an architecture are spent on; the parts sum to its total."""
    found = cost.breakdown(architecture)
    return [
        Part("stem", found.stem / 1e9),
        Part(f"{len(found.blocks)} blocks", sum(found.blocks) / 1e9),
        Part("lateral connections", sum(found.laterals) / 1e9),
        Part("output convolutions", sum(found.outputs.values()) / 1e9),
        Part(f"RPN heads of {len(found.rpn)} groups", sum(found.rpn) / 1e9),
    ]


def sentences(overview: Overview) -> list[str]:
    """What was searched, what won, why it is inside the budget, and by how much it won."""
    return [
        text
        for text in (
            _what(overview),
            _window(overview),
            _progress(overview),
            _winner(overview),
            _against_chance(overview),
            _against_hand(overview),
            _alone(overview),
        )
        if text
    ]


def _what(overview: Overview) -> str:
    space, found = overview.setting.config.space, overview.feasibility
    return (
        f"Searched: the stride of each of {space.n_blocks} {space.block} blocks with "
        f"{space.channels} channels, and the feature that each of the 5 detection heads reads: "
        f"{found.valid:,} valid architectures, {found.in_window:,} of them inside the window."
    )


def _window(overview: Overview) -> str:
    found = overview.feasibility
    low, high = found.window
    height, width = found.cost.input_size
    return (
        f"Window: {giga(low / 1e9)} to {giga(high / 1e9)} GFLOPs, that is "
        f"{giga(found.target / 1e9)} within {found.tolerance:.2%} (1e9 multiply-adds of encoder "
        f"and RPN head for an image of {height}x{width} pixels)."
    )


def _progress(overview: Overview) -> str:
    summary, wanted = overview.summary, overview.wanted
    failed = f", {summary.failed} failed" if summary.failed else ""
    n = len(overview.observed.generations)
    return (
        f"So far: {summary.completed} of {wanted} trials finished{failed}, "
        f"{n} generation{'' if n == 1 else 's'}."
    )


def _winner(overview: Overview) -> str:
    if not overview.best or overview.best[0].one_shot_ap is None:
        return ""
    best = overview.best[0]
    low, high = overview.feasibility.window
    place = "inside" if low <= best.gflops * 1e9 <= high else "outside"
    return (
        f"Best: trial {best.trial} with {100 * (best.one_shot_ap or 0):.1f} one-shot mAP; its "
        f"{giga(best.gflops)} GFLOPs are {place} the window."
    )


def _against_chance(overview: Overview) -> str:
    found = overview.comparison
    if found is None or found.beaten is None:
        return ""
    mean = sum(found.random) / len(found.random)
    return (
        f"Against chance: {len(found.random)} random architectures of the window have "
        f"{mean:.1f} mAP on average and {found.random[-1]:.1f} at best; the best of the search "
        f"is {found.over_random} against their mean and ahead of {found.beaten}. It is "
        f"the best of {found.measured} for its measured value, so a part of the margins is luck; "
        f"training from scratch shows what is left."
    )


def _against_hand(overview: Overview) -> str:
    found = overview.comparison
    if found is None or found.by_hand is None:
        return ""
    return (
        f"Against the hand-made FPN-like path: {found.best[0]:.1f} and {found.by_hand:.1f} "
        f"one-shot mAP, {found.over_hand}."
    )


def _alone(overview: Overview) -> str:
    found = overview.transfer
    if not found.pairs:
        return ""
    best = max(found.pairs, key=lambda pair: pair.alone)
    n = len(found.pairs)
    text = (
        f"Trained from scratch: {n} architecture{'' if n == 1 else 's'}, the best is {best.name} "
        f"with {best.alone:.1f} mAP"
    )
    if found.by_hand is not None:
        ahead = margin(best.alone, found.by_hand.alone)
        text += f" ({ahead} against the FPN-like path's {found.by_hand.alone:.1f})"
    return text + (f"; Kendall's tau {found.tau:.2f}." if found.tau is not None else ".")


def table_rows(overview: Overview) -> list[list[str]]:
    """The best architectures and the FPN-like path, as in Tables 7-9, with a heading."""
    latency = "latency" in overview.setting.config.study.objectives
    heading = ["", "strides", "reading", "GFLOPs", *(["latency, ms"] if latency else [])]
    rows = [[*heading, "one-shot mAP", "retrained mAP"]]
    rows += [_cells(f"trial {r.trial}", r, latency=latency) for r in overview.best]
    return [*rows, _cells("FPN-like path", overview.by_hand, latency=latency)]


def _cells(name: str, result: Result, *, latency: bool) -> list[str]:
    strides, reading = str(result.architecture).split(" | ")
    milliseconds = "-" if result.latency_ms is None else f"{result.latency_ms:.2f}"
    costs = [giga(result.gflops), *([milliseconds] if latency else [])]
    return [name, strides, reading, *costs, _map(result.one_shot_ap), _map(result.standalone_ap)]


def _map(ap: float | None) -> str:
    return "-" if ap is None else f"{100 * ap:.1f}"


def giga(gflops: float) -> str:
    """GFLOPs as all tables show them."""
    return f"{gflops:.4f}"
