"""Where the best architecture comes from: its ancestors, generation by generation (Alg. 1)."""

from __future__ import annotations

from typing import Any, Final

import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.report.figures.style import (
    INK,
    KIND_COLORS,
    ONE_SHOT,
    VERMILION,
    by_generation,
    counted,
    legend_below,
    message,
    padded,
    rounded,
    styled,
)
from msnas_optuna.study.view import Result, StudyView

MOST_ANCESTORS: Final = 120  # in a family tree; the nearest are kept


def ancestors(view: StudyView[Any], trial: int) -> list[Result[Any]]:
    """The trials that a finished trial descends from, latest first."""
    known = {m.records[0].number: m for m in view.measurements}
    found: set[int] = set()
    queue = [trial]
    while queue:
        new = known.keys() & set(known[queue.pop()].parents) - found
        found |= new
        queue += new
    return [known[number] for number in sorted(found, reverse=True)]


def plot_family_tree(study: Study | StudyView[Any], *, trial: int | None = None) -> go.Figure:
    """Plots a trial's ancestors, by default those of the best AP: generation against AP.

    Raises:
        ValueError: the study has no such finished trial.
    """
    view = StudyView.of(study)
    if trial is None and not view.results:
        return message("Family tree")
    number = view.results[0].records[0].number if trial is None else trial
    first, every = view.measurement(number), ancestors(view, number)
    members = [first, *every[:MOST_ANCESTORS]]
    at = {m.number: (m.generation, 100 * m.ap) for m in members}
    figure, x, y = go.Figure(), [], []
    for member in members[::-1]:
        for parent in member.parents:
            if parent in at:
                x += [at[parent][0], member.generation, None]
                y += [*rounded([at[parent][1], 100 * member.ap]), None]
    if x:
        pen = {"color": INK, "width": 1}
        figure.add_scatter(x=x, y=y, mode="lines", line=pen, showlegend=False, hoverinfo="skip")
    for kind, color in KIND_COLORS.items():
        same = [m for m in members if m.kind == kind]
        if same:
            figure.add_scatter(
                x=[m.generation for m in same],
                y=rounded([100 * m.ap for m in same]),
                mode="markers",
                name=kind,
                marker={"size": 10, "color": color},
                hovertext=[f"{m.name}: {100 * m.ap:.1f} mAP" for m in same],
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
    note = counted(len(members) - 1, "ancestor")
    if len(members) <= len(every):
        note += f", {len(every) + 1 - len(members)} more are left out"
    styled(figure, f"Family tree of {first.name}", note=note, y=ONE_SHOT)
    by_generation(figure, first.generation).update_xaxes(range=[-0.5, first.generation + 0.5])
    figure.update_yaxes(range=padded([ap for _, ap in at.values()]))
    return legend_below(figure)
