"""Resizing, caching, flipping, ordering and padding of real images."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageDraw

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.images import DataError
from msnas_optuna.data.transforms import (
    Batch,
    ResizedImages,
    Sample,
    batch_keys,
    collate,
    evaluation_batches,
    evenly_padded,
    flip,
    padded_size,
    resized_size,
    training_batches,
)

SIZES = [(40, 30), (30, 40), (100, 20), (64, 64), (50, 50)]  # width, height
BOXES = {0: [[0, 0, 40, 30], [10, 6, 20, 12]], 1: [[3, 4, 5, 6]], 3: [[8, 8, 16, 32]]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoDetection:
    """Five noisy pictures; the third and the fifth have no objects."""
    return write(tmp_path_factory.mktemp("set"), SIZES, BOXES)


def write(
    folder: Path, sizes: list[tuple[int, int]], boxes: dict[int, Any], crowd: int = 0
) -> CocoDetection:
    rng = np.random.default_rng(0)
    for i, (w, h) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).save(folder / f"{i}.png")
    flat = [(image, box) for image, own in boxes.items() for box in own]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": w, "height": h}
            for i, (w, h) in enumerate(sizes)
        ],
        "categories": [{"id": 5, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 5, "bbox": box, "iscrowd": crowd}
            for i, (image, box) in enumerate(flat)
        ],
    }
    (folder / "set.json").write_text(json.dumps(content))
    return CocoDetection(folder, folder / "set.json")


def same(a: Batch, b: Batch) -> bool:
    return (
        (a.indices, a.sizes, a.scales) == (b.indices, b.sizes, b.scales)
        and torch.equal(a.images, b.images)
        and all(
            torch.equal(s[k], t[k]) for s, t in zip(a.targets, b.targets, strict=True) for k in s
        )
    )


# ---------------------------------------------------------------- resize


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # COCO's usual picture: the shorter side decides
        ((427, 640), (800, 1199)),
        ((300, 640), (625, 1333)),  # the longer side decides
        ((640, 300), (1333, 625)),
        ((2400, 2400), (800, 800)),
        ((1, 5000), (1, 1333)),
    ],
)
def test_resized_size_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(size, 800, 1333) == expected


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    bounds=st.tuples(st.integers(1, 2000), st.integers(0, 2000)),
)
def test_resizing_meets_a_bound_and_keeps_the_aspect(
    size: tuple[int, int], bounds: tuple[int, int]
) -> None:
    shorter, longer = bounds[0], bounds[0] + bounds[1]
    h, w = resized_size(size, shorter, longer)
    assert min(h, w) <= shorter
    assert max(h, w) <= longer
    assert min(h, w) == shorter or max(h, w) == longer
    scale = min(shorter / min(size), longer / max(size))
    assert abs(h - size[0] * scale) <= 0.5 or h == 1
    assert abs(w - size[1] * scale) <= 0.5 or w == 1


def test_a_sample_has_image_boxes_and_scale_of_the_resized_picture(data: CocoDetection) -> None:
    sample = ResizedImages(data, 60, 90)[0]
    assert (sample.image.shape, sample.image.dtype) == ((3, 60, 80), torch.uint8)
    assert sample.boxes.tolist() == [[0, 0, 80, 60], [20, 12, 60, 36]]
    assert sample.labels.tolist() == [1, 1]
    assert (sample.boxes.dtype, sample.labels.dtype) == (torch.float32, torch.int64)
    assert (sample.scale, sample.index) == ((2.0, 2.0), 0)


def test_pixels_stay_where_their_boxes_say(tmp_path: Path) -> None:
    data = write(tmp_path, [(200, 100)], {0: [[60, 20, 40, 60]]})
    picture = Image.new("RGB", (200, 100), "blue")
    picture.paste("red", (60, 20, 100, 80))
    picture.save(tmp_path / "0.png")
    for sample in (s := ResizedImages(data, 50, 100)[0], flip(s)):
        x1, y1, x2, y2 = (round(v) for v in sample.boxes[0].tolist())
        red = sample.image[0] > 127
        assert red[y1:y2, x1:x2].all()
        assert int(red.sum()) == (x2 - x1) * (y2 - y1)


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    data = write(tmp_path, [(256, 256)], {})
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255  # a chessboard of single pixels
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "0.png")
    image = ResizedImages(data, 32, 32)[0].image
    assert image.min() >= 120
    assert image.max() <= 135


def test_empty_targets_keep_their_shapes(data: CocoDetection) -> None:
    sample = flip(ResizedImages(data, 32, 64)[2])
    assert (sample.boxes.shape, sample.labels.shape) == ((0, 4), (0,))


def test_crowds_are_no_targets(tmp_path: Path) -> None:
    data = write(tmp_path, [(32, 32)], {0: [[0, 0, 9, 9]]}, crowd=1)
    assert ResizedImages(data, 32, 32)[0].boxes.shape == (0, 4)
    assert len(data.ground_truth["annotations"]) == 1


def test_boxes_that_shrink_to_nothing_are_no_targets(tmp_path: Path) -> None:
    data = write(tmp_path, [(64, 64)], {0: [[5, 5, 0.001, 9], [5, 5, 9, 9]]})
    sample = ResizedImages(data, 32, 32)[0]
    assert sample.boxes.tolist() == [[2.5, 2.5, 7, 7]]
    assert sample.labels.tolist() == [1]


# ---------------------------------------------------------------- cache


def test_cached_images_survive_their_files_and_others_do_not(tmp_path: Path) -> None:
    data = write(tmp_path, [(32, 32)] * 3, {})
    samples = ResizedImages(data, 32, 32, cache_bytes=2 * 3 * 32 * 32)
    before = [samples[i].image for i in range(3)]
    for record in data.records:
        record.path.unlink()
    assert torch.equal(samples[0].image, before[0])
    assert torch.equal(samples[1].image, before[1])
    with pytest.raises(DataError, match=r"2\.png"):
        samples[2]


def test_without_a_cache_every_image_is_decoded_each_time(tmp_path: Path) -> None:
    data = write(tmp_path, [(32, 32)], {})
    samples = ResizedImages(data, 32, 32, cache_bytes=0)
    first = samples[0].image
    Image.new("RGB", (32, 32), "red").save(data.records[0].path)
    assert not torch.equal(samples[0].image, first)


def test_writing_to_a_sample_leaves_the_cache_alone(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    for _ in range(3):
        image = samples[0].image
        assert image.any()
        image.zero_()


def test_a_pickled_set_reads_the_same(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    samples[0]
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(again[0].image, samples[0].image)


# ---------------------------------------------------------------- flip


@st.composite
def flippable(draw: st.DrawFn) -> Sample:
    """Samples whose corners are multiples of 1/8, so that w - x is exact."""
    h, w = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    xs = st.tuples(st.integers(0, 8 * w), st.integers(0, 8 * w)).filter(lambda t: t[0] != t[1])
    ys = st.tuples(st.integers(0, 8 * h), st.integers(0, 8 * h)).filter(lambda t: t[0] != t[1])
    corners = draw(st.lists(st.tuples(xs, ys), max_size=5))
    boxes = [[min(x), min(y), max(x), max(y)] for x, y in corners]
    image = torch.arange(3 * h * w).reshape(3, h, w).to(torch.uint8)
    return Sample(
        image,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / 8,
        torch.ones(len(boxes), dtype=torch.int64),
        (1.0, 1.0),
        0,
    )


@given(sample=flippable())
def test_flipping_twice_is_the_identity(sample: Sample) -> None:
    twice = flip(flip(sample))
    assert torch.equal(twice.image, sample.image)
    assert torch.equal(twice.boxes, sample.boxes)


@given(sample=flippable())
def test_flipped_boxes_stay_inside_and_keep_their_size(sample: Sample) -> None:
    boxes, w = flip(sample).boxes, sample.image.shape[2]
    assert ((boxes[:, 0] >= 0) & (boxes[:, 2] <= w)).all()
    assert torch.equal(boxes[:, 2:] - boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2])


def test_flip_mirrors_edges_not_indices() -> None:
    image = torch.zeros((3, 2, 4), dtype=torch.uint8)
    image[:, :, 0] = 9
    boxes = torch.tensor([[0.0, 0.0, 1.0, 2.0]])  # exactly the first column
    flipped = flip(Sample(image, boxes, torch.tensor([1]), (1.0, 1.0), 0))
    assert flipped.boxes.tolist() == [[3, 0, 4, 2]]
    assert flipped.image[0, 0].tolist() == [0, 0, 0, 9]


# ---------------------------------------------------------------- batches


def test_batches_are_padded_at_right_and_bottom_to_multiples_of_64(data: CocoDetection) -> None:
    samples = [ResizedImages(data, 60, 90)[i] for i in (0, 2)]  # 60 x 80 and 18 x 90
    batch = collate(samples)
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 64, 128), torch.uint8)
    assert batch.sizes == ((60, 80), (18, 90))
    assert batch.indices == (0, 2)
    for padded, sample, (h, w) in zip(batch.images, samples, batch.sizes, strict=True):
        assert torch.equal(padded[:, :h, :w], sample.image)
        assert not padded[:, h:].any()
        assert not padded[:, :, w:].any()


def test_a_batch_of_exact_size_is_not_padded(data: CocoDetection) -> None:
    assert collate([ResizedImages(data, 64, 64)[3]]).images.shape == (1, 3, 64, 64)


def test_boxes_map_back_to_original_pixels(data: CocoDetection) -> None:
    batch = next(evaluation_batches(ResizedImages(data, 47, 61), batch_size=5))
    for position, record in enumerate(data.records):
        back = batch.to_original(position, batch.targets[position]["boxes"])
        assert np.allclose(back.numpy(), record.boxes, atol=1e-5)


def test_to_moves_images_and_targets(data: CocoDetection) -> None:
    batch = next(evaluation_batches(ResizedImages(data, 32, 64), batch_size=2)).to("meta")
    assert batch.images.device.type == "meta"
    assert {v.device.type for t in batch.targets for v in t.values()} == {"meta"}


def test_evaluation_takes_every_image_once_in_order(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    batches = list(evaluation_batches(samples, batch_size=2))
    assert [b.indices for b in batches] == [(0, 1), (2, 3), (4,)]
    assert torch.equal(batches[0].targets[0]["boxes"], samples[0].boxes)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=30),
    batch_size=st.integers(1, 5),
)
def test_in_an_evaluation_each_image_is_padded_as_if_it_were_alone(
    sizes: list[tuple[int, int]], batch_size: int
) -> None:
    batches = evenly_padded(sizes, batch_size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        assert batch == sorted(batch)
        assert {padded_size([sizes[i]]) for i in batch} == {padded_size(sizes[i] for i in batch)}
        assert len(batch) <= batch_size
    short = [padded_size([sizes[b[0]]]) for b in batches if len(b) < batch_size]
    assert len(short) == len(set(short))  # no more batches than need be


# ---------------------------------------------------------------- order


@given(n=st.integers(1, 12), batch_size=st.integers(1, 30), seed=st.integers(0, 5))
def test_every_epoch_is_a_permutation_and_no_batch_is_short(
    n: int, batch_size: int, seed: int
) -> None:
    settings = {"n_images": n, "batch_size": batch_size, "seed": seed}
    batches = [batch_keys(step, **settings) for step in range(2 * n)]
    assert {len(batch) for batch in batches} == {batch_size}
    images = [index for batch in batches for index, _ in batch]
    for epoch in (images[i : i + n] for i in range(0, len(images), n)):
        assert sorted(epoch) == list(range(n))


def test_order_depends_on_seed_and_epoch() -> None:
    def epoch(seed: int, number: int) -> list[tuple[int, bool]]:
        return batch_keys(number, n_images=50, batch_size=50, seed=seed)

    orders = [tuple(i for i, _ in epoch(s, e)) for s in (0, 1) for e in (0, 1)]
    flips = [tuple(f for _, f in epoch(s, e)) for s in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == len(set(flips)) == 4


def test_resuming_goes_on_with_the_same_batches(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    whole = list(training_batches(samples, batch_size=2, steps=range(9), seed=3))
    resumed = list(training_batches(samples, batch_size=2, steps=range(4, 9), seed=3))
    assert len(whole) == 9
    assert all(same(a, b) for a, b in zip(whole[4:], resumed, strict=True))


def test_workers_give_the_same_batches(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    alone = training_batches(samples, batch_size=2, steps=range(4), seed=3)
    helped = training_batches(samples, batch_size=2, steps=range(4), seed=3, workers=2)
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_a_damaged_image_is_named_through_a_worker(tmp_path: Path) -> None:
    data = write(tmp_path, [(32, 32)], {})
    data.records[0].path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"^{data.records[0].path}: an image must be readable"):
        next(evaluation_batches(ResizedImages(data, 32, 32), batch_size=1, workers=1))


def test_ranks_share_out_the_batches_of_a_single_process(data: CocoDetection) -> None:
    samples, steps = ResizedImages(data, 32, 64), range(6)
    whole = training_batches(samples, batch_size=4, steps=steps, seed=1)
    parts = [
        training_batches(samples, batch_size=4, steps=steps, seed=1, n_ranks=2, rank=rank)
        for rank in (0, 1)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch.indices == first.indices + second.indices
        joined = [t["boxes"] for t in (*first.targets, *second.targets)]
        assert all(torch.equal(t["boxes"], j) for t, j in zip(batch.targets, joined, strict=True))


@pytest.mark.parametrize(
    ("probability", "least", "most"),
    [(0.0, 0, 0), (0.5, 4800, 5200), (1.0, 10_000, 10_000)],  # four standard deviations
)
def test_images_are_flipped_with_their_probability(
    probability: float, least: int, most: int
) -> None:
    flipped = sum(
        flipped
        for step in range(100)
        for _, flipped in batch_keys(
            step, n_images=10, batch_size=100, seed=0, flip_probability=probability
        )
    )
    assert least <= flipped <= most


def test_flipped_images_come_with_flipped_boxes(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    batches = training_batches(samples, batch_size=5, steps=range(1), seed=0, flip_probability=1)
    batch = next(batches)
    for position, index in enumerate(batch.indices):
        expected, (h, w) = flip(samples[index]), batch.sizes[position]
        assert torch.equal(batch.images[position, :, :h, :w], expected.image)
        assert torch.equal(batch.targets[position]["boxes"], expected.boxes)


def test_batches_leave_the_global_generators_alone(data: CocoDetection) -> None:
    samples = ResizedImages(data, 32, 64)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(training_batches(samples, batch_size=2, steps=range(2), seed=0))
    list(evaluation_batches(samples, batch_size=2))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_shares_of_a_batch_are_padded_as_the_whole_batch(data: CocoDetection) -> None:
    samples = ResizedImages(data, 128, 1000)  # 100 x 20 becomes 640 x 128

    def batch(**ranks: int) -> Batch:
        return next(training_batches(samples, batch_size=4, steps=range(1), seed=0, **ranks))

    whole, shares = batch(), [batch(n_ranks=2, rank=rank) for rank in (0, 1)]
    assert whole.images.shape[3] == 640
    assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
    assert shares[0].indices + shares[1].indices == whole.indices


def test_ranks_fill_the_cache_with_their_shares(data: CocoDetection) -> None:
    seen = []
    for rank in (0, 1):
        samples, counts = ResizedImages(data, 32, 64), []
        samples.fill_cache(
            lambda done, total, counts=counts: counts.append((done, total)), n_ranks=2, rank=rank
        )
        assert counts == [(i + 1, 3 - rank) for i in range(3 - rank)]
        seen += [i for i in range(5) if samples._cache.get(i) is not None]
    assert sorted(seen) == list(range(5))


# ---------------------------------------------------------------- masks


def outlined(folder: Path) -> CocoDetection:
    """One picture with a red triangle over blue, whose outline is known, and a crowd."""
    picture = Image.new("RGB", (200, 100), "blue")
    ImageDraw.Draw(picture).polygon([(20, 10), (120, 90), (20, 90)], "red")
    picture.save(folder / "0.png")
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": 200, "height": 100}],
        "categories": [{"id": 5, "name": "thing"}],
        "annotations": [
            {
                "id": 1, "image_id": 0, "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1,
                "segmentation": {"size": [100, 200], "counts": [0, 9, 19991]},
            },
            {
                "id": 2, "image_id": 0, "category_id": 5, "bbox": [20, 10, 100, 80],
                "segmentation": [[20, 10, 121, 91, 20, 91]],
            },
        ],
    }  # fmt: skip
    (folder / "set.json").write_text(json.dumps(content))
    return CocoDetection(folder, folder / "set.json", masks=True)


@pytest.mark.parametrize("size", [(100, 200), (50, 100), (150, 300), (30, 90)])
def test_masks_lie_on_their_pixels_resized_and_flipped(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    images = ResizedImages(outlined(tmp_path), *size)
    for sample in (s := images[0], flip(s)):
        assert sample.masks is not None
        assert sample.masks.shape == (1, *sample.image.shape[1:])
        assert sample.masks.dtype == torch.uint8
        red, mask = sample.image[0] > 127, sample.masks[0] > 0
        assert (red & mask).sum() / (red | mask).sum() > 0.96
        x1, y1, x2, y2 = sample.boxes[0]
        y, x = torch.where(mask)
        assert ((x >= x1 - 2) & (x <= x2 + 1) & (y >= y1 - 2) & (y <= y2 + 1)).all()


@given(st.data())
def test_masks_are_flipped_with_their_boxes(data: st.DataObject) -> None:
    h, w, n = (data.draw(st.integers(low, 9)) for low in (1, 1, 0))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    boxes = torch.from_numpy(np.sort(rng.integers(0, w, (n, 4)), axis=1).astype(np.float32))
    masks = torch.from_numpy(rng.integers(0, 2, (n, h, w), np.uint8))
    image = torch.from_numpy(rng.integers(0, 256, (3, h, w), np.uint8))
    sample = Sample(image, boxes, torch.ones(n, dtype=torch.int64), (1, 1), 0, masks)
    once = flip(sample)
    assert once.masks is not None
    assert torch.equal(once.masks, masks.flip(2))
    assert torch.equal(flip(once).masks, masks)
    assert torch.equal(flip(once).boxes, boxes)


def test_masks_travel_with_the_targets_and_only_where_outlines_are_read(
    tmp_path: Path, data: CocoDetection
) -> None:
    (batch,) = training_batches(
        ResizedImages(outlined(tmp_path), 50, 100), batch_size=2, steps=range(1), seed=0
    )
    assert [t["masks"].shape for t in batch.targets] == [(1, 50, 100)] * 2
    assert set(collate([ResizedImages(data, 32, 64)[0]]).targets[0]) == {"boxes", "labels"}
