"""Instance masks: outlines of annotation files, run-length encoding, pasting.

He et al., "Mask R-CNN", ICCV 2017, with the encodings of COCO's file format (pycocotools.mask).
Symbols: h x w pixels of an image, m x m cells of a predicted mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

THRESHOLD: Final = 0.5  # least probability of a pixel that belongs to an object

Mask = npt.NDArray[np.bool_]


class RLE(TypedDict):
    """COCO's compressed run-length encoding, column by column."""

    size: list[int]  # h, w
    counts: str


Polygons = Sequence[npt.NDArray[np.float64]]  # each x1 y1 x2 y2 .., pixels
Outline = Polygons | RLE
"""The mask of an object; several polygons are its parts."""


def compact(value: Any) -> Any:
    """Polygons of a file as arrays, an eighth of the memory; anything else as it is."""
    if type(value) is not list or not all(type(part) is list for part in value):
        return value
    if not all(type(number) in (int, float) for part in value for number in part):
        return value
    return [np.array(part, np.float64) for part in value]


def is_outline(value: Any) -> bool:
    """True of what `compact` makes of polygons, and of a run-length encoding."""
    if type(value) is dict:
        size, counts = value.get("size"), value.get("counts")
        numbers = type(counts) is list and all(type(n) is int and 0 <= n < 2**32 for n in counts)
        sides = type(size) is list and [type(side) for side in size] == [int, int]
        return sides and (numbers or type(counts) is str)
    return (
        type(value) is list
        and bool(value)
        and all(
            type(part) is np.ndarray
            and len(part) >= 6
            and len(part) % 2 == 0
            and bool(np.isfinite(part).all())
            for part in value
        )
    )


def compressed(rle: dict[str, Any], size: tuple[int, int]) -> RLE:
    """A run-length encoding of a file, whose counts may be numbers, of an image of (h, w).

    Raises:
        ValueError: it is of another size, or damaged; says what it must have.
    """
    h, w = size
    if rle["size"] != [h, w]:
        raise ValueError(f"size [{h}, {w}], that of its image, got {rle['size']}")
    counts = rle["counts"]
    runs = (counts if type(counts) is list else _runs(counts)) or [0]
    if sum(runs) != h * w or min(runs) < 0:
        raise ValueError(f"counts of {h * w} pixels, got {min(runs)} or more, {sum(runs)} in all")
    return _text(coco.frPyObjects({"size": [h, w], "counts": runs}, h, w))


def _runs(counts: str) -> list[int]:
    """The lengths of the runs in a compressed encoding, as pycocotools' rleFrString reads them."""
    runs: list[int] = []
    value = shift = 0
    for sign in counts:
        code = ord(sign) - 48  # 5 bits, the lowest first, and one that says that more follow
        if not 0 <= code < 64 or shift > 30:
            raise ValueError(f"counts as pycocotools writes them, got {counts[:40]!r}")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)  # the sign bit
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def rasterize(
    outline: Outline, size: tuple[int, int], *, scale: tuple[float, float] = (1, 1)
) -> npt.NDArray[np.uint8]:
    """The mask of an object in an image that is resized to (h, w), 0 or 1, [h, w].

    `scale` is resized / original size, (x, y). Polygons are scaled, not their pixels.
    """
    h, w = size
    if isinstance(outline, dict):
        mask = decode(outline)
        if mask.shape == (h, w):
            return mask.astype(np.uint8)
        shades = Image.fromarray(mask.astype(np.uint8) * 255)
        resized = shades.resize((w, h), Image.Resampling.BILINEAR)
        return (np.asarray(resized) > 127).astype(np.uint8)
    parts = [part.reshape(-1, 2) * scale for part in outline]  # x y
    points = np.concatenate(parts)
    # The part of the image around them alone: most objects are small, and whole images slow.
    left, top = np.minimum(points.min(axis=0).astype(int), (w - 1, h - 1)).tolist()
    right, bottom = np.minimum(points.max(axis=0).astype(int) + 1, (w, h)).tolist()
    shifted = [(part - (left, top)).ravel().tolist() for part in parts]
    found = np.zeros((h, w), np.uint8)
    found[top:bottom, left:right] = coco.decode(
        coco.merge(coco.frPyObjects(shifted, bottom - top, right - left))
    )
    return found


def encode(mask: Mask) -> RLE:
    """The run-length encoding of a mask [h, w]."""
    return _text(coco.encode(np.asfortranarray(mask).view(np.uint8)))


def decode(rle: RLE) -> Mask:
    """The mask [h, w] of a run-length encoding."""
    return np.ascontiguousarray(coco.decode(rle)).astype(np.bool_)


def area(rle: RLE) -> int:
    """Pixels of a mask."""
    return int(coco.area(rle))


def _text(rle: dict[str, Any]) -> RLE:
    h, w = rle["size"]
    return {"size": [int(h), int(w)], "counts": rle["counts"].decode("ascii")}


def paste(
    probabilities: npt.NDArray[np.floating[Any]],
    box: Sequence[float],
    size: tuple[int, int],
) -> Mask:
    """The pixels of an image, [h, w], that a mask [m, m] over a box covers.

    The box is x1 y1 x2 y2 in pixels. The probability of a pixel is interpolated linearly at its
    middle; the outermost cells go on to the edge of the box.
    """
    (h, w), (x1, y1, x2, y2) = size, box
    top, rows = _weights(y1, y2, len(probabilities), pixels=h)
    left, columns = _weights(x1, x2, len(probabilities), pixels=w)
    mask = np.zeros((h, w), np.bool_, order="F")  # as `encode` needs it
    part = rows @ probabilities @ columns.T >= THRESHOLD
    mask[top : top + len(rows), left : left + len(columns)] = part
    return mask


def _weights(
    low: float, high: float, m: int, *, pixels: int
) -> tuple[int, npt.NDArray[np.float64]]:
    """The first pixel with its middle in low..high, and the weights of m cells for all, [p, m]."""
    first, end = (min(max(math.ceil(side - 0.5), 0), pixels) for side in (low, high))
    middle = np.arange(first, end) + 0.5
    place = ((middle - low) * m / max(high - low, 1e-6) - 0.5).clip(0, m - 1)
    return first, np.maximum(0, 1 - np.abs(place[:, None] - np.arange(m)))
