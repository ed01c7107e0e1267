"""Network parts that methods share."""

from __future__ import annotations

from typing import Literal

Norm = Literal["batch", "group"]
"""Batch norm, or group norm with weight standardization for very small batches."""
