"""The population from the inside: what a method wants to be seen of it, by generation (Alg. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any, Final, NamedTuple

import numpy as np
import plotly.graph_objects as go
from optuna.study import Study

from msnas_optuna.methods.base import Heatmap
from msnas_optuna.report.figures.style import (
    HEIGHT,
    by_generation,
    message,
    rounded,
    styled,
    thinned,
)
from msnas_optuna.study.view import Result, StudyView

COLOR_SCALE: Final = [[0.0, "#FDE725"], [0.5, "#21918C"], [1.0, "#440154"]]
"""Viridis, from fine to coarse; its lightness falls steadily."""

MOST_LABELS: Final = 160  # cells that have room for their number
MOST_CELLS: Final = 1250  # a dashboard sends each figure every few seconds


class HeatmapInfo(NamedTuple):
    """Numbers of the population, [rows][generations]."""

    generations: list[int]  # the columns, ascending
    mean: list[list[float]]  # geometric, over the population
    most: list[list[int]]  # the most frequent number
    share: list[list[float]]  # its share of the population, 0..1


def plot_heatmap(study: Study | StudyView[Any], name: str) -> go.Figure:
    """Plots a heat map over the generations, one of those in `Method.heatmaps`."""
    view = StudyView.of(study)
    heatmap = view.method.heatmaps[name]
    info = get_heatmap_info(heatmap, view.populations)
    if info is None:
        return message(heatmap.title)
    names = [str(i + 1) for i in range(len(info.mean))]
    labels = len(names) * len(info.generations) <= MOST_LABELS
    figure = go.Figure(
        go.Heatmap(
            x=info.generations,
            y=names,
            z=[rounded([log2(value) for value in row], 3) for row in info.mean],
            customdata=[
                [f"{value} ({share:.0%})" for value, share in zip(*cells, strict=True)]
                for cells in zip(info.most, info.share, strict=True)
            ],
            text=[list(map(str, row)) for row in info.most] if labels else None,
            texttemplate="%{text}" if labels else None,
            hovertemplate=(
                f"generation %{{x}}, {heatmap.rows} %{{y}}<br>most frequent: %{{customdata}}"
                "<extra></extra>"
            ),
            zmin=log2(heatmap.scale[0]),
            zmax=log2(heatmap.scale[-1]),
            colorscale=COLOR_SCALE,
            xgap=1,
            ygap=1,
            colorbar={
                "tickvals": [log2(value) for value in heatmap.scale],
                "ticktext": [str(value) for value in heatmap.scale],
                "outlinewidth": 0,
            },
        )
    )
    note = heatmap.unit + ("; number: the most frequent" if labels else "")
    height = HEIGHT if len(names) > 6 else 360
    styled(figure, heatmap.title, note=note, y=heatmap.rows, height=height)
    figure.update_yaxes(autorange="reversed", type="category", dtick=1 if len(names) <= 13 else 2)
    figure.update_yaxes(showgrid=False)
    return by_generation(figure, info.generations[-1]).update_xaxes(showgrid=False)


def get_heatmap_info(
    heatmap: Heatmap[Any], populations: Mapping[int, Sequence[Result[Any]]]
) -> HeatmapInfo | None:
    """The numbers of some populations, thinned evenly where they are many; None without any."""
    if not populations:
        return None
    every, scale = list(populations), np.array(heatmap.scale)
    rows = len(heatmap.values(populations[every[0]][0].architecture))
    last = len(every) - 1
    shown = [every[i] for i in thinned(len(every), keep=[last], limit=MOST_CELLS // rows)]
    columns = []
    for g in shown:
        table = np.array([heatmap.values(r.architecture) for r in populations[g]])  # [P, rows]
        counts = (table == scale[:, None, None]).sum(axis=1)  # [scale, rows]
        mean = 2 ** np.log2(table).mean(axis=0)
        columns.append((mean, scale[counts.argmax(axis=0)], counts.max(axis=0) / len(table)))
    return HeatmapInfo(
        shown, *(np.stack(part, axis=1).tolist() for part in zip(*columns, strict=True))
    )
