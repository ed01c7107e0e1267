"""From an image to a padded batch: resize, cache, flip, order, collate.

Boxes are x1 y1 x2 y2, edges in pixels of the resized image. Symbols: n boxes of an image, h x w
its resized size, B images in a batch padded to H x W. Masks are made when a sample is: those of a
whole set would be larger than its images.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from msnas_optuna.data.images import DataError, ImageSet, resized_size
from msnas_optuna.data.masks import rasterize

SIZE_MULTIPLE: Final = 64  # pixels, the coarsest stride: so all features of a batch align
MIN_SIDE: Final = 1e-3  # pixels; thinner boxes have no finite regression target

_Key = tuple[int, bool]  # index in the data set, and whether the image is flipped

# Samples of a batch, and H, W of the batch over all ranks: the network sees the padding, which
# must not depend on who gets which image.
_Plan = tuple[list[_Key], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Sample:
    """A resized image with its training targets."""

    image: Tensor  # uint8 [3, h, w], RGB
    boxes: Tensor  # float32 [n, 4], x1 y1 x2 y2 in resized pixels, crowds left out
    labels: Tensor  # int64 [n], 1..K
    scale: tuple[float, float]  # resized / original size, (x, y)
    index: int  # position in the data set
    masks: Tensor | None = None  # uint8 [n, h, w], 0 or 1; None where outlines are not read

    @property
    def targets(self) -> dict[str, Tensor]:
        """What a network is trained on; see `models.network.DetectionNetwork.forward`."""
        masks = {} if self.masks is None else {"masks": self.masks}
        return {"boxes": self.boxes, "labels": self.labels, **masks}


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples padded with zeros at the right and bottom to one size."""

    images: Tensor  # uint8 [B, 3, H, W]; H and W are multiples of 64
    sizes: tuple[tuple[int, int], ...]  # (h, w) of each image before padding, pixels
    targets: tuple[dict[str, Tensor], ...]  # of each `Sample`
    scales: tuple[tuple[float, float], ...]  # of each `Sample`
    indices: tuple[int, ...]  # of each `Sample`

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return replace(
            self,
            images=self.images.to(device),
            targets=tuple({k: value.to(device) for k, value in t.items()} for t in self.targets),
        )

    def to_original(self, position: int, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] of the image at `position` of the batch, in original pixels."""
        x, y = self.scales[position]
        return boxes / boxes.new_tensor((x, y, x, y))


Images = TypeVar("Images", bound=ImageSet, covariant=True)


class ResizedImages(Dataset[Sample], Generic[Images]):
    """Resized images with their targets, kept in memory as far as they fit.

    The first images of the set that fit into `cache_bytes`, three bytes per pixel, are cached once
    decoded, the others are decoded every time. Worker processes that are forked share one cache.
    """

    def __init__(
        self, dataset: Images, shorter: int, longer: int, *, cache_bytes: int = 2 * 1024**3
    ) -> None:
        """Plans sizes, see `resized_size`, and cache; no image is read yet."""
        self.dataset: Final = dataset
        self.image_size: Final = (shorter, longer)  # pixels
        self.sizes: Final = tuple(  # (h, w), pixels
            resized_size((r.height, r.width), shorter, longer) for r in dataset.records
        )
        self._cache: Final = _ImageCache(self.sizes, cache_bytes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        """The sample at a position of the data set; DataError if it cannot be read."""
        record, (h, w) = self.dataset.records[index], self.sizes[index]
        pixels = self._cache.get(index)
        if pixels is None:
            image = self.dataset.read(index, size=(w, h))
            pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
            self._cache.put(index, pixels)
        scale = w / record.width, h / record.height
        boxes = (record.boxes * np.array([*scale, *scale])).clip(0, np.array([w, h, w, h]))
        boxes = boxes.astype(np.float32)
        kept = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1) & ~record.crowd
        labels, masks = torch.from_numpy(record.labels[kept]), None
        if record.outlines is not None:
            masks = torch.zeros((len(labels), h, w), dtype=torch.uint8)
            for mask, i in zip(masks, np.flatnonzero(kept).tolist(), strict=True):
                mask[:] = torch.from_numpy(rasterize(record.outlines[i], (h, w), scale=scale))
        return Sample(
            torch.from_numpy(pixels), torch.from_numpy(boxes[kept]), labels, scale, index, masks
        )

    def fill_cache(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        n_ranks: int = 1,
        rank: int = 0,
    ) -> None:
        """Decodes this rank's share of the images that have a place in the cache.

        `progress` gets the numbers of images done and in all.

        Raises:
            DataError: an image cannot be read.
        """
        share = range(rank, len(self._cache), n_ranks)
        for done, index in enumerate(share, start=1):
            self[index]
            if progress is not None:
                progress(done, len(share))


class _ImageCache:
    """Pixels of the first images that fit, in anonymous memory that forked workers share.

    Places are fixed beforehand, so two workers that decode the same image write the same bytes.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], cache_bytes: int) -> None:
        ends = np.cumsum([3 * h * w for h, w in sizes], dtype=np.int64)
        self._sizes: Final = sizes
        self._ends: Final = ends[: int(np.searchsorted(ends, cache_bytes, side="right"))]
        self._allocate()

    def __len__(self) -> int:
        return len(self._ends)

    def get(self, index: int) -> npt.NDArray[np.uint8] | None:
        """A copy of the image, uint8 [3, h, w], that callers may write to; None if not here."""
        if index >= len(self._ends) or not self._filled[index]:
            return None
        return self._place(index).copy()

    def put(self, index: int, image: npt.NDArray[np.uint8]) -> None:
        if index < len(self._ends):
            self._place(index)[:] = image
            self._filled[index] = 1  # last: another process may look in between

    def _place(self, index: int) -> npt.NDArray[np.uint8]:
        h, w = self._sizes[index]
        end = int(self._ends[index])
        return self._pixels[end - 3 * h * w : end].reshape(3, h, w)

    def _allocate(self) -> None:
        count = len(self._ends)
        self._pixels = _shared_bytes(int(self._ends[-1]) if count else 0)
        self._filled = _shared_bytes(count)

    def __getstate__(self) -> dict[str, Any]:
        return {"_sizes": self._sizes, "_ends": self._ends}  # a spawned process fills its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._allocate()


