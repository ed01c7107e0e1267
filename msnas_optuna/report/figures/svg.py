"""The picture of an architecture (Fig. 1) as an SVG file, which needs no plotting library to show.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Fig. 1.

Text and axes are grey and nothing lies behind them, so that a picture suits light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log2
from typing import Any, Final

from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, Architecture
from msnas_optuna.report.figures.layout import (
    ArchitectureInfo,
    arc,
    get_architecture_info,
    head_depth,
)
from msnas_optuna.report.figures.path import MOVES
from msnas_optuna.report.figures.style import GREEN, INK, PURPLE, VERMILION

LEGEND: Final = (
    "Blue triangles halve the resolution, squares keep it, orange triangles double it; dashes are "
    "lateral connections; diamonds are the heads of the five object groups, small objects first, "
    "and dots lead to the feature that each reads."
)
"""What the signs of a picture mean."""

_STEP: Final = 36.0
"""Pixels from block to block."""

_OCTAVE: Final = 34.0
"""Pixels from one resolution to the next."""

_LEFT: Final = 64.0
_TOP: Final = 52.0
_BARS: Final = 56.0
"""Pixels: room for the labels, for the name, and for the highest bar."""


def draw_architecture(architecture: Architecture, *, name: str, cost: Any = None) -> str:
    """Draws an architecture: resolution against depth, laterals, heads, and GFLOPs as bars.

    Args:
        architecture: valid.
        name: stands above the picture.
        cost: FLOPs of encoder + RPN head; without it there are no bars.

    Returns:
        A whole SVG file.
    """
    info = get_architecture_info(architecture, name=name, cost=cost)
    width = _x(head_depth(info, len(info.heads) - 1)) + 24
    height = _y(6) + (46 if not info.blocks else 60 + _BARS)
    parts = "\n".join((*_axes(info), *_path(info), *_heads(info), *_bars(info)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="11" '
        f'fill="{INK}" role="img">\n<title>{escape(_title(info))}</title>\n{parts}\n</svg>\n'
    )


def _x(depth: float) -> float:
    return round(_LEFT + _STEP * depth, 1)


def _y(level: float) -> float:
    """Of a resolution; `level` is log2 of the absolute stride."""
    return round(_TOP + _OCTAVE * (level - 2), 1)


def _title(info: ArchitectureInfo) -> str:
    return info.name if info.total is None else f"{info.name}, {info.total:.4g} GFLOPs"


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 11) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"


def _line(points: Sequence[tuple[float, float]], colour: str, *, dash: str = "") -> str:
    corners = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="1.6"{dashed}/>'
    )


def _axes(info: ArchitectureInfo) -> Iterator[str]:
    yield _text(8, 18, _title(info), anchor="start", size=14)
    yield _text(8, _TOP - 14, "stride", anchor="start")
    right = _x(head_depth(info, len(info.heads) - 1)) + 12
    for a in FEATURE_STRIDES:
        y = _y(log2(a))
        yield _text(40, y + 4, str(a), anchor="end")
        yield f'<path d="M48 {y:g}H{right:g}" stroke="{INK}" stroke-opacity="0.3"/>'
    below = _y(6) + 24
    yield _text(_x(0), below, "stem")
    for i in range(len(info.strides)):
        yield _text(_x(i + 1), below, str(i + 1))
    for g in range(len(info.heads)):
        yield _text(_x(head_depth(info, g)), below, f"h{g + 1}")


def _path(info: ArchitectureInfo) -> Iterator[str]:
    levels = [log2(a) for a in info.absolute]
    yield _line([(_x(i), _y(level)) for i, level in enumerate(levels)], INK)
    for start, end in info.laterals:
        curve = arc(start, end, -levels[end])  # levels grow upwards there
        yield _line([(_x(depth), _y(-level)) for depth, level in curve], PURPLE, dash="5 3")
    yield f'<circle cx="{_x(0):g}" cy="{_y(2):g}" r="4" fill="{INK}"/>'
    for i, stride in enumerate(info.strides, start=1):
        yield _block(_x(i), _y(levels[i]), stride)


def _block(x: float, y: float, stride: float) -> str:
    """A triangle down for stride 2, up for 0.5, a square for 1."""
    name, colour = MOVES[stride]
    tip = {2.0: 6.5, 1.0: 0.0, 0.5: -6.5}[stride]
    if not tip:
        shape = f'<rect x="{x - 5.5:g}" y="{y - 5.5:g}" width="11" height="11" fill="{colour}">'
        return f"{shape}<title>{name}</title></rect>"
    corners = f"{x - 7:g},{y - tip:g} {x + 7:g},{y - tip:g} {x:g},{y + tip:g}"
    return f'<polygon points="{corners}" fill="{colour}"><title>{name}</title></polygon>'


def _heads(info: ArchitectureInfo) -> Iterator[str]:
    last = {s: (depth, g) for g, (depth, s) in enumerate(info.heads)}
    for s, (depth, g) in last.items():
        y = _y(log2(s))
        yield _line([(_x(depth) + 8, y), (_x(head_depth(info, g)), y)], GREEN, dash="2 3")
    for g, (_, s) in enumerate(info.heads):
        x, y = _x(head_depth(info, g)), _y(log2(s))
        corners = f"{x:g},{y - 7:g} {x + 7:g},{y:g} {x:g},{y + 7:g} {x - 7:g},{y:g}"
        yield f'<polygon points="{corners}" fill="{GREEN}"><title>head {g + 1}</title></polygon>'


def _bars(info: ArchitectureInfo) -> Iterator[str]:
    if not info.blocks:
        return
    base = _y(6) + 44 + _BARS
    stacked = [sum(pair) for pair in zip(info.blocks, info.lateral, strict=True)]
    unit = _BARS / max(*stacked, *info.head)
    yield _text(8, base - _BARS + 8, "GFLOPs", anchor="start")
    yield f'<path d="M48 {base:g}H{_x(head_depth(info, 4)) + 12:g}" stroke="{INK}"/>'
    for i, (block, lateral) in enumerate(zip(info.blocks, info.lateral, strict=True)):
        yield _bar(_x(i), base, unit * block, VERMILION, f"{block:.4g} GFLOPs")
        if lateral:
            yield _bar(_x(i), base - unit * block, unit * lateral, PURPLE, f"{lateral:.4g} GFLOPs")
    for g, head in enumerate(info.head):
        yield _bar(_x(head_depth(info, g)), base, unit * head, GREEN, f"{head:.4g} GFLOPs")


def _bar(x: float, base: float, height: float, colour: str, text: str) -> str:
    box = f'x="{x - 9:g}" y="{base - height:.1f}" width="18" height="{height:.1f}"'
    return f'<rect {box} fill="{colour}"><title>{text}</title></rect>'
