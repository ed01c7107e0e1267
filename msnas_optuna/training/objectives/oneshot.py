"""The one-shot objective: weights of the supernet, a short fine-tuning, COCO AP.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.4, §4.1:
copy the supernet's weights, fine-tune that path alone, evaluate on the validation set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Trial
from torch import Tensor

from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.encoder import subset_state
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.samplers import suggest
from msnas_optuna.spaces.base import FeasibleSet
from msnas_optuna.storage import repeat_of
from msnas_optuna.training.loop import recalibrate, train
from msnas_optuna.training.metrics import METRICS
from msnas_optuna.training.objectives.bench import Bench, DetectorFactory, Score, record
from msnas_optuna.training.recipe import Recipe


class OneShotObjective:
    """`callable(trial) -> AP` (or several objectives) under the supernet's weights.

    Args:
        feasible: the architectures that the study may evaluate.
        build: makes the stand-alone detector of an architecture.
        weights: the supernet's state.
        bench: data and device.
        cost: FLOPs of encoder + RPN head.
        recipe: of the fine-tuning; no steps evaluate the weights as they are.
        recalibration_batches: batches for new batch norm statistics after the fine-tuning.
        seed: of batches, anchors and RoIs; one seed for all trials, so that they differ in the
            architecture alone. Each further measurement of an architecture adds 1.
        objectives: names from `metrics.METRICS`; AP alone gives one value, more give a tuple.
    """

    def __init__(
        self,
        feasible: FeasibleSet[Architecture],
        build: DetectorFactory,
        *,
        weights: Mapping[str, Tensor],
        bench: Bench,
        cost: Any,
        recipe: Recipe,
        recalibration_batches: int = 0,
        seed: int = 0,
        objectives: Sequence[str] = ("ap",),
    ) -> None:
        self.feasible = feasible
        self.build = build
        self.weights = weights
        self.bench = bench
        self.cost = cost
        self.recipe = recipe
        self.recalibration_batches = recalibration_batches
        self.seed = seed
        self.objectives = tuple(objectives)

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """The objectives, unrounded; see `storage.TrialRecord` for what the trial keeps."""
        architecture = suggest(trial, self.feasible)
        repeat = repeat_of(trial)
        score = self.score(architecture, repeat=repeat)
        record(trial, architecture, score, repeat=repeat)
        values = tuple(METRICS[name].of(score) for name in self.objectives)
        return values if len(values) > 1 else values[0]

    def score(self, architecture: Architecture, *, repeat: int = 0) -> Score:
        """Fine-tunes a copy of the path's weights and evaluates it.

        Args:
            architecture: the path.
            repeat: how many measurements of it came before.

        Raises:
            NonFiniteLossError: the fine-tuning diverged.
        """
        bench = self.bench
        start = time.perf_counter()
        model = self.network(architecture, repeat=repeat)
        trained = time.perf_counter()
        metrics = bench.evaluate(model)
        evaluated = time.perf_counter()
        return Score(
            metrics,
            model.n_parameters,
            train_seconds=trained - start,
            evaluate_seconds=evaluated - trained,
            gflops=self.cost.total(architecture) / 1e9,
            latency_ms=bench.latency(model) if "latency" in self.objectives else None,
        )

    def network(self, architecture: Architecture, *, repeat: int = 0) -> Detector:
        """The fine-tuned detector that `score` evaluates; see there."""
        bench, seed = self.bench, self.seed + repeat
        model = self.build(architecture)
        model.load_state_dict(subset_state(self.weights, model.state_dict()))
        model.to(bench.device)
        batches = bench.batches(self.recipe, seed)
        train(
            model,
            batches,
            recipe=self.recipe,
            seed=seed,
            device=bench.device,
            precision=bench.precision,
        )
        if self.recalibration_batches:
            first = self.recipe.steps
            recalibrate(
                model,
                batches(range(first, first + self.recalibration_batches)),
                device=bench.device,
                precision=bench.precision,
            )
        return model