def _shared_bytes(n: int) -> npt.NDArray[np.uint8]:
    """Zeros that the operating system commits on first write."""
    return np.frombuffer(mmap.mmap(-1, max(n, 1)), np.uint8)


def flip(sample: Sample) -> Sample:
    """The sample mirrored left to right: x becomes w - x."""
    w = sample.image.shape[2]
    x1, y1, x2, y2 = sample.boxes.unbind(dim=1)
    return replace(
        sample,
        image=sample.image.flip(2),
        boxes=torch.stack((w - x2, y1, w - x1, y2), dim=1),
        masks=None if sample.masks is None else sample.masks.flip(2),
    )


def padded_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """H, W of a batch of images of these (h, w)."""
    H, W = (-(-max(side) // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in zip(*sizes, strict=True))
    return H, W


def collate(samples: Sequence[Sample], *, padded: tuple[int, int] | None = None) -> Batch:
    """Joins samples, at least one, into a batch of (H, W), by default what they need."""
    sizes = tuple((s.image.shape[1], s.image.shape[2]) for s in samples)
    H, W = padded_size(sizes) if padded is None else padded
    images = torch.zeros((len(samples), 3, H, W), dtype=torch.uint8)
    for image, sample, (h, w) in zip(images, samples, sizes, strict=True):
        image[:, :h, :w] = sample.image
    return Batch(
        images,
        sizes,
        targets=tuple(s.targets for s in samples),
        scales=tuple(s.scale for s in samples),
        indices=tuple(s.index for s in samples),
    )


def batch_keys(
    step: int, *, n_images: int, batch_size: int, seed: int, flip_probability: float = 0.5
) -> list[_Key]:
    """The (index, flipped) pairs of a step's batch: a pure function of seed and step.

    The images of step t are at positions t B .. t B + B - 1 of an endless sequence of
    permutations, one per epoch: no batch is short, and a resumed run goes on unchanged.
    """
    # The words 0 and 1 keep the streams apart; [seed, 1] alone would equal [seed, 1, 0].
    chances = np.random.default_rng([seed, 1, step]).random(batch_size)
    keys = []
    for position, chance in enumerate(chances, step * batch_size):
        epoch, offset = divmod(position, n_images)
        image = int(_permutation(seed, epoch, n_images)[offset])
        keys.append((image, bool(chance < flip_probability)))
    return keys


@lru_cache(maxsize=4)  # a batch may span epochs; drawing anew costs the whole epoch's length
def _permutation(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    order = np.random.default_rng([seed, 0, epoch]).permutation(n)
    order.setflags(write=False)
    return order


def training_batches(
    dataset: ResizedImages[ImageSet],
    *,
    batch_size: int,
    steps: range,
    seed: int,
    flip_probability: float = 0.5,
    workers: int = 0,
    n_ranks: int = 1,
    rank: int = 0,
) -> Iterator[Batch]:
    """The batches of the given steps, the same whatever step the run starts from.

    A batch has `batch_size` images over all `n_ranks` processes, which divide it; each has a
    contiguous slice. `workers` processes decode, 0: this one, best where all images are cached.

    Raises:
        DataError: an image cannot be read.
    """

    def plan(step: int) -> _Plan:
        keys = batch_keys(
            step, n_images=len(dataset), batch_size=batch_size, seed=seed,
            flip_probability=flip_probability,
        )  # fmt: skip
        share = batch_size // n_ranks
        return keys[rank * share : (rank + 1) * share], _padding(dataset, keys)

    return _load(dataset, map(plan, steps), workers=workers)


def evaluation_batches(
    dataset: ResizedImages[ImageSet], *, batch_size: int, workers: int = 0
) -> Iterator[Batch]:
    """Every image once, not flipped, in the batches of `evenly_padded`."""
    chunks = ([(i, False) for i in c] for c in evenly_padded(dataset.sizes, batch_size))
    plans = ((chunk, _padding(dataset, chunk)) for chunk in chunks)
    return _load(dataset, plans, workers=workers)


def evenly_padded(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Positions of images of (h, w) in batches in which each has the padding it has alone.

    A network sees the padding, and what it finds must not depend on the images beside it. Images
    of one padded size keep their order.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for position, size in enumerate(sizes):
        groups.setdefault(padded_size([size]), []).append(position)
    return [g[i : i + batch_size] for g in groups.values() for i in range(0, len(g), batch_size)]


def _padding(dataset: ResizedImages[ImageSet], keys: Sequence[_Key]) -> tuple[int, int]:
    return padded_size(dataset.sizes[index] for index, _ in keys)


class _PlannedBatches(Dataset[Batch]):
    def __init__(self, samples: ResizedImages[ImageSet]) -> None:
        self._samples: Final = samples

    def __getitem__(self, plan: _Plan) -> Batch:
        keys, padded = plan
        samples = ((self._samples[index], flipped) for index, flipped in keys)
        return collate([flip(s) if flipped else s for s, flipped in samples], padded=padded)


def _load(
    dataset: ResizedImages[ImageSet], plans: Iterable[_Plan], *, workers: int
) -> Iterator[Batch]:
    loader = DataLoader(
        _PlannedBatches(dataset),
        batch_size=None,  # a plan is a batch already
        sampler=plans,
        num_workers=workers,
        generator=torch.Generator(),  # else starting to iterate would advance the global one
        worker_init_fn=_leave_signals_to_the_parent,
    )
    try:
        yield from loader
    except DataError as error:  # a worker process sends its traceback as part of the message
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None


def _leave_signals_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # torchrun sends SIGTERM to whole process groups, and the parent has a step to finish.
    grouped = "TORCHELASTIC_RUN_ID" in os.environ
    signal.signal(signal.SIGTERM, signal.SIG_IGN if grouped else signal.SIG_DFL)
