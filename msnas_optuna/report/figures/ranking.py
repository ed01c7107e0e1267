"""Each score against the truth, with the error of the truth (MSNAS paper, Tables 2 and 4)."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any, Final, NamedTuple

import plotly.graph_objects as go

from msnas_optuna.report.figures.style import (
    PALETTE,
    counted,
    legend_below,
    message,
    rounded,
    styled,
)
from msnas_optuna.study.rank import Ranking
from msnas_optuna.study.rank_statistics import variance_components

TITLE: Final = "Score against AP after training from scratch"


class ScoredPoint(NamedTuple):
    """One architecture; AP in percent."""

    name: str
    score: float
    truth: float  # mean over the trainings
    error: float | None  # standard error of that mean; None where noise is unknown


def get_ranking_info(ranking: Ranking[Any]) -> dict[str, list[ScoredPoint]]:
    """Points of each score; the noise of a training is taken to be equal for all architectures."""
    noise = variance_components(ranking.trained)
    return {
        score: [
            ScoredPoint(
                str(architecture),
                100 * value,
                100 * fmean(runs),
                None if noise is None else 100 * math.sqrt(noise.within / len(runs)),
            )
            for architecture, (value, runs) in ranking.pairs(score).items()
        ]
        for score in ranking.scores
    }


def plot_ranking(ranking: Ranking[Any]) -> go.Figure:
    """Plots each score against the stand-alone AP; the legend shows and hides scores."""
    info = {score: points for score, points in get_ranking_info(ranking).items() if points}
    if not info:
        return message(TITLE, "no architecture is both scored and trained yet")
    figure = go.Figure()
    for (score, points), color in zip(info.items(), PALETTE * len(info), strict=False):
        errors = [point.error or 0 for point in points]
        figure.add_scatter(
            x=rounded([point.score for point in points]),
            y=rounded([point.truth for point in points]),
            error_y={"array": rounded(errors), "visible": any(errors), "thickness": 1},
            text=[point.name for point in points],
            hoverinfo="x+y+text",
            mode="markers",
            name=score,
            marker={"size": 8, "color": color},
        )
    most = max(map(len, info.values()))
    note = f"{counted(most, 'architecture')}; bars: standard error of the mean over trainings"
    styled(figure, TITLE, note=note, x="one-shot mAP", y="mAP after training from scratch")
    return legend_below(figure)
