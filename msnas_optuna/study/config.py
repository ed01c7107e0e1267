"""A study file (TOML), read into frozen dataclasses and checked.

Every error names the file, the key as the user typed it, the rule and the value that came.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from msnas_optuna.data.shapes import ShapesSettings
from msnas_optuna.methods import METHODS
from msnas_optuna.methods.base import CHECKED, Method, PositiveInt
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.storage import flatten, has_secret, redact, relative_to, sqlite_url, storage_file
from msnas_optuna.study.keys import toml, unpacked, values
from msnas_optuna.training.recipe import Count, Recipe

DATA_PATHS: Final = ("train_images", "train_annotations", "val_images", "val_annotations")
TEST_PATHS: Final = ("test_images", "test_annotations")  # a study may do without

DEFAULT_METHOD: Final = "msnas"
"""Of a study file that names none, and of what was stored before there were several."""

LATER_KEYS: Final = {
    "space.method": DEFAULT_METHOD,
    "supernet.ema": 0.0,
    "finetune.ema": 0.0,
    "retrain.ema": 0.0,
    "supernet.paths": "valid",
    "supernet.tolerance": None,
    "supernet.balanced": False,
    **{key: value for method in METHODS.values() for key, value in method.later_keys.items()},
}
"""What checkpoints and studies of earlier versions lack, with what it was then."""

RETRAIN: Final = "retrain"
"""The stage of the retraining; it is an Optuna study of its own beside that of the search."""

BASELINE: Final = "baseline"
"""The stage that trains other detectors in the same way, to compare with; likewise."""

RANK_STAGES: Final = r"rank-[a-z0-9]+"
"""A pattern of the stages that score architectures, as "rank-20"; see `study.rank.Score`."""

_NO_EFFECT = "remove it: the operators that it set are gone, too"

REMOVED_KEYS: Final = {
    "sampler.encoder_probability": _NO_EFFECT,
    "sampler.mutation_probability": _NO_EFFECT,
    "sampler.operators": 'remove it: proposer = "algorithm1" varies blindly, as the paper does',
    "sampler.recombination_probability": (
        'write proposer = "recombination" for children that mix the genes of all parents, or '
        'proposer = "algorithm1" for the operators of the paper'
    ),
    "sampler.window": _NO_EFFECT,
}
"""Keys of earlier versions, with the repair."""

_LEVELS: Final = 10
_NAME: Final = 'text of 1 to 100 letters, digits, ".", "_" and "-", no sign first'
_DEVICE: Final = '"auto", "cpu", "cuda" or, for one of several, "cuda:1"'

Probability = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, le=8192)]


class ConfigError(ValueError):
    """A study file is missing, is no TOML, or breaks a rule."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class StudySection:
    """[study].

    Attributes:
        name: of the Optuna study.
        run_dir: folder for everything the study writes, inside that of the study file.
        storage: URL of the Optuna storage, a file relative to the study file and inside
            `run_dir`; the default is study.db there.
        trials: number of architectures to evaluate.
        seed: of every random choice.
        objectives: "ap", then further ones of the method: "gflops" (what the budget limits),
            "latency" (of the detector on the study's device), "ap_mask" (of instance masks).
            With several the result is a Pareto front.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description=_NAME)]
    run_dir: Path = Path("run")
    storage: str | None = None
    trials: PositiveInt = 1250
    seed: Count = 0
    objectives: tuple[str, ...] = ("ap",)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class BudgetSection:
    """[budget]: the window of the method's cost.

    Attributes:
        target_gflops: center of the window, 1e9 multiply-adds; the default is the cost of the
            method's baseline.
        tolerance: half width of the window as a fraction of the target.
        input_size: height and width at which the cost is counted, multiples of the method's
            `size_multiple`; the default is `data.image_size` rounded up.
    """

    target_gflops: Annotated[float, Field(gt=0)] | None = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.01
    input_size: tuple[PositiveInt, PositiveInt] | None = None


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DataSection:
    """[data]: COCO-format data, or the generated shapes.

    Attributes:
        train_images: folder of the training images, relative to the study file.
        train_annotations: COCO JSON of the training images.
        val_images: folder of the validation images; the search maximizes AP on them.
        val_annotations: COCO JSON of the validation images.
        test_images: folder of the test images, on which trained detectors are reported; the
            search never reads them. Without any, the validation images stand in.
        test_annotations: COCO JSON of the test images.
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
    test_images: Path | None = None
    test_annotations: Path | None = None
    shapes: ShapesSettings | None = None
    image_size: tuple[Side, Side] = (800, 1333)
    size_bounds: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (32, 96)
    cache_gb: Annotated[float, Field(ge=0)] = 2.0
    workers: Annotated[int, Field(ge=0, le=256)] = 0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SupernetSection(Recipe):
    """[supernet]: how the weights that all architectures share are trained.

    Attributes:
        paths: those that steps draw from: "valid", all of the space (the paper's), or "window",
            those whose cost lies around the budget's target.
        tolerance: half width of that window as a fraction of the target; the default is the
            budget's. With paths = "window" alone.
        balanced: draw so that the candidates of a block are trained equally often, as nearly as
            the rules of the space allow; else every path is equally likely (the paper's).
    """

    paths: Literal["valid", "window"] = "valid"
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    balanced: bool = False


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FinetuneSection(Recipe):
    """[finetune]: what happens to the supernet's weights of a path before it is evaluated.

    Attributes:
        steps: optimizer steps; 0 trains nothing. 100 is the paper's.
        batch_size: images of a step, over all processes; 32 is the paper's.
        learning_rate: the rate after the warm-up; 0.004 is the paper's.
        schedule: "step" divides by 10 at 84 % and 94 % of the steps, "cosine" falls to zero,
            "constant" stays. The paper names one rate alone.
        recalibration_batches: after the recipe, batch norm statistics are taken from this many
            batches; 0 leaves those of the training. The paper names none.
    """

    # Deviation: the other defaults, AdamW with its weight decay, warm-up and clipping, are those
    # of [supernet], because both train the same weights.
    steps: Count = 100  # §4.1
    batch_size: PositiveInt = 32  # §4.1
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 4e-3  # §4.1
    schedule: Literal["step", "cosine", "constant"] = "constant"
    recalibration_batches: Count = 0


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SamplerSection:
    """[sampler]: how architectures are proposed; see `samplers.ArchitectureSampler`.

    Attributes:
        proposer: "algorithm1", the paper's search, or "recombination" of all parents.
        population_size: P.
        n_children: children of an iteration.
        n_random: random children of an iteration.
        n_reevaluated: of the best, measured again in an iteration and ranked by the mean; their
            fine-tuning differs in its seed. 0 trusts one measurement.
        gene_probability: chance of each gene to be reset by a mutation, or by a recombination
            before the budget is known.
        max_attempts: M, attempts at a child; then a random one takes its place.
        seeds: architectures to evaluate first, by the method's names or in its notation.
    """

    proposer: Literal["algorithm1", "recombination"] = "algorithm1"
    population_size: PositiveInt = 10
    n_children: PositiveInt = 10
    n_random: Count = 2
    n_reevaluated: Count = 0
    gene_probability: Probability = 0.1
    max_attempts: PositiveInt = 3
    seeds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RuntimeSection:
    """[runtime]: where and how to compute; none of it changes what a study is.

    Attributes:
        device: "auto" takes a GPU where there is one.
        threads: CPU threads of one process; 0 leaves PyTorch's default.
        precision: "bf16" computes convolutions in bfloat16.
        checkpoint_seconds: least time between two checkpoints of a training run.
        dashboard: write figures, a note and pictures for optuna-dashboard once a generation.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description=_DEVICE)] = (
        "auto"
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    dashboard: bool = True


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class StudyConfig:
    """A whole study file; every section is named after its attribute.

    Attributes:
        space: the `section` of the method.
        detector: its `detector_section`.
    """

    study: StudySection
    space: Any
    detector: Any
    data: DataSection
    supernet: SupernetSection
    retrain: Recipe
    budget: BudgetSection = BudgetSection()
    finetune: FinetuneSection = FinetuneSection()
    sampler: SamplerSection = SamplerSection()
    runtime: RuntimeSection = RuntimeSection()

    @property
    def method(self) -> Method[Any]:
        """The method that [space] names."""
        return METHODS[self.space.method]

    def identity(self) -> dict[str, Any]:
        """The settings that make a study what it is, flat: a stored study refuses other values.

        Where it and its data are stored, how many trials it has and what it runs on may change.
        """
        plain = TypeAdapter(StudyConfig).dump_python(self, mode="json")
        plain["runtime"] = {"precision": self.runtime.precision}
        del plain["retrain"]
        plain["study"] = {"seed": self.study.seed}  # of the supernet too, unlike the objectives
        plain["objectives"] = list(self.study.objectives)
        for volatile in (*DATA_PATHS, *TEST_PATHS, "cache_gb", "workers"):
            del plain["data"][volatile]
        if self.data.shapes is not None:
            del plain["data"]["shapes"]["test"]  # no search reads them
        return comparable(flatten(plain))


def comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as those that an earlier version has stored."""
    return {k: v for k, v in identity.items() if k not in LATER_KEYS or v != LATER_KEYS[k]}


