"""The generated default data set: textured pictures of circles, squares and triangles.

Objects span an order of magnitude in size, so that the choice of feature strides matters.
Pictures are S x S pixels; x is to the right, y down, pixel (i, j) covers [j, j + 1] x [i, i + 1].
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from msnas_optuna.data.images import DataError
from msnas_optuna.data.outlines import polygons
from msnas_optuna.runtime.files import atomic_write

CLASSES: Final = ("circle", "square", "triangle")  # COCO category ids 1, 2, 3
SPLITS: Final = ("train", "val", "test")
MARKER: Final = "shapes.json"  # holds the settings of a data set and whether it is finished

_VERSION: Final = 2  # to be raised when the same settings would give other files
_NOISE: Final = 8.0  # standard deviation, in gray levels of 0..255
_QUALITY: Final = 95
_TOLERANCES: Final = (0.6, 1.0)  # least and most that an outline leaves the pixels by, in pixels
_TOLERANCE_SHARE: Final = 1 / 25  # of the side of a square with the area, in between
_CORNERS: Final = {
    "square": ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)),
    "triangle": ((0.0, -0.5), (0.5, 0.5), (-0.5, 0.5)),
}  # clockwise as seen, for an extent of 1

_Floats = npt.NDArray[np.float32]
_Window = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class ShapesSettings:
    """Settings of the generated data set.

    Attributes:
        train: pictures for training.
        val: pictures for validation.
        test: pictures that no search looks at.
        size: S, side of the pictures, pixels.
        seed: 0 to 2**31 - 1; equal settings give equal pictures.
        objects: fewest and most objects of a picture, before occlusion hides some.
        extent: smallest and largest side of an object's square before rotation, pixels; log-
            uniform in between.
        rotation: largest rotation either way, degrees.
        min_visible: objects with less of their area in sight are not annotated, 0..1.
    """

    train: int = 3000
    val: int = 2000
    test: int = 2000
    size: int = 128
    seed: int = 0
    objects: tuple[int, int] = (1, 6)
    extent: tuple[float, float] = (8.0, 90.0)
    rotation: float = 20.0
    min_visible: float = 0.4

    def __post_init__(self) -> None:
        for rule in self._broken_rules():
            raise ValueError(rule)

    @property
    def counts(self) -> dict[str, int]:
        """Number of pictures of each split."""
        return {name: getattr(self, name) for name in SPLITS}

    def _broken_rules(self) -> Iterator[str]:
        if not all(1 <= count < 2**31 for count in self.counts.values()):
            counts = list(self.counts.values())
            yield f"train, val and test must be from 1 to 2,147,483,647, got {counts}"
        if not 0 <= self.seed < 2**31:
            yield f"seed must be from 0 to 2,147,483,647, got {self.seed}"
        if not 1 <= self.objects[0] <= self.objects[1] <= 100:
            yield f"objects must be two numbers from 1 to 100 in order, got {list(self.objects)}"
        if not 4 <= self.extent[0] <= self.extent[1]:
            yield f"extent must be two numbers from 4 in order, got {list(self.extent)}"
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
    """A part of a data set: the folder of its images and the annotation file."""

    images: Path
    annotations: Path


@dataclass(frozen=True)
class VisibleObject:
    """The part of an object that nothing covers."""

    label: int  # 1..3
    bbox: tuple[int, int, int, int]  # x y width height, tight around the visible pixels
    area: int  # number of visible pixels
    segmentation: list[list[int]]  # polygons x1 y1 x2 y2 .. around these


def generate_shapes(
    folder: Path, settings: ShapesSettings, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Split]:
    """Makes the `SPLITS` in a folder, unless they are there already.

    An interrupted set is made anew. Files appear whole or not at all, so that several processes
    may ask for the same set at once. `progress` gets the numbers of pictures done and in all.

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
    _write_json(folder / MARKER, _marker(settings, finished=False), indent=1)
    done, total = 0, sum(settings.counts.values())
    for number, (name, split) in enumerate(splits.items()):
        pictures = []
        for i in range(settings.counts[name]):
            picture, objects = draw(np.random.default_rng([settings.seed, number, i]), settings)
            pictures.append(objects)
            with atomic_write(split.images / _file_name(i), durable=False) as file:
                # Full color resolution: an object of 8 pixels would be blurred otherwise.
                Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY, subsampling=0)
            done += 1
            if progress is not None:
                progress(done, total)
        _write_json(split.annotations, _coco(pictures, settings.size))
    _write_json(folder / MARKER, _marker(settings, finished=True), indent=1)
    return splits


