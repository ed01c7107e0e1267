"""The composition root: a study file's parts, made when first needed, and the steps of a search.

train -> search -> retrain, each of which continues where an interrupted one stopped.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.images import DataError
from msnas_optuna.data.transforms import Batch, ResizedImages
from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.runtime.distributed import ALONE, Ranks, resolve_device
from msnas_optuna.runtime.files import sha256
from msnas_optuna.runtime.processes import Place
from msnas_optuna.samplers import queue_architectures
from msnas_optuna.samplers.history import Ledger
from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError, Space
from msnas_optuna.storage import (
    PATIENCE,
    REPEAT,
    StudyMismatchError,
    finished_slots,
    flatten,
    holders,
    n_slots,
    recover_lost_trials,
    refuse_mixed,
    require_config,
    write_curve,
    write_versions,
    write_wanted,
)
from msnas_optuna.study.baselines import baseline_detector
from msnas_optuna.study.config import BASELINE, RETRAIN, StudyConfig, comparable
from msnas_optuna.study.rank import Score
from msnas_optuna.study.selection import retraining
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import TESTED, StudyView
from msnas_optuna.study.workers import Objective, evaluate_trials
from msnas_optuna.training.checkpoint import (
    CheckpointError,
    Checkpointing,
    damage_named,
    exclusive,
    load_checkpoint,
    read_losses,
)
from msnas_optuna.training.loop import NonFiniteLossError, train
from msnas_optuna.training.metrics import METRICS, Measurements
from msnas_optuna.training.objectives import OneShotObjective, StandaloneObjective, Training
from msnas_optuna.training.task import DetectionTask

EVALUATION = "evaluation"  # step of the validation images, reported anew for every network
PATH_STREAM = 2  # separates the random stream of the paths from those of the batches

EVALUATION_KEYS = frozenset({"data.val_annotations.sha256", TESTED, "data.size_bounds"})
"""Settings that weights do not depend on, beside the method's."""

FAILURES = (NonFiniteLossError, InvalidArchitectureError)  # of one trial; the study goes on


class Report(Protocol):
    """Told how far a long step has come."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units of `step` are finished."""


AfterTrial = Callable[[optuna.Study], None]
"""Called with the study whenever one of its trials has ended."""


