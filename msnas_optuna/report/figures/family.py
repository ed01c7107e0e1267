"""Where the best architecture comes from: its ancestors, generation by generation.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import (
    INK,
    KIND_COLORS,
    VERMILION,
    counted,
    legend_below,
    message,
    padded,
    rounded,
    styled,
)
from msnas_optuna.study.view import Result, StudyView

MOST_ANCESTORS: Final = 120
"""Ancestors in a family tree; the nearest are kept."""


@dataclass(frozen=True)
class FamilyInfo:
    """A trial and the trials that it descends from.

    Attributes:
        members: the trial first, then its ancestors by number, latest first.
        edges: numbers (parent, child).
        left_out: how many more ancestors there are.
    """

    members: tuple[Result[Any], ...]
    edges: tuple[tuple[int, int], ...]
    left_out: int


def get_family_info(view: StudyView[Any], trial: int) -> FamilyInfo:
    """The ancestors of a finished trial."""
    known = {m.number: m for m in view.measurements if m.number is not None}
    seen, queue = {trial}, [trial]
    while queue:
        for parent in known[queue.pop()].parents:
            if parent in known and parent not in seen:
                seen.add(parent)
                queue.append(parent)
    ancestors = sorted(seen - {trial}, reverse=True)[:MOST_ANCESTORS]
    shown = {trial, *ancestors}
    return FamilyInfo(
        members=tuple(known[n] for n in (trial, *ancestors)),
        edges=tuple(
            (parent, child)
            for child in sorted(shown)
            for parent in known[child].parents
            if parent in shown
        ),
        left_out=len(seen) - len(shown),
    )


def plot_family_tree(study: Study | StudyView[Any], *, trial: int | None = None) -> go.Figure:
    """Plots a trial's ancestors: generation against AP, colored by origin.

    Args:
        study: of the search.
        trial: number of a finished trial; the default is the one with the best AP.

    Raises:
        ValueError: the study has no such finished trial.
    """
    view = StudyView.of(study)
    shown = view.results[:1] if trial is None else [view.measurement(trial)]
    if not shown:
        return message("Family tree")
    info = get_family_info(view, shown[0].records[0].number)
    first, at = info.members[0], {m.number: (m.generation, 100 * m.ap) for m in info.members}
    figure, x, y = go.Figure(), [], []
    for parent, child in info.edges:
        x += [at[parent][0], at[child][0], None]
        y += [*rounded([at[parent][1], at[child][1]]), None]
    if info.edges:
        pen = {"color": INK, "width": 1}
        figure.add_scatter(x=x, y=y, mode="lines", line=pen, showlegend=False, hoverinfo="skip")
    for kind, color in KIND_COLORS.items():
        members = [m for m in info.members if m.kind == kind]
        if members:
            figure.add_scatter(
                x=[m.generation for m in members],
                y=rounded([100 * m.ap for m in members]),
                mode="markers",
                name=kind,
                marker={"size": 10, "color": color},
                hovertext=[f"{m.name}: {100 * m.ap:.1f} mAP" for m in members],
                hoverinfo="text",
            )
    figure.add_scatter(
        x=[first.generation],
        y=rounded([100 * first.ap]),
        mode="markers",
        name=first.name,
        hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 18, "color": VERMILION, "line": {"width": 3}},
    )
    note = counted(len(info.members) - 1, "ancestor")
    if info.left_out:
        note += f", {info.left_out} more are left out"
    styled(figure, f"Family tree of {first.name}", note=note)
    last = first.generation
    figure.update_xaxes(
        title={"text": "generation"}, dtick=max(1, (last + 1) // 10), range=[-0.5, last + 0.5]
    )
    figure.update_yaxes(
        title={"text": "one-shot mAP"}, range=padded([ap for _, ap in at.values()])
    )
    return legend_below(figure)
