"""Where the best architecture comes from: its ancestors, generation by generation.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from msnas_optuna.report.figures.observation import Observation
from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import (
    INK,
    KIND_COLOURS,
    VERMILION,
    legend_below,
    message,
    padded,
    rounded,
    styled,
)

_MOST_ANCESTORS: Final = 120
"""Ancestors in a family tree; the nearest are kept."""


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
    figure.update_xaxes(
        title={"text": "generation"}, dtick=max(1, (x + 1) // 10), range=[-0.5, x + 0.5]
    )
    figure.update_yaxes(
        title={"text": "one-shot mAP"}, range=padded([ap for _, ap in at.values()])
    )
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
