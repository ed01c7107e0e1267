"""Network parts that methods share."""

from __future__ import annotations

from typing import Literal

Norm = Literal["batch", "group"]  # "group": with weight standardization, for very small batches
