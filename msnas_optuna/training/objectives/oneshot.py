"""The one-shot objective: weights of the supernet, a short fine-tuning, COCO AP.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Generic

from optuna import Trial
from torch import Tensor

from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.samplers import suggest
from msnas_optuna.spaces.base import A, FeasibleSet
from msnas_optuna.storage import TrialRecord, repeat_of, write_record
from msnas_optuna.training.loop import recalibrate, train
from msnas_optuna.training.metrics import METRICS, Measurements, Metric
from msnas_optuna.training.recipe import Recipe
from msnas_optuna.training.task import DetectionTask


@dataclass(eq=False)
class OneShotObjective(Generic[A]):
    """`callable(trial) -> AP` (or several objectives) under the supernet's weights.

    Attributes:
        feasible: the architectures that the study may evaluate.
        build: makes the stand-alone detector of an architecture.
        weights: the supernet's state, in which that of each architecture has the same names.
        costs: of an architecture by name, as {"gflops": 0.1}; stored with a trial.
        recipe: of the fine-tuning; no steps evaluate the weights as they are.
        recalibration_batches: for new batch norm statistics after the fine-tuning.
        seed: of batches, anchors and RoIs, one for all trials, so that they differ in the
            architecture alone. Each further measurement of an architecture adds 1.
        objectives: AP alone gives one value, more give a tuple.
    """

    feasible: FeasibleSet[A]
    build: Callable[[A], DetectionNetwork]
    _: KW_ONLY
    weights: Mapping[str, Tensor]
    task: DetectionTask
    costs: Callable[[A], Measurements]
    recipe: Recipe
    recalibration_batches: int = 0
    seed: int = 0
    objectives: Sequence[Metric] = (METRICS["ap"],)

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """The objectives, unrounded; see `storage.TrialRecord` for what the trial keeps."""
        architecture = suggest(trial, self.feasible)
        repeat = repeat_of(trial)
        measured = self.measure(architecture, repeat=repeat)
        write_record(trial, TrialRecord(str(architecture), measured, repeat))
        values = tuple(measured[metric.key] for metric in self.objectives)
        return values if len(values) > 1 else values[0]

    def measure(self, architecture: A, *, repeat: int = 0) -> Measurements:
        """Fine-tunes a copy of the architecture's weights and measures the detector.

        Raises:
            NonFiniteLossError: the fine-tuning diverged.
        """
        start = time.perf_counter()
        model = self.network(architecture, repeat=repeat)
        measured = self.costs(architecture) | {"train_seconds": time.perf_counter() - start}
        measured |= self.task.measure(model, self.task.val)
        if any(metric.key == METRICS["latency"].key for metric in self.objectives):
            measured["latency_ms"] = self.task.latency(model)
        return measured

    def network(self, architecture: A, *, repeat: int = 0) -> DetectionNetwork:
        """The fine-tuned detector that `measure` evaluates; see there."""
        task, seed = self.task, self.seed + repeat
        model = self.build(architecture)
        model.load_state_dict({name: self.weights[name] for name in model.state_dict()})
        model.to(task.device)
        batches = task.batches(self.recipe, seed)
        train(
            model,
            batches,
            recipe=self.recipe,
            seed=seed,
            device=task.device,
            precision=task.precision,
        )
        if self.recalibration_batches:
            first = self.recipe.steps
            recalibrate(
                model,
                batches(range(first, first + self.recalibration_batches)),
                device=task.device,
                precision=task.precision,
            )
        return model
