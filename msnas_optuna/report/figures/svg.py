"""Draws the picture of an architecture as an SVG file, which needs no plotting library to show.

Text and axes are gray and nothing lies behind them, so that a picture suits light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from msnas_optuna.methods.picture import Line, Marker, Panel, Picture
from msnas_optuna.report.figures.style import COLORS, INK

UNIT: Final = 36.0  # pixels of one unit of the x axis
LEFT: Final = 48.0  # pixels beside the panels, with the labels of their y axes

_DASHES: Final = {"solid": "", "dash": ' stroke-dasharray="5 3"', "dot": ' stroke-dasharray="2 3"'}

_SHAPES: Final = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "square": "M-5.5 -5.5h11v11h-11z",
    "triangle-up": "M-7 6.5h14l-7 -13z",
    "triangle-down": "M-7 -6.5h14l-7 13z",
    "diamond": "M0 -7l7 7l-7 7l-7 -7z",
}
"""Paths around the point that a marker marks."""


def svg(picture: Picture) -> str:
    """The picture as a whole SVG file."""
    top, parts = 46.0, [_text(8, 18, picture.name, anchor="start", size=14)]
    for i, panel in enumerate(picture.panels):
        parts += _panel(picture, panel, top)
        top += panel.height
        if i == 0:
            parts += (_text(_x(picture, x), top + 16, text) for x, text in picture.ticks)
            top += 22
        top += 30 if i + 1 < len(picture.panels) else 8
    width, drawn = _x(picture, picture.x[1]) + 12, "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" '
        f'width="{width:g}" height="{top:g}" font-family="sans-serif" font-size="11" '
        f'fill="{INK}" role="img">\n<title>{escape(picture.name)}</title>\n{drawn}\n</svg>\n'
    )


def _panel(picture: Picture, panel: Panel, top: float) -> Iterator[str]:
    low, high = panel.y

    def place(x: float, y: float) -> tuple[float, float]:
        return _x(picture, x), round(top + panel.height * (high - y) / (high - low), 1)

    yield _text(8, top - 10, panel.title, anchor="start")
    right = _x(picture, picture.x[1])
    for value, label in panel.ticks or ((low, ""),):
        y = place(0, value)[1]
        yield _text(LEFT - 8, y + 4, label, anchor="end")
        yield f'<path d="M{LEFT:g} {y:g}H{right:g}" stroke="{INK}" stroke-opacity="0.3"/>'
    stacked: dict[float, float] = {}
    for mark in sorted(panel.marks, key=lambda mark: not isinstance(mark, Line)):
        color = COLORS[mark.color]
        if isinstance(mark, Line):
            points = [place(x, y) for x, y in mark.points]
            if mark.curved:  # a parabola through the second point
                (x1, y1), (x2, y2), (x3, y3) = points
                way = f"M{x1:g} {y1:g}Q{2 * x2 - (x1 + x3) / 2:g} {2 * y2 - (y1 + y3) / 2:g} "
                way += f"{x3:g} {y3:g}"
            else:
                way = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
            pen = f'stroke="{color}" stroke-width="1.6"{_DASHES[mark.dash]}'
            yield f'<path d="{way}" fill="none" {pen}/>'
        elif isinstance(mark, Marker):
            x, y = place(mark.x, mark.y)
            shape = f'<path transform="translate({x:g} {y:g})" d="{_SHAPES[mark.symbol]}"'
            yield f'{shape} fill="{color}"><title>{escape(mark.text or mark.name)}</title></path>'
        else:
            base = stacked.get(mark.x, low)
            stacked[mark.x] = base + mark.height
            (x, y), (_, bottom) = place(mark.x, stacked[mark.x]), place(mark.x, base)
            box = f'x="{x - 9:g}" y="{y:g}" width="18" height="{bottom - y:.1f}"'
            yield f'<rect {box} fill="{color}"><title>{escape(mark.text)}</title></rect>'


def _x(picture: Picture, x: float) -> float:
    return round(LEFT + UNIT * (x - picture.x[0]), 1)


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 11) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"
