"""The composition root: a study file's parts, made when first needed, and the steps of a search.

train -> search -> retrain, each of which continues where an interrupted one stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from msnas_optuna.checkpoint import CheckpointError, load_checkpoint, read_losses
from msnas_optuna.dashboard import Publisher
from msnas_optuna.data.coco import CocoDetection, DataError
from msnas_optuna.data.transforms import Batch, Resized
from msnas_optuna.interrupts import deferred_interrupts
from msnas_optuna.metrics import METRICS, MetricName
from msnas_optuna.models import Detector, MSNASEncoder
from msnas_optuna.objectives import Bench, OneShotObjective, StandaloneObjective
from msnas_optuna.results import evaluated, evaluated_in, ranked
from msnas_optuna.samplers import MSNASSampler, SpaceExhaustedError, queue_architectures
from msnas_optuna.setting import FPN_LIKE, RETRAIN, Setting
from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError
from msnas_optuna.spaces.msnas import Architecture
from msnas_optuna.storage import (
    ERROR,
    PATIENCE,
    StudyMismatchError,
    await_others,
    claimed_slots,
    finished_slots,
    flatten,
    mark_interrupted,
    n_slots,
    open_study,
    recover_lost_trials,
    require_config,
)
from msnas_optuna.training import Checkpointing, NonFiniteLossError, train

PATH_STREAM = 2
"""Separates the random stream of the paths from those of the batches."""

Objective = Callable[[optuna.Trial], float | Sequence[float]]

EVALUATION_KEYS = frozenset(
    {
        "data.val_annotations.sha256",
        "data.size_bounds",
        "detector.max_detections",
        "detector.proposals_test",
        "detector.score_threshold",
    }
)
"""Settings that weights do not depend on."""

FAILURES = (NonFiniteLossError, InvalidArchitectureError)
"""What fails one trial and lets the study go on."""


class Report(Protocol):
    """Told how far a long step has come."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `step` are finished."""


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Reports nothing."""


class Experiment:
    """Everything that a study file describes.

    Args:
        setting: space, budget and storage of the study file.
        report: told about the progress of long steps.
    """

    def __init__(self, setting: Setting, *, report: Report = silent) -> None:
        self.setting = setting
        self.config = setting.config
        self.report = report
        if self.config.runtime.threads:
            torch.set_num_threads(self.config.runtime.threads)

    @classmethod
    def load(cls, path: Path | str, *, report: Report = silent) -> Experiment:
        """Reads a study file.

        Raises:
            ConfigError: the file breaks a rule.
        """
        return cls(Setting.load(path), report=report)

    # ------------------------------------------------------------------ data and networks

    @cached_property
    def bench(self) -> Bench:
        """Training and validation images and the device.

        Raises:
            DataError: an annotation file or an image breaks a rule.
        """
        data, runtime = self.config.data, self.config.runtime
        train_set, val_set = self._splits()
        if train_set.categories != val_set.categories:
            raise DataError(
                f"training and validation images must have the same categories, got "
                f"{[c.name for c in train_set.categories]} and "
                f"{[c.name for c in val_set.categories]}; give both files the same list"
            )
        for part in (train_set, val_set):
            if not any(len(r.labels) > r.crowd.sum() for r in part.records):
                raise DataError(
                    f"training and validation need objects, {part.annotations} has none that is "
                    f"not a crowd; add some, or give other images"
                )
        shorter, longer = data.image_size
        half_cache = int(data.cache_gb * 2**30) // 2
        return Bench(
            train=Resized(train_set, shorter, longer, cache_bytes=half_cache),
            val=Resized(val_set, shorter, longer, cache_bytes=half_cache),
            device=resolve_device(runtime.device),
            precision=runtime.precision,
            size_bounds=data.size_bounds,
            loader_workers=data.workers,
        )

    def _splits(self) -> tuple[CocoDetection, CocoDetection]:
        splits = self.setting.splits(partial(self.report, "data set"))
        train_set, val_set = (
            CocoDetection(split.images, split.annotations)
            for split in (splits["train"], splits["val"])
        )
        return train_set, val_set

    def _read_images(self) -> None:
        """Shows a bad image before hours of training."""
        self.bench.train.fill_cache(partial(self.report, "training images"))
        self.bench.val.fill_cache(partial(self.report, "validation images"))

    def build_detector(self, architecture: Architecture | None = None) -> Detector:
        """The detector of one architecture, or the supernet, with fresh weights."""
        space, section = self.config.space, self.config.detector
        settings = dataclasses.asdict(section)
        settings["canonical_size"] = self.setting.canonical_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.study.seed)
            encoder = MSNASEncoder(
                space.n_blocks,
                space.block,
                channels=space.channels,
                stem_channels=space.stem_channels,
                norm=space.norm,
                only=architecture,
            )
            n_classes = len(self.bench.train.dataset.categories)
            detector = Detector(
                encoder, n_classes, channels=space.channels, norm=space.norm, **settings
            )
        return detector.to(memory_format=torch.channels_last)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What values depend on: the settings and the annotations."""
        train_set, val_set = self.bench.train.dataset, self.bench.val.dataset
        return self.config.identity() | {
            "data.train_annotations.sha256": _digest(train_set.annotations),
            "data.val_annotations.sha256": _digest(val_set.annotations),
        }

    def _stage_identity(self, recipe: str) -> dict[str, Any]:
        """What the values of networks trained by a recipe depend on."""
        parts = ("space.", "detector.", "data.", "study.seed", "runtime.", f"{recipe}.")
        identity = self._identity | flatten(
            {recipe: dataclasses.asdict(getattr(self.config, recipe))}
        )
        return {key: value for key, value in identity.items() if key.startswith(parts)}

    def _training_identity(self, recipe: str) -> dict[str, Any]:
        """What the weights of a training run depend on: all but what is for evaluation alone."""
        identity = self._stage_identity(recipe)
        return {key: value for key, value in identity.items() if key not in EVALUATION_KEYS}

    # ------------------------------------------------------------------ steps of a search

    @property
    def supernet_path(self) -> Path:
        """The supernet's checkpoint."""
        return self.setting.run_dir / "supernet.pt"

    def train_supernet(self) -> list[float]:
        """Trains the supernet (§3.4), from its last checkpoint, and returns the losses.

        Raises:
            EmptyWindowError: no architecture could be searched afterwards.
            DataError, CheckpointError, NonFiniteLossError: see there.
        """
        _ = self.setting.feasible  # hours of training would be lost on an empty window
        recipe, seed = self.config.supernet, self.config.study.seed
        bench = self.bench
        model = self.build_detector().to(bench.device)

        def batches(steps: range) -> Iterable[Batch]:
            self._read_images()
            return bench.batches(recipe, seed)(steps)

        return train(
            model,
            batches,
            recipe=recipe,
            seed=seed,
            device=bench.device,
            precision=bench.precision,
            sample_path=lambda step: self.setting.valid.sample(
                np.random.default_rng([seed, PATH_STREAM, step])
            ),
            checkpointing=Checkpointing(
                self.supernet_path,
                self._training_identity("supernet"),
                self.config.runtime.checkpoint_seconds,
            ),
            on_step=lambda done, loss: self.report(
                "supernet", done, recipe.steps, f"loss {loss:.3f}"
            ),
        )

    @cached_property
    def supernet_weights(self) -> dict[str, Tensor]:
        """The trained supernet's state.

        Raises:
            CheckpointError: it is missing, unfinished, damaged or of other settings.
        """
        content = load_checkpoint(
            self.supernet_path, fingerprint=self._training_identity("supernet")
        )
        if content["step"] < self.config.supernet.steps:
            raise CheckpointError(
                f"the supernet {self.supernet_path} has {content['step']} of "
                f"{self.config.supernet.steps} steps; run `msnas train` to finish it"
            )
        weights: dict[str, Tensor] = content["model"]
        return weights

    def one_shot_objective(self, feasible: FeasibleSet[Architecture]) -> OneShotObjective:
        """The objective of the search."""
        return OneShotObjective(
            feasible,
            self.build_detector,
            weights=self.supernet_weights,
            bench=self.bench,
            cost=self.setting.cost,
            recipe=self.config.finetune,
            recalibration_batches=self.config.finetune.recalibration_batches,
            seed=self.config.study.seed,
            objectives=self.config.study.objectives,
        )

    def standalone_objective(self, feasible: FeasibleSet[Architecture]) -> StandaloneObjective:
        """The objective of the retraining."""
        recipe = self.config.retrain
        return StandaloneObjective(
            feasible,
            self.build_detector,
            bench=self.bench,
            cost=self.setting.cost,
            recipe=recipe,
            folder=self.setting.run_dir / "retrained",
            fingerprint=self._training_identity("retrain"),
            checkpoint_seconds=self.config.runtime.checkpoint_seconds,
            seed=self.config.study.seed,
            on_step=lambda architecture, done, loss: self.report(
                f"retrain {architecture}", done, recipe.steps, f"loss {loss:.3f}"
            ),
        )

    def search(self, trials: int | None = None) -> optuna.Study:
        """Searches until the study has this many trials (Algorithm 1).

        Args:
            trials: of the whole study, over all runs; the default is `study.trials`. No more
                than there are feasible architectures are made, unless they are measured again.

        Raises:
            ConfigError, EmptyWindowError, CheckpointError, StudyMismatchError: see there.
        """
        seeds, objectives = self.setting.seeds, self.config.study.objectives
        feasible = self.setting.feasible
        study = self._open(None, feasible, self._search_identity, objectives=objectives)
        wanted = trials or self.config.study.trials
        sampler = self.config.sampler
        if not sampler.n_reevaluated or feasible.count() < sampler.population_size:
            wanted = min(wanted, feasible.count())
        recover_lost_trials(study)
        queue_architectures(study, self.setting.space, seeds)
        if finished_slots(study) < wanted:
            objective = self.one_shot_objective(feasible)
            self._optimize(
                study, objective, wanted=wanted, step="search", after=self.publisher.after_trial
            )
        self.publisher.refresh()
        return study

    def evaluate_fpn_like(self) -> optuna.Study:
        """Evaluates the hand-made FPN-like path as the search evaluates its proposals."""
        objectives = self.config.study.objectives
        study = self._open(
            FPN_LIKE, self.setting.valid, self._search_identity, objectives=objectives
        )
        self._evaluate(
            study, [self.setting.space.fpn_like()], self.one_shot_objective, step="FPN-like path"
        )
        return study

    def retrain(self, top: int) -> optuna.Study:
        """Trains the best architectures and the FPN-like path from scratch (§4.1).

        Args:
            top: number of architectures, best one-shot AP first; of the Pareto front where the
                search has several objectives.

        Raises:
            ValueError: the search has no finished trial.
        """
        best = ranked(self.setting)[:top]
        if not best:
            raise ValueError(
                f"study {self.config.study.name} has no finished trial to retrain; "
                f"run `msnas search` first"
            )
        stored = self.setting.stored_study()
        assert stored is not None
        require_config(stored, self._identity)
        architectures = [result.architecture for result in best]
        study = self._open(RETRAIN, self.setting.valid, self._stage_identity("retrain"))
        study.set_user_attr("parent_study", self.config.study.name)
        architectures.append(self.setting.space.fpn_like())
        self._evaluate(study, architectures, self.standalone_objective, step="retrained")
        self.publisher.refresh()
        return study

    def retrained(self, architecture: Architecture) -> Detector:
        """The detector of an architecture with the weights of its retraining.

        Raises:
            CheckpointError: it is not retrained, or with other settings.
        """
        objective = self.standalone_objective(self.setting.valid)
        path = objective.checkpoint(architecture)
        content = load_checkpoint(path, fingerprint=objective.belongs_to(architecture))
        model = self.build_detector(architecture).to(self.bench.device)
        model.load_state_dict(content["model"])
        return model.eval()

    # ------------------------------------------------------------------ what people see

    @cached_property
    def publisher(self) -> Publisher:
        """Keeps the dashboard of the study up to date."""
        return Publisher(self.setting, losses=partial(training_losses, self.setting))

    # ------------------------------------------------------------------ running trials

    @cached_property
    def _search_identity(self) -> dict[str, Any]:
        """What one-shot values depend on; an unfinished supernet raises, before it is stored."""
        assert self.supernet_weights
        return self._identity | {"supernet.sha256": _digest(self.supernet_path)}

    def _open(
        self,
        stage: str | None,
        feasible: FeasibleSet[Architecture],
        identity: dict[str, Any],
        *,
        objectives: Sequence[MetricName] = ("ap",),
    ) -> optuna.Study:
        settings = dataclasses.asdict(self.config.sampler)
        del settings["seeds"]
        sampler = MSNASSampler(feasible, seed=self.config.study.seed, **settings)
        metrics, name = [METRICS[name] for name in objectives], self.setting.study_name(stage)
        try:
            return open_study(
                self.setting.storage,
                name=name,
                directions=[metric.direction for metric in metrics],
                sampler=sampler,
                config=identity,
                metric_names=[metric.label for metric in metrics],
            )
        except StudyMismatchError as error:
            if stage is None:
                raise
            folder = " and the folder retrained" if stage == RETRAIN else ""
            raise StudyMismatchError(
                f"{error}; or begin this stage anew: delete study {name!r} with `optuna "
                f"delete-study`{folder}"
            ) from None

    def _evaluate(
        self,
        study: optuna.Study,
        architectures: Iterable[Architecture],
        objective: Callable[[FeasibleSet[Architecture]], Objective],
        *,
        step: str,
    ) -> None:
        """Evaluates the architectures that the study does not hold yet."""
        recover_lost_trials(study)
        queue_architectures(study, self.setting.space, architectures, retry_failed=True)
        if finished_slots(study) < n_slots(study):
            wanted = n_slots(study)
            self._optimize(study, objective(self.setting.valid), wanted=wanted, step=step)

    def _optimize(
        self,
        study: optuna.Study,
        objective: Objective,
        *,
        wanted: int,
        step: str,
        after: Callable[[optuna.Study], None] = lambda study: None,
    ) -> None:
        """Evaluates until `wanted` proposals are settled; tells `after` of each trial."""
        space = self.setting.space

        def guarded(trial: optuna.Trial) -> float | Sequence[float]:
            try:
                with interrupts.allowed():
                    return objective(trial)
            except FAILURES as failure:
                trial.set_user_attr(ERROR, str(failure))
                warnings.warn(f"trial {trial.number} failed: {failure}", stacklevel=2)
                raise
            except BaseException:  # not the architecture's fault: the next run repeats the trial
                mark_interrupted(study, trial)
                raise

        def tell(study: optuna.Study, trial: FrozenTrial) -> None:
            done = evaluated_in(study, space)
            note = f"best mAP {100 * max(e.values[0] for e in done):.1f}" if done else ""
            self.report(step, finished_slots(study), wanted, note)

        self.report(step, finished_slots(study), wanted)
        seen, since = finished_slots(study), time.monotonic()
        while (settled := finished_slots(study)) < wanted:
            if claimed_slots(study) < wanted:  # one by one: other workers may share the study
                try:
                    with deferred_interrupts() as interrupts:  # Optuna's bookkeeping is not safe
                        study.optimize(guarded, n_trials=1, catch=FAILURES, callbacks=[tell])
                except SpaceExhaustedError:  # other workers have taken what was left
                    break
                after(study)
                continue
            if settled != seen:
                seen, since = settled, time.monotonic()
            self.report(step, settled, wanted, "waiting for trials of other workers")
            if not await_others(study) or time.monotonic() - since > PATIENCE:
                left = wanted - settled
                warnings.warn(f"{left} trials are left to other workers", stacklevel=2)
                break


def training_losses(setting: Setting) -> dict[str, list[float]]:
    """Losses of the supernet and of the retrained architectures, by name, as far as they got.

    Raises:
        CheckpointError: a checkpoint is damaged.
    """
    losses = {"supernet": read_losses(setting.run_dir / "supernet.pt")}
    study = setting.stored_study(RETRAIN)
    numbers = {e.architecture: e.trials[0].number for e in evaluated(setting)}
    for trial in [] if study is None else study.get_trials(deepcopy=False):
        file = trial.user_attrs.get("checkpoint")
        if file is not None and trial.params:
            number = numbers.get(setting.space.decode(trial.params))
            name = "FPN-like path" if number is None else f"trial {number}"
            losses[name] = read_losses(setting.run_dir / "retrained" / file)
    return losses


def resolve_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        ValueError: a GPU is asked for that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"runtime.device is {name!r}, but PyTorch sees {torch.cuda.device_count()} GPUs; "
            f"set runtime.device = 'auto'"
        )
    return device


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
