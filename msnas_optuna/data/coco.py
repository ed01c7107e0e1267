"""A COCO-format detection data set, checked once when it is opened.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, with the published file format.

Boxes are x1 y1 x2 y2 in original pixels, edges rather than indices: a box over the whole image is
(0, 0, width, height). Symbols: n boxes of one image, N of all, K categories.
"""

from __future__ import annotations

import json
import os
import reprlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
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
from msnas_optuna.data.masks import Outline, compact, compressed, is_outline

_ROUNDING: Final = 0.01  # pixels that a box may leave its image by: files round to two decimals


class DataWarning(UserWarning):
    """A data set was repaired on reading; the message says how much."""


_Entry = dict[str, Any]
_Rule = tuple[str, Callable[[Any], bool]]  # in words, and whether a value keeps it


def _is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_side(value: Any) -> bool:
    return value is None or (_is_number(value) and 1 <= value < 2**31 and value % 1 == 0)


_ID: Final = ("an integer", _is_id)
_SIDE: Final = ("a positive whole number", _is_side)
_RULES: Final[Mapping[str, Mapping[str, _Rule]]] = {
    "images": {"id": _ID, "file_name": ("text", _is_text), "width": _SIDE, "height": _SIDE},
    "annotations": {
        "id": _ID,
        "image_id": _ID,
        "category_id": _ID,
        "bbox": ("four finite numbers x y width height", _is_box),
        "area": ("a finite number", lambda value: value is None or _is_number(value)),
        "iscrowd": ("0 or 1", lambda value: value in (None, 0, 1)),
    },
    "categories": {"id": _ID, "name": ("text", _is_text)},
}
"""Of the keys that are read; None stands for one that is not there."""

_OUTLINE: Final = (
    "polygons of three or more points each or a run-length encoding, as masks = true asks for",
    is_outline,
)


@dataclass(frozen=True, eq=False)
class _Objects:
    """The cleaned annotations, sorted by image; all arrays share the first axis N."""

    ids: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]  # position in the file's images
    category: npt.NDArray[np.int64]  # position in the sorted categories
    xywh: npt.NDArray[np.float64]  # [N, 4]
    area: npt.NDArray[np.float64]  # square pixels
    crowd: npt.NDArray[np.bool_]
    _: KW_ONLY
    outlines: Sequence[Outline] | None  # None where masks are not asked for


