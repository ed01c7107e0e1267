"""Draws detections onto an image: boxes with names and scores, and masks where there are any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from msnas_optuna.data.masks import RLE, decode

COLORS: Final = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442",
)  # fmt: skip
"""Color-blind-safe, one for each class in turn (Okabe and Ito, 2008)."""

READABLE_SIDE: Final = 384  # pixels; smaller pictures are enlarged, so that names can be read
LONGEST: Final = 2048  # pixels of the longer side that no picture is enlarged beyond
OPACITY: Final = 0.45  # of masks, 0..1
_LIGHT: Final = 150  # luminance, 0..255, above which text on a color is black

_Corners = tuple[float, float, float, float]  # x1 y1 x2 y2 of what is drawn: pixel indices inside


@dataclass(frozen=True)
class LabeledBox:
    """A box with the name of its class, and a mask where the detector gives some."""

    corners: tuple[float, float, float, float]  # x1 y1 x2 y2, edges in pixels of the image
    label: str
    score: float  # 0..1
    mask: RLE | None = None  # of the pixels of the image


def draw_boxes(
    image: Image.Image, detections: Sequence[LabeledBox], *, labels: Sequence[str]
) -> Image.Image:
    """An RGB copy of the upright image with boxes and masks in the colors of their classes.

    The highest score lies on top, and no name hides another while there is room. The picture is
    enlarged by a whole factor until its shorter side has `READABLE_SIDE` pixels, or the longer
    one `LONGEST`. `labels` are all classes in order: a class has one color in all pictures.
    """
    factor = max(1, min(math.ceil(READABLE_SIDE / min(image.size)), LONGEST // max(image.size)))
    size = image.width * factor, image.height * factor
    picture = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    ordered = sorted(detections, key=lambda box: box.score)
    for box in ordered:
        if box.mask is not None:
            shade = Image.fromarray(decode(box.mask) * np.uint8(round(255 * OPACITY)))
            picture.paste(_color(box, labels), mask=shade.resize(size, Image.Resampling.NEAREST))
    draw = ImageDraw.Draw(picture)
    width = max(2, round(min(size) / 250))
    last_x, last_y = size[0] - 1.0, size[1] - 1.0
    drawn = []
    for box in ordered:
        x1, y1, x2, y2 = (factor * c for c in box.corners)
        left, top = min(max(x1, 0.0), last_x), min(max(y1, 0.0), last_y)
        corners = left, top, min(max(x2 - 1, left), last_x), min(max(y2 - 1, top), last_y)
        color = _color(box, labels)
        draw.rectangle(corners, outline=color, width=width)
        drawn.append((f"{box.label} {box.score:.2f}", corners, color))
    font = ImageFont.load_default(size=max(11, min(size) / 32))
    taken: list[_Corners] = []
    for text, corners, color in reversed(drawn):  # the highest score has the first choice
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        room = math.ceil(right - left) + 4, math.ceil(bottom - top) + 4
        place = _free_place(corners, room, picture=size, taken=taken)
        taken.append(place)
        draw.rectangle(place, fill=color)
        red, green, blue = ImageColor.getrgb(color)[:3]
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > _LIGHT else "white"
        draw.text((place[0] + 2 - left, place[1] + 2 - top), text, font=font, fill=ink)
    return picture


def _color(box: LabeledBox, labels: Sequence[str]) -> str:
    return COLORS[labels.index(box.label) % len(COLORS)]


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
