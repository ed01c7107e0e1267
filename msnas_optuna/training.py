"""One plain loop for the supernet, for fine-tuning and for stand-alone training.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.4, §4.1:
each step of supernet training draws one valid path and trains the shared weights of it.

Batches and paths are functions of the step, so that a resumed run continues the same sequence.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from msnas_optuna.checkpoint import load_checkpoint, save_checkpoint
from msnas_optuna.data.transforms import Batch
from msnas_optuna.interrupts import deferred_interrupts
from msnas_optuna.models.detector import Detector
from msnas_optuna.recipe import Recipe
from msnas_optuna.spaces.msnas import Architecture

Precision = Literal["bf16", "fp32"]
BatchSource = Callable[[range], Iterable[Batch]]
PathSource = Callable[[int], Architecture]


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient became infinite or not a number."""


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often a training run saves itself.

    Attributes:
        path: the file.
        fingerprint: what the run belongs to; a file with another one is refused.
        seconds: least time between two checkpoints; the last step always writes one.
    """

    path: Path
    fingerprint: Mapping[str, Any]
    seconds: float = 60.0


@dataclass
class _Run:
    """What a checkpoint holds."""

    model: Detector
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: list[float] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "step": self.step,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.step, self.losses = state["step"], state["losses"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"]["cpu"])
        if torch.cuda.is_available() and state["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(state["rng"]["cuda"])


def train(
    model: Detector,
    batches: BatchSource,
    *,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    precision: Precision = "bf16",
    sample_path: PathSource | None = None,
    checkpointing: Checkpointing | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains a detector in place, from its last checkpoint where there is one.

    Args:
        model: the detector, on `device`.
        batches: gives the batches of a range of steps.
        recipe: steps, optimiser and schedule.
        seed: of the anchors and RoIs that enter the losses.
        device: where to compute.
        precision: "bf16" computes convolutions and products in bfloat16.
        sample_path: step -> path; makes it supernet training.
        checkpointing: where to save; None saves nothing.
        on_step: called after each step with the number of steps done and the loss.

    Returns:
        The loss of every step.

    Raises:
        NonFiniteLossError: the loss or the gradient is not finite; weights are those before the
            step.
        CheckpointError: the checkpoint belongs to other settings or cannot be written.
    """
    run = _Run(model, build_optimizer(model, recipe))
    model.train()
    with _isolated_rng(device):
        torch.manual_seed(seed)
        if checkpointing is not None and checkpointing.path.exists():
            run.load(load_checkpoint(checkpointing.path, fingerprint=checkpointing.fingerprint))
            if run.step >= recipe.steps:
                return run.losses
            if on_step is not None:
                on_step(run.step, run.losses[-1] if run.losses else math.nan)
        upcoming = batches(range(run.step, recipe.steps))
        saved = time.monotonic()
        with deferred_interrupts() as interrupts:
            for batch in upcoming:
                path = None if sample_path is None else sample_path(run.step)
                loss = _loss(model, batch.to(device), path=path, precision=precision)
                _descend(run.optimizer, loss, recipe=recipe, step=run.step, path=path)
                run.step += 1
                run.losses.append(float(loss.detach()))
                if on_step is not None:
                    on_step(run.step, run.losses[-1])
                if checkpointing is not None and (
                    interrupts
                    or run.step == recipe.steps
                    or time.monotonic() - saved > checkpointing.seconds
                ):
                    save_checkpoint(
                        checkpointing.path, run.state(), fingerprint=checkpointing.fingerprint
                    )
                    saved = time.monotonic()
                if interrupts:
                    raise KeyboardInterrupt
    return run.losses


def _loss(
    model: Detector, batch: Batch, *, path: Architecture | None, precision: Precision
) -> Tensor:
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        _, losses = model(batch.images, batch.sizes, targets=batch.targets, architecture=path)
    return torch.stack(list(losses.values())).sum()


def _descend(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    *,
    recipe: Recipe,
    step: int,
    path: Architecture | None,
) -> None:
    where = f"step {step + 1}" + ("" if path is None else f" on path {path}")
    repair = "lower learning_rate, lengthen warmup or set precision = 'fp32'"
    if not torch.isfinite(loss):
        raise NonFiniteLossError(f"the loss is {float(loss.detach())} at {where}; {repair}")
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate(step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm or math.inf)
    if not torch.isfinite(norm):
        raise NonFiniteLossError(f"the gradient is not finite at {where}; {repair}")
    optimizer.step()


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; biases and normalisation have no weight decay."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


@torch.no_grad()
def recalibrate(
    model: Detector, batches: Iterable[Batch], *, device: torch.device, precision: Precision
) -> None:
    """Replaces the running statistics of batch norm by those of `batches` under this path."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    model.train()
    with _isolated_rng(device):
        torch.manual_seed(0)
        for batch in batches:
            _loss(model, batch.to(device), path=None, precision=precision)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextlib.contextmanager
def _isolated_rng(device: torch.device) -> Iterator[None]:
    """Leaves the global generator, which torchvision draws anchors and RoIs from, as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