def load_config(path: Path) -> StudyConfig:
    """Reads and checks a study file; its relative paths become relative to it.

    Raises:
        ConfigError: every broken rule, a line each.
    """
    tree = _read(path)
    kind = _config_type(_method(path, tree))
    # Checked as JSON: strict about types, but an array is a tuple and a string is a path.
    # No key takes a date, or an array of arrays, which stands for one here.
    text = json.dumps({"detector": {}} | tree, default=lambda _: [[]])
    try:
        config = TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        broken = sorted({_explain(detail, kind, tree) for detail in error.errors()})
    else:
        broken = list(_broken_rules(config))
    if broken:
        raise ConfigError("\n".join(f"{path}: {line}" for line in broken))
    try:
        return _relative_to(config, path.parent)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    """The tables of a study file, none of which holds a password."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = enumerate(text.splitlines(), start=1)
        place = next((f", line {n}" for n, line in lines if redact(line) != line), None)
        tree = {} if place else tomllib.loads(text)
        if any(map(has_secret, _texts(tree))):
            place = ""
    except OSError as error:
        raise ConfigError(f"cannot read the study file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None
    except (RecursionError, ValueError):  # ValueError: Python writes no longer number
        raise ConfigError(
            f"{path}: tables and arrays lie at most {_LEVELS} deep in each other, and numbers "
            f"have at most 4,300 digits; remove the value that breaks this, no key needs it"
        ) from None
    if place is not None:
        raise ConfigError(
            f"{path}{place}: a study file holds no password and no parameters of a URL after '?', "
            f"which may be secret or make a driver write files; keep the password in ~/.pgpass, "
            f"or give the whole URL with OPTUNA_STORAGE or --storage"
        )
    return tree


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every key and value as a text; RecursionError where they lie too deep."""
    if depth > _LEVELS:
        raise RecursionError
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _texts(inner, depth + 1)
    else:
        yield str(value)


