"""Image files: opened, turned upright, brought to RGB whatever mode they have; their sizes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from msnas_optuna.data.masks import Outline

_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what turns the stored image upright
_SWAPS_SIDES: Final = (5, 6, 7, 8)

FORMATS: Final = ("JPEG", "PNG", "BMP", "WebP", "TIFF", "GIF")
"""Of images that are read; Pillow knows dozens more, and gives some to other programs."""

_DECODER_ERRORS: Final = (  # all that Pillow raises on damaged files
    OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


class DataError(ValueError):
    """A data set breaks a rule; the message has rule, value, file and repair."""


@dataclass(frozen=True)
class Category:
    """A class of objects with its id in the file, which need not be contiguous."""

    id: int
    name: str


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its n objects of K categories."""

    id: int  # in the annotation file; 0 is legal
    path: Path
    width: int  # pixels, upright
    height: int
    boxes: npt.NDArray[np.float32]  # [n, 4], x1 y1 x2 y2 in original pixels, inside, never empty
    labels: npt.NDArray[np.int64]  # [n], 1..K in the order of the category ids
    crowd: npt.NDArray[np.bool_]  # [n], boxes around a crowd: to be ignored, not to be learned
    outlines: Sequence[Outline] | None = None  # n in original pixels; None where none are read


class ImageSet:
    """Images with the categories of objects to find in them, sorted by id."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        categories: Sequence[Category],
        annotations: Path | None = None,
    ) -> None:
        """Reads nothing yet; `annotations` is the file that says the sizes of images, if any."""
        self.records: Final = tuple(records)
        self.categories: Final = tuple(categories)
        self._stated_in: Final = annotations

    def __len__(self) -> int:
        return len(self.records)

    @property
    def n_classes(self) -> int:
        """K, without a background class."""
        return len(self.categories)

    def read(self, index: int, *, size: tuple[int, int] | None = None) -> Image.Image:
        """Decodes an image, upright and in RGB; with `size` (width, height) it is resized to it.

        A JPEG that is at least twice as large is decoded faster, at 1/2, 1/4 or 1/8 of its size.

        Raises:
            DataError: the file is missing, damaged, or not of the size in the annotation file.
        """
        record = self.records[index]
        with opened(record.path) as image:
            orientation = self._orientation(image, record)
            stored = None if size is None else upright_size(size, orientation)
            draft = image.draft(None, stored)
            rgb = _to_rgb(image)
        if stored is not None:
            # A decoder rounds up: 667 pixels become 84 at 1/8, of which 83.375 are the image.
            # Pillow widens the filter when it shrinks, i.e. antialiases; the gap keeps that exact
            # enough while a box filter does most of a strong reduction.
            box = None if draft is None else draft[1]
            rgb = rgb.resize(stored, Image.Resampling.BILINEAR, box, reducing_gap=3.0)
        return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb

    def _orientation(self, image: Image.Image, record: ImageRecord) -> int:
        """The EXIF orientation to undo: annotators may have seen either form of the image."""
        orientation, stated = orientation_of(image), (record.width, record.height)
        if upright_size(image.size, orientation) == stated:
            return orientation
        if image.size == stated:
            return 1
        raise DataError(
            f"{record.path}: an image must have the size in its annotation file, got "
            f"{image.width}x{image.height} where {self._stated_in or 'its header'} says "
            f"{record.width}x{record.height}; correct width and height there or restore the image"
        )


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """An open image; what Pillow raises on damaged files becomes a DataError."""
    try:
        with Image.open(path, formats=[name.upper() for name in FORMATS]) as image:
            yield image
    except DataError:
        raise
    except _DECODER_ERRORS as error:
        raise DataError(
            f"{path}: an image must be readable as {', '.join(FORMATS)}, got "
            f"{type(error).__name__}: {error}; fetch or convert the file, or leave the image out"
        ) from error


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where the image has none or its EXIF block is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, struct.error):
        return 1
    return orientation if orientation in _UPRIGHT else 1


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) after an EXIF orientation is undone, or before: it is its own inverse."""
    return (size[1], size[0]) if orientation in _SWAPS_SIDES else size


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grayscale, which convert() would clip at 255
        gray = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((gray + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # Pillow asks for this step where the palette has transparency
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def image_record(path: Path, image_id: int) -> ImageRecord:
    """The record of an image file without annotations; DataError if it is missing or no image."""
    with opened(path) as image:
        width, height = upright_size(image.size, orientation_of(image))
    boxes, labels = np.empty((0, 4), np.float32), np.empty(0, np.int64)
    return ImageRecord(image_id, path, width, height, boxes, labels, np.empty(0, np.bool_))


def resized_size(size: tuple[int, int], shorter: int, longer: int) -> tuple[int, int]:
    """The (h, w) that an image of (h, w) is resized to, pixels, at least 1.

    The detection convention (Lin et al., "Feature Pyramid Networks", CVPR 2017): the shorter side
    becomes `shorter`, or less where the longer one would exceed `longer`; the aspect is kept.
    """
    scale = min(shorter / min(size), longer / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
