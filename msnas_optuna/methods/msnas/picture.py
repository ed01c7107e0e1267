"""The picture of an MSNAS architecture: resolution, lateral connections, heads (Fig. 1).

Symbols: a absolute stride in pixels, s_g feature stride of group g. The x axis counts blocks, 0 is
the stem; the y axis is -log2 of a stride, so that fine features are on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2
from typing import Final

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, STEM_STRIDE, Architecture
from msnas_optuna.methods.picture import Bar, Color, Line, Marker, Panel, Picture, Symbol

LEGEND: Final = (
    "Blue triangles halve the resolution, squares keep it, orange triangles double it; dashes are "
    "lateral connections; diamonds are the heads of the five object groups, small objects first, "
    "and dots lead to the feature that each reads."
)

_SIGNS: Final[dict[float, tuple[Symbol, Color]]] = {  # of the strides of a block
    2.0: ("triangle-down", "blue"),
    1.0: ("square", "sky"),
    0.5: ("triangle-up", "orange"),
}

_HEAD_GAP: Final = 0.8  # from the last block to the first head and from head to head, in blocks
_ARC_HEIGHTS: Final = (0.32, 0.77)  # over two neighboring blocks, and the longest, in octaves


def draw(architecture: Architecture, *, name: str, cost: EncoderCost | None = None) -> Picture:
    """Draws a valid architecture; a cost adds the GFLOPs of its parts as bars below."""
    n, groups = len(architecture.strides), range(len(architecture.feature_strides))
    heads = [n + _HEAD_GAP * (g + 1.5) for g in groups]
    numbers = [(float(i), str(i)) for i in range(1, n + 1)]
    panels = [
        Panel(
            title="absolute stride",
            y=(_level(FEATURE_STRIDES[-1]) - 0.4, _level(STEM_STRIDE) + _ARC_HEIGHTS[1] + 0.1),
            ticks=tuple((_level(a), str(a)) for a in FEATURE_STRIDES),
            marks=(*_path(architecture, cost), *_readings(architecture, heads)),
            height=180,
        )
    ]
    if cost is not None:
        name = f"{name}, {cost.total(architecture) / 1e9:.4g} GFLOPs"
        bars = tuple(_bars(architecture, heads, cost))
        highest = max(sum(bar.height for bar in bars if bar.x == x) for x in {b.x for b in bars})
        panels.append(Panel(title="GFLOPs", y=(0, highest), ticks=(), marks=bars, height=64))
    return Picture(
        name=name,
        panels=tuple(panels),
        x=(-0.6, heads[-1] + 0.6),
        ticks=((0.0, "stem"), *numbers, *((x, f"h{g + 1}") for g, x in enumerate(heads))),
    )


def _level(stride: float) -> float:
    return -log2(stride)


def _path(architecture: Architecture, cost: EncoderCost | None) -> Iterator[Line | Marker]:
    """The way through the encoder with its lateral connections (Eq. 4-6)."""
    absolute = (STEM_STRIDE, *architecture.absolute_strides)
    yield Line(tuple((float(i), _level(a)) for i, a in enumerate(absolute)), "ink")
    for end, source in sorted(architecture.laterals.items()):
        start, stop, level = source + 1.0, end + 1.0, _level(architecture.absolute_strides[end])
        height = min(_ARC_HEIGHTS[0] * (1 + 0.15 * (stop - start - 1)), _ARC_HEIGHTS[1])
        points = ((start, level), ((start + stop) / 2, level + height), (stop, level))
        yield Line(points, "purple", dash="dash", name="lateral connection", curved=True)
    parts = None if cost is None else cost.breakdown(architecture)
    amounts = (None,) * len(absolute) if parts is None else (parts.stem, *parts.blocks)
    for i, (a, amount) in enumerate(zip(absolute, amounts, strict=True)):
        flops = "" if amount is None else f", {_giga(amount)}"
        text = f"absolute stride {a:g}{flops}"
        if i == 0:
            yield Marker(0.0, _level(a), "circle", "ink", name="stem", text=f"stem: {text}")
            continue
        sign = f"stride {architecture.strides[i - 1]:g}"
        symbol, color = _SIGNS[architecture.strides[i - 1]]
        text = f"block {i}: {sign}, {text}"
        yield Marker(float(i), _level(a), symbol, color, name=sign, text=text)


def _readings(architecture: Architecture, heads: list[float]) -> Iterator[Line | Marker]:
    """The heads, and from each output a line to the last head that reads it."""
    last = dict(zip(architecture.feature_strides, heads, strict=True))
    for s, x in last.items():
        points = ((architecture.outputs[s] + 1.0, _level(s)), (x, _level(s)))
        yield Line(points, "green", dash="dot", name="head reads")
    for g, (s, x) in enumerate(zip(architecture.feature_strides, heads, strict=True), start=1):
        text = f"head {g} reads stride {s} from block {architecture.outputs[s] + 1}"
        yield Marker(x, _level(s), "diamond", "green", name="detection head", text=text)


def _bars(architecture: Architecture, heads: list[float], cost: EncoderCost) -> Iterator[Bar]:
    """Blocks, laterals, and heads with their share of the output convolutions."""
    parts = cost.breakdown(architecture)
    for i, amount in enumerate((parts.stem, *parts.blocks)):
        yield Bar(float(i), amount / 1e9, "vermilion", name="GFLOPs: block", text=_giga(amount))
    for i, amount in enumerate(parts.laterals, start=1):
        if amount:
            yield Bar(float(i), amount / 1e9, "purple", name="GFLOPs: lateral", text=_giga(amount))
    for x, s, rpn in zip(heads, architecture.feature_strides, parts.rpn, strict=True):
        head = rpn + parts.outputs[s] / architecture.feature_strides.count(s)
        yield Bar(x, head / 1e9, "green", name="GFLOPs: head", text=_giga(head))


def _giga(amount: float) -> str:
    return f"{amount / 1e9:.4g} GFLOPs"
