"""The detection task: its images, the device, and what is measured on them."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.transforms import SIZE_MULTIPLE, ResizedImages, training_batches
from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.training.evaluation import Progress, average_precision, detect
from msnas_optuna.training.loop import BatchSource, Precision
from msnas_optuna.training.metrics import Measurements
from msnas_optuna.training.recipe import Recipe

LATENCY_WARM_UPS: Final = 3  # forward passes before a measurement of latency
LATENCY_REPEATS: Final = 15


@dataclass(frozen=True)
class DetectionTask:
    """The images that networks are trained and measured on, and where."""

    train: ResizedImages[CocoDetection]
    val: ResizedImages[CocoDetection]  # that a search looks at
    test: ResizedImages[CocoDetection]  # that trained detectors are reported on
    device: torch.device
    precision: Precision = "bf16"
    size_bounds: tuple[float, float] = (32.0, 96.0)  # see `average_precision`
    loader_workers: int = 0  # processes that decode images
    progress: Progress | None = None  # of the images of an evaluation

    def batches(self, recipe: Recipe, seed: int, ranks: Ranks = ALONE) -> BatchSource:
        """This rank's training batches of a range of steps; equal for equal steps and seeds."""
        return lambda steps: training_batches(
            self.train,
            batch_size=recipe.batch_size,
            steps=steps,
            seed=seed,
            flip_probability=recipe.flip_probability,
            workers=self.loader_workers,
            n_ranks=ranks.size,
            rank=ranks.rank,
        )

    def evaluate(
        self, model: DetectionNetwork, images: ResizedImages[CocoDetection]
    ) -> Measurements:
        """COCO's metrics of a stand-alone detector; those of masks are "ap_mask" and so on."""
        results = detect(
            model,
            images,
            device=self.device,
            precision=self.precision,
            workers=self.loader_workers,
            progress=self.progress,
        )
        ground_truth = images.dataset.ground_truth
        measured = average_precision(ground_truth, results, size_bounds=self.size_bounds)
        if images.dataset.masks:
            found = average_precision(
                ground_truth, results, size_bounds=self.size_bounds, kind="segm"
            )
            measured |= {f"{name}_mask": value for name, value in found.items()}
        return measured

    def measure(
        self, model: DetectionNetwork, images: ResizedImages[CocoDetection]
    ) -> Measurements:
        """COCO's metrics, the seconds that they took, and 1e6 parameters."""
        start = time.perf_counter()
        measured = self.evaluate(model, images)
        measured["evaluate_seconds"] = time.perf_counter() - start
        return measured | {"mparams": model.n_parameters / 1e6}

    @torch.no_grad()
    def latency(self, model: DetectionNetwork) -> float:
        """Median milliseconds of a forward pass on one image, from pixels to detections.

        The first validation image, repeated to the study's image size; the same for all.
        """
        model.eval()
        height, width = self.val.image_size
        image = self.val[0].image  # uint8 [3, h, w]
        repeats = math.ceil(height / image.shape[-2]), math.ceil(width / image.shape[-1])
        tiled = image.repeat(1, *repeats)[:, :height, :width]
        padding = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
        images = functional.pad(tiled, padding)[None].to(self.device)
        times = []
        for _ in range(LATENCY_WARM_UPS + LATENCY_REPEATS):
            start = time.perf_counter()
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
            ):
                model(images, [(height, width)])
            if self.device.type == "cuda":  # it computes while Python runs ahead
                torch.cuda.synchronize(self.device)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times[LATENCY_WARM_UPS:])
