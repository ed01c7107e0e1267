"""Colors, axes and empty figures, the same in every figure.

The colors are Okabe and Ito's, for color-blind readers. Text and axes are of a gray that is
legible on white and on black, and the background is transparent, for light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

COLORS: Final = {
    "ink": "#808080",
    "blue": "#0072B2",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "vermilion": "#D55E00",
}
"""By the names that pictures of architectures use; ink is that of text and axes."""

INK, BLUE, SKY, ORANGE, GREEN, PURPLE, VERMILION = COLORS.values()

PALETTE: Final = (VERMILION, BLUE, ORANGE, SKY, PURPLE, GREEN, INK)
"""One after the other, of things without a color of their own."""

KIND_COLORS: Final = {
    "random": ORANGE,
    "recombination": PURPLE,
    "crossover": SKY,
    "mutation": BLUE,
    "substitute": "#A6761D",
    "other": INK,
}
"""Of the origins in all figures."""

ONE_SHOT: Final = "one-shot mAP (validation)"
"""The axis of what a search measures."""

CLEAR: Final = "rgba(0, 0, 0, 0)"

AXIS: Final[dict[str, Any]] = {
    "gridcolor": "rgba(128, 128, 128, 0.25)",
    "linecolor": INK,
    "zerolinecolor": "rgba(128, 128, 128, 0.25)",
    "zeroline": False,
    "automargin": True,
}

HEIGHT: Final = 440  # pixels of a figure; optuna-dashboard cuts off what lies below 450
POINTS: Final = 600  # trials in a scatter plot; a dashboard sends each figure every few seconds


def styled(
    figure: go.Figure,
    title: str,
    *,
    note: str = "",
    x: str | None = None,
    y: str | None = None,
    height: int = HEIGHT,
) -> go.Figure:
    """Gives a figure its title, with a smaller `note` below it, and the common look."""
    figure.update_xaxes(AXIS | ({"title": {"text": x}} if x else {}))
    figure.update_yaxes(AXIS | ({"title": {"text": y}} if y else {}))
    text = f"{title}<br><sup>{note}</sup>" if note else title
    return figure.update_layout(
        template=None,
        title={"text": text, "x": 0.02, "xanchor": "left", "font": {"size": 16}},
        font={"color": INK, "size": 12},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        margin={"l": 60, "r": 30, "t": 70, "b": 50},
        hoverlabel={"font": {"size": 12}},
        modebar={"bgcolor": CLEAR, "color": INK, "activecolor": BLUE},
        height=height,
    )


def legend_below(figure: go.Figure, *, y: float = -0.23) -> go.Figure:
    """Puts the legend under the figure, where it hides nothing."""
    place = {"orientation": "h", "x": 0, "xanchor": "left", "y": y, "yanchor": "top"}
    # Plotly reverses the order of stacked bars.
    return figure.update_layout(legend=place | {"traceorder": "normal"})


def by_generation(figure: go.Figure, last: int) -> go.Figure:
    """Gives the x axis the name and about ten ticks of the generations 0 .. `last`."""
    return figure.update_xaxes(title={"text": "generation"}, dtick=max(1, (last + 1) // 10))


def message(title: str, text: str = "no trial is finished yet") -> go.Figure:
    """An empty figure that says why it is empty."""
    figure = styled(go.Figure(), title, height=240)
    figure.update_layout(xaxis_visible=False, yaxis_visible=False)
    figure.add_annotation(
        text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14}
    )
    return figure


def rounded(values: Sequence[float], digits: int = 4) -> list[float]:
    """Values with as many significant digits as a figure can show, so that its JSON is small."""
    short = (float(f"{value:.{digits}g}") for value in values)
    return [int(value) if value.is_integer() else value for value in short]


def padded(values: Sequence[float]) -> list[float]:
    """The range of an axis from the least to the largest value, with some room beside them."""
    room = 0.08 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
    return [min(values) - room, max(values) + room]


def thinned(n: int, keep: Sequence[int] = (), limit: int = POINTS) -> list[int]:
    """At most about `limit` of the numbers 0..n-1, evenly spread, with all that are in `keep`."""
    step = max(-(-n // limit), 1)
    return sorted({*range(0, n, step), *keep})


def counted(n: int, noun: str) -> str:
    """A number of things: "1 architecture", "2 architectures"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
