"""Rules of the COCO-format reader, each on real files."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from msnas_optuna.data.coco import CocoDetection, DataWarning
from msnas_optuna.data.images import Category, DataError

ORIENTATION = 0x0112


def content(**changes: Any) -> dict[str, Any]:
    """Two images (ids 0 and 7), categories 1, 3 and 90, three objects."""
    base = {
        "images": [
            {"id": 0, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 7, "file_name": "b.png", "width": 20, "height": 10},
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 1, "name": "person"},
            {"id": 3, "name": "car"},
        ],
        "annotations": [
            {"id": 5, "image_id": 0, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 77.5},
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
            {"id": 9, "image_id": 0, "category_id": 3, "bbox": [3.5, 4.25, 8, 8], "iscrowd": 0},
        ],
    }
    return {**copy.deepcopy(base), **changes}


def annotation(bbox: Any, **changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 0, "category_id": 1, "bbox": bbox, **changes}


def write(folder: Path, content: object) -> Path:
    file = folder / "instances.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def load(folder: Path, content: object, *, check_files: bool = False) -> CocoDetection:
    return CocoDetection(folder, write(folder, content), check_files=check_files)


def one_image(folder: Path, image: Image.Image, name: str = "a.png", **save: Any) -> CocoDetection:
    """A set of one image, whose stated size is that of the stored pixels unless in `save`."""
    width, height = save.pop("stated", image.size)
    image.save(folder / name, **save)
    entry = {"id": 0, "file_name": name, "width": width, "height": height}
    return load(folder, content(images=[entry], annotations=[]), check_files=True)


# ---------------------------------------------------------------- records and ground truth


def test_records_keep_the_order_of_the_file_and_number_the_categories(tmp_path: Path) -> None:
    data = load(tmp_path, content())
    assert data.categories == (
        Category(1, "person"),
        Category(3, "car"),
        Category(90, "toothbrush"),
    )
    assert data.n_classes == 3
    assert [r.id for r in data.records] == [0, 7]
    first = data.records[0]
    assert (first.path, first.width, first.height) == (tmp_path / "a.png", 40, 30)
    assert first.labels.tolist() == [3, 1, 2]
    assert first.crowd.tolist() == [False, True, False]
    assert first.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 40, 30], [3.5, 4.25, 11.5, 12.25]]
    assert (first.boxes.dtype, first.labels.dtype, first.crowd.dtype) == ("f4", "i8", "?")


def test_images_without_objects_are_kept(tmp_path: Path) -> None:
    empty = load(tmp_path, content()).records[1]
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.shape == empty.crowd.shape == (0,)


def test_a_set_without_any_object_loads(tmp_path: Path) -> None:
    data = load(tmp_path, content(annotations=[]))
    assert [len(r.boxes) for r in data.records] == [0, 0]
    assert data.ground_truth["annotations"] == []


def test_annotations_of_one_image_need_not_be_adjacent_and_keep_their_order(
    tmp_path: Path,
) -> None:
    mixed = [annotation([0, 0, 1 + i / 10, 5], id=i, image_id=7 * (i % 2)) for i in range(100)]
    data = load(tmp_path, content(annotations=mixed))
    ids = [a["id"] for a in data.ground_truth["annotations"]]
    assert ids == [*range(0, 100, 2), *range(1, 100, 2)]
    for first, record in enumerate(data.records):
        expected = 1 + np.arange(first, 100, 2) / 10
        assert np.allclose(record.boxes[:, 2], expected)


def test_ground_truth_has_original_ids_and_states_or_computes_area_and_crowd(
    tmp_path: Path,
) -> None:
    truth = load(tmp_path, content()).ground_truth
    assert truth["images"] == [
        {"id": 0, "width": 40, "height": 30},
        {"id": 7, "width": 20, "height": 10},
    ]
    assert [c["id"] for c in truth["categories"]] == [1, 3, 90]
    by_id = {a["id"]: a for a in truth["annotations"]}
    assert by_id[5] == {
        "id": 5,
        "image_id": 0,
        "category_id": 90,
        "bbox": [1, 2, 10, 20],
        "area": 77.5,
        "iscrowd": 0,
    }
    assert (by_id[0]["iscrowd"], by_id[0]["area"]) == (1, 1200)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    assert len(load(tmp_path, "\ufeff" + json.dumps(content()))) == 2


# ---------------------------------------------------------------- cleaning


def test_boxes_are_clipped_and_empty_ones_dropped_with_one_warning(tmp_path: Path) -> None:
    boxes = [[-5, -5, 10, 10], [30, 20, 50, 50], [5, 5, 0, 9], [5, 5, 9, -2], [41, 0, 9, 9]]
    entries = [annotation(b, id=i) for i, b in enumerate([*boxes, [1, 1, 2, 2]])]
    with pytest.warns(DataWarning) as caught:
        data = load(tmp_path, content(annotations=entries))
    assert len(caught) == 1
    assert str(caught[0].message) == (
        f"{tmp_path / 'instances.json'}: 3 boxes without width or height dropped, "
        f"2 boxes clipped to their image"
    )
    expected = [[0, 0, 5, 5], [30, 20, 40, 30], [1, 1, 3, 3]]
    assert data.records[0].boxes.tolist() == expected
    assert [a["id"] for a in data.ground_truth["annotations"]] == [0, 1, 5]
    assert data.ground_truth["annotations"][0]["bbox"] == [0, 0, 5, 5]


def test_the_area_of_a_clipped_object_is_at_most_its_box(tmp_path: Path) -> None:
    entries = [annotation([30, 20, 20, 20], area=400)]
    with pytest.warns(DataWarning):
        data = load(tmp_path, content(annotations=entries))
    assert data.ground_truth["annotations"][0]["area"] == 100


def test_boxes_inside_keep_the_numbers_of_the_file(tmp_path: Path) -> None:
    box = [0.1, 0.2, 0.7, 0.6]  # 0.1 + 0.7 - 0.1 is another number
    data = load(tmp_path, content(annotations=[annotation(box)]))
    assert data.ground_truth["annotations"][0]["bbox"] == box


def test_rounding_beyond_the_edge_is_not_worth_a_warning(tmp_path: Path) -> None:
    entries = [annotation([0, 0, 40.004, 30])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tmp_path, content(annotations=entries))
    assert data.records[0].boxes.tolist() == [[0, 0, 40, 30]]


def test_a_sliver_that_float32_rounds_away_is_dropped(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="1 boxes without"):
        data = load(tmp_path, content(annotations=[annotation([39, 0, 1e-9, 5])]))
    assert len(data.records[0].boxes) == 0


# ---------------------------------------------------------------- errors of the file


def test_a_missing_annotation_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.json: the annotation file must be readable"):
        CocoDetection(tmp_path, tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "must be JSON"),
        ("", "must be JSON"),
        ("[]", r"must be a JSON object, got \[\]; give"),
        ("{}", "images must be a list with entries, got nothing; give"),
        ('{"images": 3, "annotations": [], "categories": []}', "images must be a list"),
        ('{"images": [], "annotations": [], "categories": []}', "images must be a list with"),
        ('{"images": [3], "annotations": [], "categories": []}', r"images\[0\] must be an object"),
        ("[" * 100_000 + "]" * 100_000, "must be JSON, got maximum recursion"),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", "must be JSON, got Exceeds the limit"),
        (
            '{"images": ' + "[" * 300 + "]" * 300 + "}",
            r"images\[0\] must be an object, got \[\[\[\[",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(DataError, match=rf"instances\.json: .*{rule}"):
        load(tmp_path, text)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_each_list_is_required(tmp_path: Path, key: str) -> None:
    without = {k: v for k, v in content().items() if k != key}
    with pytest.raises(DataError, match=rf"instances\.json: {key} must be a list .* got nothing"):
        load(tmp_path, without)


@pytest.mark.parametrize(
    ("kind", "entry", "key"),
    [
        ("images", 1, "id"),
        ("images", 1, "file_name"),
        ("categories", 1, "id"),
        ("categories", 1, "name"),
        ("annotations", 1, "id"),
        ("annotations", 1, "image_id"),
        ("annotations", 1, "category_id"),
        ("annotations", 1, "bbox"),
    ],
)
@pytest.mark.parametrize("value", [None, ["x"], "absent"])
def test_each_key_of_an_entry_is_required(
    tmp_path: Path, kind: str, entry: int, key: str, value: object
) -> None:
    broken = content()
    if value == "absent":
        del broken[kind][entry][key]
    else:
        broken[kind][entry][key] = value
    came = "nothing" if value == "absent" else ".*"
    with pytest.raises(DataError, match=rf"instances\.json: .*{key}.* must .*got {came}"):
        load(tmp_path, broken)


@pytest.mark.parametrize("kind", ["images", "annotations", "categories"])
def test_ids_are_unique(tmp_path: Path, kind: str) -> None:
    broken = content()
    broken[kind].append(copy.deepcopy(broken[kind][0]))
    twice = broken[kind][0]["id"]
    with pytest.raises(DataError, match=rf"ids of {kind} must be unique, got {twice} twice"):
        load(tmp_path, broken)


@pytest.mark.parametrize(("key", "kind"), [("image_id", "images"), ("category_id", "categories")])
def test_annotations_name_known_ids(tmp_path: Path, key: str, kind: str) -> None:
    broken = content()
    broken["annotations"][2][key] = 55
    rule = rf"{key} of annotation 9 must be an id of {kind}, got 55"
    with pytest.raises(DataError, match=rule):
        load(tmp_path, broken)


@pytest.mark.parametrize(
    "bbox",
    [
        [0, 0, float("nan"), 1],
        [float("inf"), 0, 1, 1],
        [0, 0, 1],
        [0, 0, None, 1],
        "0 0 1 1",
        [[0], 0, 1, 1],
        [0, 0, 1, 10**400],
        [0, 0, True, True],
        ["0", "0", "1", "1"],
        {"0": 0, "1": 0, "2": 1, "3": 1},
    ],
)
def test_boxes_are_four_finite_numbers(tmp_path: Path, bbox: object) -> None:
    entries = [annotation([0, 0, 1, 1], id=3), annotation(bbox, id=4)]
    rule = (
        r"instances\.json: annotations\[1\]\.bbox must be four finite numbers .*, got .*; "
        r"correct or remove the entry with id 4 and image_id 0$"
    )
    with pytest.raises(DataError, match=rule):
        load(tmp_path, content(annotations=entries))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("area", 10**400, id="area-huge"),
        *(("iscrowd", value) for value in ("0", "1", "false", 2, -1, 0.5, [], [0], {})),
        *(("area", value) for value in (float("inf"), float("nan"), "5", True, [5])),
    ],
)
def test_crowd_and_area_are_what_they_stand_for(tmp_path: Path, key: str, value: object) -> None:
    entries = [annotation([0, 0, 1, 1], id=3), annotation([0, 0, 1, 1], id=4, **{key: value})]
    rule = {"iscrowd": "0 or 1", "area": "a finite number"}[key]
    where = rf"instances\.json: annotations\[1\]\.{key} must be {rule}, got .* id 4 and image_id 0"
    with pytest.raises(DataError, match=where):
        load(tmp_path, content(annotations=entries))


def test_crowd_and_area_may_be_left_out(tmp_path: Path) -> None:
    keys: list[dict[str, Any]] = [
        {},
        {"iscrowd": None, "area": None},
        {"iscrowd": True, "area": 3},
    ]
    entries = [annotation([0, 0, 2, 2], id=i, **given) for i, given in enumerate(keys)]
    truth = load(tmp_path, content(annotations=entries)).ground_truth["annotations"]
    assert [a["iscrowd"] for a in truth] == [0, 0, 1]
    assert [a["area"] for a in truth] == [4, 4, 3]


@pytest.mark.parametrize("width", [0, -3, 1.5, "40", [40]])
def test_stated_sizes_are_positive_whole_numbers(tmp_path: Path, width: object) -> None:
    broken = content()
    broken["images"][1]["width"] = width
    with pytest.raises(DataError, match=r"images\[1\]\.width must be a positive whole"):
        load(tmp_path, broken)


# ---------------------------------------------------------------- image files


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif", "a.gif", "a.mpo"])
def test_the_usual_formats_are_read(tmp_path: Path, name: str) -> None:
    read = one_image(tmp_path, Image.new("RGB", (8, 6), "white"), name).read(0)
    assert (read.size, read.getpixel((4, 3))) == ((8, 6), (255, 255, 255))


@pytest.mark.parametrize("name", ["a.eps", "a.pdf", "a.ico", "a.ppm", "a.tga", "a.jp2", "a.icns"])
def test_other_formats_are_refused_whatever_their_name(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (16, 16), "white")
    image.save(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "a.jpg")
    entry = {"id": 0, "file_name": "a.jpg"}
    rule = (
        r"a\.jpg: an image must be readable as JPEG, PNG, BMP, WebP, TIFF, GIF, got .*convert the"
    )
    with pytest.raises(DataError, match=rule):
        load(tmp_path, content(images=[entry], annotations=[]))
    with pytest.raises(DataError, match=rule):
        load(
            tmp_path, content(images=[{**entry, "width": 16, "height": 16}], annotations=[])
        ).read(0)


def test_missing_images_are_counted(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"got 1 of 2 missing, the first .*a\.png"):
        load(tmp_path, content(), check_files=True)


def test_missing_images_may_be_left_for_later(tmp_path: Path) -> None:
    data = load(tmp_path, content(), check_files=False)
    with pytest.raises(DataError, match=r"a\.png: an image must be readable"):
        data.read(0)


@pytest.mark.parametrize("name", ["../a.png", "sub/../../a.png", "/etc/a.png", ".."])
def test_file_names_stay_in_the_images_folder(tmp_path: Path, name: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    entry = {"id": 4, "file_name": name, "width": 8, "height": 8}
    file = write(tmp_path, content(images=[entry], annotations=[]))
    with pytest.raises(DataError, match="file_name of image 4 must stay inside"):
        CocoDetection(images, file)


def test_file_names_may_contain_folders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "sub" / "..a.png")
    entry = {"id": 4, "file_name": "sub/..a.png", "width": 8, "height": 8}
    data = load(tmp_path, content(images=[entry], annotations=[]), check_files=True)
    assert data.read(0).getpixel((0, 0)) == (255, 0, 0)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = one_image(tmp_path, Image.fromarray(noise), "a.jpg")
    path = tmp_path / "a.jpg"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"a\.jpg: an image must be readable.*fetch"):
        data.read(0)


@pytest.mark.parametrize("damage", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_named(tmp_path: Path, damage: bytes) -> None:
    data = one_image(tmp_path, Image.new("RGB", (8, 8)))
    (tmp_path / "a.png").write_bytes(damage)
    with pytest.raises(DataError, match=r"a\.png: an image must be readable"):
        data.read(0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (6, 4), "white").convert(mode)
    read = one_image(tmp_path, image).read(0)
    assert (read.mode, read.size, read.getpixel((5, 3))) == ("RGB", (6, 4), (255, 255, 255))


def test_cmyk_is_read_as_rgb(tmp_path: Path) -> None:
    read = one_image(tmp_path, Image.new("CMYK", (8, 8)), "a.jpg").read(0)
    assert (read.mode, read.getpixel((4, 4))) == ("RGB", (255, 255, 255))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = one_image(tmp_path, image, transparency=b"\x00\x80").read(0)
    assert read.getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grayscale_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    gray = np.array([[0, 257, 32896, 65535]], np.uint16)
    read = one_image(tmp_path, Image.fromarray(gray), name).read(0)
    assert np.asarray(read)[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


def half_red() -> Image.Image:
    """40 x 20 with a red left half, stored on its side: 20 x 40, red at the bottom."""
    upright = Image.new("RGB", (40, 20), "blue")
    upright.paste("red", (0, 0, 20, 20))
    return upright.transpose(Image.Transpose.ROTATE_90)


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""EXIF orientation -> the one that undoes it."""


def with_exif(image: Image.Image, orientation: int) -> Image.Image:
    """The image as if it had been read with an orientation to undo."""
    image.getexif()[ORIENTATION] = orientation
    return image


def is_red(image: Image.Image, at: tuple[int, int]) -> bool:
    red, _, blue = image.getpixel(at)  # type: ignore[misc]
    return bool(red > 200 and blue < 60)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_is_applied_where_the_stated_size_is_upright(
    tmp_path: Path, name: str
) -> None:
    data = one_image(tmp_path, half_red(), name, exif=exif(6), stated=(40, 20))
    read = data.read(0)
    assert read.size == (40, 20)
    assert is_red(read, (5, 10))
    assert not is_red(read, (35, 10))


def test_exif_orientation_is_ignored_where_only_the_stored_size_matches(tmp_path: Path) -> None:
    data = one_image(tmp_path, half_red(), "a.jpg", exif=exif(6), stated=(20, 40))
    read = data.read(0)
    assert read.size == (20, 40)
    assert is_red(read, (10, 35))


def test_exif_orientation_is_applied_where_both_sizes_match(tmp_path: Path) -> None:
    upright = half_red().transpose(Image.Transpose.ROTATE_270)
    data = one_image(tmp_path, upright, "a.jpg", exif=exif(3))
    assert is_red(data.read(0), (35, 10))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_agree_with_pillow(tmp_path: Path, orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    stated = (12, 8) if orientation < 5 else (8, 12)
    data = one_image(tmp_path, Image.fromarray(noise), exif=exif(orientation), stated=stated)
    with Image.open(tmp_path / "a.png") as image:
        expected = ImageOps.exif_transpose(image)
        assert np.array_equal(np.asarray(data.read(0)), np.asarray(expected))


def test_a_size_that_matches_in_no_orientation_names_both(tmp_path: Path) -> None:
    data = one_image(tmp_path, half_red(), "a.jpg", exif=exif(6), stated=(40, 21))
    with pytest.raises(DataError, match=r"a\.jpg: .*got 20x40 where .*json says 40x21"):
        data.read(0)


@pytest.mark.parametrize("missing", ["width", "height"])
def test_a_missing_size_is_read_from_the_upright_image(tmp_path: Path, missing: str) -> None:
    half_red().save(tmp_path / "a.jpg", exif=exif(6))
    entry = {"id": 0, "file_name": "a.jpg", "width": 40, "height": 20}
    del entry[missing]
    data = load(tmp_path, content(images=[entry], annotations=[]))
    assert (data.records[0].width, data.records[0].height) == (40, 20)
    assert data.read(0).size == (40, 20)


def test_a_large_jpeg_is_decoded_reduced(tmp_path: Path) -> None:
    large = half_red().resize((200, 400))
    data = one_image(tmp_path, large, "a.jpg", exif=exif(6), stated=(400, 200))
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft(None, (50, 100))
        reduced = ImageOps.exif_transpose(image)
    read = data.read(0, size=(100, 50))
    assert reduced.size == (100, 50)
    assert np.array_equal(np.asarray(read), np.asarray(reduced))
    assert is_red(read, (10, 25))
    assert data.read(0).size == (400, 200)


@pytest.mark.parametrize("stated", [(1001, 667), (599, 801)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_edges_of_a_reduced_jpeg_lie_where_those_of_its_boxes_do(
    tmp_path: Path, orientation: int, stated: tuple[int, int]
) -> None:
    """The decoder rounds the sides up, and the rest of the last pixel may come first."""
    width, height = stated
    right, bottom = round(0.97 * width), round(0.97 * height)
    upright = Image.new("L", stated, 228)
    upright.paste(28, (0, 0, right, bottom))
    turned = ImageOps.exif_transpose(with_exif(upright, INVERSE[orientation]))
    data = one_image(
        tmp_path, turned.convert("RGB"), "a.jpg", exif=exif(orientation), stated=stated
    )
    for factor in (8, 5, 3):  # decoded at 1/8, 1/4 and 1/2
        size = width // factor, height // factor
        pixels = np.asarray(data.read(0, size=size)).mean(axis=2)
        dark = (228 - pixels) / 200
        assert dark[0].sum() == pytest.approx(right * size[0] / width, abs=0.1)
        assert dark[:, 0].sum() == pytest.approx(bottom * size[1] / height, abs=0.1)


# ---------------------------------------------------------------- outlines

SQUARE = [[2, 3, 12, 3, 12, 13, 2, 13]]


def outlined(segmentation: Any, **changes: Any) -> dict[str, Any]:
    """Two images with one object, which has an outline."""
    entry = annotation([2, 3, 10, 10], segmentation=segmentation, **changes)
    return content(annotations=[entry])


def test_outlines_are_read_where_masks_are_wanted_alone(tmp_path: Path) -> None:
    file = write(tmp_path, outlined(SQUARE))
    plain = CocoDetection(tmp_path, file, check_files=False)
    assert plain.records[0].outlines is None
    assert "segmentation" not in plain.ground_truth["annotations"][0]
    data = CocoDetection(tmp_path, file, check_files=False, masks=True)
    (part,) = data.records[0].outlines[0]
    assert part.tolist() == SQUARE[0]
    assert data.records[1].outlines == []
    assert data.ground_truth["annotations"][0]["segmentation"] == SQUARE


@pytest.mark.parametrize("counts", [[30, 10, 1160], "n0:XT1"])
def test_run_length_encodings_are_read_compressed_or_not(tmp_path: Path, counts: Any) -> None:
    rle = {"size": [30, 40], "counts": counts}
    file = write(tmp_path, outlined(rle, iscrowd=1))
    data = CocoDetection(tmp_path, file, check_files=False, masks=True)
    expected = {"size": [30, 40], "counts": "n0:XT1"}
    assert data.records[0].outlines == [expected]
    assert json.loads(json.dumps(data.ground_truth["annotations"][0]))["segmentation"] == expected


def test_outlines_stay_with_their_objects(tmp_path: Path) -> None:
    """Also where boxes are dropped, and annotations are not in the order of the images."""
    squares = [[[i, 0, i + 2, 0, i + 2, 2, i, 2]] for i in range(9)]
    entries = [
        annotation([i, 0, 0 if i == 4 else 2, 2], id=i, image_id=7 * (i % 2), segmentation=s)
        for i, s in enumerate(squares)
    ]
    file = write(tmp_path, content(annotations=entries))
    with pytest.warns(DataWarning):
        data = CocoDetection(tmp_path, file, check_files=False, masks=True)
    for record in data.records:
        assert [outline[0][0] for outline in record.outlines] == record.boxes[:, 0].tolist()


def test_points_outside_are_moved_to_the_edge(tmp_path: Path) -> None:
    file = write(tmp_path, outlined([[-5, -5, 1e300, -5, 45, 35]]))
    data = CocoDetection(tmp_path, file, check_files=False, masks=True)
    assert data.records[0].outlines[0][0].tolist() == [0, 0, 40, 0, 40, 30]


@pytest.mark.parametrize(
    ("segmentation", "got"),
    [
        (None, "got None"),
        ([], r"got \[\]"),
        ([[]], "got"),
        ([[1, 2, 3, 4]], "got"),
        ([[1, 2, 3, 4, 5, 6, 7]], "got"),
        ([[1, 2, 3, 4, 5, "6"]], "got"),
        ([[1, 2, 3, 4, 5, True]], "got"),
        ([SQUARE], "got"),
        ([[1, 2, 3, 4, 5, 1e999]], "got"),
        ("outline", "got 'outline'"),
        ({"counts": [1200]}, "got"),
        ({"size": [30, 40]}, "got"),
        ({"size": [30, 40], "counts": [1201, -1]}, "got"),
        ({"size": [30, 40], "counts": [0.5]}, "got"),
    ],
)
def test_an_object_without_a_proper_outline_is_named_with_the_repair(
    tmp_path: Path, segmentation: Any, got: str
) -> None:
    file = write(tmp_path, outlined(segmentation))
    rule = (
        rf"annotations\[0\]\.segmentation must be polygons of three .*, as masks = true asks for, "
        rf"{got}.*; correct or remove the entry with id 1 and image_id 0"
    )
    with pytest.raises(DataError, match=rule):
        CocoDetection(tmp_path, file, check_files=False, masks=True)
    CocoDetection(tmp_path, file, check_files=False)


@pytest.mark.parametrize(
    ("rle", "rule"),
    [
        ({"size": [40, 30], "counts": [1200]}, r"size \[30, 40\], that of its image"),
        ({"size": [30, 40], "counts": [1199]}, "counts of 1200 pixels"),
        ({"size": [30, 40], "counts": "~"}, "counts as pycocotools writes them"),
    ],
)
def test_an_encoding_of_another_image_is_named(tmp_path: Path, rle: Any, rule: str) -> None:
    file = write(tmp_path, outlined(rle))
    with pytest.raises(DataError, match=f"segmentation of annotation 1 must have {rule}"):
        CocoDetection(tmp_path, file, check_files=False, masks=True)
