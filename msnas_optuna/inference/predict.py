"""Detections of a study's detector on any images: pictures and COCO-format results.

Images go through what the evaluation does to them, in the same batches: the results of the
validation images, in order, are those that the stored AP was computed from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.images import DataError, ImageRecord, ImageSet, image_record
from msnas_optuna.data.transforms import ResizedImages, Sample, collate, evenly_padded
from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.report.drawing import LabeledBox, draw_boxes
from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.training.evaluation import EVALUATION_BATCH, coco_results, detect_batch

RESULTS, IMAGES = "results.json", "images.json"
"""Files of a prediction: COCO results, and a COCO file that says which image an id is."""

JPEG_QUALITY: Final = 92
JPEG_SIDE: Final = 65_500  # pixels that the format can hold


@dataclass(frozen=True)
class ImagePrediction:
    """The detections of one image."""

    record: ImageRecord
    results: list[dict[str, Any]]  # in COCO's format
    boxes: list[LabeledBox]  # those with at least the asked score
    drawn: Path  # the picture with the boxes


@dataclass(frozen=True)
class Prediction:
    """The outcome of one call."""

    pictures: list[ImagePrediction]  # in order
    unreadable: list[tuple[Path, str]]  # other files, and why
    results: Path  # the COCO results of all pictures


def assign_ids(
    paths: Sequence[Path], known: Sequence[CocoDetection]
) -> tuple[list[ImageRecord], list[tuple[Path, str]]]:
    """A record with an id for every file, and (file, reason) of those that cannot be read.

    An image of one of the data sets, the first before the second, keeps its id and its stated
    size. The other images, and those whose id is taken in this call, get ids above all of them.
    """
    unique = list({path.resolve(): path for path in paths}.items())
    ids: dict[Path, ImageRecord] = {}
    taken: set[int] = set()
    for dataset in known:
        records = {record.path.resolve(): record for record in dataset.records}
        for place, _ in unique:
            if place in records and place not in ids and records[place].id not in taken:
                ids[place] = records[place]
                taken.add(records[place].id)
    free = 1 + max((r.id for dataset in known for r in dataset.records), default=0)
    found, unreadable = [], []
    for place, path in unique:
        try:
            record = ids.get(place) or image_record(path, free)
        except DataError as error:
            unreadable.append((path, str(error)))
            continue
        free += place not in ids
        found.append(record)
    return found, unreadable


def predict(
    experiment: Experiment,
    model: DetectionNetwork,
    paths: Sequence[Path],
    *,
    folder: Path,
    score: float = 0.5,
) -> Prediction:
    """Detects on image files; writes pictures, `results.json` and `images.json`.

    Args:
        experiment: the study of the detector.
        model: the detector, on the study's device.
        paths: image files of any mode and size.
        folder: made if need be.
        score: boxes below are not drawn. The COCO results hold every detection above
            `detector.score_threshold`, as AP needs them.

    Raises:
        OSError: the folder cannot be written.
    """
    task = experiment.task
    records, unreadable = assign_ids(
        paths, [task.test.dataset, task.val.dataset, task.train.dataset]
    )
    images = ImageSet(records, task.val.dataset.categories)
    folder.mkdir(parents=True, exist_ok=True)
    names = _file_names(records)
    classes = [category.name for category in images.categories]
    found_at: dict[int, ImagePrediction] = {}
    resized = ResizedImages(images, *task.val.image_size, cache_bytes=0)
    for samples in _batches(resized, unreadable):
        batch = collate(samples)
        for found in detect_batch(model, batch, device=task.device, precision=task.precision):
            results = coco_results(images, found)
            boxes = labeled_boxes([r for r in results if r["score"] >= score], images)
            drawn = folder / names[found.index]
            picture = draw_boxes(images.read(found.index), boxes, labels=classes)
            kind = "JPEG" if drawn.suffix == ".jpg" else "PNG"
            with atomic_write(drawn, durable=False) as file:
                picture.save(file, kind, quality=JPEG_QUALITY, subsampling=0)
            record = records[found.index]
            found_at[found.index] = ImagePrediction(record, results, boxes, drawn)
            experiment.report("detections", len(found_at), len(records))
    pictures = [found_at[index] for index in sorted(found_at)]
    known = {
        "images": [
            {"id": r.id, "file_name": str(r.path), "width": r.width, "height": r.height}
            for r in (picture.record for picture in pictures)
        ],
        "categories": [{"id": c.id, "name": c.name} for c in images.categories],
        "annotations": [],
    }
    for name, content in (
        (RESULTS, [r for picture in pictures for r in picture.results]),
        (IMAGES, known),
    ):
        with atomic_write(folder / name) as file:
            file.write(f"{json.dumps(content)}\n".encode())
    return Prediction(pictures, unreadable, folder / RESULTS)


def labeled_boxes(results: Sequence[Mapping[str, Any]], images: ImageSet) -> list[LabeledBox]:
    """COCO results of an image as boxes, with masks if any, and the names of their classes."""
    names = {category.id: category.name for category in images.categories}
    boxes = []
    for result in results:
        x, y, w, h = result["bbox"]
        name = names[result["category_id"]]
        mask = result.get("segmentation")
        boxes.append(LabeledBox((x, y, x + w, y + h), name, result["score"], mask))
    return boxes


def _batches(
    resized: ResizedImages[ImageSet], unreadable: list[tuple[Path, str]]
) -> Iterator[list[Sample]]:
    """Samples in the batches of an evaluation, without those whose pixels cannot be read."""
    for indices in evenly_padded(resized.sizes, EVALUATION_BATCH):
        samples = []
        for index in indices:
            try:
                samples.append(resized[index])
            except DataError as error:
                unreadable.append((resized.dataset.records[index].path, str(error)))
        if samples:
            yield samples


def _file_names(records: Sequence[ImageRecord]) -> list[str]:
    """A name for each picture: the image's own, with its id where two have the same."""
    times = Counter(record.path.stem for record in records)
    return [
        f"{r.path.stem}{'' if times[r.path.stem] == 1 else f'-{r.id}'}"
        f"{'.jpg' if max(r.width, r.height) <= JPEG_SIDE else '.png'}"
        for r in records
    ]
