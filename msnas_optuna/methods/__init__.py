"""Methods of architecture search, one folder each, and the registry that names them."""

from __future__ import annotations

from typing import Any, Final

from msnas_optuna.methods.base import Method
from msnas_optuna.methods.msnas.method import MSNAS

METHODS: Final[dict[str, Method[Any]]] = {"msnas": MSNAS}
"""By the name that `[space] method` gives."""