class CocoDetection(ImageSet):
    """Images with boxes from a COCO-format annotation file.

    Records have the order of the file and include images without objects. Boxes are clipped to
    their image and empty ones dropped; one `DataWarning` counts both.
    """

    def __init__(
        self, images: Path, annotations: Path, *, check_files: bool = True, masks: bool = False
    ) -> None:
        """Reads and checks the annotation file; with `check_files`, looks for every image too.

        Outlines of objects, most of a file, are kept with `masks` alone; every object needs one
        then. Points outside the image are moved to its edge.

        Raises:
            DataError: the file or an entry of it breaks a rule, or an image is missing.
        """
        self.annotations = file = Path(annotations)
        self.masks: Final = masks
        content = _read(file, masks=masks)
        categories = sorted(
            (Category(c["id"], c["name"]) for c in content["categories"]), key=lambda c: c.id
        )
        paths = [_path(entry, Path(images), file) for entry in content["images"]]
        missing = [path for path in paths if check_files and not os.path.isfile(path)]
        if missing:
            raise DataError(
                f"{file}: every image must be in the images folder {images}, got {len(missing)} "
                f"of {len(paths)} missing, the first {missing[0]}; fetch them or give another "
                f"folder"
            )
        sizes = [_size(entry, path) for entry, path in zip(content["images"], paths, strict=True)]
        self._objects: Final = _objects(content, sizes, categories, file=file, masks=masks)
        records = _records([e["id"] for e in content["images"]], paths, sizes, self._objects)
        super().__init__(records, categories, file)

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The cleaned annotations as a COCO dict with what evaluation needs, original ids."""
        objects = self._objects
        image_ids = np.array([record.id for record in self.records])
        category_ids = np.array([category.id for category in self.categories])
        columns = {
            "id": objects.ids,
            "image_id": image_ids[objects.image],
            "category_id": category_ids[objects.category],
            "bbox": objects.xywh,
            "area": objects.area,
            "iscrowd": objects.crowd.astype(int),
        }
        lists = {name: column.tolist() for name, column in columns.items()}
        if objects.outlines is not None:
            lists["segmentation"] = [
                outline if isinstance(outline, dict) else [part.tolist() for part in outline]
                for outline in objects.outlines
            ]
        rows = zip(*lists.values(), strict=True)
        return {
            "images": [{"id": r.id, "width": r.width, "height": r.height} for r in self.records],
            "categories": [{"id": c.id, "name": c.name} for c in self.categories],
            "annotations": [dict(zip(lists, row, strict=True)) for row in rows],
        }


def _read(file: Path, *, masks: bool) -> dict[str, list[_Entry]]:
    """The annotation file, each entry of the right form and with an id of its own."""
    rules = {kind: dict(of_kind) for kind, of_kind in _RULES.items()}
    read = {*rules}.union(*rules.values())
    if masks:
        rules["annotations"]["segmentation"] = _OUTLINE
        read |= {"segmentation", "size", "counts"}

    def entry(pairs: list[tuple[str, Any]]) -> _Entry:
        """What is needed; outlines, the bulk of a file, are forgotten or packed at once."""
        return {k: compact(v) if k == "segmentation" else v for k, v in pairs if k in read}

    try:
        raw = file.read_bytes()
        text = raw.decode(json.detect_encoding(raw))
        del raw  # large, as all in here
        content = json.loads(text, object_pairs_hook=entry)
    except OSError as error:
        raise DataError(
            f"{file}: the annotation file must be readable, got {error.strerror}; "
            f"give the path of a COCO-format JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: the annotation file must be JSON, got {error}; restore the file"
        ) from error
    if type(content) is not dict:
        raise DataError(
            f"{file}: the annotation file must be a JSON object, got {reprlib.repr(content)}; "
            f"give a file with images, annotations and categories"
        )
    for kind, of_kind in rules.items():
        _check_entries(content, kind, of_kind, file=file)
    return content


def _check_entries(
    content: Mapping[str, Any], kind: str, rules: Mapping[str, _Rule], *, file: Path
) -> None:
    """Raises DataError for the first entry of a list that breaks a rule."""
    entries = content.get(kind)
    if type(entries) is not list or not (entries or kind == "annotations"):
        raise DataError(
            f"{file}: {kind} must be a list with entries, got {_got(content, kind)}; "
            f"give a COCO-format detection file"
        )
    for i, entry in enumerate(entries):
        if type(entry) is not dict:
            raise DataError(
                f"{file}: {kind}[{i}] must be an object, got {reprlib.repr(entry)}; correct the "
                f"entry"
            )
        for key, (rule, keeps) in rules.items():
            if not keeps(entry.get(key)):
                named = [f"{k} {entry[k]}" for k in ("id", "image_id") if _is_id(entry.get(k))]
                raise DataError(
                    f"{file}: {kind}[{i}].{key} must be {rule}, got {_got(entry, key)}; correct "
                    f"or remove the entry{' with ' * bool(named)}{' and '.join(named)}"
                )
    ids = Counter(entry["id"] for entry in entries)
    if len(ids) < len(entries):
        raise DataError(
            f"{file}: ids of {kind} must be unique, got {ids.most_common(1)[0][0]} twice; "
            f"remove or renumber one of the entries"
        )


def _got(entry: Mapping[str, Any], key: str) -> str:
    return reprlib.repr(entry[key]) if key in entry else "nothing"


def _path(entry: _Entry, folder: Path, file: Path) -> Path:
    inside: str = os.path.normpath(entry["file_name"])
    if os.path.isabs(inside) or inside.split(os.sep, 1)[0] == os.pardir:
        raise DataError(
            f"{file}: file_name of image {entry['id']} must stay inside the images folder "
            f"{folder}, got {reprlib.repr(entry['file_name'])}; correct or remove the entry"
        )
    return folder / inside


def _size(entry: _Entry, path: Path) -> tuple[int, int]:
    """(width, height), from the image itself where the entry lacks one of them."""
    width, height = entry.get("width"), entry.get("height")
    if width is None or height is None:
        with opened(path) as image:
            return upright_size(image.size, orientation_of(image))
    return int(width), int(height)


def _objects(
    content: Mapping[str, list[_Entry]],
    sizes: Sequence[tuple[int, int]],
    categories: Sequence[Category],
    *,
    file: Path,
    masks: bool,
) -> _Objects:
    """Checks, clips and sorts the annotations; warns of what it changed."""
    entries = content["annotations"]
    image = _positions(entries, "image_id", [e["id"] for e in content["images"]], file=file)
    category = _positions(entries, "category_id", [c.id for c in categories], file=file)
    xywh = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    clipped, moved = _clip(xywh, np.array(sizes, np.float64)[image])
    # float32 as the records have it: a sliver that float32 rounds away is empty too
    edges = np.concatenate([clipped[:, :2], clipped[:, :2] + clipped[:, 2:]], 1).astype(np.float32)
    kept = (edges[:, 2:] > edges[:, :2]).all(axis=1)
    dropped, cut = int((~kept).sum()), int((moved & kept).sum())
    if dropped or cut:
        warnings.warn(
            f"{file}: {dropped} boxes without width or height dropped, "
            f"{cut} boxes clipped to their image",
            DataWarning,
            stacklevel=3,  # the line that opened the data set
        )
    order = np.flatnonzero(kept)
    order = order[np.argsort(image[order], kind="stable")]
    ids = np.array([entry["id"] for entry in entries], np.int64)
    crowd = np.array([entry.get("iscrowd") or 0 for entry in entries], bool)
    area = _areas(entries, clipped, moved)
    columns = (_frozen(column[order]) for column in (ids, image, category, clipped, area, crowd))
    places = zip(order.tolist(), image[order].tolist(), strict=True)
    outlines = [_outline(entries[i], sizes[at], file=file) for i, at in places if masks]
    return _Objects(*columns, outlines=outlines if masks else None)


def _outline(entry: _Entry, size: tuple[int, int], *, file: Path) -> Outline:
    """The outline of an object in an image of (width, height)."""
    found = entry["segmentation"]
    if isinstance(found, dict):
        try:
            return compressed(found, size[::-1])
        except ValueError as error:
            raise DataError(
                f"{file}: segmentation of annotation {entry['id']} must have {error}; correct or "
                f"remove the entry"
            ) from None
    return [part.reshape(-1, 2).clip(0, size).reshape(-1) for part in found]


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array


def _positions(
    entries: Sequence[Any], key: str, ids: Sequence[int], *, file: Path
) -> npt.NDArray[np.int64]:
    """The place in `ids` of the id that each annotation names, int64 [N]."""
    position = {id: i for i, id in enumerate(ids)}
    try:
        return np.array([position[entry[key]] for entry in entries], np.int64)
    except KeyError as unknown:
        entry = next(e for e in entries if e[key] not in position)
        kind = "images" if key == "image_id" else "categories"
        raise DataError(
            f"{file}: {key} of annotation {entry['id']} must be an id of {kind}, got {unknown}; "
            f"correct or remove the entry"
        ) from None


def _clip(
    xywh: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Boxes cut to their images, xywh [N, 4], and a mask of those that it moved, [N]."""
    start, end = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    inside = np.clip(start, 0, sizes), np.clip(end, 0, sizes)
    outside = np.maximum(np.abs(inside[0] - start), np.abs(inside[1] - end)).max(axis=1)
    clipped = np.concatenate([inside[0], inside[1] - inside[0]], axis=1)
    untouched = outside == 0  # keep the file's numbers, which a round trip through x2 would round
    clipped[untouched] = xywh[untouched]
    return clipped, outside > _ROUNDING


def _areas(
    entries: Sequence[_Entry],
    xywh: npt.NDArray[np.float64],
    moved: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Area of every object in square pixels: the file's up to that of a clipped box, else that."""
    stated = np.array([entry.get("area") or 0 for entry in entries], np.float64)
    box = xywh[:, 2] * xywh[:, 3]
    area = np.where(stated > 0, stated, box)
    return np.where(moved, np.minimum(area, box), area)


def _records(
    ids: Sequence[int], paths: Sequence[Path], sizes: Sequence[tuple[int, int]], objects: _Objects
) -> list[ImageRecord]:
    boxes = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], 1)
    boxes32 = _frozen(boxes.astype(np.float32))
    labels = _frozen(objects.category + 1)
    ends = np.searchsorted(objects.image, np.arange(len(ids) + 1)).tolist()
    own = [slice(start, stop) for start, stop in pairwise(ends)]
    outlines = objects.outlines
    return [
        ImageRecord(
            id, path, width, height, boxes=boxes32[n], labels=labels[n], crowd=objects.crowd[n],
            outlines=None if outlines is None else outlines[n],
        )
        for id, path, (width, height), n in zip(ids, paths, sizes, own, strict=True)
    ]  # fmt: skip
