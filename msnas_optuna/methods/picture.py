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
    """One part of a picture; panels share their x axis and stand below each other."""

    title: str  # of the y axis
    y: tuple[float, float]  # its least and largest value
    ticks: tuple[tuple[float, str], ...]  # its values and their text; none for a plain axis
    marks: tuple[Line | Marker | Bar, ...]  # the first below the others
    height: float  # pixels at natural size


@dataclass(frozen=True)
class Picture:
    """A picture of an architecture."""

    name: str  # stands above it
    panels: tuple[Panel, ...]  # downwards; the first alone is drawn where there is little room
    x: tuple[float, float]  # least and largest value; 36 pixels a unit at natural size
    ticks: tuple[tuple[float, str], ...]  # of the x axis: values and text, where there is room