Run = Callable[[Mapping[str, optuna.Study]], None]
"""Evaluates what is queued in the studies of stages, by whatever processes."""


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Reports nothing."""


class Experiment:
    """Everything that a study file describes.

    `ranks` train supernet and retrained detectors together; only the first reports. `after_trial`
    is called when a trial of the search has ended, `refresh` after search and retraining.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        report: Report = silent,
        ranks: Ranks = ALONE,
        after_trial: AfterTrial | None = None,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self.setting, self.config, self.ranks = setting, setting.config, ranks
        self.report = report if ranks.first else silent
        self.after_trial, self.refresh = after_trial, refresh or (lambda: None)
        if self.config.runtime.threads:
            torch.set_num_threads(self.config.runtime.threads)

    @classmethod
    def load(
        cls, path: Path | str, *, storage: str | None = None, report: Report = silent
    ) -> Experiment:
        """Reads a study file; `storage` or OPTUNA_STORAGE takes the place of its storage."""
        return cls(Setting.load(path, storage=storage), report=report)

    # ------------------------------------------------------------------ data and networks

    @cached_property
    def task(self) -> DetectionTask:
        """Training, validation and test images and the device; a broken rule is a DataError.

        Where a study has no test images, the validation images are those.
        """
        data, runtime = self.config.data, self.config.runtime
        with self.ranks.rank_zero_first():  # generated data is made once
            splits = self.setting.splits(partial(self.report, "data set"))
        masks = self.setting.method.masks(self.config.detector)
        sets = {
            name: CocoDetection(part.images, part.annotations, masks=masks)
            for name, part in splits.items()
        }
        train_set = sets["train"]
        for part in sets.values():
            if part.categories != train_set.categories:
                raise DataError(
                    f"all images must have the same categories, got "
                    f"{[c.name for c in part.categories]} in {part.annotations} and "
                    f"{[c.name for c in train_set.categories]} in {train_set.annotations}; "
                    f"give all files the same list"
                )
            if not any(len(r.labels) > r.crowd.sum() for r in part.records):
                raise DataError(
                    f"training and evaluation need objects, {part.annotations} has none that is "
                    f"not a crowd; add some, or give other images"
                )
        cache = int(data.cache_gb * 2**30) // len(sets) // self.ranks.local_size
        resized = {
            n: ResizedImages(part, *data.image_size, cache_bytes=cache) for n, part in sets.items()
        }
        return DetectionTask(
            train=resized["train"],
            val=resized["val"],
            test=resized.get("test", resized["val"]),
            device=resolve_device(runtime.device, self.ranks),
            precision=runtime.precision,
            size_bounds=data.size_bounds,
            loader_workers=data.workers,
            progress=partial(self.report, EVALUATION),
        )

    def build_detector(
        self, architecture: Any = None, seed: int | None = None
    ) -> DetectionNetwork:
        """The detector of one architecture, or the supernet, with fresh weights.

        They follow from a seed, by default the study's.
        """
        build = partial(self.setting.method.build_detector, only=architecture)
        return self._built(build, self.config.study.seed if seed is None else seed)

    def build_baseline(self, name: str, seed: int) -> DetectionNetwork:
        """One of the detectors that the method compares its own with, with fresh weights."""
        return self._built(baseline_detector(self.setting, name).build, seed)

    def _built(self, build: Callable[..., DetectionNetwork], seed: int) -> DetectionNetwork:
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(
                config.space,
                config.detector,
                n_classes=len(self.task.train.dataset.categories),
                image_size=config.data.image_size,
            )
        return network.to(memory_format=torch.channels_last)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Settings and annotations that values depend on."""
        train_set, val_set = self.task.train.dataset, self.task.val.dataset
        return self.config.identity() | {
            "data.train_annotations.sha256": sha256(train_set.annotations),
            "data.val_annotations.sha256": sha256(val_set.annotations),
        }

    def _stage_identity(self, recipe: str) -> dict[str, Any]:
        """The part of it that the values of networks trained by a recipe depend on."""
        parts = ("space.", "detector.", "data.", "study.seed", "runtime.", f"{recipe}.")
        settings = flatten({recipe: dataclasses.asdict(getattr(self.config, recipe))})
        identity = self._identity | comparable(settings)
        if recipe == "supernet" and (window := self.setting.paths_window) is not None:
            identity["supernet.window"] = list(window)
        if recipe == RETRAIN and (test_set := self.task.test.dataset) is not self.task.val.dataset:
            identity[TESTED] = sha256(test_set.annotations)
        return {key: value for key, value in identity.items() if key.startswith(parts)}

    def _training_identity(self, recipe: str) -> dict[str, Any]:
        """The part that the weights of a training run depend on, without that of evaluation."""
        free = EVALUATION_KEYS | {f"detector.{key}" for key in self.setting.method.evaluation_keys}
        return {k: v for k, v in self._stage_identity(recipe).items() if k not in free}

    # ------------------------------------------------------------------ steps of a search

    @property
    def supernet_path(self) -> Path:
        """The supernet's checkpoint."""
        return self.setting.inside("supernet.pt")

    def train_supernet(self) -> list[float]:
        """Trains the supernet, from its last checkpoint, and returns the losses.

        Every rank calls this.

        Raises:
            EmptyWindowError: no architecture could be searched afterwards.
            DataError, CheckpointError, NonFiniteLossError: see there.
        """
        _ = self.setting.feasible  # hours of training would be lost on an empty window
        recipe, seed, draw = self.config.supernet, self.config.study.seed, self.setting.draw_path
        self.ranks.require_shares(recipe.batch_size, "supernet.batch_size")
        task = self.task
        model = self.build_detector().to(task.device)

        def batches(steps: range) -> Iterable[Batch]:
            # A bad image is shown before hours of training; each rank looks at its share.
            for images, name in ((task.train, "training"), (task.val, "validation")):
                progress = partial(self.report, f"{name} images")
                images.fill_cache(progress, n_ranks=self.ranks.size, rank=self.ranks.rank)
            return task.batches(recipe, seed, self.ranks)(steps)

        with exclusive(self.supernet_path, self.ranks):
            return train(
                model,
                batches,
                recipe=recipe,
                seed=seed,
                device=task.device,
                precision=task.precision,
                sample=lambda step: draw(np.random.default_rng([seed, PATH_STREAM, step])),
                checkpointing=Checkpointing(
                    self.supernet_path,
                    self._training_identity("supernet"),
                    self.config.runtime.checkpoint_seconds,
                ),
                on_step=lambda done, loss: self.report(
                    "supernet", done, recipe.steps, f"loss {loss:.3f}"
                ),
                ranks=self.ranks,
            )

    @cached_property
    def supernet_weights(self) -> dict[str, Tensor]:
        """The trained supernet's state; a CheckpointError if unfinished or of other settings."""
        return _trained(
            self.build_detector(),
            self.supernet_path,
            self._training_identity("supernet"),
            steps=self.config.supernet.steps,
            verb="train",
        ).state_dict()

    def _costs(self, architecture: Any) -> Measurements:
        """The costs of an architecture, as trials store them."""
        return self.setting.method.costs(architecture, self.setting.cost)

    def _baseline_costs(self, name: str) -> Measurements:
        return {"gflops": baseline_detector(self.setting, name).cost / 1e9}

    def one_shot_objective(self, feasible: FeasibleSet[Any]) -> OneShotObjective[Any]:
        """The objective of the search."""
        return OneShotObjective(
            feasible,
            self.build_detector,
            weights=self.supernet_weights,
            task=self.task,
            costs=self._costs,
            recipe=self.config.finetune,
            recalibration_batches=self.config.finetune.recalibration_batches,
            seed=self.config.study.seed,
            objectives=self.setting.metrics,
        )

    def standalone_objective(
        self, feasible: FeasibleSet[Any], stage: str = RETRAIN
    ) -> StandaloneObjective[Any]:
        """The objective of the retraining, or of the baselines, which are trained alike."""
        recipe, by_name = self.config.retrain, stage == BASELINE
        return StandaloneObjective(
            feasible,
            self.build_baseline if by_name else self.build_detector,
            task=self.task,
            costs=self._baseline_costs if by_name else self._costs,
            recipe=recipe,
            folder=self.setting.inside("baselines" if by_name else "retrained"),
            fingerprint=self._training_identity(RETRAIN) | self._budget(stage),
            checkpoint_seconds=self.config.runtime.checkpoint_seconds,
            seed=self.config.study.seed,
            on_step=lambda training, done, loss: self.report(
                f"{stage} {training.architecture}"
                + (f", seed {training.repeat}" if training.repeat else ""),
                done,
                recipe.steps,
                f"loss {loss:.3f}",
            ),
            ranks=self.ranks,
        )

    def _budget(self, stage: str) -> dict[str, Any]:
        """The part of an identity that only the baselines have: some are scaled to the budget."""
        return {"budget.target": self.setting.target} if stage == BASELINE else {}

    def search(self, trials: int | None = None, *, patience: float = PATIENCE) -> optuna.Study:
        """Searches until the study has this many trials, over all runs and workers.

        Any number of processes may do so at once. After `patience` seconds without news, other
        workers' trials are left to them.
        """
        seeds, wanted = self.setting.seeds, self.setting.n_trials(trials)
        study = self._open(None, self._search_identity)
        write_versions(study)
        write_wanted(study, trials)
        keep_losses(self.setting)
        self._run(
            study,
            seeds,
            self.one_shot_objective,
            stage=None,
            step="search",
            wanted=wanted,
            patience=patience,
            after=self.after_trial,
        )
        self.refresh()
        return study

    def evaluate_baseline(self, *, wait: bool = True) -> optuna.Study:
        """Evaluates the baseline as the search does; may `wait` for a worker that is at it."""
        method, baseline = self.setting.method, self.setting.baseline
        study = self._open(method.baseline_stage, self._search_identity)
        self._run(
            study,
            [baseline],
            self.one_shot_objective,
            stage=method.baseline_stage,
            step=method.baseline,
            wait=wait,
        )
        return study

    def score(
        self, architectures: Sequence[Any], scores: Iterable[Score], *, run: Run | None = None
    ) -> None:
        """Measures scores of architectures, those that are not stored yet.

        `run` lets others evaluate what is queued.
        """
        studies = {score.stage: (score, self._open_score(score)) for score in scores}
        for _, study in studies.values():
            study.set_user_attr("parent_study", self.config.study.name)
            recover_lost_trials(study)
            queue_architectures(study, self.setting.space, architectures, retry_failed=True)
        if run is not None:
            run({stage: study for stage, (_, study) in studies.items()})
        for score, _ in studies.values():
            self.score_queued(score)

    def score_queued(self, score: Score, *, patience: float = PATIENCE) -> None:
        """Measures what is queued for a score; other processes may do the same at once."""
        recipe = score.recipe(self.config.finetune)

        def objective(feasible: FeasibleSet[Any]) -> Objective:
            return dataclasses.replace(
                self.one_shot_objective(feasible),
                recipe=recipe,
                recalibration_batches=recipe.recalibration_batches,
                objectives=(METRICS["ap"],),
            )

        study, step = self._open_score(score), f"score {score}"
        self._run(study, (), objective, stage=score.stage, step=step, patience=patience)

    def _open_score(self, score: Score) -> optuna.Study:
        assert self.supernet_weights
        recipe = dataclasses.asdict(score.recipe(self.config.finetune))
        identity = self._stage_identity("finetune") | comparable(flatten({"finetune": recipe}))
        return self._open(score.stage, identity | {"supernet.sha256": sha256(self.supernet_path)})

    def retrain(self, top: int, *, seeds: int = 1, run: Run | None = None) -> optuna.Study:
        """Trains the `top` best architectures (of the front, by AP) and the baseline from scratch.

        See `train_alone`.

        Raises:
            ValueError: no trial is finished, or the ranks cannot share the batch.
        """
        best = StudyView.load(self.setting).best[:top]
        if not best:
            raise ValueError(
                f"study {self.config.study.name} has no finished trial to retrain; "
                f"run `msnas search` first"
            )
        stored = self.setting.stored_study()
        assert stored is not None
        require_config(stored, self._identity)
        architectures = [*(r.architecture for r in best), self.setting.baseline]
        study = self.train_alone(architectures, seeds, run=run)
        self.refresh()
        return study

    def train_alone(
        self, architectures: Iterable[Any], seeds: int = 1, *, run: Run | None = None
    ) -> optuna.Study:
        """Trains architectures from scratch, each `seeds` times.

        Where the value of a first training was stored before and its weights are not in the run
        folder, it is done again; the stored value stays. Of several ranks the first one calls
        this, the others `assist_training`. `run` lets others evaluate what is queued.

        Raises:
            ValueError: the ranks cannot share the batch.
        """
        return self._train({RETRAIN: architectures}, seeds, run)[RETRAIN]

    def train_baselines(
        self, names: Sequence[str], seeds: int = 1, *, run: Run | None = None
    ) -> optuna.Study:
        """Trains hand-made detectors, see `train_alone` and `baselines.chosen_baselines`.

        The method's own architecture is one of those that are retrained.
        """
        by_hand = {self.setting.method.baseline_stage: self.setting.baseline}
        others = [name for name in names if name not in by_hand]
        own = [by_hand[name] for name in names if name in by_hand]
        studies = self._train({RETRAIN: own, BASELINE: others}, seeds, run)
        self.refresh()
        return studies[BASELINE]

    def _train(
        self, wanted: Mapping[str, Iterable[Any]], seeds: int, run: Run | None
    ) -> Mapping[str, optuna.Study]:
        """Trains what each stage is to hold, each `seeds` times."""
        self.ranks.require_shares(self.config.retrain.batch_size, "retrain.batch_size")
        stages = {stage: self.setting.evaluable(stage) for stage in wanted}
        studies, stored = {}, {}
        for stage, chosen in wanted.items():
            study = studies[stage] = self._open_training(stage)
            study.set_user_attr("parent_study", self.config.study.name)
            architectures = dict.fromkeys(chosen)
            results = self._view(study, stages[stage].space).results
            stored[stage] = [
                r.architecture
                for r in results
                if r.architecture in architectures and 0 in r.by_seed.values
            ]
            recover_lost_trials(study)
            queue_architectures(
                study, stages[stage].space, architectures, retry_failed=True, times=seeds
            )
        if run is not None:
            run(studies)
        for stage in wanted:
            self.train_queued([stage])
            objective = self.standalone_objective(stages[stage], stage)
            for training in map(Training, stored[stage]):
                if not objective.checkpoint(training).exists():
                    objective.train(training)
            objective.release_followers()
        return studies

    def train_queued(self, stages: Sequence[str], *, patience: float = PATIENCE) -> None:
        """Trains what is queued in stages; other processes may do the same at once."""
        for wait in (False, True):  # for others only when nothing is left to do
            for stage in stages:
                self._run(
                    self._open_training(stage),
                    (),
                    partial(self.standalone_objective, stage=stage),
                    stage=stage,
                    step="retrained" if stage == RETRAIN else stage,
                    wait=wait,
                    patience=patience,
                    after=lambda _: keep_losses(self.setting),
                )

    def assist_training(self, stages: Sequence[str] = (RETRAIN,)) -> None:
        """Trains along with the first rank, which alone has trials, until its stages have ended.

        Raises:
            PeerLostError: the first rank has ended before.
        """
        self.ranks.require_shares(self.config.retrain.batch_size, "retrain.batch_size")
        for stage in stages:
            self.standalone_objective(self.setting.evaluable(stage), stage).follow()

    def retrained_path(self, architecture: Any) -> Path:
        """The checkpoint of an architecture's (first) retraining."""
        return self.standalone_objective(self.setting.valid).checkpoint(Training(architecture))

    def retrained(self, architecture: Any) -> DetectionNetwork:
        """The detector of an architecture with the weights of its (first) retraining.

        Raises:
            CheckpointError: it is not retrained, not to the end, or with other settings.
        """
        objective = self.standalone_objective(self.setting.valid)
        training = Training(architecture)
        path = objective.checkpoint(training)
        if not path.exists():
            raise CheckpointError(
                f"there is no checkpoint {path}; {retraining(self.setting, architecture)}"
            )
        steps, fingerprint = self.config.retrain.steps, objective.belongs_to(training)
        model = self.build_detector(architecture)
        _trained(model, path, fingerprint, steps=steps, verb="retrain")
        return model.to(self.task.device).eval()

    def one_shot(self, architecture: Any) -> DetectionNetwork:
        """The detector of an architecture as the search evaluates it, fine-tuned.

        Raises:
            CheckpointError: the supernet is not trained, or with other settings.
            NonFiniteLossError: the fine-tuning diverged.
        """
        return self.one_shot_objective(self.setting.valid).network(architecture).eval()

    # ------------------------------------------------------------------ running trials

    @cached_property
    def _search_identity(self) -> dict[str, Any]:
        """Settings and weights behind one-shot values; an unfinished supernet raises."""
        if (begun := self.setting.begun_study()) is not None:
            refuse_mixed(begun, external=False)
        assert self.supernet_weights
        identity = self._identity | {"supernet.sha256": sha256(self.supernet_path)}
        if begun is not None:  # before a stage beside it is measured with other settings
            require_config(begun, identity)
        return identity

    def _open_training(self, stage: str) -> optuna.Study:
        return self._open(stage, self._stage_identity(RETRAIN) | self._budget(stage))

    def _open(self, stage: str | None, identity: dict[str, Any]) -> optuna.Study:
        try:
            return self.setting.open_study(identity, stage)
        except StudyMismatchError as error:
            if stage is None:
                raise
            folder = {RETRAIN: " and the folder retrained", BASELINE: " and the folder baselines"}
            raise StudyMismatchError(
                f"{error}; or begin this stage anew: delete study "
                f"{self.setting.study_name(stage)!r} with `optuna delete-study`"
                f"{folder.get(stage, '')}"
            ) from None

    def _run(
        self,
        study: optuna.Study,
        queue: Iterable[Any],
        objective: Callable[[FeasibleSet[Any]], Objective],
        *,
        stage: str | None,
        step: str,
        wanted: int | None = None,
        wait: bool = True,
        patience: float = PATIENCE,
        after: AfterTrial | None = None,
    ) -> None:
        """Evaluates architectures, see `evaluate_trials`; tells `after` of each trial."""
        feasible = self.setting.evaluable(stage)
        recover_lost_trials(study)
        queue_architectures(study, feasible.space, queue, retry_failed=wanted is None)
        end = n_slots(study) if wanted is None else wanted
        if finished_slots(study) >= end:
            return

        def report(settled: int, others: Sequence[FrozenTrial]) -> None:
            ledger = self.setting.ledger if stage is None else None
            best = self._view(study, feasible.space, ledger).results[:1]
            note = f"best mAP {100 * best[0].ap:.1f}" if best else ""
            note = f"waiting for {holders(study, others)}" if others else note
            self.report(step, settled, end, note)
            if after is not None and not others:
                after(study)

        evaluated = objective(feasible)
        self.report(step, finished_slots(study), end)
        evaluate_trials(
            study,
            evaluated,
            wanted=end,
            propose=wanted is not None,
            failures=FAILURES,
            wait=wait,
            patience=patience,
            report=report,
        )

    def _view(
        self, study: optuna.Study, space: Space[Any], ledger: Ledger[Any] | None = None
    ) -> StudyView[Any]:
        return StudyView(study, method=self.setting.method, space=space, ledger=ledger)


