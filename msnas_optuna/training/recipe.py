"""The settings of a training: steps, batch, optimizer and learning-rate schedule.

The MSNAS paper (§4.1) has SGD with momentum 0.9, weight decay 1e-4, a linear warm-up over the
first epoch and division of the rate by 10 late. Small budgets need AdamW with a cosine.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_LARGEST: Final = 2**31 - 1
PositiveInt = Annotated[int, Field(ge=1, le=_LARGEST)]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]

MILESTONES = (42 / 50, 47 / 50)  # shares of the steps after which "step" divides by 10 (§4.1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Recipe:
    """One training run.

    Attributes:
        steps: optimizer steps; 0 trains nothing.
        batch_size: images of a step, over all processes.
        learning_rate: the rate after the warm-up.
        optimizer: "sgd" (the paper's) or "adamw".
        momentum: of SGD.
        weight_decay: on weights of two and more dimensions; biases and norms have none.
        schedule: "step" divides by 10 at 84 % and 94 % of the steps (the paper's 42 and 47 of
            50 epochs), "cosine" falls to zero, "constant" stays.
        warmup: fraction of the steps in which the rate grows linearly.
        warmup_start: the rate of the first step as a fraction of `learning_rate`.
        clip_norm: gradients are scaled down to this norm; 0 leaves them.
        flip_probability: share of images mirrored left to right.
        ema: the weights that are kept are the exponential moving average over the steps with this
            decay, or with (1 + step) / (10 + step) where that is less; 0 keeps the last ones.
    """

    steps: Count
    batch_size: PositiveInt = 8
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 3e-3
    optimizer: Literal["sgd", "adamw"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-2
    schedule: Literal["step", "cosine", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    warmup_start: Annotated[float, Field(ge=0, le=1)] = 1 / 32
    clip_norm: Annotated[float, Field(ge=0)] = 10.0
    flip_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of a 0-based step."""
        warmup_steps = self.warmup * self.steps
        if step < warmup_steps:
            progress = step / warmup_steps
            return self.learning_rate * (self.warmup_start + (1 - self.warmup_start) * progress)
        if self.schedule == "step":
            passed = sum(step >= milestone * self.steps for milestone in MILESTONES)
            return self.learning_rate * 0.1**passed
        if self.schedule == "cosine":
            progress = (step - warmup_steps) / max(self.steps - warmup_steps, 1)
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate
