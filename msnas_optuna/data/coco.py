"""A COCO-format detection data set, checked once when it is opened.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, with the published file format.

Boxes are x1 y1 x2 y2 in pixels of the original image, edges rather than pixel indices: a box over
the whole image is (0, 0, width, height). Symbols: n boxes of one image, N of all, K categories.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from msnas_optuna.data.images import (
    Category,
    DataError,
    ImageRecord,
    ImageSet,
    opened,
    orientation_of,
    upright_size,
)

_ROUNDING: Final = 0.01
"""Pixels by which a box may leave its image uncounted: files round to two decimals."""

_HUGE: Final = 1e300
"""Nearly the largest float64; JSON has whole numbers beyond."""


class DataWarning(UserWarning):
    """A data set was repaired on reading; the message says how much."""


@dataclass(frozen=True, eq=False)
class _Header:
    id: int
    path: Path
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class _Objects:
    """The cleaned annotations, sorted by image; all arrays share the first axis N."""

    ids: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]  # position in the file's images
    category: npt.NDArray[np.int64]  # position in the sorted categories
    xywh: npt.NDArray[np.float64]  # [N, 4]
    area: npt.NDArray[np.float64]  # square pixels
    crowd: npt.NDArray[np.bool_]


class CocoDetection(ImageSet):
    """Images with boxes from a COCO-format annotation file.

    Boxes are clipped to their image and empty ones dropped; one `DataWarning` counts both.

    Attributes:
        annotations: the annotation file.
        categories: sorted by id.
        records: one per image, in the order of the file, images without objects included.
    """

    def __init__(self, images: Path, annotations: Path, *, check_files: bool = True) -> None:
        """Reads and checks the annotation file.

        Args:
            images: folder that the file names of the annotation file start from.
            annotations: COCO-format JSON file.
            check_files: look for every image file now rather than when it is read.

        Raises:
            DataError: the file or an entry of it breaks a rule, or an image is missing.
        """
        self.annotations = Path(annotations)
        content = _content(self.annotations)
        categories = _categories(content["categories"], self.annotations)
        headers = _headers(
            content["images"], Path(images), self.annotations, check_files=check_files
        )
        self._objects: Final = _objects(
            content["annotations"], headers, categories, file=self.annotations
        )
        super().__init__(tuple(_records(headers, self._objects)), categories, self.annotations)

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The cleaned annotations as a COCO dict with what box evaluation needs, original ids."""
        objects = self._objects
        image_ids = [record.id for record in self.records]
        category_ids = [category.id for category in self.categories]
        columns = zip(
            objects.ids.tolist(),
            objects.image.tolist(),
            objects.category.tolist(),
            objects.xywh.tolist(),
            objects.area.tolist(),
            objects.crowd.tolist(),
            strict=True,
        )
        return {
            "images": [{"id": r.id, "width": r.width, "height": r.height} for r in self.records],
            "categories": [{"id": c.id, "name": c.name} for c in self.categories],
            "annotations": [
                {
                    "id": id,
                    "image_id": image_ids[image],
                    "category_id": category_ids[category],
                    "bbox": xywh,
                    "area": area,
                    "iscrowd": int(crowd),
                }
                for id, image, category, xywh, area, crowd in columns
            ],
        }


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of the annotation file."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(
            f"{file}: the annotation file must be readable, got {error.strerror}; "
            f"give the path of a COCO-format JSON file"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{file}: the annotation file must be JSON, got {error}; restore the file"
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: the annotation file must be a JSON object, got a {type(content).__name__}; "
            f"give a file with images, annotations and categories"
        )
    return {key: _list(content, key, file) for key in ("images", "annotations", "categories")}


def _list(content: dict[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    if key not in content:
        raise DataError(
            f"{file}: the key {key!r} is required, got {', '.join(map(repr, content)) or 'no key'}"
            f"; give a COCO-format detection file"
        )
    entries = content[key]
    if not isinstance(entries, list) or (not entries and key != "annotations"):
        raise DataError(
            f"{file}: {key} must be a list with entries, got {_short(entries)}; "
            f"give a COCO-format detection file"
        )
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(
                f"{file}: {key}[{i}] must be an object, got {_short(entry)}; correct the entry"
            )
    return entries


def _integers(entries: Sequence[dict[str, Any]], key: str, kind: str, *, file: Path) -> list[int]:
    """One integer of every entry; `kind` is the name of the list in the file."""
    values = [entry.get(key) for entry in entries]
    for i, value in enumerate(values):
        if type(value) is not int or abs(value) >= 2**63:
            raise _entry_error(f"{kind}[{i}].{key} must be an integer", entries[i], key, file=file)
    return values  # type: ignore[return-value]  # each was checked above


def _unique_ids(entries: Sequence[dict[str, Any]], kind: str, file: Path) -> list[int]:
    ids = _integers(entries, "id", kind, file=file)
    seen: set[int] = set()
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise DataError(
            f"{file}: ids of {kind} must be unique, got {twice} twice; "
            f"remove or renumber one of the entries"
        )
    return ids


def _entry_error(rule: str, entry: dict[str, Any], key: str, *, file: Path) -> DataError:
    came = _short(entry[key]) if key in entry else "nothing"
    return DataError(f"{file}: {rule}, got {came}; correct or remove the entry")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _categories(entries: Sequence[dict[str, Any]], file: Path) -> tuple[Category, ...]:
    ids = _unique_ids(entries, "categories", file)
    for i, entry in enumerate(entries):
        if not isinstance(entry.get("name"), str):
            raise _entry_error(f"categories[{i}].name must be text", entry, "name", file=file)
    named = (Category(id, entry["name"]) for id, entry in zip(ids, entries, strict=True))
    return tuple(sorted(named, key=lambda category: category.id))


def _headers(
    entries: Sequence[dict[str, Any]], folder: Path, file: Path, *, check_files: bool
) -> list[_Header]:
    ids = _unique_ids(entries, "images", file)
    paths = [_image_path(entry, folder, file) for entry in entries]
    if check_files:
        _check_present(paths, folder, file)
    return [
        _Header(id, path, *_size(entry, path, file))
        for id, path, entry in zip(ids, paths, entries, strict=True)
    ]


def _image_path(entry: dict[str, Any], folder: Path, file: Path) -> Path:
    name = entry.get("file_name")
    if not isinstance(name, str):
        rule = f"file_name of image {entry['id']} must be text"
        raise _entry_error(rule, entry, "file_name", file=file)
    inside = os.path.normpath(name)
    if os.path.isabs(inside) or inside.split(os.sep, 1)[0] == os.pardir:
        rule = f"file_name of image {entry['id']} must stay inside the images folder {folder}"
        raise _entry_error(rule, entry, "file_name", file=file)
    return folder / inside


def _check_present(paths: Sequence[Path], folder: Path, file: Path) -> None:
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{file}: every image must be in the images folder {folder}, got {len(missing)} of "
            f"{len(paths)} missing, the first {missing[0]}; fetch them or give another folder"
        )


def _size(entry: dict[str, Any], path: Path, file: Path) -> tuple[int, int]:
    """(width, height), from the image itself where the entry lacks one of them."""
    if entry.get("width") is None or entry.get("height") is None:
        with opened(path) as image:
            return upright_size(image.size, orientation_of(image))
    for key in ("width", "height"):
        side = entry[key]
        if not isinstance(side, int | float) or not 1 <= side < 2**31 or side != int(side):
            rule = f"{key} of image {entry['id']} must be a positive whole number"
            raise _entry_error(rule, entry, key, file=file)
    return int(entry["width"]), int(entry["height"])


def _objects(
    entries: Sequence[dict[str, Any]],
    headers: Sequence[_Header],
    categories: Sequence[Category],
    *,
    file: Path,
) -> _Objects:
    """Checks, clips and sorts the annotations; warns of what it changed."""
    ids = np.array(_unique_ids(entries, "annotations", file), np.int64)
    image = _positions(entries, "image_id", [h.id for h in headers], file=file)
    category = _positions(entries, "category_id", [c.id for c in categories], file=file)
    xywh = _boxes(entries, file)
    sizes = np.array([(h.width, h.height) for h in headers], np.float64)[image]  # [N, 2]
    clipped, moved = _clip(xywh, sizes)
    # float32 as the records have it: a sliver that float32 rounds away is empty too
    edges = np.concatenate([clipped[:, :2], clipped[:, :2] + clipped[:, 2:]], 1).astype(np.float32)
    kept = (edges[:, 2:] > edges[:, :2]).all(axis=1)
    _report(int((~kept).sum()), int((moved & kept).sum()), file)
    order = np.flatnonzero(kept)
    order = order[np.argsort(image[order], kind="stable")]
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool)
    area = _areas(entries, clipped, moved)
    return _Objects(
        *(_frozen(column[order]) for column in (ids, image, category, clipped, area, crowd))
    )


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array


