"""A COCO-format detection data set, checked once when it is opened.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, with the published file format.

Boxes are x1 y1 x2 y2 in original pixels, edges rather than indices: a box over the whole image is
(0, 0, width, height). Symbols: n boxes of one image, N of all, K categories.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from msnas_optuna.data.images import (
    Category,
    DataError,
    ImageRecord,
    ImageSet,
    opened,
    orientation_of,
    upright_size,
)

_ROUNDING: Final = 0.01  # pixels that a box may leave its image by: files round to two decimals


class DataWarning(UserWarning):
    """A data set was repaired on reading; the message says how much."""


_Id = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
_Side = Annotated[float, Field(strict=True, ge=1, lt=2**31, multiple_of=1)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _CategoryEntry(TypedDict):
    id: _Id
    name: str


class _ImageEntry(TypedDict):
    id: _Id
    file_name: str
    width: NotRequired[_Side | None]
    height: NotRequired[_Side | None]


class _AnnotationEntry(TypedDict):
    id: _Id
    image_id: _Id
    category_id: _Id
    bbox: tuple[_Number, _Number, _Number, _Number]
    area: NotRequired[Any]
    iscrowd: NotRequired[Any]


class _Content(TypedDict):
    images: Annotated[list[_ImageEntry], Field(min_length=1)]
    annotations: list[_AnnotationEntry]
    categories: Annotated[list[_CategoryEntry], Field(min_length=1)]


_CONTENT: Final = TypeAdapter(_Content)

_RULES: Final = {  # of the keys that are no integers
    "bbox": "four finite numbers x y width height",
    "width": "a positive whole number",
    "height": "a positive whole number",
    "file_name": "text",
    "name": "text",
}


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

    Records have the order of the file and include images without objects. Boxes are clipped to
    their image and empty ones dropped; one `DataWarning` counts both.
    """

    def __init__(self, images: Path, annotations: Path, *, check_files: bool = True) -> None:
        """Reads and checks the annotation file; with `check_files`, looks for every image too.

        Raises:
            DataError: the file or an entry of it breaks a rule, or an image is missing.
        """
        self.annotations = file = Path(annotations)
        content = _read(file)
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
        self._objects: Final = _objects(content, sizes, categories, file=file)
        records = _records([e["id"] for e in content["images"]], paths, sizes, self._objects)
        super().__init__(records, categories, file)

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The cleaned annotations as a COCO dict with what box evaluation needs, original ids."""
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
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return {
            "images": [{"id": r.id, "width": r.width, "height": r.height} for r in self.records],
            "categories": [{"id": c.id, "name": c.name} for c in self.categories],
            "annotations": [dict(zip(columns, row, strict=True)) for row in rows],
        }


def _read(file: Path) -> _Content:
    """The annotation file, each entry of the right form and with an id of its own."""
    try:
        raw = file.read_bytes()
        content = _CONTENT.validate_json(raw.decode(json.detect_encoding(raw)))
    except OSError as error:
        raise DataError(
            f"{file}: the annotation file must be readable, got {error.strerror}; "
            f"give the path of a COCO-format JSON file"
        ) from error
    except ValidationError as error:
        raise DataError(f"{file}: {_rule(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: the annotation file must be JSON, got {error}; restore the file"
        ) from error
    for kind in ("images", "annotations", "categories"):
        ids = Counter(entry["id"] for entry in content[kind])
        if len(ids) < len(content[kind]):
            raise DataError(
                f"{file}: ids of {kind} must be unique, got {ids.most_common(1)[0][0]} twice; "
                f"remove or renumber one of the entries"
            )
    return content


def _rule(error: ValidationError) -> str:
    """The first rule that a file breaks, in words."""
    first = error.errors(include_url=False)[0]
    kind, *entry = first["loc"] or ("",)
    came = "nothing" if first["type"] == "missing" else _short(first["input"])
    if first["type"] == "json_invalid":
        return f"the annotation file must be JSON, got {first['msg']}; restore the file"
    if not kind:
        return (
            f"the annotation file must be a JSON object, got {came}; "
            f"give a file with images, annotations and categories"
        )
    if not entry:
        return f"{kind} must be a list with entries, got {came}; give a COCO-format detection file"
    if len(entry) == 1:
        return f"{kind}[{entry[0]}] must be an object, got {came}; correct the entry"
    rule = _RULES.get(str(entry[1]), "an integer")
    return f"{kind}[{entry[0]}].{entry[1]} must be {rule}, got {came}; correct or remove the entry"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _path(entry: _ImageEntry, folder: Path, file: Path) -> Path:
    inside = os.path.normpath(entry["file_name"])
    if os.path.isabs(inside) or inside.split(os.sep, 1)[0] == os.pardir:
        raise DataError(
            f"{file}: file_name of image {entry['id']} must stay inside the images folder "
            f"{folder}, got {_short(entry['file_name'])}; correct or remove the entry"
        )
    return folder / inside


def _size(entry: _ImageEntry, path: Path) -> tuple[int, int]:
    """(width, height), from the image itself where the entry lacks one of them."""
    width, height = entry.get("width"), entry.get("height")
    if width is None or height is None:
        with opened(path) as image:
            return upright_size(image.size, orientation_of(image))
    return int(width), int(height)


def _objects(
    content: _Content,
    sizes: Sequence[tuple[int, int]],
    categories: Sequence[Category],
    *,
    file: Path,
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
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool)
    area = _areas(entries, clipped, moved)
    return _Objects(
        *(_frozen(column[order]) for column in (ids, image, category, clipped, area, crowd))
    )


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
    entries: Sequence[_AnnotationEntry],
    xywh: npt.NDArray[np.float64],
    moved: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Area of every object in square pixels: the file's up to that of a clipped box, else that."""
    stated = np.array(
        [a if isinstance(a := entry.get("area"), int | float) else 0 for entry in entries],
        np.float64,
    )
    box = xywh[:, 2] * xywh[:, 3]
    area = np.where((stated > 0) & np.isfinite(stated), stated, box)
    return np.where(moved, np.minimum(area, box), area)


def _records(
    ids: Sequence[int], paths: Sequence[Path], sizes: Sequence[tuple[int, int]], objects: _Objects
) -> list[ImageRecord]:
    boxes = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], 1)
    boxes32 = _frozen(boxes.astype(np.float32))
    labels = _frozen(objects.category + 1)
    ends = np.searchsorted(objects.image, np.arange(len(ids) + 1)).tolist()
    own = [slice(start, stop) for start, stop in pairwise(ends)]
    return [
        ImageRecord(
            id, path, width, height, boxes=boxes32[n], labels=labels[n], crowd=objects.crowd[n]
        )
        for id, path, (width, height), n in zip(ids, paths, sizes, own, strict=True)
    ]
