"""What the population looks like inside: strides of blocks and heads, and the winner's ancestors.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2, §3.3
and Algorithm 1.

Symbols: a absolute stride in pixels, s feature strides, g generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Final

import numpy as np
import plotly.graph_objects as go

from msnas_optuna.figures.evolution import KIND_COLOURS
from msnas_optuna.figures.observations import Observation, Observed, Source
from msnas_optuna.figures.style import (
    HEIGHT,
    INK,
    STRIDE_SCALE,
    VERMILION,
    legend_below,
    message,
    rounded,
    styled,
)
from msnas_optuna.spaces.msnas import FEATURE_STRIDES

_MOST_ANCESTORS: Final = 120
"""Ancestors in a family tree; the nearest are kept."""

_MOST_LABELS: Final = 160
"""Cells of a heat map that have room for their number."""


@dataclass(frozen=True)
class StridesInfo:
    """Strides of the population by generation.

    Attributes:
        generations: 0, 1, ...; the columns.
        mean: [rows][generations], geometric mean over the population of the absolute stride of a
            block or of the stride that a head reads, in pixels.
        most: [rows][generations], the most frequent one.
        share: [rows][generations], its share of the population, 0..1.
    """

    generations: tuple[int, ...]
    mean: tuple[tuple[float, ...], ...]
    most: tuple[tuple[int, ...], ...]
    share: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FamilyInfo:
    """A trial and the trials that it descends from.

    Attributes:
        members: the trial first, then its ancestors by number, latest first.
        edges: numbers (parent, child).
        left_out: how many more ancestors there are.
    """

    members: tuple[Observation, ...]
    edges: tuple[tuple[int, int], ...]
    left_out: int


def plot_block_strides(study: Source) -> go.Figure:
    """Plots the resolution of every block of the population by generation.

    Args:
        study: of the search.
    """
    observed, title = Observed.of(study), "Resolution of the population's blocks"
    info = _get_block_strides_info(observed)
    if info is None:
        return message(title, "no trial is finished yet")
    return _get_strides_plot(info, title, rows="block", height=HEIGHT)


def plot_feature_strides(study: Source) -> go.Figure:
    """Plots which resolution every head of the population reads by generation.

    Args:
        study: of the search.
    """
    observed, title = Observed.of(study), "Features that the population's heads read"
    info = _get_feature_strides_info(observed)
    if info is None:
        return message(title, "no trial is finished yet")
    return _get_strides_plot(info, title, rows="head", height=360)


def plot_family_tree(study: Source, *, trial: int | None = None) -> go.Figure:
    """Plots a trial's ancestors: generation against AP, coloured by origin.

    Args:
        study: of the search.
        trial: number of a finished trial; the default is the one with the best AP.

    Raises:
        ValueError: the study has no such finished trial.
    """
    observed = Observed.of(study)
    if trial is not None and trial not in observed.by_number:
        raise ValueError(f"trial must be the number of a finished trial, got {trial}")
    if not observed.distinct:
        return message("Family tree", "no trial is finished yet")
    number = observed.distinct[0].number if trial is None else trial
    return _get_family_plot(_get_family_info(observed, number))


# ---------------------------------------------------------------------- heat maps


def _get_block_strides_info(observed: Observed) -> StridesInfo | None:
    return _strides(
        {
            g: [tuple(int(a) for a in o.architecture.absolute_strides) for o in population]
            for g in observed.generations
            if (population := observed.population(g))
        }
    )


def _get_feature_strides_info(observed: Observed) -> StridesInfo | None:
    return _strides(
        {
            g: [o.architecture.feature_strides for o in population]
            for g in observed.generations
            if (population := observed.population(g))
        }
    )


def _strides(by_generation: dict[int, list[tuple[int, ...]]]) -> StridesInfo | None:
    if not by_generation:
        return None
    columns = []
    for members in by_generation.values():
        table = np.array(members)  # [members, rows]
        counts = np.stack([(table == a).sum(axis=0) for a in FEATURE_STRIDES])  # [5, rows]
        mean = 2 ** np.log2(table).mean(axis=0)
        most = np.array(FEATURE_STRIDES)[counts.argmax(axis=0)]
        columns.append((mean, most, counts.max(axis=0) / len(members)))
    mean, most, share = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return StridesInfo(
        generations=tuple(by_generation),
        mean=tuple(map(tuple, mean.tolist())),
        most=tuple(map(tuple, most.tolist())),
        share=tuple(map(tuple, share.tolist())),
    )


def _get_strides_plot(info: StridesInfo, title: str, *, rows: str, height: int) -> go.Figure:
    names = [str(i + 1) for i in range(len(info.mean))]
    labels = len(info.mean) * len(info.generations) <= _MOST_LABELS
    figure = go.Figure(
        go.Heatmap(
            x=list(info.generations),
            y=names,
            z=[rounded([log2(a) for a in row], 3) for row in info.mean],
            customdata=[
                [f"{a} ({share:.0%})" for a, share in zip(*cells, strict=True)]
                for cells in zip(info.most, info.share, strict=True)
            ],
            text=[list(map(str, row)) for row in info.most] if labels else None,
            texttemplate="%{text}" if labels else None,
            hovertemplate=(
                f"generation %{{x}}, {rows} %{{y}}<br>most frequent: stride %{{customdata}}"
                "<extra></extra>"
            ),
            zmin=2,
            zmax=6,
            colorscale=list(map(list, STRIDE_SCALE)),
            xgap=1,
            ygap=1,
            colorbar={
                "title": {"text": "stride"},
                "tickvals": [log2(a) for a in FEATURE_STRIDES],
                "ticktext": [str(a) for a in FEATURE_STRIDES],
                "outlinewidth": 0,
            },
        )
    )
    note = "mean absolute stride, in pixels" + ("; number: the most frequent" if labels else "")
    styled(figure, title, note=note, height=height)
    figure.update_xaxes(title={"text": "generation"}, dtick=max(1, len(info.generations) // 10))
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title={"text": rows}, autorange="reversed", type="category")
    return figure.update_yaxes(showgrid=False, dtick=1 if len(names) <= 13 else 2)


# ---------------------------------------------------------------------- family


def _get_family_info(observed: Observed, number: int) -> FamilyInfo:
    known, seen, queue = observed.by_number, {number}, [number]
    while queue:
        for parent in known[queue.pop()].parents:
            if parent in known and parent not in seen:
                seen.add(parent)
                queue.append(parent)
    ancestors = sorted(seen - {number}, reverse=True)
    shown = {number, *ancestors[:_MOST_ANCESTORS]}
    return FamilyInfo(
        members=tuple(known[n] for n in (number, *ancestors[:_MOST_ANCESTORS])),
        edges=tuple(
            (parent, child)
            for child in sorted(shown)
            for parent in known[child].parents
            if parent in shown
        ),
        left_out=len(seen) - len(shown),
    )


def _get_family_plot(info: FamilyInfo) -> go.Figure:
    at = {o.number: (o.generation, 100 * o.ap) for o in info.members}
    figure = go.Figure()
    if info.edges:
        figure.add_trace(_edges(info.edges, at))
    for kind, colour in KIND_COLOURS.items():
        members = [o for o in info.members if o.kind == kind]
        if members:
            figure.add_trace(_members(members, kind, colour))
    first = info.members[0]
    x, y = at[first.number]
    figure.add_scatter(
        x=[x],
        y=rounded([y]),
        mode="markers",
        name=f"trial {first.number}",
        hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 18, "color": VERMILION, "line": {"width": 3}},
    )
    n = len(info.members) - 1
    note = f"{n} ancestor{'' if n == 1 else 's'}"
    if info.left_out:
        note += f", {info.left_out} more are left out"
    styled(figure, f"Family tree of trial {first.number}", note=note)
    figure.update_xaxes(title={"text": "generation"}, dtick=max(1, (x + 1) // 10))
    figure.update_yaxes(title={"text": "one-shot mAP"})
    return legend_below(figure)


def _edges(edges: Sequence[tuple[int, int]], at: dict[int, tuple[int, float]]) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for parent, child in edges:
        x += [at[parent][0], at[child][0], None]
        y += [*rounded([at[parent][1], at[child][1]]), None]
    pen = {"color": INK, "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=pen, showlegend=False, hoverinfo="skip")


def _members(members: Sequence[Observation], kind: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[o.generation for o in members],
        y=rounded([100 * o.ap for o in members]),
        mode="markers",
        name=kind,
        marker={"size": 10, "color": colour},
        hovertext=[f"trial {o.number}: {100 * o.ap:.1f} mAP" for o in members],
        hoverinfo="text",
    )
