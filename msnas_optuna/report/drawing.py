"""Draws boxes onto an image: detections with names and scores, ground truth in dashes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image, ImageColor, ImageDraw, ImageFont

COLORS: Final = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442",
)  # fmt: skip
"""Color-blind-safe, one for each class in turn (Okabe and Ito, 2008)."""

READABLE_SIDE: Final = 384
"""Pixels; smaller pictures are enlarged, so that names and scores can be read."""

LONGEST: Final = 2048
"""Pixels of the longer side that no picture is enlarged beyond."""

_LIGHT: Final = 150
"""Luminance, 0..255, above which text on a color is black."""


_Corners: TypeAlias = tuple[float, float, float, float]
"""x1 y1 x2 y2 of what is drawn: pixel indices, all inside."""


@dataclass(frozen=True)
class LabelledBox:
    """A box with the name of its class.

    Attributes:
        corners: x1 y1 x2 y2 in pixels of the image, edges rather than pixel indices.
        label: name of the class.
        score: 0..1; None for ground truth.
    """

    corners: tuple[float, float, float, float]
    label: str
    score: float | None = None


def draw_boxes(
    image: Image.Image,
    detections: Sequence[LabelledBox],
    *,
    truth: Sequence[LabelledBox] = (),
    labels: Sequence[str] = (),
    least_side: int = READABLE_SIDE,
) -> Image.Image:
    """A copy of the image with boxes; the highest score lies on top.

    No name hides another while there is room.

    Args:
        image: upright, RGB; it stays as it is.
        detections: drawn with full lines in the color of their class, with name and score.
        truth: drawn in white dashes, without text.
        labels: names of all classes in order, so that a class has one color in all pictures;
            the default is the names that occur.
        least_side: the picture is enlarged by a whole factor until its shorter side has this
            many pixels, or the longer one `LONGEST`; 1 keeps its size.

    Returns:
        An RGB image.
    """
    factor = max(1, min(math.ceil(least_side / min(image.size)), LONGEST // max(image.size)))
    size = image.width * factor, image.height * factor
    picture = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    names = list(labels) or sorted({box.label for box in detections})
    width = max(2, round(min(size) / 250))
    for box in truth:
        _dashes(draw, _scaled(box, factor, size), width)
    shown = sorted(detections, key=lambda box: box.score or 0.0)
    for box in shown:
        draw.rectangle(_scaled(box, factor, size), outline=_color(box, names), width=width)
    captions: list[_Corners] = []
    for box in reversed(shown):  # the highest score has the first choice
        corners = _scaled(box, factor, size)
        captions.append(_caption(draw, corners, box, color=_color(box, names), taken=captions))
    return picture


def _color(box: LabelledBox, names: Sequence[str]) -> str:
    place = names.index(box.label) if box.label in names else len(names)
    return COLORS[place % len(COLORS)]


def _scaled(box: LabelledBox, factor: int, size: tuple[int, int]) -> _Corners:
    """Corners in pixel indices of the picture, in order and inside."""
    x1, y1, x2, y2 = (factor * c for c in box.corners)
    left, top = min(max(x1, 0.0), size[0] - 1.0), min(max(y1, 0.0), size[1] - 1.0)
    right, bottom = min(max(x2 - 1, left), size[0] - 1.0), min(max(y2 - 1, top), size[1] - 1.0)
    return left, top, right, bottom


def _caption(
    draw: ImageDraw.ImageDraw,
    corners: _Corners,
    box: LabelledBox,
    *,
    color: str,
    taken: Sequence[_Corners],
) -> _Corners:
    """Draws name and score where they hide no others that are `taken`; returns their place."""
    text = box.label if box.score is None else f"{box.label} {box.score:.2f}"
    picture = draw.im.size
    font = ImageFont.load_default(size=max(11, min(picture) / 32))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    size = math.ceil(right - left) + 4, math.ceil(bottom - top) + 4
    place = _free_place(corners, size, picture=picture, taken=taken)
    draw.rectangle(place, fill=color)
    red, green, blue = ImageColor.getrgb(color)[:3]
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > _LIGHT else "white"
    draw.text((place[0] + 2 - left, place[1] + 2 - top), text, font=font, fill=ink)
    return place


def _free_place(
    corners: _Corners,
    size: tuple[int, int],
    *,
    picture: tuple[int, int],
    taken: Sequence[_Corners],
) -> _Corners:
    """The first place inside the picture that overlaps none, or the first where all do."""
    (x1, y1, x2, y2), (w, h) = corners, size
    right = x2 - w
    spots = [(x1, y1 - h - 1), (x1, y1), (x1, y2 + 1), (x2 + 1, y1), (x1 - w - 1, y1)]
    spots += [(right, y1 - h - 1), (right, y1), (x1, y2 - h), (right, y2 - h), (right, y2 + 1)]
    rows = sorted(range(0, picture[1], h + 1), key=lambda y: abs(y - y1))
    spots += [(x1, y) for y in rows]
    last = picture[0] - 1 - w, picture[1] - 1 - h
    inside = [(x, y) for x, y in spots if y >= 0 and y <= last[1]] or [(x1, 0.0)]
    places = []
    for x, y in inside:
        column, row = math.floor(max(0.0, min(x, last[0]))), math.floor(y)
        places.append((column, row, column + w, row + h))
    for left, top, end, bottom in places:
        if all(left > c or a > end or top > d or b > bottom for a, b, c, d in taken):
            return left, top, end, bottom
    return places[0]


def _dashes(draw: ImageDraw.ImageDraw, corners: _Corners, width: int) -> None:
    """A white dashed outline on black, visible on any image."""
    x1, y1, x2, y2 = corners
    draw.rectangle(corners, outline="black", width=width)
    for a, b in _pieces(x1, x2, 4 * width):
        for y in (y1, max(y1, y2 - width + 1)):
            draw.rectangle((a, y, b, min(y + width - 1, y2)), fill="white")
    for a, b in _pieces(y1, y2, 4 * width):
        for x in (x1, max(x1, x2 - width + 1)):
            draw.rectangle((x, a, min(x + width - 1, x2), b), fill="white")


def _pieces(start: float, end: float, length: float) -> Iterator[tuple[float, float]]:
    """Every other piece of a line."""
    while start <= end:
        yield start, min(start + length, end)
        start += 2 * length
