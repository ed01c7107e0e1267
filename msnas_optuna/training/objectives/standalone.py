"""The stand-alone objective: train one architecture from scratch, COCO AP."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic

from optuna import Trial

from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.samplers import suggest
from msnas_optuna.spaces.base import A, FeasibleSet
from msnas_optuna.storage import TrialRecord, repeat_of, write_record
from msnas_optuna.training.checkpoint import Checkpointing, exclusive
from msnas_optuna.training.loop import NonFiniteLossError, train
from msnas_optuna.training.metrics import Measurements
from msnas_optuna.training.recipe import Recipe
from msnas_optuna.training.task import DetectionTask


@dataclass(frozen=True)
class Training(Generic[A]):
    """One training of an architecture."""

    architecture: A
    repeat: int = 0  # number of the training, added to the seed


@dataclass(eq=False)
class StandaloneObjective(Generic[A]):
    """`callable(trial) -> AP` of an architecture trained alone.

    Attributes:
        feasible: the architectures that the study may evaluate.
        build: makes the stand-alone detector of an architecture, with fresh weights of a seed.
        costs: of an architecture by name, as {"gflops": 0.1}; stored with a trial.
        folder: where the detectors are saved, one file for each training.
        fingerprint: settings that the checkpoints belong to.
        checkpoint_seconds: least time between two checkpoints.
        seed: of weights, batches, anchors and RoIs. Each further training of an architecture
            adds 1.
        on_step: called with the `Training`, the number of steps done and the loss.
        ranks: the processes that train each architecture together. The first one alone has
            trials and evaluates, the others `follow` it.
    """

    feasible: FeasibleSet[A]
    build: Callable[[A, int], DetectionNetwork]
    _: KW_ONLY
    task: DetectionTask
    costs: Callable[[A], Measurements]
    recipe: Recipe
    folder: Path
    fingerprint: Mapping[str, Any]
    checkpoint_seconds: float = 60.0
    seed: int = 0
    on_step: Callable[[Training[A], int, float], None] = lambda training, done, loss: None
    ranks: Ranks = ALONE

    def __call__(self, trial: Trial) -> float:
        """AP in [0, 1], unrounded; see `storage.TrialRecord` for what the trial keeps."""
        training = Training(suggest(trial, self.feasible), repeat_of(trial))
        trial.set_user_attr("checkpoint", self.checkpoint(training).name)
        measured = self.measure(training)
        write_record(trial, TrialRecord(str(training.architecture), measured, training.repeat))
        return measured["ap"]

    def checkpoint(self, training: Training[A]) -> Path:
        """The file of a training's detector."""
        digest = hashlib.sha256(str(training.architecture).encode()).hexdigest()[:12]
        again = f"-{training.repeat}" if training.repeat else ""
        return self.folder / f"{digest}{again}.pt"

    def belongs_to(self, training: Training[A]) -> dict[str, Any]:
        """The fingerprint of a training's checkpoint."""
        again = {"repeat": training.repeat} if training.repeat else {}
        return {**self.fingerprint, "architecture": str(training.architecture), **again}

    def measure(self, training: Training[A]) -> Measurements:
        """Trains the detector as `train` does and measures it."""
        start = time.perf_counter()
        model = self.train(training)
        measured = self.costs(training.architecture)
        measured |= {"train_seconds": time.perf_counter() - start}
        return measured | self.task.measure(model, self.task.test)

    def train(self, training: Training[A]) -> DetectionNetwork:
        """Trains from the last checkpoint, if there is one, to the end, on all ranks.

        Raises:
            NonFiniteLossError: the training diverged.
            CheckpointError: another process is at it, or the checkpoint belongs to other settings
                or cannot be written.
        """
        return self._train(self.ranks.broadcast(training))

    def _train(self, training: Training[A]) -> DetectionNetwork:
        task, recipe, seed = self.task, self.recipe, self.seed + training.repeat
        model = self.build(training.architecture, seed).to(task.device)
        checkpointing = Checkpointing(
            self.checkpoint(training), self.belongs_to(training), self.checkpoint_seconds
        )
        with exclusive(checkpointing.path, self.ranks):
            train(
                model,
                task.batches(recipe, seed, self.ranks),
                recipe=recipe,
                seed=seed,
                device=task.device,
                precision=task.precision,
                checkpointing=checkpointing,
                on_step=partial(self.on_step, training),
                ranks=self.ranks,
            )
        return model

    def follow(self) -> None:
        """Trains what the first rank trains, until it calls `release_followers`.

        A diverged training ends on all ranks at the same step, and the next one follows.

        Raises:
            PeerLostError: the first rank has ended.
        """
        while (training := self.ranks.broadcast(None)) is not None:
            with suppress(NonFiniteLossError):
                self._train(training)

    def release_followers(self) -> None:
        """Tells the other ranks that there is no more to train."""
        self.ranks.broadcast(None)
