"""What the population looks like inside: the strides of its blocks and heads.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.2 and
§3.3.

Symbols: a absolute stride in pixels, s feature strides, g generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Final

import numpy as np
import plotly.graph_objects as go

from msnas_optuna.methods.msnas.space import FEATURE_STRIDES
from msnas_optuna.report.figures.observations import Observed, Source
from msnas_optuna.report.figures.style import HEIGHT, STRIDE_SCALE, message, rounded, styled

_MOST_LABELS: Final = 160
"""Cells of a heat map that have room for their number."""

_MOST_CELLS: Final = 1250
"""Cells that a heat map has at most; a dashboard sends each figure every few seconds."""


@dataclass(frozen=True)
class StridesInfo:
    """Strides of the population by generation.

    Attributes:
        generations: 0, 1, ..., thinned where they are many; the columns.
        mean: [rows][generations], geometric mean over the population of the absolute stride of a
            block or of the stride that a head reads, in pixels.
        most: [rows][generations], the most frequent one.
        share: [rows][generations], its share of the population, 0..1.
    """

    generations: tuple[int, ...]
    mean: tuple[tuple[float, ...], ...]
    most: tuple[tuple[int, ...], ...]
    share: tuple[tuple[float, ...], ...]


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


def _get_block_strides_info(observed: Observed) -> StridesInfo | None:
    rows = 1 if observed.space is None else observed.space.n_blocks
    return _strides(
        {
            g: [tuple(int(a) for a in o.architecture.absolute_strides) for o in population]
            for g, population in observed.populations(_MOST_CELLS // rows).items()
        }
    )


def _get_feature_strides_info(observed: Observed) -> StridesInfo | None:
    return _strides(
        {
            g: [o.architecture.feature_strides for o in population]
            for g, population in observed.populations(_MOST_CELLS // len(FEATURE_STRIDES)).items()
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
    last = info.generations[-1]
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
    figure.update_xaxes(title={"text": "generation"}, dtick=max(1, (last + 1) // 10))
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title={"text": rows}, autorange="reversed", type="category")
    return figure.update_yaxes(showgrid=False, dtick=1 if len(names) <= 13 else 2)
