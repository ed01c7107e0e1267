"""What objectives share: data and device, the trial's architecture and its record."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from optuna import Trial
from torch import Tensor
from torch.nn import functional

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.transforms import Resized, training_batches
from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.storage import TrialRecord, write_record
from msnas_optuna.training.evaluation import DetectionMetrics, Progress, average_precision, detect
from msnas_optuna.training.loop import BatchSource, Precision
from msnas_optuna.training.recipe import Recipe

LATENCY_WARM_UPS: Final = 3
LATENCY_REPEATS: Final = 15
"""Forward passes before and during a measurement of latency."""

DetectorFactory = Callable[[Architecture], Detector]
"""Makes the stand-alone detector of an architecture, with fresh weights."""


@dataclass(frozen=True)
class Score:
    """What the evaluation of one architecture gives.

    Attributes:
        metrics: COCO AP on the validation set.
        n_parameters: of the whole detector.
        train_seconds: of fine-tuning (or training).
        evaluate_seconds: of inference and COCO evaluation.
        gflops: 1e9 multiply-adds of encoder + RPN head.
        latency_ms: see `Bench.latency`; None where it is not measured.
    """

    metrics: DetectionMetrics
    n_parameters: int
    train_seconds: float
    evaluate_seconds: float
    gflops: float
    latency_ms: float | None = None


@dataclass(frozen=True)
class Bench:
    """Where objectives train and measure.

    Attributes:
        train: training images.
        val: validation images.
        device: where to compute.
        precision: of convolutions and products.
        size_bounds: borders between small, medium and large objects in pixels.
        loader_workers: processes that decode images.
        progress: called with the number of validation images done and in all.
    """

    train: Resized[CocoDetection]
    val: Resized[CocoDetection]
    device: torch.device
    precision: Precision = "bf16"
    size_bounds: tuple[float, float] = (32.0, 96.0)
    loader_workers: int = 0
    progress: Progress | None = None

    def batches(self, recipe: Recipe, seed: int, ranks: Ranks = ALONE) -> BatchSource:
        """The training batches of a range of steps; equal for equal steps and seeds.

        Of several ranks each gets its share of a batch.
        """
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

    def evaluate(self, model: Detector) -> DetectionMetrics:
        """COCO AP of a stand-alone detector on the validation images."""
        results = detect(
            model,
            self.val,
            device=self.device,
            precision=self.precision,
            workers=self.loader_workers,
            progress=self.progress,
        )
        ground_truth = self.val.dataset.ground_truth
        return average_precision(ground_truth, results, size_bounds=self.size_bounds)

    @torch.no_grad()
    def latency(self, model: Detector) -> float:
        """Median milliseconds of a forward pass on one image, from pixels to detections.

        The image is the first of the validation set, repeated to the study's image size, so that
        every architecture sees the same objects.
        """
        model.eval()
        image, size = self._probe()
        times = []
        for _ in range(LATENCY_WARM_UPS + LATENCY_REPEATS):
            start = time.perf_counter()
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
            ):
                model(image, [size])
            if self.device.type == "cuda":  # it computes while Python runs ahead
                torch.cuda.synchronize(self.device)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times[LATENCY_WARM_UPS:])

    def _probe(self) -> tuple[Tensor, tuple[int, int]]:  # uint8 [1, 3, H, W], (h, w)
        height, width = self.val.image_size
        image = self.val[0].image
        repeats = math.ceil(height / image.shape[-2]), math.ceil(width / image.shape[-1])
        tiled = image.repeat(1, *repeats)[:, :height, :width]
        padding = (0, -width % 64, 0, -height % 64)
        return functional.pad(tiled, padding)[None].to(self.device), (height, width)


def record(trial: Trial, architecture: Architecture, score: Score, *, repeat: int = 0) -> None:
    """Writes what was measured into the trial's user attributes."""
    metrics = score.metrics
    write_record(
        trial,
        TrialRecord(
            str(architecture),
            {
                "gflops": score.gflops,
                "mparams": score.n_parameters / 1e6,
                "ap50": metrics.ap50,
                "ap75": metrics.ap75,
                "ap_small": metrics.ap_small,
                "ap_medium": metrics.ap_medium,
                "ap_large": metrics.ap_large,
                "train_seconds": score.train_seconds,
                "evaluate_seconds": score.evaluate_seconds,
            }
            | ({} if score.latency_ms is None else {"latency_ms": score.latency_ms}),
            repeat,
        ),
    )
