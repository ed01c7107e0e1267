"""The settings of a training: steps, batch, optimizer and learning-rate schedule.

The MSNAS paper (§4.1) trains supernet and retrained detectors with SGD of momentum 0.9, weight
decay 1e-4, batches of 32, a linear warm-up from 0.00125 to 0.04 over the first epoch and division
of the rate by 10 at epochs 42 and 47; it fine-tunes for 100 iterations at 0.004.
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
    """One training run; where the paper's value is named the default is ours, for small budgets.

    Attributes:
        steps: optimizer steps; 0 trains nothing. The paper: its 4x schedule, read as 50 epochs.
        batch_size: images of a step, over all processes; the paper: 32.
        learning_rate: the rate after the warm-up; the paper: 0.04.
        optimizer: "sgd" (the paper's) or "adamw".
        momentum: of SGD; 0.9 is the paper's.
        weight_decay: on weights of two and more dimensions; that biases and norms have none is
            ours. The paper: 1e-4.
        schedule: "step" (the paper's) divides by 10 at 84 % and 94 % of the steps, epochs 42 and
            47 of 50, "cosine" falls to zero, "constant" stays.
        warmup: fraction of the steps in which the rate grows linearly; the paper: one epoch, 0.02.
        warmup_start: the rate of the first step as a fraction of `learning_rate`; 1/32 is the
            paper's.
        clip_norm: gradients are scaled down to this norm; 0 leaves them. The paper names none.
        flip_probability: share of images mirrored left to right; the paper flips, half is usual.
        ema: the weights that are kept are the exponential moving average over the steps with this
            decay, or with (1 + step) / (10 + step) where that is less; 0 keeps the last ones. The
            paper names none.
    """

    # Deviation: the defaults of batch_size, learning_rate, optimizer, weight_decay, schedule,
    # warmup and clip_norm are not the paper's, because a training of minutes instead of 30 hours
    # on 16 GPUs needs AdamW with a cosine.
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
