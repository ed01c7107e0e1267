"""What the keys of a study file may be, in the words of TOML: for its errors and its reference."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

PLAIN: Final = {int: "whole number", float: "number", str: "text", Path: "path"}
_SIGNS: Final = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def values(hint: Any) -> str:
    """The values that a key may have, as its annotation says it."""
    kind, *about = unpacked(hint)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(toml, arguments))
    if origin is tuple and arguments[-1] is ...:
        return f"array of {values(arguments[0])}"
    if origin is tuple:
        return f"array of {len(arguments)}: {values(arguments[0])}"
    if dataclasses.is_dataclass(kind):
        return "table"
    if kind is bool:
        return "true or false"
    rules = [rule for info in about for rule in (info, *getattr(info, "metadata", ()))]
    if said := [rule.description for rule in rules if getattr(rule, "description", None)]:
        return str(said[0])
    limits = {n: getattr(rule, n) for rule in rules for n in _SIGNS if hasattr(rule, n)}
    return PLAIN[kind] + bounds(limits)


def bounds(limits: Mapping[str, float]) -> str:
    """A range in words, from "ge", "gt", "le" and "lt"."""
    if limits.keys() == {"ge", "le"}:
        return f" from {limits['ge']:,} to {limits['le']:,}"
    said = " and ".join(f"{_SIGNS[name]} {limit:,}" for name, limit in limits.items())
    return f" {said}" if said else ""


def unpacked(hint: Any) -> tuple[Any, ...]:
    """The type of an annotation, without None, then its metadata."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is typing.Annotated:
        kind, *about = typing.get_args(hint)
        return (*unpacked(kind), *about)
    return (hint,)


def toml(value: Any) -> str:
    """A value as a study file spells it; nothing for a missing one."""
    if value is None or value is dataclasses.MISSING:
        return ""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)
