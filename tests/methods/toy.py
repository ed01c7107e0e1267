"""A second method, to show all that one needs: kernel sizes of a small anchor-free detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from optuna.distributions import CategoricalDistribution
from pydantic.dataclasses import dataclass as checked

from msnas_optuna.methods.base import CHECKED, Column, Method, Part
from msnas_optuna.methods.picture import Marker, Panel, Picture
from msnas_optuna.models.blocks import Stem, conv_norm
from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.spaces.base import Space

KERNELS, STRIDE = "135", 4
GENE = CategoricalDistribution([*KERNELS])


@checked(frozen=True, kw_only=True, config=CHECKED)
class SpaceSection:
    method: Literal["toy"]
    depth: int
    channels: int


@checked(frozen=True, kw_only=True, config=CHECKED)
class DetectorSection:
    max_detections: int = 20


@dataclass(frozen=True)
class ToySpace(Space[str]):
    """Kernels, as "1335", that do not shrink from block to block; its own automaton."""

    depth: int
    start, listed = "1", (0, 0)
    genes, architecture, accepts = staticmethod(tuple), staticmethod("".join), staticmethod(bool)
    choices = property(lambda self: [KERNELS] * self.depth)
    parts = property(lambda self: {"kernels": slice(0, self.depth)})
    distributions = property(lambda self: {f"kernel_{i}": GENE for i in range(self.depth)})

    def automaton(self):
        return self

    def next(self, position, state, gene):
        return gene if gene >= state else None

    def violation(self, a):
        fits = len(a) == self.depth and {*a} <= {*KERNELS} and [*a] == sorted(a)
        return None if fits else f"there are {self.depth} kernels of 1, 3, 5 in order, got {a!r}"


@dataclass(frozen=True)
class ToyCost:
    channels: int
    input_size: tuple[int, int]
    base, scope = 0, "blocks"

    def step(self, position, before, gene, after):
        height, width = self.input_size
        return (int(gene) * self.channels) ** 2 * height * width // STRIDE**2

    def total(self, architecture):
        return sum(self.step(i, 0, k, k) for i, k in enumerate(architecture))

    def text(self, amount):
        return f"{amount / 1e9:.4f} GFLOPs"


class ToyDetector(DetectionNetwork):
    """Each cell of 4 pixels scores K classes and gives a box around its middle."""

    n_drawn: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, C, kernels, n_classes, max_detections):
        super().__init__()
        self.kernels, self.max_detections = kernels, max_detections
        self.stem, self.head = Stem(C, norm="batch"), torch.nn.Conv2d(C, n_classes + 4, 1)
        blocks = ({k: conv_norm(C, C, kernel=int(k), norm="batch") for k in ks} for ks in kernels)
        self.blocks = torch.nn.ModuleList(torch.nn.ModuleDict(block) for block in blocks)

    def forward(self, images, sizes, *, targets=None, architecture=None, generators=None):
        x = self.stem(images.float() / 255)  # [B, C, h, w]
        for block, k in zip(self.blocks, architecture or "".join(self.kernels), strict=True):
            x = x + block[k](x).relu()
        scores, sides = self.head(x).float().permute(0, 2, 3, 1).tensor_split([-4], dim=3)
        rows, columns = (STRIDE * (torch.arange(n, device=x.device) + 0.5) for n in x.shape[2:])
        middle = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2).repeat(1, 1, 2)
        boxes = middle + middle.new_tensor((-9, -9, 9, 9)) * sides.exp()  # [B, h, w, 4]
        if self.training:
            return [], self.losses(scores, boxes, targets)
        certain, labels = scores.sigmoid().flatten(1, 2).max(dim=2)  # [B, h * w]
        best = certain.topk(self.max_detections).indices
        return [
            {
                "boxes": boxes[b].flatten(0, 1)[i],
                "scores": certain[b][i],
                "labels": labels[b][i] + 1,
            }
            for b, i in enumerate(best)
        ], {}

    def losses(self, scores, boxes, targets):
        wanted, distances = torch.zeros_like(scores), [boxes.sum() * 0]
        for b, target in enumerate(targets):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                x, y = ((box[:2] + box[2:]) / 2 // STRIDE).long().tolist()
                wanted[b, y, x, label - 1] = 1
                distances.append((boxes[b, y, x] - box).abs().mean() / 100)
        self.n_drawn = {"scores": wanted.numel(), "boxes": len(distances)}
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted)
        return {"scores": entropy, "boxes": torch.stack(distances).mean()}


class ToyMethod(Method[str]):
    name, title, legend = "toy", "Kernel sizes", "Squares are kernels."
    baseline, baseline_stage = "plain network", "plain"
    section, detector_section = SpaceSection, DetectorSection
    evaluation_keys, size_multiple, width = frozenset({"max_detections"}), STRIDE, "channels"
    columns = (Column("kernels", "kernels", str, str),)

    def describe(self, section):
        return f"the kernels of {section.depth} blocks"

    def space(self, section):
        return ToySpace(section.depth)

    def cost(self, section, *, input_size):
        return ToyCost(section.channels, input_size)

    def baseline_architecture(self, space):
        return "3" * space.depth

    def parse(self, text):
        return text

    def cost_parts(self, architecture, cost):
        return [Part(f"kernel {k}", cost.step(0, k, k, k), "blocks", {}) for k in architecture]

    def build_detector(self, section, detector, *, n_classes, image_size, only):
        kernels = only or [KERNELS] * section.depth
        return ToyDetector(section.channels, kernels, n_classes, detector.max_detections)

    def picture(self, architecture, *, name, cost=None):
        marks = tuple(Marker(x, int(y), "square", "blue", "k") for x, y in enumerate(architecture))
        return Picture(name, (Panel("", (0, 6), (), marks, 120),), x=(-1, len(marks)), ticks=())
