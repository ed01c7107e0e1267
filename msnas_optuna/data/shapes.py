"""The generated default data set: textured pictures of circles, squares and triangles.

Objects span an order of magnitude in size, so that the choice of feature strides matters, and the
set is small enough to train on with a CPU.

Symbols: S side of the square pictures in pixels. Coordinates are x to the right and y down; pixel
(i, j) covers [j, j + 1] x [i, i + 1].
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from msnas_optuna.data.images import DataError

CLASSES: Final = ("circle", "square", "triangle")
"""Their COCO category ids are 1, 2, 3."""

SPLITS: Final = ("train", "val")

MARKER: Final = "shapes.json"
"""File in the data set's folder that holds its settings and whether it is finished."""

_VERSION: Final = 1
"""Of the pictures: to be raised when the same settings would give others."""

_NOISE: Final = 8.0
"""Standard deviation of the pixel noise, in grey levels of 0..255."""

_QUALITY: Final = 95

_CORNERS: Final = {
    "square": ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)),
    "triangle": ((0.0, -0.5), (0.5, 0.5), (-0.5, 0.5)),
}  # clockwise as seen, for an extent of 1

_Floats = npt.NDArray[np.float32]
_Window = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class ShapesSettings:
    """What the generated data set looks like.

    Attributes:
        train: pictures for training.
        val: pictures for validation.
        size: S, side of the pictures, pixels.
        seed: not negative; equal settings give equal pictures.
        objects: fewest and most objects of a picture, before occlusion hides some.
        extent: smallest and largest side of an object's square before rotation, pixels; log-
            uniform in between.
        rotation: largest rotation either way, degrees.
        min_visible: objects with less of their area in sight are not annotated, 0..1.
    """

    train: int = 3000
    val: int = 200
    size: int = 128
    seed: int = 0
    objects: tuple[int, int] = (1, 6)
    extent: tuple[float, float] = (8.0, 90.0)
    rotation: float = 20.0
    min_visible: float = 0.4

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        if self.train < 1 or self.val < 1:
            yield f"train and val must be at least 1, got {self.train} and {self.val}"
        if self.seed < 0:
            yield f"seed must not be negative, got {self.seed}"
        if not 1 <= self.objects[0] <= self.objects[1] <= 100:
            yield f"objects must be two numbers from 1 to 100 in order, got {self.objects}"
        if not 4 <= self.extent[0] <= self.extent[1]:
            yield f"extent must be two numbers from 4 in order, got {self.extent}"
        if not self.extent[1] * math.sqrt(2) <= self.size <= 4096:
            yield (
                f"size must hold a rotated object of extent {self.extent[1]:g}: "
                f"{math.ceil(self.extent[1] * math.sqrt(2))} to 4096, got {self.size}"
            )
        if not 0 <= self.rotation <= 180:
            yield f"rotation must lie in 0..180 degrees, got {self.rotation}"
        if not 0 < self.min_visible <= 1:
            yield f"min_visible must lie above 0 and up to 1, got {self.min_visible}"


@dataclass(frozen=True)
class Split:
    """Where a part of a data set lies: the folder of its images and the annotation file."""

    images: Path
    annotations: Path


@dataclass(frozen=True)
class VisibleObject:
    """What can be seen of an object.

    Attributes:
        label: 1..3, in the order of `CLASSES`.
        bbox: x y width height, tight around the visible pixels.
        area: number of visible pixels.
    """

    label: int
    bbox: tuple[int, int, int, int]
    area: int


