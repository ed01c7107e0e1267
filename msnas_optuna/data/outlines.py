"""Polygons around the pixels of a mask, as COCO's annotation files have them.

Pixel (i, j) covers [j, j + 1] x [i, i + 1], x to the right, y down. Points are complex numbers
x + iy inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_STEPS: Final = (1, 1j, -1, -1j)  # right, down, left, up: each a quarter to the right of the last


def polygons(mask: npt.NDArray[np.bool_], *, tolerance: float) -> list[list[int]]:
    """Polygons x1 y1 x2 y2 .. that together cover the pixels of a mask [h, w].

    They leave the edges of its pixels by up to `tolerance` pixels. Every part that is connected
    by edges has its own. COCO's polygons have no holes: a mask with one is cut in two, left and
    right of the hole's middle.
    """
    rings = list(_rings(mask))
    hole = next((ring for ring in rings if _is_hole(ring)), None)
    if hole is not None:
        xs = [int(point.real) for point in hole]
        cut = (min(xs) + max(xs) + 1) // 2
        columns = np.arange(mask.shape[1])
        halves = mask & (columns < cut), mask & (columns >= cut)
        return [part for half in halves for part in polygons(half, tolerance=tolerance)]
    found = []
    for ring in rings:
        far = max(range(len(ring)), key=lambda i: abs(ring[i] - ring[0]))
        there, back = ring[: far + 1], [*ring[far:], ring[0]]
        points = [*_simplified(there, tolerance), *_simplified(back, tolerance)]
        if len(points) < 3:  # nothing else is left of a thin line
            points = ring
        found.append([int(c) for point in points for c in (point.real, point.imag)])
    return found


def _rings(mask: npt.NDArray[np.bool_]) -> Iterator[list[complex]]:
    """The corners of each closed path along the edges of pixels, with the mask on its right."""
    padded = np.pad(mask, 1)
    above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
    before, after = padded[1:-1, :-2], padded[1:-1, 2:]
    edges: dict[tuple[complex, int], None] = {}  # (start, direction) in the order of the rows
    for k, (beside, corner) in enumerate(
        ((above, 0), (after, 1), (below, 1 + 1j), (before, 1j)),
    ):
        y, x = np.nonzero(mask & ~beside)
        edges.update(dict.fromkeys((start, k) for start in (x + 1j * y + corner).tolist()))
    left = dict(edges)
    while left:
        first = point, k = next(iter(left))
        ring = []
        while True:
            del left[point, k]
            point += _STEPS[k]
            # To the right first: pixels that touch at a corner alone are not connected.
            turn = next(t % 4 for t in (k + 1, k, k - 1) if (point, t % 4) in edges)
            if turn != k:
                ring.append(point)
            k = turn
            if (point, k) == first:
                break
        yield ring


def _is_hole(ring: Sequence[complex]) -> bool:
    """True of a ring that runs to the left: its shoelace sum is negative."""
    ends = zip(ring, [*ring[1:], ring[0]], strict=True)
    return sum((a.conjugate() * b).imag for a, b in ends) < 0


def _simplified(points: Sequence[complex], tolerance: float) -> list[complex]:
    """A path of fewer points, without its last one (Douglas and Peucker, 1973)."""
    first, chord = points[0], points[-1] - points[0]
    far, most = 0, tolerance
    for i in range(1, len(points) - 1):
        distance = abs((chord.conjugate() * (points[i] - first)).imag) / abs(chord)
        if distance > most:
            far, most = i, distance
    if far == 0:
        return [first]
    return _simplified(points[: far + 1], tolerance) + _simplified(points[far:], tolerance)
