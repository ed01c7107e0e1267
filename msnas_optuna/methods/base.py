"""A method of architecture search: what the package asks of it, gathered in one object.

All other code reaches a method through its object in `methods.METHODS` alone, and never looks into
an architecture, a frozen, hashable value whose `str` is its notation. Nothing here imports torch;
what makes networks imports it when called. Costs are multiply-adds, strides pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from pydantic import ConfigDict

from msnas_optuna.methods.picture import Picture
from msnas_optuna.spaces.base import A, AdditiveCost, InvalidArchitectureError, Space
from msnas_optuna.training.metrics import METRICS, Metric
from msnas_optuna.training.recipe import PositiveInt as PositiveInt

if TYPE_CHECKING:
    from torch import nn

    from msnas_optuna.models.network import DetectionNetwork

CHECKED: Final = ConfigDict(extra="forbid", allow_inf_nan=False)  # sections of a study file

_Priced = TypeVar("_Priced", bound=Hashable, contravariant=True)

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class MethodCost(AdditiveCost[_Priced], Protocol[_Priced]):
    """The multiply-adds that a budget limits."""

    @property
    def scope(self) -> str:
        """The part of the network that is counted, as "encoder + RPN head"."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image that is counted for."""


@dataclass(frozen=True)
class Part:
    """A part of an architecture's cost in multiply-adds, as "block 3"."""

    name: str
    amount: int
    group: str  # what a short table sums it into, as "7 blocks"
    details: Mapping[str, str]  # further cells of its row by column, as {"stride": "2"}


@dataclass(frozen=True)
class Column(Generic[A]):
    """A column that tables of architectures have for this method."""

    key: str  # in JSON, of `value`
    title: str  # in a table, of `text`
    value: Callable[[A], Any]  # of a type that JSON has
    text: Callable[[A], str]


@dataclass(frozen=True)
class PublishedArchitecture(Generic[A]):
    """A published architecture, its COCO mAP in percent after retraining, and its setting."""

    architecture: A
    coco_map: float
    preset: str


@dataclass(frozen=True)
class Preset:
    """A published setting."""

    section: Any
    input_size: tuple[int, int]  # height and width in pixels at which the cost is counted
    target: float  # center of the window, multiply-adds
    tolerance: float  # half width of the window as a fraction of the target
    references: Mapping[str, int]  # costs to compare with: {"R18-FPN baseline": ...}


@dataclass(frozen=True)
class AnchorLayout:
    """Where a detector puts its anchors, and which RoIs its levels pool (Lin et al., 2017)."""

    strides: tuple[int, ...]  # of the feature that each level reads in the baseline
    base: float  # level g of 1..G has anchors of base * 2^(g-1) pixels, ratios 1:2, 1:1 and 2:1
    canonical_size: float  # side in pixels of a RoI of level 4 in the routing rule


@dataclass(frozen=True)
class Heatmap(Generic[A]):
    """A figure of the population, generation by generation, that only this method has."""

    title: str
    rows: str  # name of a row, as "block"
    unit: str  # what a cell shows, as "mean absolute stride, in pixels"
    values: Callable[[A], tuple[int, ...]]  # one of `scale` for each row
    scale: tuple[int, ...]  # the numbers that occur, ascending powers of two


@dataclass(frozen=True)
class BaselineDetector:
    """A detector outside the search space that its architectures are compared with."""

    cost: int  # multiply-adds of what a budget limits
    scaled: bool  # to the budget; False for a detector as it was published
    build: Callable[..., DetectionNetwork]  # as `Method.build_detector`, without `only`