def _trained(
    model: DetectionNetwork, path: Path, fingerprint: Mapping[str, Any], *, steps: int, verb: str
) -> DetectionNetwork:
    """Gives a network the weights of its training of so many steps, which must have ended."""
    content = load_checkpoint(path, fingerprint=fingerprint)
    with damage_named(path):
        if (done := content["step"]) < steps:
            raise CheckpointError(
                f"checkpoint {path} has {done} of {steps} steps; run `msnas {verb}` to finish it"
            )
        model.load_state_dict(content["model"])
    return model


def keep_losses(setting: Setting) -> None:
    """Stores the losses of the training runs with the study of the search, as far as they got."""
    study, retrained = setting.stored_study(), setting.stored_study(RETRAIN)
    if study is None:
        return
    runs = {"supernet": setting.run_dir / "supernet.pt"}
    view = StudyView.load(setting)
    names = {r.architecture: r.name for r in (*view.results, view.baseline) if r is not None}
    for trial in [] if retrained is None else retrained.get_trials(deepcopy=False):
        file = trial.user_attrs.get("checkpoint")
        name = names.get(setting.space.decode(trial.params)) if trial.params else None
        if file is not None and name is not None:  # not of a ranking's sample
            repeat = trial.user_attrs.get(REPEAT)
            runs[f"{name}, seed {repeat:.0f}" if repeat else name] = (
                setting.run_dir / "retrained" / file
            )
    for run, checkpoint in runs.items():
        with suppress(CheckpointError):  # what is stored stays; who needs the weights complains
            write_curve(study, run, read_losses(checkpoint))


def placed(config: StudyConfig, place: Place) -> StudyConfig:
    """The configuration of one of several workers: a GPU of its own, a share of the CPU's cores.

    Workers beyond the number of GPUs share them. What the study file fixes, a GPU by its number
    or the threads of a process, stays.
    """
    runtime, n_gpus = config.runtime, torch.cuda.device_count()
    device, threads = runtime.device, runtime.threads
    if device in ("auto", "cuda") and n_gpus:
        device = f"cuda:{place.local_rank % n_gpus}"
    if not threads and place.local_size > 1:
        threads = max(1, (os.cpu_count() or 1) // place.local_size)
    return dataclasses.replace(
        config, runtime=dataclasses.replace(runtime, device=device, threads=threads)
    )
