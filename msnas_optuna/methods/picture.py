"""The picture of an architecture as lines, markers and bars, for any library to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Color = Literal["ink", "blue", "sky", "orange", "green", "purple", "vermilion"]
"""Okabe and Ito's palette, and the gray of text and axes."""

Symbol = Literal["circle", "square", "triangle-up", "triangle-down", "diamond"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Straight pieces between points.

    Attributes:
        points: x and y in data units.
        color: of the line.
        dash: how it is drawn.
        name: in the legend; lines of equal names have one entry, "" has none.
        curved: whether three points are the start, the top and the end of an arc.
    """

    points: tuple[Point, ...]
    color: Color
    dash: Literal["solid", "dash", "dot"] = "solid"
    name: str = ""
    curved: bool = False


@dataclass(frozen=True)
class Marker:
    """A sign at a point.

    Attributes:
        x: in data units.
        y: in data units.
        symbol: its shape.
        color: its filling.
        name: in the legend.
        text: more about it, shown when it is pointed at.
    """

    x: float
    y: float
    symbol: Symbol
    color: Color
    name: str
    text: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar, 0.5 units wide; those at one x stand on each other.

    Attributes:
        x: middle, in data units.
        height: in data units, from the top of the bar below.
        color: its filling.
        name: in the legend.
        text: more about it, shown when it is pointed at.
    """

    x: float
    height: float
    color: Color
    name: str
    text: str = ""


@dataclass(frozen=True)
class Panel:
    """One part of a picture; panels share their x axis and stand below each other.

    Attributes:
        title: of the y axis.
        y: least and largest value of the y axis.
        ticks: values of the y axis and what is written there; none for a plain axis.
        marks: what is drawn, the first below the others.
        height: in pixels, where the picture is drawn at its natural size.
    """

    title: str
    y: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[Line | Marker | Bar, ...]
    height: float


@dataclass(frozen=True)
class Picture:
    """A picture of an architecture, in data units, for any library to draw.

    Attributes:
        name: stands above it.
        panels: from top to bottom; the first alone is drawn where there is little room.
        x: least and largest value of the x axis, whose unit is 36 pixels at natural size.
        ticks: values of the x axis and what is written there, where there is room.
    """

    name: str
    panels: tuple[Panel, ...]
    x: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]
