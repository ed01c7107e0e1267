"""A study file (TOML), read into frozen dataclasses and checked.

Every error names the file, the key as the user typed it, the rule and the value that came.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from msnas_optuna.data.shapes import ShapesSettings
from msnas_optuna.methods.msnas.published import Block, resolve_architecture
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.storage import (
    flatten,
    has_secret,
    redacted,
    relative_to,
    storage_file,
)
from msnas_optuna.training.metrics import MetricName
from msnas_optuna.training.recipe import Recipe

_CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)

DATA_PATHS: Final = ("train_images", "train_annotations", "val_images", "val_annotations")

PositiveInt = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, le=8192)]


class ConfigError(ValueError):
    """A study file is missing, is no TOML, or breaks a rule."""


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class StudySection:
    """[study].

    Attributes:
        name: of the Optuna study; letters, digits, ".", "_" and "-".
        run_dir: folder for everything the study writes, inside that of the study file.
        storage: URL of the Optuna storage, a file relative to the study file and inside
            `run_dir`; the default is study.db there.
        trials: number of architectures to evaluate.
        seed: of every random choice.
        objectives: "ap", then further ones: "gflops" (of encoder + RPN head), "latency" (of the
            detector on the study's device). With several the result is a Pareto front.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    run_dir: Path = Path("run")
    storage: str | None = None
    trials: PositiveInt = 1250
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    objectives: tuple[MetricName, ...] = ("ap",)


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class SpaceSection:
    """[space]: N mixed blocks with C channels (§3.2, §4.1).

    Attributes:
        n_blocks: N.
        block: residual block of every candidate.
        channels: C.
        stem_channels: channels of the stem's output.
        norm: "batch", or "group" (with weight standardisation) for very small batches.
    """

    n_blocks: Annotated[int, Field(ge=3, le=32)]
    block: Block = "basic"
    channels: Annotated[int, Field(ge=4, le=2048)]
    stem_channels: Annotated[int, Field(ge=4, le=2048)] = 64
    norm: Literal["batch", "group"] = "batch"


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class BudgetSection:
    """[budget]: the FLOPs window of encoder + RPN head (§4.1).

    Attributes:
        target_gflops: centre of the window, 1e9 multiply-adds; the default is the cost of the
            hand-made FPN-like path.
        tolerance: half width of the window as a fraction of the target.
        input_size: height and width at which FLOPs are counted, multiples of 64; the default is
            `data.image_size` rounded up.
    """

    target_gflops: Annotated[float, Field(gt=0)] | None = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.01
    input_size: tuple[PositiveInt, PositiveInt] | None = None


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class DataSection:
    """[data]: COCO-format data, or the generated shapes.

    Attributes:
        train_images: folder of the training images, relative to the study file.
        train_annotations: COCO JSON of the training images.
        val_images: folder of the validation images; the search maximises AP on them.
        val_annotations: COCO JSON of the validation images.
        shapes: generate the shapes data set into `run_dir` instead.
        image_size: the shorter and the longer side of an image are at most these, in pixels.
        size_bounds: borders between small, medium and large objects, in pixels.
        cache_gb: decoded images are kept in memory up to this size.
        workers: processes that decode images; 0 decodes in the training process.
    """

    train_images: Path | None = None
    train_annotations: Path | None = None
    val_images: Path | None = None
    val_annotations: Path | None = None
    shapes: ShapesSettings | None = None
    image_size: tuple[Side, Side] = (800, 1333)
    size_bounds: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (32, 96)
    cache_gb: Annotated[float, Field(ge=0)] = 2.0
    workers: Annotated[int, Field(ge=0, le=256)] = 0


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class DetectorSection:
    """[detector]: anchors, proposals and heads; see `models.Detector`.

    Attributes:
        anchor_base: side in pixels of the first group's square anchor, in the resized image.
        canonical_size: side of a RoI of level 4 in the routing rule; the default is 224 in
            proportion to the shorter side of 800.
    """

    anchor_base: Annotated[float, Field(gt=0)] = 32.0
    canonical_size: Annotated[float, Field(gt=0)] | None = None
    share_rpn_convolution: bool = False
    rpn_batch: PositiveInt = 256
    roi_batch: PositiveInt = 512
    proposals_train: PositiveInt = 2000
    proposals_test: PositiveInt = 1000
    pool_size: PositiveInt = 7
    hidden: PositiveInt = 1024
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_detections: PositiveInt = 100


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class FinetuneSection(Recipe):
    """[finetune]: what happens to the supernet's weights of a path before it is evaluated.

    Attributes:
        recalibration_batches: after the recipe, batch norm statistics are taken from this many
            batches; 0 leaves those of the training.
    """

    recalibration_batches: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class SamplerSection:
    """[sampler]: Algorithm 1; see `samplers.MSNASSampler`.

    Attributes:
        population_size: P.
        n_children: children of an iteration by recombination, crossover and mutation.
        n_random: random children of an iteration.
        n_reevaluated: of the best, measured again in an iteration and ranked by the mean; their
            fine-tuning differs in its seed. 0 trusts one measurement.
        mutation_probability: of the four operators, chance of a mutation rather than a crossover.
        encoder_probability: chance to vary the encoder rather than the utilisation.
        window: blocks that an encoder mutation draws anew.
        gene_probability: chance of each gene to be reset by a recombination, before the budget is
            known, or by a rejecting mutation.
        operators: "exact", or "rejection" for the paper's blind attempts.
        recombination_probability: chance to mix the genes of all parents instead of using one
            of the paper's four operators, whose three settings have no effect where it is 1.
        max_attempts: M, attempts at a child.
        seeds: architectures to evaluate first: r18-1 to r50-5, "fpn-like", or texts as
            "1 2 2 .5 | 8 8 16 16 32".
    """

    population_size: PositiveInt = 10
    n_children: PositiveInt = 10
    n_random: Annotated[int, Field(ge=0)] = 1
    n_reevaluated: Annotated[int, Field(ge=0)] = 0
    mutation_probability: Probability = 0.5
    encoder_probability: Probability = 0.5
    window: PositiveInt = 4
    gene_probability: Probability = 0.05
    operators: Literal["exact", "rejection"] = "exact"
    recombination_probability: Probability = 1.0
    max_attempts: PositiveInt = 50
    seeds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class RuntimeSection:
    """[runtime]: where and how to compute; none of it changes what a study is.

    Attributes:
        device: "auto" takes a GPU where there is one.
        threads: CPU threads of one process; 0 leaves PyTorch's default.
        precision: "bf16" computes convolutions in bfloat16.
        checkpoint_seconds: least time between two checkpoints of a training run.
        dashboard: write figures, a note and pictures for optuna-dashboard once a generation.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    dashboard: bool = True


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class StudyConfig:
    """A whole study file; every section is named after its attribute."""

    study: StudySection
    space: SpaceSection
    data: DataSection
    supernet: Recipe
    retrain: Recipe
    budget: BudgetSection = BudgetSection()
    detector: DetectorSection = DetectorSection()
    finetune: FinetuneSection = FinetuneSection(
        steps=100,
        batch_size=32,
        learning_rate=4e-3,
        schedule="constant",  # §4.1
    )
    sampler: SamplerSection = SamplerSection()
    runtime: RuntimeSection = RuntimeSection()

    def identity(self) -> dict[str, Any]:
        """What a study is, flat with dotted keys: a stored study refuses other values.

        Where it and its data are stored, how many trials it has and what it runs on may change.
        """
        plain = TypeAdapter(StudyConfig).dump_python(self, mode="json")
        plain["runtime"] = {"precision": self.runtime.precision}
        del plain["retrain"]
        plain["study"] = {"seed": self.study.seed}  # of the supernet too, unlike the objectives
        plain["objectives"] = list(self.study.objectives)
        for volatile in (*DATA_PATHS, "cache_gb", "workers"):
            del plain["data"][volatile]
        return flatten(plain)


def load_config(path: Path) -> StudyConfig:
    """Reads and checks a study file; its relative paths become relative to it.

    Raises:
        ConfigError: every broken rule, a line each.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the study file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None
    try:
        # Checked as JSON: strict about types, but an array is a tuple and a string is a path.
        config = TypeAdapter(StudyConfig).validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        lines = sorted({_explain(detail) for detail in error.errors()})
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None
    broken = list(_broken_rules(config))
    if broken:
        raise ConfigError("\n".join(f"{path}: {line}" for line in broken))
    try:
        return _relative_to(config, path.parent)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _explain(detail: ErrorDetails) -> str:
    parts = [str(part) for part in detail["loc"]]
    key = ".".join(parts)
    if detail["type"] == "unexpected_keyword_argument":
        return f"{key}: unknown key{_nearest(parts)}; correct or remove it"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{key}: this key is required; add it"
    rule = detail["msg"].removeprefix("Value error, ").replace("Input", "the value", 1)
    return f"{key}: {rule}, got {detail['input']!r:.80}; {_repair(parts)}"


def _repair(parts: list[str]) -> str:
    section: Any = StudyConfig
    for part in parts[:-1]:
        section = _section_type(section, part)
    fields = {field.name: field for field in dataclasses.fields(section)} if section else {}
    field = fields.get(parts[-1])
    plain = (int, float, str, bool, tuple)
    if field is not None and isinstance(field.default, plain):
        return f"change it, or leave it out for the default {field.default!r}"
    return "change it"


def _nearest(parts: list[str]) -> str:
    """The known key that the last part may have meant."""
    section: Any = StudyConfig
    for part in parts[:-1]:
        section = _section_type(section, part)
    known = [field.name for field in dataclasses.fields(section)] if section else []
    close = difflib.get_close_matches(parts[-1], known, n=1, cutoff=0.5)
    if close:
        return f", did you mean {close[0]}?"
    return f" (known here: {', '.join(known)})" if known else ""


def _section_type(section: Any, name: str) -> Any:
    """The dataclass of a section's field, or None."""
    if section is None:
        return None
    hint = typing.get_type_hints(section).get(name)
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return candidate
    return None


def _broken_rules(config: StudyConfig) -> typing.Iterator[str]:
    """Rules that tie several keys together."""
    data, budget = config.data, config.budget
    missing = [f"data.{name}" for name in DATA_PATHS if getattr(data, name) is None]
    if data.shapes is None and missing:
        yield f"{', '.join(missing)}: required unless [data.shapes] generates the data; add it"
    if data.shapes is not None and len(missing) < len(DATA_PATHS):
        yield "data: give either [data.shapes] or the paths of your own data; remove one of them"
    if data.image_size[0] > data.image_size[1]:
        yield (
            f"data.image_size: the shorter side comes first, got {list(data.image_size)}; "
            f"write {sorted(data.image_size)}"
        )
    if data.size_bounds[0] >= data.size_bounds[1]:
        yield f"data.size_bounds: the bounds must grow, got {list(data.size_bounds)}"
    if budget.input_size is not None and any(side % 64 for side in budget.input_size):
        up = [64 * math.ceil(side / 64) for side in budget.input_size]
        yield (
            f"budget.input_size: both must be multiples of 64 (the largest absolute stride), "
            f"got {list(budget.input_size)}; write {up}"
        )
    objectives = config.study.objectives
    if objectives[:1] != ("ap",) or len(set(objectives)) < len(objectives):
        yield (
            f"study.objectives: 'ap' comes first and none comes twice, got {list(objectives)}; "
            f"write for example ['ap', 'gflops']"
        )
    for name in config.sampler.seeds:
        try:
            resolve_architecture(name, MSNASSpace(config.space.n_blocks))
        except InvalidArchitectureError as error:
            yield f"sampler.seeds: {error}"
    for section in ("supernet", "retrain"):
        if getattr(config, section).steps == 0:
            yield f"{section}.steps: the value should be greater than 0, got 0; raise it"
    cells = math.ceil(data.image_size[0] / 64) ** 2  # of the coarsest feature, at least
    for section in ("supernet", "finetune", "retrain"):
        recipe = getattr(config, section)
        if config.space.norm == "batch" and cells * recipe.batch_size < 2:
            yield (
                f"{section}.batch_size: batch norm needs two values of a channel, and the "
                f"coarsest feature of an image of {data.image_size[0]} pixels has one, got "
                f"{recipe.batch_size}; raise it or set space.norm = 'group'"
            )


def _relative_to(config: StudyConfig, folder: Path) -> StudyConfig:
    """Resolves the paths of a study file against its own folder.

    Raises:
        ValueError: the study would write elsewhere.
    """
    data, url = config.data, config.study.storage
    run_dir = folder / config.study.run_dir
    if not _lies_in(run_dir, folder):
        raise ValueError(
            f"study.run_dir: the run folder lies in the folder of the study file, got "
            f"{str(config.study.run_dir)!r}; give a relative path without '..' (a symbolic link "
            f"of that name may lead to another disk)"
        )
    try:
        storage = None if url is None else relative_to(url, folder)
        file = None if storage is None else storage_file(storage)
        secret = storage is not None and has_secret(storage)
    except ValueError as error:
        raise ValueError(f"study.storage: {error}") from None
    if secret:
        raise ValueError(
            f"study.storage: a study file holds no password and no parameters after '?', which "
            f"may be secret or make a driver write files, got {redacted(str(url))!r}; keep the "
            f"password in ~/.pgpass, or give the whole URL with OPTUNA_STORAGE or --storage"
        )
    if file is not None and not _lies_in(file, run_dir):
        raise ValueError(
            f"study.storage: the file lies in the run folder {run_dir}, got "
            f"{redacted(str(url))!r}; move it "
            f"there, or name it with --storage"
        )
    resolved = {
        name: folder / path for name in DATA_PATHS if (path := getattr(data, name)) is not None
    }
    return dataclasses.replace(
        config,
        study=dataclasses.replace(config.study, run_dir=run_dir, storage=storage),
        data=dataclasses.replace(data, **resolved),
    )


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, as it is written, does not leave a folder."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