class Method(Protocol[A]):
    """All that is particular to a method; a base class.

    Attributes:
        baseline: display name of the hand-made architecture, as "FPN-like path".
        baseline_stage: the word for it on the command line, and of the study that measures it.
        section: frozen dataclass of [space] in a study file; its field `method` is `name`.
        detector_section: likewise of [detector].
        evaluation_keys: of [detector], what trained weights do not depend on.
        later_keys: of [space] and [detector], as "space.depth": what studies of earlier versions
            lack, with what it was then.
        size_multiple: inputs that the cost counts have sides of multiples of this many pixels; it
            divides `data.transforms.SIZE_MULTIPLE`, to which images are padded.
        legend: of the signs of a picture, for readers.
        columns_note: how the columns are written, for readers.
        metrics: what a search may have as objectives, by name; "ap" is one.
        baselines: names of further hand-made detectors, see `baseline_detector`; studies store
            them.
        mixed: the part of the space, see `Space.parts`, whose choices are candidates with weights
            of their own in the supernet; "" where there is none.
        width: the key of [space] that the cost grows with, by its square; "" where none does.
    """

    name: str
    title: str
    baseline: str
    baseline_stage: str
    section: type[Any]
    detector_section: type[Any]
    evaluation_keys: frozenset[str]
    size_multiple: int
    columns: tuple[Column[A], ...]
    legend: str
    columns_note: str = ""
    metrics: Mapping[str, Metric] = METRICS
    mixed: str = ""
    baselines: tuple[str, ...] = ()
    width: str = ""
    published: Mapping[str, PublishedArchitecture[A]] = _NONE
    presets: Mapping[str, Preset] = _NONE
    heatmaps: Mapping[str, Heatmap[A]] = _NONE
    later_keys: Mapping[str, Any] = _NONE

    # ------------------------------------------------------------------ the study file

    def rules(self, config: Any) -> Iterator[str]:
        """The rules that a `study.config.StudyConfig` breaks, in words, beside those of a key."""
        yield from ()

    def describe(self, section: Any) -> str:
        """The genes and their meaning, in words that go on after "Searched:"."""

    # ------------------------------------------------------------------ space and cost

    def space(self, section: Any) -> Space[A]:
        """The search space of a [space]."""

    def cost(self, section: Any, *, input_size: tuple[int, int]) -> MethodCost[A]:
        """The cost of the architectures of a [space], counted for images of this size."""

    def baseline_architecture(self, space: Any) -> A:
        """The hand-made architecture of a space."""

    def parse(self, text: str) -> A:
        """The architecture of a notation, which need not be valid; ValueError if it is none."""

    def resolve(self, text: str, space: Any) -> A:
        """The architecture of a published name, the word of the baseline, or a notation.

        Raises:
            InvalidArchitectureError: it names none, or none of this space.
        """
        if text == self.baseline_stage:
            return self.baseline_architecture(space)
        try:
            one = self.published.get(text)
            architecture = self.parse(text) if one is None else one.architecture
        except ValueError as error:
            names = ", ".join([*self.published, self.baseline_stage])
            raise InvalidArchitectureError(
                f"no architecture is called {text!r}; give one of {names}, or a notation: {error}"
            ) from error
        if (violation := space.violation(architecture)) is not None:
            raise InvalidArchitectureError(f"{text!r} is none of the study's: {violation}")
        return architecture

    def as_json(self, architecture: A) -> dict[str, Any]:
        """The value of each column by its key."""
        return {column.key: column.value(architecture) for column in self.columns}

    def notation(self, cells: Mapping[str, str]) -> str:
        """The notation of an architecture, from a text for the `key` of each column."""
        return " ".join(cells.values())

    def counts(self, space: Any) -> Mapping[str, int]:
        """Further exact counts of a space, by what they count."""
        return {}

    def cost_parts(self, architecture: A, cost: Any) -> list[Part]:
        """The parts of an architecture's cost; they sum to its total."""

    def costs(self, architecture: A, cost: Any) -> dict[str, float]:
        """Numbers that take no network, by the names that a trial stores them under."""
        return {"gflops": cost.total(architecture) / 1e9}

    def further_parts(self, section: Any, detector: Any, *, n_classes: int) -> list[Part]:
        """The cost of what a whole network has beside what the budget limits; [] if not counted.

        It is that of any architecture; the detector has a [detector] section.
        """
        return []

    # ------------------------------------------------------------------ networks

    def masks(self, detector: Any) -> bool:
        """True where a [detector] asks for instance masks."""
        return False

    def build_detector(
        self,
        section: Any,
        detector: Any,
        *,
        n_classes: int,
        image_size: tuple[int, int],
        only: A | None,
    ) -> DetectionNetwork:
        """A network of one architecture with fresh weights; the detector has a [detector] section.

        `only` None makes the supernet, whose state holds that of each architecture under the same
        names. Classes are without background, the image size is the largest shorter and longer
        side in pixels.
        """

    def baseline_detector(
        self, name: str, section: Any, cost: Any, *, target: float
    ) -> BaselineDetector:
        """One of `baselines` for a [space], and for a budget of `target` multiply-adds.

        Raises:
            InvalidArchitectureError: there is none of this cost.
        """
        raise NotImplementedError

    def exportable(self, network: Any) -> nn.Module:
        """A stand-alone network as a program of one image, for exporters; ValueError if none.

        It maps image, uint8 [1, 3, H, W], and size, int64 [2] (height and width before padding),
        to boxes [n, 4], scores [n] and labels [n], with masks to these [n, m, m], too.
        """
        raise ValueError(
            f"detectors of method {self.name} cannot be exported: it has no program of one image; "
            f"`msnas predict` runs them"
        )

    def facts(self, section: Any, detector: Any, network: Any) -> dict[str, Any]:
        """Facts that using a stand-alone network elsewhere takes, in types that JSON has."""
        return {}

    def anchors(
        self, section: Any, detector: Any, *, image_size: tuple[int, int]
    ) -> AnchorLayout | None:
        """The anchors of the baseline; None for a detector without any."""
        return None

    # ------------------------------------------------------------------ pictures

    def picture(self, architecture: A, *, name: str, cost: Any = None) -> Picture:
        """A picture of a valid architecture; a cost adds what its parts cost."""