def generate_shapes(
    folder: Path,
    settings: ShapesSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Split]:
    """Makes the data set in a folder, unless it is there already.

    An interrupted set is made anew. Files appear whole or not at all, so that several processes
    may ask for the same set at once.

    Args:
        folder: new, empty, or of an earlier call.
        settings: what to generate.
        progress: called with the number of pictures done and in all.

    Returns:
        The splits "train" and "val".

    Raises:
        DataError: the folder holds a finished set with other settings, or something else.
    """
    folder = Path(folder)
    splits = {
        name: Split(folder / name, folder / "annotations" / f"instances_{name}.json")
        for name in SPLITS
    }
    if _is_finished(folder, settings):
        return splits
    _mark(folder, settings, finished=False)
    counts, done = {"train": settings.train, "val": settings.val}, 0
    for number, (name, split) in enumerate(splits.items()):
        split.images.mkdir(parents=True, exist_ok=True)
        pictures = []
        for i in range(counts[name]):
            picture, objects = draw(np.random.default_rng([settings.seed, number, i]), settings)
            _write(split.images / _file_name(i), _jpeg(picture))
            pictures.append(objects)
            done += 1
            if progress is not None:
                progress(done, settings.train + settings.val)
        content = _coco(pictures, settings.size)
        _write(split.annotations, json.dumps(content).encode())
    _mark(folder, settings, finished=True)
    return splits


