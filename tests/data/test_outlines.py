"""Polygons around masks, rasterized again by pycocotools."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from msnas_optuna.data import shapes
from msnas_optuna.data.outlines import polygons

Mask = npt.NDArray[np.bool_]


def rasterized(outline: list[list[int]], shape: tuple[int, ...]) -> Mask:
    rle = coco.merge(coco.frPyObjects(outline, *shape))
    return coco.decode(rle).astype(bool)


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_without_tolerance_the_polygons_of_any_mask_cover_it_exactly(mask: Mask) -> None:
    outline = polygons(mask, tolerance=0)
    assert bool(outline) == mask.any()
    if outline:
        assert np.array_equal(rasterized(outline, mask.shape), mask)


@given(arrays(np.bool_, (12, 12)), st.floats(0.6, 1))
def test_every_part_keeps_a_polygon_whatever_the_tolerance(mask: Mask, tolerance: float) -> None:
    for part in polygons(mask, tolerance=tolerance):
        assert len(part) >= 6


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:7, 1:8] = True
    assert polygons(mask, tolerance=1) == [[8, 2, 8, 7, 1, 7, 1, 2]]


def test_what_has_a_hole_is_cut_through_it() -> None:
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    parts = polygons(mask, tolerance=0)
    assert len(parts) == 2
    assert np.array_equal(rasterized(parts, mask.shape), mask)


def test_outlines_of_the_shapes_agree_with_what_is_to_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all, small and occluded ones too; and their files stay small."""
    seen: list[Mask] = []
    visible = shapes._visible

    def spy(mask: Mask, *rest: object) -> shapes.VisibleObject | None:
        found = visible(mask, *rest)
        seen.extend([mask] if found is not None else [])
        return found

    monkeypatch.setattr(shapes, "_visible", spy)
    settings = shapes.ShapesSettings()
    objects = [
        o for i in range(150) for o in shapes.draw(np.random.default_rng([0, 0, i]), settings)[1]
    ]
    assert len(objects) == len(seen) > 400
    overlaps = []
    for mask, found in zip(seen, objects, strict=True):
        drawn = rasterized(found.segmentation, mask.shape)
        overlaps.append((drawn & mask).sum() / (drawn | mask).sum())
        assert mask.sum() == found.area
    assert min(overlaps) >= 0.9
    assert np.mean(overlaps) > 0.98
    assert max(len(o.segmentation) for o in objects) > 1  # some lie behind others
    size = sum(len(json.dumps(o.segmentation)) for o in objects) / len(objects)
    assert size < 160  # bytes
