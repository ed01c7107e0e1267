"""The best AP against what chance and hand would have found, overall and by object size.

Source: Tables 1 (FPN baselines, object sizes) and 5 (random architectures) of the MSNAS paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import (
    GREEN,
    KIND_COLORS,
    ONE_SHOT,
    PALETTE,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
)
from msnas_optuna.study.view import StudyView

BRED: Final = ("recombination", "crossover", "mutation")  # kinds that have parents

SIZES: Final = ("small", "medium", "large")


@dataclass(frozen=True)
class ComparisonInfo:
    """AP in percent of what was drawn by chance, bred, and made by hand."""

    random: tuple[float, ...]  # ascending; a uniform sample of the window
    children: Mapping[str, tuple[float, ...]]  # kind -> of those that have parents, ascending
    best: tuple[float, int]  # AP, and number of the trial
    best_kind: str  # how the best came about
    baseline: float | None  # None if it is not measured
    measured: int  # how many architectures the best is the best of, however they came about

    @property
    def bred(self) -> tuple[float, ...]:
        """Of all children together, ascending."""
        return tuple(sorted(ap for aps in self.children.values() for ap in aps))

    @property
    def beaten(self) -> str | None:
        """The share of the random architectures that the best exceeds, in words, rounded down.

        None where there is no random architecture but the best itself.
        """
        among = self.best_kind == "random"
        n = len(self.random)
        if n == among:
            return None
        beaten = sum(ap < self.best[0] for ap in self.random)
        if beaten == n - among:
            return "all others" if among else "all of them"
        return f"{100 * beaten // n}% of them"

    @property
    def over_random(self) -> str | None:
        """The margin over the mean of the random architectures, None without any."""
        return margin(self.best[0], sum(self.random) / len(self.random)) if self.random else None

    @property
    def over_baseline(self) -> str | None:
        """The margin over the baseline, None before that is measured."""
        return None if self.baseline is None else margin(self.best[0], self.baseline)


def margin(ap: float, other: float) -> str:
    """A difference of two APs in percent that agrees with the two as they are shown."""
    return f"{round(ap, 1) - round(other, 1):+.1f}"


def get_comparison_info(view: StudyView[Any]) -> ComparisonInfo | None:
    """The best AP beside those of chance and hand, None before the first trial."""
    if not view.results:
        return None
    best, baseline = view.results[0], view.baseline
    aps = {
        kind: tuple(sorted(100 * r.ap for r in view.results if r.kind == kind))
        for kind in ("random", *BRED)
    }
    return ComparisonInfo(
        random=aps.pop("random"),
        children={kind: found for kind, found in aps.items() if found},
        best=(100 * best.ap, best.records[0].number),
        best_kind=best.kind,
        baseline=100 * baseline.ap if baseline is not None and baseline.values else None,
        measured=len(view.results),
    )


def plot_comparison(study: Study | StudyView[Any]) -> go.Figure:
    """Plots the best AP beside that of random architectures and of the baseline."""
    view, title = StudyView.of(study), "The best against chance and hand"
    info = get_comparison_info(view)
    if info is None:
        return message(title)
    figure = go.Figure()
    for kind, aps in {"random": info.random, **info.children}.items():
        if not aps:
            continue
        shown = np.quantile(aps, np.linspace(0, 1, 200)) if len(aps) > 200 else np.array(aps)
        figure.add_box(
            x=rounded(shown.tolist()),
            name=f"{kind} ({len(aps)})",
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            fillcolor="rgba(128, 128, 128, 0.15)",
            line={"color": KIND_COLORS[kind], "width": 1.5},
            marker={"color": KIND_COLORS[kind], "size": 5, "opacity": 0.7},
            showlegend=False,
        )
    marks = [(f"best: trial {info.best[1]}", info.best[0], VERMILION, "solid")]
    if info.baseline is not None:
        marks.append((view.method.baseline, info.baseline, GREEN, "dash"))
    for name, ap, color, dash in marks:
        line = {"color": color, "dash": dash, "width": 2}
        figure.add_vline(x=ap, line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", name=f"{name}, {ap:.1f}", line=line)
    notes, last = [], []
    if info.beaten is not None:
        notes.append(
            f"{info.over_random} mAP over the mean of {len(info.random)} random "
            f"architectures, ahead of {info.beaten}"
        )
    if info.baseline is not None:
        last.append(f"{info.over_baseline} over the {view.method.baseline}")
    if info.measured > 1:
        last.append(f"the best of {info.measured} measured values: a part of it is luck")
    # Two lines: a narrow page cuts off what is long.
    note = "</sup><br><sup>".join(filter(None, [*notes, "; ".join(last)]))
    styled(figure, title, note=note, x=ONE_SHOT).update_layout(margin={"t": 90})
    return legend_below(figure.update_yaxes(showgrid=False))


def get_sizes_info(view: StudyView[Any], *, top: int) -> dict[str, tuple[float | None, ...]]:
    """AP in percent of small, medium and large objects by name, None where it is unknown.

    Of the `top` best and then of the baseline; what has no AP by size is left out.
    """
    rows = {}
    for result in (*view.results[:top], *filter(None, [view.baseline])):
        aps = [result.metric(f"ap_{size}") for size in SIZES]
        if any(ap is not None for ap in aps):
            rows[result.name] = tuple(None if ap is None else 100 * ap for ap in aps)
    return rows


def plot_object_sizes(study: Study | StudyView[Any], *, top: int = 5) -> go.Figure:
    """Plots the AP of small, medium and large objects of the `top` best, and of the baseline."""
    view, title = StudyView.of(study), "AP by object size"
    rows = get_sizes_info(view, top=top)
    if not rows:
        return message(title, "no trial with AP by object size is finished yet")
    figure = go.Figure()
    for i, (name, aps) in enumerate(rows.items()):
        color = GREEN if name == view.method.baseline else PALETTE[i % PALETTE.index(GREEN)]
        figure.add_bar(
            x=list(SIZES),
            y=[None if ap is None else rounded([ap])[0] for ap in aps],
            name=name,
            marker={"color": color, "line": {"width": 0}},
            hovertemplate="%{x}: %{y} mAP<extra>" + name + "</extra>",
        )
    styled(figure, title, note="one-shot", x="objects", y=ONE_SHOT)
    return legend_below(figure.update_layout(barmode="group", bargap=0.25))
