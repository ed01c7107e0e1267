"""The picture of an architecture as lines, markers and bars, for any library to draw.

All coordinates are in data units. Marks of equal names share an entry of the legend; "" has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Color = Literal["ink", "blue", "sky", "orange", "green", "purple", "vermilion"]
"""Okabe and Ito's palette, and the gray of text and axes."""

Symbol = Literal["circle", "square", "triangle-up", "triangle-down", "diamond"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Straight pieces between points, or `curved`, an arc with its start, top and end."""

    points: tuple[Point, ...]
    color: Color
    dash: Literal["solid", "dash", "dot"] = "solid"
    name: str = ""
    curved: bool = False


@dataclass(frozen=True)
class Marker:
    """A sign at a point; `text` is shown when it is pointed at."""

    x: float
    y: float
    symbol: Symbol
    color: Color
    name: str
    text: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar around x, 0.5 wide; those at one x stand on each other."""

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
    """A picture of an architecture.

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