def _positions(
    entries: Sequence[dict[str, Any]], key: str, ids: Sequence[int], *, file: Path
) -> npt.NDArray[np.int64]:
    """Where in `ids` the id is that each annotation names, int64 [N]."""
    position = {id: i for i, id in enumerate(ids)}
    named = _integers(entries, key, "annotations", file=file)
    found = np.array([position.get(id, -1) for id in named], np.int64)
    unknown = np.flatnonzero(found < 0)
    if unknown.size:
        entry, kind = entries[unknown[0]], "images" if key == "image_id" else "categories"
        rule = f"{key} of annotation {entry['id']} must be an id of {kind}"
        raise _entry_error(rule, entry, key, file=file)
    return found


def _boxes(entries: Sequence[dict[str, Any]], file: Path) -> npt.NDArray[np.float64]:
    """Finite x y width height of every annotation, float64 [N, 4]."""
    values = [entry.get("bbox") for entry in entries]
    try:
        boxes = np.array(values or np.empty((0, 4)), np.float64)
    except (TypeError, ValueError, OverflowError):
        boxes = np.empty(0)
    if boxes.shape != (len(values), 4) or not np.isfinite(boxes).all():
        entry = next(e for e in entries if not _is_box(e.get("bbox")))
        rule = f"bbox of annotation {entry['id']} must be four finite numbers x y width height"
        raise _entry_error(rule, entry, "bbox", file=file)
    return boxes


def _is_box(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(isinstance(side, int | float) and abs(side) < _HUGE for side in value)


def _clip(
    xywh: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Boxes cut to their images, xywh [N, 4], and which of them that moved, [N]."""
    start, end = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    inside = np.clip(start, 0, sizes), np.clip(end, 0, sizes)
    outside = np.maximum(np.abs(inside[0] - start), np.abs(inside[1] - end)).max(axis=1)
    clipped = np.concatenate([inside[0], inside[1] - inside[0]], axis=1)
    untouched = outside == 0  # keep the file's numbers, which a round trip through x2 would round
    clipped[untouched] = xywh[untouched]
    return clipped, outside > _ROUNDING


def _areas(
    entries: Sequence[dict[str, Any]],
    xywh: npt.NDArray[np.float64],
    moved: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Area of every object in square pixels: the file's, else its box's.

    The area of a clipped box bounds that of its object.
    """
    stated = np.array(
        [a if isinstance(a := entry.get("area"), int | float) else 0 for entry in entries],
        np.float64,
    )
    box = xywh[:, 2] * xywh[:, 3]
    area = np.where((stated > 0) & np.isfinite(stated), stated, box)
    return np.where(moved, np.minimum(area, box), area)


def _report(dropped: int, clipped: int, file: Path) -> None:
    if dropped or clipped:
        warnings.warn(
            f"{file}: {dropped} boxes without width or height dropped, "
            f"{clipped} boxes clipped to their image",
            DataWarning,
            stacklevel=4,  # the line that opened the data set
        )


def _records(headers: Sequence[_Header], objects: _Objects) -> Iterator[ImageRecord]:
    boxes = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], 1)
    boxes32 = _frozen(boxes.astype(np.float32))
    labels = _frozen(objects.category + 1)
    ends = np.searchsorted(objects.image, np.arange(len(headers) + 1)).tolist()
    for header, (start, stop) in zip(headers, pairwise(ends), strict=True):
        own = slice(start, stop)
        yield ImageRecord(
            header.id,
            header.path,
            header.width,
            header.height,
            boxes=boxes32[own],
            labels=labels[own],
            crowd=objects.crowd[own],
        )