def _is_finished(folder: Path, settings: ShapesSettings) -> bool:
    marker = folder / MARKER
    if not marker.exists():
        if folder.exists() and not _is_free(folder):
            raise DataError(
                f"{folder}: the shapes data set needs a new or empty folder, got other files; "
                f"choose another folder"
            )
        return False
    try:
        found = json.loads(marker.read_bytes())
        finished = bool(found["finished"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{marker}: the marker must be as it was written, got {error!r}; remove {folder}"
        ) from error
    wanted = _marker(settings, finished=True)
    if finished and found != wanted:
        differing = {k: v for k, v in found.items() if v != wanted.get(k)}
        raise DataError(
            f"{marker}: the folder holds a set with other settings, got {differing}; "
            f"remove {folder} or choose another folder"
        )
    return finished


def _is_free(folder: Path) -> bool:
    """Whether there is at most the marker that another process is just writing."""
    return folder.is_dir() and all(p.name.startswith(f".{MARKER}.") for p in folder.iterdir())


def _marker(settings: ShapesSettings, *, finished: bool) -> dict[str, Any]:
    content = {"version": _VERSION, "finished": finished, **asdict(settings)}
    return dict(json.loads(json.dumps(content)))  # tuples become lists, as in the file


def _mark(folder: Path, settings: ShapesSettings, *, finished: bool) -> None:
    _write(folder / MARKER, json.dumps(_marker(settings, finished=finished), indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    """Writes a file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, path)


def _file_name(i: int) -> str:
    return f"{i:06d}.jpg"


def _jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Full colour resolution: an object of 8 pixels would be blurred otherwise.
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _coco(pictures: list[list[VisibleObject]], size: int) -> dict[str, Any]:
    objects = ((i, found) for i, picture in enumerate(pictures, 1) for found in picture)
    return {
        "info": {"description": "generated circles, squares and triangles"},
        "images": [
            {"id": i + 1, "file_name": _file_name(i), "width": size, "height": size}
            for i in range(len(pictures))
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
        "annotations": [
            {
                "id": id,
                "image_id": image,
                "category_id": found.label,
                "bbox": list(found.bbox),
                "area": found.area,
                "iscrowd": 0,
            }
            for id, (image, found) in enumerate(objects, 1)
        ],
    }


def draw(
    rng: np.random.Generator, settings: ShapesSettings
) -> tuple[npt.NDArray[np.uint8], list[VisibleObject]]:
    """One picture, uint8 [S, S, 3], and the objects that can be seen well enough."""
    size = settings.size
    canvas = _background(rng, size)
    owner = np.zeros((size, size), np.int64)  # which object a pixel shows; 0: none
    labels = rng.integers(1, len(CLASSES) + 1, rng.integers(*settings.objects, endpoint=True))
    painted = [0]  # pixels of each object before later ones cover it
    for number, label in enumerate(labels, 1):
        window, coverage = _coverage(rng, CLASSES[label - 1], settings)
        _paint(canvas[window], coverage, rng)
        owner[window][coverage >= 0.5] = number
        painted.append(int(np.count_nonzero(coverage >= 0.5)))
    canvas += _NOISE * rng.standard_normal(canvas.shape, np.float32)
    found = [
        _visible(owner == number, int(label), painted[number], settings.min_visible)
        for number, label in enumerate(labels, 1)
    ]
    return canvas.clip(0, 255).astype(np.uint8), [f for f in found if f is not None]


def _background(rng: np.random.Generator, size: int) -> _Floats:
    """Smooth random colours, float32 [S, S, 3] in 0..255."""
    cells = int(rng.integers(3, 8))
    coarse = rng.integers(60, 196, (cells, cells, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth).astype(np.float32)


def _coverage(
    rng: np.random.Generator, shape: str, settings: ShapesSettings
) -> tuple[_Window, _Floats]:
    """A new object at a random place: its part of the picture, [h, w], and how much it covers.

    The coverage of a pixel lies in 0..1.
    """
    low, high = settings.extent
    extent = math.exp(rng.uniform(math.log(low), math.log(high)))
    angle = math.radians(rng.uniform(-settings.rotation, settings.rotation))
    corners = _corners(shape, extent, angle)  # x y from the centre
    first, last = corners.min(axis=0), corners.max(axis=0)
    centre = rng.uniform(-first, settings.size - last)
    start = np.floor(centre + first).astype(int)
    stop = np.minimum(np.ceil(centre + last).astype(int), settings.size)
    x = (np.arange(start[0], stop[0]) + 0.5 - centre[0]).astype(np.float32)[None, :]
    y = (np.arange(start[1], stop[1]) + 0.5 - centre[1]).astype(np.float32)[:, None]
    inside = extent / 2 - np.hypot(x, y) if shape == "circle" else _depth(corners, x, y)
    window = slice(start[1], stop[1]), slice(start[0], stop[0])
    return window, np.clip(inside + 0.5, 0, 1, dtype=np.float32)  # one pixel of soft edge


def _corners(shape: str, extent: float, angle: float) -> npt.NDArray[np.float64]:
    """Corners of the rotated shape around its centre, x y in pixels; a circle's square."""
    if shape == "circle":
        return np.array(_CORNERS["square"]) * extent
    cos, sin = math.cos(angle) * extent, math.sin(angle) * extent
    return np.array([(x * cos - y * sin, x * sin + y * cos) for x, y in _CORNERS[shape]])


def _depth(corners: npt.NDArray[np.float64], x: _Floats, y: _Floats) -> _Floats:
    """Distance to the nearest edge line of a convex polygon, positive inside, [h, w]."""
    depth: _Floats = np.full((len(y), x.size), np.inf, np.float32)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = (end - start) / math.dist(start, end)
        edge = float(dx) * (y - float(start[1])) - float(dy) * (x - float(start[0]))
        np.minimum(depth, edge, out=depth)
    return depth


def _paint(canvas: _Floats, coverage: _Floats, rng: np.random.Generator) -> None:
    """Covers part of a canvas, [h, w, 3], in that of four random colours that differs most."""
    below = np.tensordot(coverage, canvas, axes=2) / coverage.sum()  # [3], mean colour under it
    colours = rng.uniform(0, 255, (4, 3)).astype(np.float32)
    colour = colours[np.abs(colours - below).sum(axis=1).argmax()]
    canvas += coverage[..., None] * (colour - canvas)


def _visible(
    mask: npt.NDArray[np.bool_], label: int, painted: int, min_visible: float
) -> VisibleObject | None:
    """The object that shows in a mask [S, S], or None where too little of it does."""
    area = int(mask.sum())
    if area == 0 or area < min_visible * painted:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    return VisibleObject(label, (left, top, width, height), area)
