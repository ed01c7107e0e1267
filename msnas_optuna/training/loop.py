"""One plain loop for the supernet, for fine-tuning and for stand-alone training.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, §3.4, §4.1:
each step of supernet training draws one valid path and trains the shared weights of it.

Batches, paths, anchors and RoIs are functions of the step and of the image's place in the batch,
so that a resumed run continues the same sequence and the number of processes, among which a batch
is split, changes nothing but rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msnas_optuna.data.transforms import Batch
from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.models.synchronised import synchronised
from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.runtime.interrupts import deferred_interrupts
from msnas_optuna.training.checkpoint import load_checkpoint, save_checkpoint
from msnas_optuna.training.recipe import Recipe

Precision = Literal["bf16", "fp32"]
BatchSource = Callable[[range], Iterable[Batch]]
PathSource = Callable[[int], Architecture]

DRAW_STREAM = 3
"""Separates the random stream of anchors and RoIs from those of batches and paths."""


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
        return {
            "step": self.step,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.step, self.losses = state["step"], state["losses"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def resume(self, checkpointing: Checkpointing | None, ranks: Ranks) -> None:
        """Continues from the checkpoint that the first rank finds."""
        state = None
        if ranks.first and checkpointing is not None and checkpointing.path.exists():
            state = load_checkpoint(checkpointing.path, fingerprint=checkpointing.fingerprint)
        state = ranks.broadcast(state)
        if state is not None:
            self.load(state)


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
    ranks: Ranks = ALONE,
) -> list[float]:
    """Trains a detector in place, from its last checkpoint where there is one.

    Args:
        model: the detector, on `device`; with several ranks its batch norms become synchronised.
        batches: gives the batches of a range of steps, with several ranks this one's shares.
        recipe: steps, optimiser and schedule.
        seed: of the anchors and RoIs that enter the losses.
        device: where to compute.
        precision: "bf16" computes convolutions and products in bfloat16.
        sample_path: step -> path; makes it supernet training.
        checkpointing: where to save; None saves nothing.
        on_step: called after each step with the number of steps done and the loss.
        ranks: the processes that train this detector together, with equal arguments; the first
            one alone reads and writes the checkpoint.

    Returns:
        The loss of every step, over the whole batch.

    Raises:
        NonFiniteLossError: the loss or the gradient is not finite; weights are those before the
            step.
        CheckpointError: the checkpoint belongs to other settings or cannot be written.
    """
    run = _Run(model, build_optimizer(model, recipe))
    model.train()
    run.resume(checkpointing, ranks)
    if run.step >= recipe.steps:
        return run.losses
    if run.step and on_step is not None:
        on_step(run.step, run.losses[-1])
    network = _parallel(model, device, ranks)
    saved = time.monotonic()
    with deferred_interrupts() as interrupts:
        for batch in batches(range(run.step, recipe.steps)):
            path = None if sample_path is None else sample_path(run.step)
            terms = _losses(
                network, batch.to(device), seed=seed, step=run.step, path=path,
                precision=precision, ranks=ranks,
            )  # fmt: skip
            loss, value = _over_the_batch(terms, model.n_drawn, ranks)
            _descend(run.optimizer, loss, value, recipe=recipe, step=run.step, path=path)
            run.step += 1
            run.losses.append(value)
            if on_step is not None:
                on_step(run.step, value)
            stop = ranks.any(bool(interrupts))  # all at one step, whoever got the signal
            due = stop or run.step == recipe.steps
            if (
                checkpointing is not None
                and ranks.first
                and (due or time.monotonic() - saved > checkpointing.seconds)
            ):
                save_checkpoint(
                    checkpointing.path, run.state(), fingerprint=checkpointing.fingerprint
                )
                saved = time.monotonic()
            if stop:
                ranks.wait()  # torchrun ends all when one ends, also one that is still saving
                raise KeyboardInterrupt
    return run.losses


def _parallel(model: Detector, device: torch.device, ranks: Ranks) -> nn.Module:
    """The model whose backward averages the gradients over the ranks.

    All ranks have the same path. What is not on it (candidates of a supernet, and last blocks that
    no object group reads) is found anew at each step, and DistributedDataParallel leaves its
    gradient None, as it is in one process: zeros would let momentum and weight decay move it.
    """
    if ranks.size == 1:
        return model
    return DistributedDataParallel(synchronised(model, device), find_unused_parameters=True)


def _losses(
    network: nn.Module,
    batch: Batch,
    *,
    seed: int,
    step: int,
    path: Architecture | None,
    precision: Precision,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """The four losses, each a mean over the anchors or RoIs of this rank's images."""
    device = batch.images.device
    first = ranks.rank * len(batch)
    generators = [
        _generator([seed, DRAW_STREAM, step, first + i], device) for i in range(len(batch))
    ]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        _, losses = network(
            batch.images, batch.sizes, targets=batch.targets, architecture=path,
            generators=generators,
        )  # fmt: skip
    assert isinstance(losses, dict)
    return losses


def _generator(words: list[int], device: torch.device) -> Generator:
    (state,) = np.random.SeedSequence(words).generate_state(1)
    return Generator(device).manual_seed(int(state))


def _over_the_batch(
    losses: dict[str, Tensor], n_drawn: dict[str, int], ranks: Ranks
) -> tuple[Tensor, float]:
    """What to descend on this rank, and the loss of the whole batch.

    A loss over the batch is the mean over the anchors (or RoIs) of all ranks, of which some may
    have fewer than others: each rank's mean counts in proportion. DistributedDataParallel takes
    the mean over the ranks afterwards.
    """
    terms = torch.stack(list(losses.values()))  # [4]
    if ranks.size == 1:
        loss = terms.sum()
        return loss, float(loss.detach())
    counts = terms.new_tensor([n_drawn[name] for name in losses])
    weighted, whole = ranks.sum(torch.stack((terms * counts, counts)))
    loss = (terms * (counts * ranks.size / whole)).sum()
    return loss, float((weighted / whole).sum())


def _descend(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    value: float,
    *,
    recipe: Recipe,
    step: int,
    path: Architecture | None,
) -> None:
    where = f"step {step + 1}" + ("" if path is None else f" on path {path}")
    repair = "lower learning_rate, lengthen warmup or set precision = 'fp32'"
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the loss is {value} at {where}; {repair}")
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
    for step, batch in enumerate(batches):
        _losses(model, batch.to(device), seed=0, step=step, path=None, precision=precision)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
