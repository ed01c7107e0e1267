"""Encodings and pasting, against pycocotools and against the script beside an export."""

from __future__ import annotations

import importlib.util
import json
import shutil
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from msnas_optuna.data.masks import compressed, decode, encode, paste, rasterize
from msnas_optuna.inference.export import BESIDE

Mask = npt.NDArray[np.bool_]
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The script `load.py`, beside an empty description."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copyfile(BESIDE / "load.py", folder / "load.py")
    (folder / "architecture.json").write_text("{}")
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (folder / "SHA256SUMS").write_text(f"{digest}  architecture.json\n")
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(MASKS)
def test_an_encoding_comes_back_whole(mask: Mask) -> None:
    rle = encode(mask)
    assert json.loads(json.dumps(rle)) == rle
    assert np.array_equal(decode(rle), mask)
    assert compressed(dict(rle), mask.shape) == rle


@given(MASKS)
def test_the_loader_s_encoding_is_coco_s(loader: ModuleType, mask: Mask) -> None:
    rle = loader.run_lengths(mask)
    assert sum(rle["counts"]) == mask.size
    assert compressed(rle, mask.shape) == encode(mask)


@pytest.mark.parametrize(
    ("rle", "rule"),
    [
        ({"size": [4, 5], "counts": [20]}, r"size \[5, 4\], that of its image, got \[4, 5\]"),
        ({"size": [5, 4], "counts": [19]}, "counts of 20 pixels"),
        ({"size": [5, 4], "counts": []}, "counts of 20 pixels"),
        ({"size": [5, 4], "counts": ""}, "counts of 20 pixels"),
        ({"size": [5, 4], "counts": "abc"}, "counts"),
        ({"size": [5, 4], "counts": "é"}, "counts as pycocotools writes them"),
        ({"size": [5, 4], "counts": "o" * 99}, "counts as pycocotools writes them"),
    ],
)
def test_a_damaged_encoding_is_refused(rle: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        compressed(rle, (5, 4))


def test_an_outline_is_scaled_with_its_image() -> None:
    square = [np.array([2.0, 4, 6, 4, 6, 8, 2, 8])]
    expected = np.zeros((30, 20), np.uint8)
    expected[12:24, 4:12] = 1
    assert np.array_equal(rasterize(square, (30, 20), scale=(2, 3)), expected)
    original = rasterize(square, (10, 10)).astype(bool)
    resized = rasterize(encode(original), (30, 20), scale=(2, 3))
    assert np.array_equal(resized | expected, expected)
    assert (resized != expected).sum() == 4  # the corners
    assert np.array_equal(rasterize(encode(original), (10, 10)), original)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 30), st.floats(0, 40)), min_size=3, max_size=6),
        min_size=1, max_size=3,
    ),
)  # fmt: skip
def test_polygons_are_rasterized_as_pycocotools_does(outline: Any) -> None:
    parts = [np.array(part).ravel() for part in outline]
    whole = coco.merge(coco.frPyObjects([part.tolist() for part in parts], 40, 30))
    found = rasterize(parts, (40, 30))
    assert found.flags.c_contiguous
    # Numbers are rounded, and the same number less a whole one may be rounded otherwise.
    assert (found != coco.decode(whole)).sum() <= 12


def test_two_polygons_are_parts_of_one_mask() -> None:
    parts = [np.array([0.0, 0, 2, 0, 2, 2, 0, 2]), np.array([4.0, 4, 6, 4, 6, 6, 4, 6])]
    assert rasterize(parts, (8, 8)).sum() == 8


# ---------------------------------------------------------------- pasting

SIDES = st.tuples(st.integers(0, 30), st.integers(1, 20))


@given(SIDES, SIDES, st.integers(1, 28))
def test_a_full_mask_covers_its_box(x: tuple[int, int], y: tuple[int, int], m: int) -> None:
    box = [x[0], y[0], sum(x), sum(y)]
    expected = np.zeros((40, 33), bool)
    expected[box[1] : box[3], box[0] : box[2]] = True
    assert np.array_equal(paste(np.ones((m, m)), box, (40, 33)), expected)


@given(
    arrays(np.float64, (7, 7), elements=st.floats(0, 1)),
    st.tuples(*[st.floats(-20, 60)] * 2),
    st.tuples(*[st.floats(0, 60)] * 2),
)
def test_the_loader_pastes_the_same(
    loader: ModuleType, cells: Any, start: tuple[float, float], sides: tuple[float, float]
) -> None:
    box = [*start, start[0] + sides[0], start[1] + sides[1]]
    pasted = paste(cells, box, (40, 33))
    assert np.array_equal(pasted, loader.paste(cells, box, (33, 40)))
    y, x = np.nonzero(pasted)
    assert ((x + 1 >= box[0]) & (x <= box[2]) & (y + 1 >= box[1]) & (y <= box[3])).all()


def test_the_cells_of_a_mask_are_interpolated() -> None:
    cells = np.zeros((4, 4))
    cells[:, :2] = 1  # the left half
    pasted = paste(cells, [0, 0, 40, 40], (40, 40))
    assert np.array_equal(pasted, np.broadcast_to(np.arange(40) < 20, (40, 40)))


def test_a_shrunken_mask_pasted_again_is_nearly_the_mask() -> None:
    circle = np.hypot(*(np.mgrid[:56, :56] + 0.5 - 28)) < 28
    cells = circle.reshape(28, 2, 28, 2).mean(axis=(1, 3))
    rle = encode(paste(cells, [10, 20, 66, 76], (100, 90)))
    expected = np.zeros((100, 90), bool)
    expected[20:76, 10:66] = circle
    assert coco.iou([rle], [encode(expected)], [0]).item() > 0.98
