"""The search that a study file describes: method, space, budget, storage. Needs no torch."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna

from msnas_optuna.data.shapes import SPLITS, Split, generate_shapes
from msnas_optuna.methods.base import Method, MethodCost
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.samplers.history import Ledger
from msnas_optuna.samplers.queue import resolve_architectures
from msnas_optuna.spaces.balance import balanced_weights
from msnas_optuna.spaces.base import InvalidArchitectureError, Space
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.spaces.names import NameSpace
from msnas_optuna.spaces.window import violation
from msnas_optuna.storage import (
    CONFIG,
    PUBLISHED,
    finished_slots,
    has_secret,
    open_storage,
    open_study,
    relative_to,
    require_config,
    require_usable,
    sqlite_url,
    storage_exists,
    storage_file,
)
from msnas_optuna.storage.optuna_private import system_attrs
from msnas_optuna.study.config import (
    BASELINE,
    RANK_STAGES,
    RETRAIN,
    BudgetSection,
    ConfigError,
    StudyConfig,
    load_config,
)
from msnas_optuna.training.metrics import METRICS, Metric

VALIDATION: Final = "validation"
"""The images that a search looks at, in words."""


def stage_name(search: str, stage: str) -> str:
    """Name of the study of a stage beside a search."""
    return f"{search}-{stage}"


def window_around(target: float, tolerance: float) -> tuple[int, int]:
    """Least and largest multiply-adds within a fraction `tolerance` of the target (§4.1)."""
    return math.ceil(target * (1 - tolerance)), math.floor(target * (1 + tolerance))


def section_cost(
    method: Method[Any], section: Any, budget: BudgetSection, *, image_size: tuple[int, int]
) -> MethodCost[Any]:
    """The cost of a [space] at `budget.input_size`, or at the image size rounded up."""
    size, multiple = budget.input_size, method.size_multiple
    if size is None:
        shorter, longer = (multiple * math.ceil(side / multiple) for side in image_size)
        size = (shorter, longer)
    return method.cost(section, input_size=size)


def budget_target(
    method: Method[Any], space: Space[Any], cost: MethodCost[Any], budget: BudgetSection
) -> float:
    """Center of the window in multiply-adds; what the baseline costs where none is given."""
    gflops = budget.target_gflops
    return cost.total(method.baseline_architecture(space)) if gflops is None else gflops * 1e9


class Setting:
    """Method, space, budget and storage of a study file, made when first asked for.

    `storage` takes the place of the study file's; `study_file` is for commands that are shown.
    """

    def __init__(
        self, config: StudyConfig, *, storage: str | None = None, study_file: Path | None = None
    ) -> None:
        self.config, self.study_file, self._storage_url = config, study_file, storage

    @classmethod
    def load(cls, path: Path | str, *, storage: str | None = None) -> Setting:
        """Reads a study file; `storage`, by default OPTUNA_STORAGE, takes the place of its own.

        A file in that URL is relative to the working folder.

        Raises:
            ConfigError: the study file breaks a rule.
            ValueError: `storage` is no URL of a storage.
        """
        if storage is None:
            storage = os.environ.get("OPTUNA_STORAGE") or None
        if storage is not None:
            storage = relative_to(storage, Path())
        return cls(load_config(Path(path)), storage=storage, study_file=Path(path))

    @property
    def run_dir(self) -> Path:
        """The folder for everything that the study writes."""
        return self.config.study.run_dir

    def inside(self, name: str) -> Path:
        """A file or folder of the run folder; a link that leads out of it is a ConfigError."""
        path = self.run_dir / name
        if not path.resolve().is_relative_to(self.run_dir.resolve()):
            raise ConfigError(
                f"a study writes in its run folder alone, but {path} leads to {path.resolve()}; "
                f"remove the link"
            )
        return path

    @property
    def artifact_dir(self) -> Path:
        """The folder of Optuna's artifact store."""
        folder = self.inside("artifacts")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} must be a folder, it is a file; move it away")
        return folder

    def words(self, verb: str, *options: str) -> list[str]:
        """The words of a command that goes on with this study, for programs to start.

        They leave a URL with a password to OPTUNA_STORAGE, which every command reads.
        """
        file = "STUDY.toml" if self.study_file is None else str(self.study_file)
        words, url = ["msnas", verb, file, *options], self._storage_url
        return words if url is None or self.is_secret else [*words, "--storage", url]

    def command(self, verb: str, *options: str) -> str:
        """The same as a line that a reader can type into a shell."""
        line = shlex.join(self.words(verb, *options))
        return f"{line} --storage {self.storage_word}" if self.is_secret else line

    @property
    def storage_word(self) -> str:
        """The storage's URL as a shell reads it; OPTUNA_STORAGE stands for one with a password."""
        return '"$OPTUNA_STORAGE"' if self.is_secret else shlex.quote(self.storage_url)

    @property
    def is_secret(self) -> bool:
        """True if the storage's URL holds a password, or parameters that may be secret."""
        return has_secret(self.storage_url)

    @property
    def storage_url(self) -> str:
        """URL of the Optuna storage."""
        own = self.config.study.storage or sqlite_url(self.run_dir / "study.db")
        return self._storage_url or own

    def study_name(self, stage: str | None = None) -> str:
        """Name of the Optuna study of the search, or of a stage beside it."""
        name = self.config.study.name
        return name if stage is None else stage_name(name, stage)

    @property
    def method(self) -> Method[Any]:
        """The method of the search."""
        return self.config.method

    @property
    def stages(self) -> tuple[str | None, ...]:
        """The search itself (None), and what is measured and trained beside it."""
        return None, self.method.baseline_stage, RETRAIN, BASELINE

    def stages_in(self, storage: optuna.storages.BaseStorage) -> list[str | None]:
        """Those that a storage holds, and after them the scores of `study.rank`."""
        names = sorted(optuna.get_all_study_names(storage))
        scores = re.compile(re.escape(stage_name(self.study_name(), "")) + f"({RANK_STAGES})")
        found: list[str | None] = [s for s in self.stages if self.study_name(s) in names]
        return found + [match[1] for match in map(scores.fullmatch, names) if match]

    @cached_property
    def space(self) -> Space[Any]:
        """The search space."""
        return self.method.space(self.config.space)

    @cached_property
    def cost(self) -> MethodCost[Any]:
        """The cost that the budget limits, at the study's input size."""
        section, budget, data = self.config.space, self.config.budget, self.config.data
        return section_cost(self.method, section, budget, image_size=data.image_size)

    @cached_property
    def baseline(self) -> Any:
        """The hand-made architecture of the method."""
        return self.method.baseline_architecture(self.space)

    @cached_property
    def target(self) -> float:
        """Center of the window in multiply-adds."""
        return budget_target(self.method, self.space, self.cost, self.config.budget)

    @property
    def window(self) -> tuple[int, int]:
        """Least and largest multiply-adds of a proposal (constraint C, §4.1)."""
        return window_around(self.target, self.config.budget.tolerance)

    def splits(self, progress: Callable[[int, int], None] | None = None) -> dict[str, Split]:
        """Where the parts "train", "val" and, if there is one, "test" of the data lie.

        Generates the shapes if need be.

        `progress` is called with the number of generated pictures done and in all.
        """
        data = self.config.data
        if data.shapes is not None:
            return generate_shapes(self.inside("data"), data.shapes, progress=progress)
        return {
            part: Split(getattr(data, f"{part}_images"), getattr(data, f"{part}_annotations"))
            for part in SPLITS
            if getattr(data, f"{part}_images") is not None
        }

    @property
    def reported_images(self) -> str:
        """The images that trained detectors are reported on, in words."""
        data = self.config.data
        return VALIDATION if data.shapes is None and data.test_images is None else "test"

    @cached_property
    def feasible(self) -> Lattice[Any]:
        """All valid architectures inside the window; EmptyWindowError where there is none."""
        return Lattice(self.space, self.cost, window=self.window)

    @cached_property
    def valid(self) -> Lattice[Any]:
        """All valid architectures, whatever they cost: the paths of the supernet."""
        return Lattice(self.space)

    @property
    def paths_window(self) -> tuple[int, int] | None:
        """Least and largest multiply-adds of a path of the supernet; None without bounds."""
        supernet, budget = self.config.supernet, self.config.budget
        if supernet.paths == "valid":
            return None
        tolerance = budget.tolerance if supernet.tolerance is None else supernet.tolerance
        return window_around(self.target, tolerance)

    @cached_property
    def draw_path(self) -> Callable[[np.random.Generator], Any]:
        """Draws a path of the supernet for a step of its training."""
        window = self.paths_window
        paths = self.valid if window is None else Lattice(self.space, self.cost, window=window)
        if not self.config.supernet.balanced:
            return paths.sample
        mixed = self.space.parts[self.method.mixed]
        return paths.weighted(balanced_weights(paths, mixed)).sample

    @cached_property
    def baselines(self) -> Lattice[str]:
        """The names of the detectors that the method compares its architectures with.

        Raises:
            ConfigError: it has none.
        """
        if not self.method.baselines:
            raise ConfigError(f"space.method: {self.method.name} has no baselines to train")
        return Lattice(NameSpace("detector", self.method.baselines))

    def evaluable(self, stage: str | None) -> Lattice[Any]:
        """All that the study of the search or of a stage may evaluate."""
        if stage is None:
            return self.feasible
        return self.baselines if stage == BASELINE else self.valid

    @cached_property
    def seeds(self) -> list[Any]:
        """The architectures to evaluate before any proposal; ConfigError for one not inside."""
        feasible = self.feasible
        try:
            return resolve_architectures(
                self.config.sampler.seeds,
                self.space,
                resolve=lambda text: self.method.resolve(text, self.space),
                feasible=feasible,
            )
        except InvalidArchitectureError as error:
            raise ConfigError(f"sampler.seeds: {error}; remove it, or change [budget]") from None

    @cached_property
    def ledger(self) -> Ledger[Any]:
        """Judges and decodes the trials of the search, for its sampler and for its views."""
        return Ledger(self.space, partial(violation, self.space, self.cost, self.window))

    def sampler(self, stage: str | None = None) -> ArchitectureSampler[Any]:
        """Proposes architectures for the search or a stage as the study file says."""
        settings = dataclasses.asdict(self.config.sampler)
        del settings["seeds"]
        sampler = ArchitectureSampler(
            self.evaluable(stage), seed=self.config.study.seed, **settings
        )
        if stage is None:
            sampler.ledger = self.ledger
        return sampler

    def n_trials(self, trials: int | None = None) -> int:
        """How many proposals the search makes: no more than there are, unless it repeats some."""
        wanted, sampler = trials or self.config.study.trials, self.config.sampler
        available = self.feasible.count()
        if sampler.n_reevaluated and available >= sampler.population_size:
            return wanted
        return min(wanted, available)

    def is_refresh_due(self, study: optuna.Study) -> bool:
        """True where a generation has ended since the dashboard was refreshed, by any process.

        Never where the study file wants no dashboard.
        """
        generation = self.sampler().settings.generation
        shown = system_attrs(study).get(PUBLISHED, 0)
        due = generation(finished_slots(study)) > generation(shown)
        return self.config.runtime.dashboard and due

    @property
    def ranking(self) -> str:
        """Heading of the best architectures of a search."""
        return "Pareto front, by AP" if len(self.metrics) > 1 else "Best architectures"

    @property
    def metrics(self) -> list[Metric]:
        """The objectives of the search."""
        return [self.method.metrics[name] for name in self.config.study.objectives]

    @cached_property
    def storage(self) -> optuna.storages.BaseStorage:
        """The Optuna storage of the study file; see `open_storage` and `inside`.

        A process opens it once, because it reads each finished trial once.
        """
        file = storage_file(self.storage_url)
        if file is not None and self._storage_url is None:
            for suffix in ("", "-wal", "-shm", "-journal"):
                self.inside(os.path.relpath(f"{file}{suffix}", self.run_dir))
        return optuna.storages.get_storage(open_storage(self.storage_url))

    def open_study(self, config: dict[str, Any], stage: str | None = None) -> optuna.Study:
        """The Optuna study of the search or of a stage, made if need be, with its sampler."""
        of_search = stage in (None, self.method.baseline_stage)
        metrics = self.metrics if of_search else [METRICS["ap"]]
        return open_study(
            self.storage,
            name=self.study_name(stage),
            directions=[metric.direction for metric in metrics],
            sampler=self.sampler(stage),
            config=config,
            metric_names=[metric.label for metric in metrics],
        )

    def stored_study(self, stage: str | None = None) -> optuna.Study | None:
        """The Optuna study of the search or of a stage, if it has begun; for reading.

        Raises:
            StudyMismatchError: the search was made with other settings; see also `begun_study`.
        """
        study = self.begun_study(stage)
        if study is not None and stage is None:
            require_config(study, self.config.identity())
        return study

    def begun_study(self, stage: str | None = None) -> optuna.Study | None:
        """The same, whatever settings it was made with; see `require_usable`."""
        if not storage_exists(self.storage_url):
            return None
        try:
            study = optuna.load_study(study_name=self.study_name(stage), storage=self.storage)
        except KeyError:
            return None
        require_usable(study)
        return study if CONFIG in study.user_attrs else None  # it is being created