def _is_finished(folder: Path, settings: ShapesSettings) -> bool:
    """True of a folder with the whole set; False of a new, empty or unfinished one."""
    marker = folder / MARKER
    if not marker.exists():
        writing = f".{MARKER}."  # how the marker begins that another process is just writing
        if folder.exists() and not (
            folder.is_dir() and all(file.name.startswith(writing) for file in folder.iterdir())
        ):
            raise DataError(
                f"{folder}: the shapes data set needs a new or empty folder, got other files; "
                f"choose another folder"
            )
        return False
    try:
        found = json.loads(marker.read_bytes())
        finished = bool(found["finished"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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


def _marker(settings: ShapesSettings, *, finished: bool) -> dict[str, Any]:
    content = {"version": _VERSION, "finished": finished, **asdict(settings)}
    return dict(json.loads(json.dumps(content)))  # tuples become lists, as in the file


def _write_json(path: Path, content: dict[str, Any], *, indent: int | None = None) -> None:
    with atomic_write(path, durable=False) as file:
        file.write(json.dumps(content, indent=indent).encode())


def _file_name(i: int) -> str:
    return f"{i:06d}.jpg"


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
                "segmentation": found.segmentation,
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
    """Smooth random colors, float32 [S, S, 3] in 0..255."""
    cells = int(rng.integers(3, 8))
    coarse = rng.integers(60, 196, (cells, cells, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth).astype(np.float32)


def _coverage(
    rng: np.random.Generator, shape: str, settings: ShapesSettings
) -> tuple[_Window, _Floats]:
    """A new object at a random place: its part of the picture, and coverage 0..1 there, [h, w]."""
    low, high = settings.extent
    extent = math.exp(rng.uniform(math.log(low), math.log(high)))
    angle = math.radians(rng.uniform(-settings.rotation, settings.rotation))
    corners = _corners(shape, extent, angle)  # x y from the center
    first, last = corners.min(axis=0), corners.max(axis=0)
    center = rng.uniform(-first, settings.size - last)
    start = np.floor(center + first).astype(int)
    stop = np.minimum(np.ceil(center + last).astype(int), settings.size)
    x = (np.arange(start[0], stop[0]) + 0.5 - center[0]).astype(np.float32)[None, :]
    y = (np.arange(start[1], stop[1]) + 0.5 - center[1]).astype(np.float32)[:, None]
    inside = extent / 2 - np.hypot(x, y) if shape == "circle" else _depth(corners, x, y)
    window = slice(start[1], stop[1]), slice(start[0], stop[0])
    return window, np.clip(inside + 0.5, 0, 1, dtype=np.float32)  # one pixel of soft edge


def _corners(shape: str, extent: float, angle: float) -> npt.NDArray[np.float64]:
    """Corners of the rotated shape around its center, x y in pixels; a circle's square."""
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
    """Covers part of a canvas, [h, w, 3], in that of four random colors that differs most."""
    below = np.tensordot(coverage, canvas, axes=2) / coverage.sum()  # [3], mean color under it
    colors = rng.uniform(0, 255, (4, 3)).astype(np.float32)
    color = colors[np.abs(colors - below).sum(axis=1).argmax()]
    canvas += coverage[..., None] * (color - canvas)


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
    tolerance = min(max(math.sqrt(area) * _TOLERANCE_SHARE, _TOLERANCES[0]), _TOLERANCES[1])
    outline = polygons(mask, tolerance=tolerance)
    return VisibleObject(label, (left, top, width, height), area, outline)
