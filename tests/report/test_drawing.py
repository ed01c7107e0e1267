from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from msnas_optuna.data.masks import encode
from msnas_optuna.report.drawing import COLORS, OPACITY, LabeledBox, draw_boxes


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def plain(width: int = 400, height: int = 400) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def test_a_detection_is_outlined_in_the_color_of_its_class():
    box = LabeledBox((100, 120, 300, 220), "ring", 0.9)
    drawn = np.asarray(draw_boxes(plain(), [box], labels=("disk", "ring")))
    for y, x in ((219, 200), (170, 100), (170, 299)):
        assert tuple(drawn[y, x]) == rgb(COLORS[1])
    assert tuple(drawn[180, 200]) == (128, 128, 128)
    assert (drawn[90:120, 100:160] != 128).any()  # name and score stand above


def test_a_mask_is_seen_through_in_the_color_of_its_class():
    mask = np.zeros((100, 150), bool)
    mask[20:60, 30:90] = True
    box = LabeledBox((30, 20, 90, 60), "ring", 0.9, encode(mask))
    drawn = np.asarray(draw_boxes(plain(150, 100), [box], labels=("disk", "ring")))
    inside = drawn[4 * 30 : 4 * 50, 4 * 40 : 4 * 80]
    mixed = [round((1 - OPACITY) * 128 + OPACITY * c) for c in rgb(COLORS[1])]
    assert (np.abs(inside.astype(int) - mixed) <= 1).all()
    assert tuple(drawn[4 * 80, 4 * 60]) == (128, 128, 128)


def test_one_class_has_one_color_in_all_pictures():
    box = LabeledBox((10, 50, 390, 390), "b", 0.5)
    other = LabeledBox((50, 80, 90, 120), "a", 0.5)
    pictures = [draw_boxes(plain(), boxes, labels=("a", "b")) for boxes in ([box], [other, box])]
    assert pictures[0].getpixel((10, 200)) == pictures[1].getpixel((10, 200)) == rgb(COLORS[1])


def test_small_pictures_are_enlarged_by_a_whole_factor():
    small = plain(100, 150)
    assert draw_boxes(small, [], labels=()).size == (400, 600)
    assert small.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    "corners", [(0, 0, 400, 400), (-9, -9, 9, 9), (5, 5, 5, 5), (399, 399, 500, 500)]
)
@pytest.mark.parametrize("size", [(400, 400), (1, 1), (7, 2000)])
def test_boxes_at_the_edge_and_of_no_size_are_drawn(corners, size):
    box = LabeledBox(corners, "шар " * 30, 1.0)
    drawn = draw_boxes(plain(*size), [box], labels=[box.label])
    assert drawn.mode == "RGB"


@pytest.mark.parametrize(
    "outlines",
    [
        [(100, 120, 300, 220)] * 2,
        [(100, 120, 300, 220), (110, 118, 290, 230), (96, 124, 310, 210)],
        [(0, 0, 400, 400)] * 3,
        [(350, 380, 400, 400)] * 3,
    ],
)
def test_names_of_boxes_that_overlap_are_all_to_be_read(outlines):
    names = ("square", "circle", "ring")
    boxes = [LabeledBox(c, name, 0.9) for c, name in zip(outlines, names, strict=False)]
    alone = [white(draw_boxes(plain(), [box], labels=names)) for box in boxes]
    assert min(alone) > 10
    assert white(draw_boxes(plain(), boxes, labels=names)) == sum(alone)


def white(image: Image.Image) -> int:
    """Pixels of the letters, which are white on all three colors."""
    return int((np.asarray(image) == 255).all(-1).sum())
