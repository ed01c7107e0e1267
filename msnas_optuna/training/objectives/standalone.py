"""The stand-alone objective: train one architecture from scratch, COCO AP.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §4.1: the
best architectures are retrained from scratch in the supernet's own setting.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from optuna import Trial

from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.samplers import suggest
from msnas_optuna.spaces.base import FeasibleSet
from msnas_optuna.training.checkpoint import exclusive
from msnas_optuna.training.loop import Checkpointing, NonFiniteLossError, train
from msnas_optuna.training.objectives.bench import Bench, DetectorFactory, Score, record
from msnas_optuna.training.recipe import Recipe

StepReport = Callable[[Architecture, int, float], None]


class StandaloneObjective:
    """`callable(trial) -> AP` of an architecture trained alone.

    Args:
        feasible: the architectures that the study may evaluate.
        build: makes the stand-alone detector of an architecture, with fresh weights.
        bench: data and device.
        cost: FLOPs of encoder + RPN head.
        recipe: of the training.
        folder: where the detectors are saved, one file for each architecture.
        fingerprint: what the checkpoints belong to.
        checkpoint_seconds: least time between two checkpoints.
        seed: of weights, batches, anchors and RoIs.
        on_step: called with the architecture, the number of steps done and the loss.
        ranks: the processes that train each architecture together. The first one alone has
            trials and evaluates, the others `assist`.
    """

    def __init__(
        self,
        feasible: FeasibleSet[Architecture],
        build: DetectorFactory,
        *,
        bench: Bench,
        cost: Any,
        recipe: Recipe,
        folder: Path,
        fingerprint: Mapping[str, Any],
        checkpoint_seconds: float = 60.0,
        seed: int = 0,
        on_step: StepReport | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.feasible = feasible
        self.build = build
        self.bench = bench
        self.cost = cost
        self.recipe = recipe
        self.folder = folder
        self.fingerprint = fingerprint
        self.checkpoint_seconds = checkpoint_seconds
        self.seed = seed
        self.on_step = on_step
        self.ranks = ranks

    def __call__(self, trial: Trial) -> float:
        """AP in [0, 1], unrounded; see `storage.TrialRecord` for what the trial keeps."""
        architecture = suggest(trial, self.feasible)
        trial.set_user_attr("checkpoint", self.checkpoint(architecture).name)
        score = self.score(architecture)
        record(trial, architecture, score)
        return score.metrics.ap

    def checkpoint(self, architecture: Architecture) -> Path:
        """The file of an architecture's detector."""
        digest = hashlib.sha256(str(architecture).encode()).hexdigest()[:12]
        return self.folder / f"{digest}.pt"

    def belongs_to(self, architecture: Architecture) -> dict[str, Any]:
        """The fingerprint of an architecture's checkpoint."""
        return {**self.fingerprint, "architecture": str(architecture)}

    def score(self, architecture: Architecture) -> Score:
        """Trains from the last checkpoint, if there is one, to the end and evaluates.

        Raises:
            NonFiniteLossError: the training diverged.
            CheckpointError: the checkpoint belongs to other settings or cannot be written.
        """
        start = time.perf_counter()
        model = self._train(self.ranks.broadcast(architecture))
        trained = time.perf_counter()
        metrics = self.bench.evaluate(model)
        return Score(
            metrics,
            model.n_parameters,
            train_seconds=trained - start,
            evaluate_seconds=time.perf_counter() - trained,
            gflops=self.cost.total(architecture) / 1e9,
        )

    def assist(self) -> None:
        """Trains what the first rank trains, until it dismisses them.

        A diverged training ends on all ranks at the same step, and the next one follows.

        Raises:
            PeerLostError: the first rank has ended.
        """
        while (architecture := self.ranks.broadcast(None)) is not None:
            with suppress(NonFiniteLossError):
                self._train(architecture)

    def restore(self, architecture: Architecture) -> None:
        """Trains an architecture whose value is stored and whose weights are lost.

        Raises:
            NonFiniteLossError: the training diverged.
            CheckpointError: another process is at it, or the checkpoint cannot be written.
        """
        self._train(self.ranks.broadcast(architecture))

    def dismiss(self) -> None:
        """Tells the other ranks that there is no more to train."""
        self.ranks.broadcast(None)

    def _train(self, architecture: Architecture) -> Detector:
        bench, recipe = self.bench, self.recipe
        model = self.build(architecture).to(bench.device)
        with exclusive(self.checkpoint(architecture), self.ranks):
            train(
                model,
                bench.batches(recipe, self.seed, self.ranks),
                recipe=recipe,
                seed=self.seed,
                device=bench.device,
                precision=bench.precision,
                checkpointing=Checkpointing(
                    self.checkpoint(architecture),
                    self.belongs_to(architecture),
                    self.checkpoint_seconds,
                ),
                on_step=None if self.on_step is None else partial(self.on_step, architecture),
                ranks=self.ranks,
            )
        return model
