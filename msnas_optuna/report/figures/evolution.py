"""How the population moved: its AP from generation to generation, and where its members come from.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Fig. 3,
Table 5 (random children) and Algorithm 1.

Symbols: P population size. The population of a generation is the best P of all architectures that
are measured by its end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import plotly.graph_objects as go

from msnas_optuna.report.figures.observation import KINDS
from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    BLUE,
    GENERATIONS,
    KIND_COLOURS,
    ORANGE,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
    thinned,
)

QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class EvolutionInfo:
    """AP in percent by generation.

    Attributes:
        generations: 0, 1, ..., thinned where they are many.
        quantiles: of the population, [generations][QUANTILES].
        best: so far.
        random: (generation, AP) of each random child after the first population.
    """

    generations: tuple[int, ...]
    quantiles: tuple[tuple[float, ...], ...]
    best: tuple[float, ...]
    random: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class SurvivorsInfo:
    """Where the members of the population come from.

    Attributes:
        generations: 0, 1, ..., thinned where they are many.
        shares: for each of `KINDS` that occurs, its share of the population by generation, 0..1.
    """

    generations: tuple[int, ...]
    shares: dict[str, tuple[float, ...]]


def plot_evolution(study: Source) -> go.Figure:
    """Plots the AP of the population by generation, the best so far and the random children.

    Args:
        study: of the search.
    """
    info = _get_evolution_info(Observed.of(study))
    title = "Evolution of the population"
    return _get_evolution_plot(info, title) if info else message(title, "no trial is finished yet")


def plot_survivors(study: Source) -> go.Figure:
    """Plots which share of the population each origin has, by generation.

    Args:
        study: of the search.
    """
    info = _get_survivors_info(Observed.of(study))
    title = "Origin of the population"
    return _get_survivors_plot(info, title) if info else message(title, "no trial is finished yet")


def _get_evolution_info(observed: Observed) -> EvolutionInfo | None:
    populations = observed.populations(GENERATIONS)
    if not populations:
        return None
    aps = [[100 * o.ap for o in population] for population in populations.values()]
    random = [
        (o.generation, 100 * o.ap)
        for o in observed.observations
        if o.kind == "random" and o.generation > 0
    ]
    return EvolutionInfo(
        generations=tuple(populations),
        quantiles=tuple(tuple(float(q) for q in np.quantile(found, QUANTILES)) for found in aps),
        best=tuple(accumulate(map(max, aps), max)),
        random=tuple(random),
    )


def _get_survivors_info(observed: Observed) -> SurvivorsInfo | None:
    populations = observed.populations(GENERATIONS)
    counts = {g: Counter(o.kind for o in p) for g, p in populations.items()}
    if not counts:
        return None
    shares = {
        kind: tuple(c[kind] / c.total() for c in counts.values())
        for kind in KINDS
        if any(c[kind] for c in counts.values())
    }
    return SurvivorsInfo(tuple(counts), shares)


def _get_evolution_plot(info: EvolutionInfo, title: str) -> go.Figure:
    x = list(info.generations)
    least, lower, median, upper, largest = (
        rounded(column) for column in zip(*info.quantiles, strict=True)
    )
    figure = go.Figure()
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
    figure.add_scatter(x=x, y=rounded(info.best), mode="lines", name="best so far",
                       line={"color": VERMILION, "width": 2, "dash": "dash"})  # fmt: skip
    shown = [info.random[i] for i in thinned(len(info.random))]
    figure.add_scatter(
        x=[g for g, _ in shown],
        y=rounded([ap for _, ap in shown]),
        mode="markers",
        name="random children",
        marker={"symbol": "x-thin", "size": 7, "line": {"color": ORANGE, "width": 2}},
    )
    n = x[-1] + 1
    after = "1 generation" if n == 1 else f"{n} generations"
    note = f"after {after} the best has {info.best[-1]:.1f} mAP"
    styled(figure, title, note=note)
    figure.update_xaxes(title={"text": "generation"}, dtick=max(1, n // 10))
    figure.update_yaxes(title={"text": "one-shot mAP"})
    return legend_below(figure)


def _get_survivors_plot(info: SurvivorsInfo, title: str) -> go.Figure:
    figure = go.Figure()
    for kind, shares in info.shares.items():
        figure.add_bar(
            x=list(info.generations),
            y=rounded([100 * share for share in shares]),
            name=kind,
            marker={"color": KIND_COLOURS[kind], "line": {"width": 0}},
            hovertemplate="generation %{x}: %{y:.0f} %<extra>" + kind + "</extra>",
        )
    styled(figure, title, note="share of the best P architectures after each generation")
    figure.update_layout(barmode="stack", bargap=0.15)
    figure.update_xaxes(
        title={"text": "generation"}, dtick=max(1, (info.generations[-1] + 1) // 10)
    )
    figure.update_yaxes(title={"text": "share of the population, %"}, range=[0, 100])
    return legend_below(figure)
