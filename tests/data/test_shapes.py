"""The generated set: deterministic, tight boxes, safe against interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.images import DataError
from msnas_optuna.data.shapes import (
    CLASSES,
    MARKER,
    ShapesSettings,
    Split,
    VisibleObject,
    draw,
    generate_shapes,
)
from msnas_optuna.data.transforms import ResizedImages

SMALL = ShapesSettings(train=6, val=3, test=2, size=64, extent=(8.0, 40.0))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_set_loads_without_a_warning_and_has_the_size_asked_for(tmp_path: Path) -> None:
    splits = generate_shapes(tmp_path / "new" / "set", SMALL)
    assert list(splits) == ["train", "val", "test"]
    for split, n in zip(splits.values(), (6, 3, 2), strict=True):
        data = CocoDetection(split.images, split.annotations)
        assert len(data) == n
        assert [c.name for c in data.categories] == list(CLASSES)
        assert all(len(r.boxes) >= 1 for r in data.records)
        assert {data.read(i).size for i in range(n)} == {(64, 64)}


def test_equal_settings_give_equal_files_and_another_seed_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate_shapes(tmp_path / name, SMALL)
    generate_shapes(
        tmp_path / "c", ShapesSettings(train=6, val=3, test=2, size=64, extent=(8, 40), seed=1)
    )
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 6 + 3 + 2 + 3 + 1
    pictures = [name for name in a if name.endswith(".jpg")]
    assert all(a[name] != c[name] for name in pictures)
    assert len({a[name] for name in pictures}) == 11


def test_a_picture_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    generate_shapes(tmp_path / "few", SMALL)
    generate_shapes(
        tmp_path / "more", ShapesSettings(train=8, val=4, test=3, size=64, extent=(8, 40))
    )
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert all(few[name] == more[name] for name in few if name.endswith(".jpg"))


def test_a_finished_set_is_left_alone(tmp_path: Path) -> None:
    first = generate_shapes(tmp_path, SMALL)
    picture = tmp_path / "train" / "000000.jpg"
    picture.write_bytes(b"kept")
    assert generate_shapes(tmp_path, SMALL) == first
    assert picture.read_bytes() == b"kept"
    assert first["val"] == Split(tmp_path / "val", tmp_path / "annotations" / "instances_val.json")


def test_an_interrupted_set_is_made_anew_even_with_other_settings(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    other = ShapesSettings(train=6, val=3, test=2, size=64, extent=(8.0, 40.0), seed=9)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / "stopped", other, progress=stop)
    generate_shapes(tmp_path / "stopped", SMALL)
    generate_shapes(tmp_path / "whole", SMALL)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_finished_set_with_other_settings_is_refused(tmp_path: Path) -> None:
    generate_shapes(tmp_path, SMALL)
    other = ShapesSettings(train=7, val=3, test=2, size=64, extent=(8.0, 40.0))
    with pytest.raises(
        DataError, match=r"other settings, got \{'train': 6\}; remove .* or choose"
    ):
        generate_shapes(tmp_path, other)


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="needs a new or empty folder"):
        generate_shapes(tmp_path, SMALL)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_a_half_written_marker_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{MARKER}.123").write_text("{")
    assert len(generate_shapes(tmp_path, SMALL)) == 3


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "9" * 5000])
def test_a_damaged_marker_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(DataError, match=r"shapes\.json: .*remove"):
        generate_shapes(tmp_path, SMALL)


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate_shapes(tmp_path, SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 11) for i in range(1, 12)]


def test_a_finished_set_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    """Its annotations have no outlines."""
    generate_shapes(tmp_path, SMALL)
    marker = json.loads((tmp_path / MARKER).read_text())
    (tmp_path / MARKER).write_text(json.dumps(marker | {"version": 1}))
    with pytest.raises(DataError, match=r"other settings, got \{'version': 1\}; remove"):
        generate_shapes(tmp_path, SMALL)


def test_every_object_has_an_outline(tmp_path: Path) -> None:
    split = generate_shapes(tmp_path, SMALL)["val"]
    data = CocoDetection(split.images, split.annotations, masks=True)
    images = ResizedImages(data, 64, 64)
    for i, sample in enumerate(images[i] for i in range(len(data))):
        areas = [a["area"] for a in data.ground_truth["annotations"] if a["image_id"] == i + 1]
        assert sample.masks is not None
        assert sample.masks.sum(dim=(1, 2)).tolist() == pytest.approx(areas, rel=0.1)


def test_the_annotation_file_is_plain_coco(tmp_path: Path) -> None:
    content = json.loads(generate_shapes(tmp_path, SMALL)["train"].annotations.read_text())
    assert [c["name"] for c in content["categories"]] == list(CLASSES)
    ids = [a["id"] for a in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


# ---------------------------------------------------------------- pictures


def drawn(settings: ShapesSettings, n: int) -> list[tuple[Any, list[VisibleObject]]]:
    return [draw(np.random.default_rng([0, i]), settings) for i in range(n)]


def test_boxes_are_tight() -> None:
    """A lone object differs from its surroundings inside its box, up to every edge of it."""
    settings = ShapesSettings(objects=(1, 1), extent=(30.0, 60.0))
    for picture, objects in drawn(settings, 20):
        (found,) = objects
        x, y, w, h = found.bbox
        inside = picture[y : y + h, x : x + w].astype(float)
        color = np.median(inside[h // 3 : -h // 3, w // 3 : -w // 3], axis=(0, 1))
        alike = np.abs(picture - color).max(axis=2) < 4 * 8 + 12  # noise and soft edge
        # a row or column just inside each edge shows the object somewhere
        near = alike[y : y + h, x : x + w]
        assert all(edge.any() for edge in (near[:2], near[-2:], near[:, :2], near[:, -2:]))
        assert abs(near.sum() - found.area) < 0.25 * w * h


@pytest.mark.parametrize(("label", "share"), [(1, np.pi / 4), (2, 1.0), (3, 0.5)])
def test_areas_match_the_geometry(label: int, share: float) -> None:
    settings = ShapesSettings(objects=(1, 1), extent=(40.0, 40.0), rotation=0.0)
    areas = [o.area for _, objects in drawn(settings, 40) for o in objects if o.label == label]
    assert len(areas) >= 5
    assert np.mean(areas) == pytest.approx(share * 1600, rel=0.02)


def test_boxes_of_unrotated_objects_measure_their_extent() -> None:
    settings = ShapesSettings(objects=(1, 1), extent=(40.0, 40.0), rotation=0.0)
    sides = {side for _, (found,) in drawn(settings, 40) for side in found.bbox[2:]}
    assert sides <= {39, 40, 41}


def test_sizes_spread_log_uniformly_and_classes_evenly() -> None:
    objects = [o for _, found in drawn(ShapesSettings(objects=(1, 1)), 600) for o in found]
    assert len(objects) == 600
    sides = np.array([max(o.bbox[2:]) for o in objects])
    assert (sides.min() < 12, sides.max() > 85) == (True, True)
    median = np.sqrt(8 * 90)  # of log-uniform extents; rotation adds up to 28 %
    assert median * 0.9 < np.median(sides) < median * 1.3
    counts = np.bincount([o.label for o in objects])[1:]
    assert counts.min() > 150


def test_hidden_objects_are_not_annotated() -> None:
    crowded = {"objects": (6, 6), "extent": (40.0, 60.0), "size": 96}
    strict = drawn(ShapesSettings(min_visible=1.0, **crowded), 30)
    loose = drawn(ShapesSettings(min_visible=0.01, **crowded), 30)
    some = drawn(ShapesSettings(min_visible=0.4, **crowded), 30)
    n_strict, n_some, n_loose = (sum(len(o) for _, o in p) for p in (strict, some, loose))
    assert 30 <= n_strict < n_some < n_loose < 6 * 30
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(strict, loose, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"train": 0},
        {"val": 0},
        {"seed": -1},
        {"objects": (0, 3)},
        {"objects": (4, 3)},
        {"extent": (2.0, 9.0)},
        {"extent": (20.0, 9.0)},
        {"size": 127},
        {"size": 100_000},
        {"rotation": -1.0},
        {"min_visible": 0.0},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}.* must"):
        ShapesSettings(**change)