def _method(path: Path, tree: dict[str, Any]) -> Method[Any]:
    """The method that a study file names."""
    space = tree.get("space")
    name = space.get("method", DEFAULT_METHOD) if isinstance(space, dict) else DEFAULT_METHOD
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(
            f"{path}: space.method: expected {' or '.join(map(toml, METHODS))}, got {toml(name)}; "
            f"change it, or leave it out for the default {toml(DEFAULT_METHOD)}"
        )
    return METHODS[name]


def _config_type(method: Method[Any]) -> type[StudyConfig]:
    """A study file with the sections of a method."""
    sections = {"space": method.section, "detector": method.detector_section}
    members = {"__annotations__": sections, "__module__": __name__}
    plain: Any = type("StudyConfig", (StudyConfig,), members)
    checked: Any = dataclass(frozen=True, kw_only=True, config=CHECKED)(plain)
    kind: type[StudyConfig] = checked
    return kind


def _explain(detail: ErrorDetails, kind: type[StudyConfig], tree: dict[str, Any]) -> str:
    """A broken rule of a key in words."""
    names = [str(part) for part in takewhile(lambda part: isinstance(part, str), detail["loc"])]
    key, section = ".".join(names), kind
    if key in REMOVED_KEYS:
        return f"{key}: this key is gone; {REMOVED_KEYS[key]}"
    for name in names[:-1]:
        section = unpacked(typing.get_type_hints(section)[name])[0]
    fields = {field.name: field for field in dataclasses.fields(section)}
    if detail["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(names[-1], fields, n=1, cutoff=0.5)
        meant = f", did you mean {close[0]}?" if close else f" (known here: {', '.join(fields)})"
        return f"{key}: unknown key{meant}; correct or remove it"
    whole = len(names) == len(detail["loc"])  # else it is about a place in an array
    if whole and detail["type"] in ("missing", "missing_argument"):
        return f"{key}: this key is required; add it"
    default = fields[names[-1]].default
    plain = isinstance(default, (int, float, str, bool, tuple))
    repair = "change it" + (f", or leave it out for the default {toml(default)}" if plain else "")
    if detail["type"] == "value_error":
        return f"{key}: {detail['msg'].removeprefix('Value error, ')}; {repair}"
    hint = typing.get_type_hints(section, include_extras=True)[names[-1]]
    if dataclasses.is_dataclass(unpacked(hint)[0]):
        repair = f"write it as [{key}] with its keys"
    value = reduce(lambda table, name: table[name], names, tree)
    return f"{key}: expected {values(hint)}, got {toml(value):.80}; {repair}"


def _broken_rules(config: StudyConfig) -> Iterator[str]:
    """Rules that tie several keys together."""
    data, budget = config.data, config.budget
    missing = [f"data.{name}" for name in DATA_PATHS if getattr(data, name) is None]
    if data.shapes is None and missing:
        yield f"{', '.join(missing)}: required unless [data.shapes] generates the data; add it"
    given = [name for name in (*DATA_PATHS, *TEST_PATHS) if getattr(data, name) is not None]
    if len({*TEST_PATHS} & {*given}) == 1:
        yield "data.test_images, data.test_annotations: both or none; add the other one"
    if data.shapes is not None and given:
        yield "data: give either [data.shapes] or the paths of your own data; remove one of them"
    if data.image_size[0] > data.image_size[1]:
        yield (
            f"data.image_size: the shorter side comes first, got {list(data.image_size)}; "
            f"write {sorted(data.image_size)}"
        )
    if data.size_bounds[0] >= data.size_bounds[1]:
        yield f"data.size_bounds: the bounds must grow, got {list(data.size_bounds)}"
    multiple = config.method.size_multiple
    if budget.input_size is not None and any(side % multiple for side in budget.input_size):
        up = [multiple * math.ceil(side / multiple) for side in budget.input_size]
        yield (
            f"budget.input_size: both must be multiples of {multiple} (the coarsest feature's "
            f"stride), got {list(budget.input_size)}; write {up}"
        )
    for stage in (RETRAIN, BASELINE, config.method.baseline_stage, RANK_STAGES):
        if ending := re.search(f"-{stage}$", config.study.name):
            yield (
                f"study.name: a name ending in {ending[0]} is that of a stage beside a search, "
                f"got {config.study.name!r}; choose another"
            )
    objectives, known = config.study.objectives, list(config.method.metrics)
    if objectives[:1] != ("ap",) or len(set(objectives)) < len(objectives):
        yield (
            f"study.objectives: 'ap' comes first and none comes twice, got {list(objectives)}; "
            f"write for example ['ap', 'gflops']"
        )
    if unknown := [name for name in objectives if name not in known]:
        yield f"study.objectives: the names are among {known}, got {unknown[0]!r}; change it"
    space = config.method.space(config.space)
    for name in config.sampler.seeds:
        try:
            config.method.resolve(name, space)
        except InvalidArchitectureError as error:
            yield f"sampler.seeds: {error}"
    if config.supernet.tolerance is not None and config.supernet.paths != "window":
        yield (
            f'supernet.tolerance: it is the half width of paths = "window", got paths = '
            f"{toml(config.supernet.paths)}; change paths, or remove it"
        )
    if config.supernet.balanced and not config.method.mixed:
        yield (
            f"supernet.balanced: method {config.method.name} has no candidate blocks to balance, "
            f"got true; remove it"
        )
    for section in ("supernet", "retrain"):
        if getattr(config, section).steps == 0:
            yield f"{section}.steps: the value should be greater than 0, got 0; raise it"
    yield from config.method.rules(config)


def _relative_to(config: StudyConfig, folder: Path) -> StudyConfig:
    """Resolves the paths of a study file against its own folder, which it must not leave."""
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
    except ValueError as error:
        own = sqlite_url(config.study.run_dir / "study.db")
        raise ValueError(f"study.storage: {error}; here for example {own!r}") from None
    if file is not None and not _lies_in(file, run_dir):
        raise ValueError(
            f"study.storage: the file lies in the run folder {run_dir}, got {url!r}; move it "
            f"there, or name it with --storage"
        )
    resolved = {
        name: folder / path
        for name in (*DATA_PATHS, *TEST_PATHS)
        if (path := getattr(data, name)) is not None
    }
    return dataclasses.replace(
        config,
        study=dataclasses.replace(config.study, run_dir=run_dir, storage=storage),
        data=dataclasses.replace(data, **resolved),
    )


def _lies_in(path: Path, folder: Path) -> bool:
    """True where a path, as it is written, does not leave a folder."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
