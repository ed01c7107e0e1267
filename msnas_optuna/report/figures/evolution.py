"""How the population moved: its AP from generation to generation, and where its members come from.

Source: Fig. 3, Table 5 (random children) and Algorithm 1 of the MSNAS paper.

Symbols: P population size. The population of a generation is the best P of all architectures that
are measured by its end.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy as np
import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import (
    BLUE,
    KIND_COLORS,
    ONE_SHOT,
    ORANGE,
    VERMILION,
    by_generation,
    counted,
    legend_below,
    message,
    rounded,
    styled,
    thinned,
)
from msnas_optuna.study.view import KINDS, StudyView

QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


class EvolutionInfo(NamedTuple):
    """AP in percent by generation."""

    generations: list[int]  # 0, 1, ..., thinned where they are many
    quantiles: list[list[float]]  # of the population, [QUANTILES][generations]
    random: list[tuple[int, float]]  # generation, AP of each random child after generation 0


def get_evolution_info(view: StudyView[Any]) -> EvolutionInfo | None:
    """The AP of the population by generation, None before the first trial."""
    if not view.populations:
        return None
    aps = [[100 * r.ap for r in population] for population in view.populations.values()]
    return EvolutionInfo(
        generations=list(view.populations),
        quantiles=np.stack([np.quantile(found, QUANTILES) for found in aps], axis=1).tolist(),
        random=[
            (m.generation, 100 * m.ap)
            for m in view.measurements
            if m.kind == "random" and m.generation > 0
        ],
    )


def get_survivors_info(view: StudyView[Any]) -> dict[str, dict[int, float]]:
    """Kind of origin -> generation -> its share of the population, 0..1."""
    counts = {g: Counter(r.kind for r in p) for g, p in view.populations.items()}
    return {
        kind: {g: c[kind] / c.total() for g, c in counts.items()}
        for kind in KINDS
        if any(c[kind] for c in counts.values())
    }


def plot_evolution(study: Study | StudyView[Any]) -> go.Figure:
    """Plots the AP of the population by generation, the best so far and the random children."""
    title, info = "Evolution of the population", get_evolution_info(StudyView.of(study))
    if info is None:
        return message(title)
    x, figure = info.generations, go.Figure()
    least, lower, median, upper, largest = map(rounded, info.quantiles)
    best = list(accumulate(info.quantiles[-1], max))
    for low, high, name, opacity in (
        (least, largest, "population: all", 0.18),
        (lower, upper, "population: middle half", 0.35),
    ):
        figure.add_scatter(
            x=x + x[::-1],
            y=high + low[::-1],
            fill="toself",
            fillcolor=f"rgba(86, 180, 233, {opacity})",
            line={"width": 0},
            mode="lines",
            name=name,
            hoverinfo="skip",
        )
    figure.add_scatter(x=x, y=median, mode="lines+markers", name="population: median",
                       line={"color": BLUE, "width": 2}, marker={"size": 6})  # fmt: skip
    figure.add_scatter(x=x, y=rounded(best), mode="lines", name="best so far",
                       line={"color": VERMILION, "width": 2, "dash": "dash"})  # fmt: skip
    shown = [info.random[i] for i in thinned(len(info.random))]
    figure.add_scatter(
        x=[g for g, _ in shown],
        y=rounded([ap for _, ap in shown]),
        mode="markers",
        name="random children",
        marker={"symbol": "x-thin", "size": 7, "line": {"color": ORANGE, "width": 2}},
    )
    note = f"after {counted(x[-1] + 1, 'generation')} the best has {best[-1]:.1f} mAP"
    styled(figure, title, note=note, y=ONE_SHOT)
    return legend_below(by_generation(figure, x[-1]))


def plot_survivors(study: Study | StudyView[Any]) -> go.Figure:
    """Plots which share of the population each origin has, by generation."""
    title, view = "Origin of the population", StudyView.of(study)
    if not view.populations:
        return message(title)
    figure = go.Figure()
    for kind, shares in get_survivors_info(view).items():
        figure.add_bar(
            x=list(shares),
            y=rounded([100 * share for share in shares.values()]),
            name=kind,
            marker={"color": KIND_COLORS[kind], "line": {"width": 0}},
            hovertemplate="generation %{x}: %{y:.0f} %<extra>" + kind + "</extra>",
        )
    note = "share of the best P architectures after each generation"
    styled(figure, title, note=note, y="share of the population, %").update_yaxes(range=[0, 100])
    figure.update_layout(barmode="stack", bargap=0.15)
    return legend_below(by_generation(figure, view.n_generations - 1))
