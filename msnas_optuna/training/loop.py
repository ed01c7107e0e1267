"""The training loop: one architecture, or a supernet with an architecture drawn at each step.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.

Batches, architectures, anchors and RoIs are functions of the step and of the image's place in the
batch, so that a resumed run continues the same sequence and the number of processes, among which
a batch is split, changes nothing but rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msnas_optuna.data.transforms import Batch
from msnas_optuna.models.network import DetectionNetwork, Losses
from msnas_optuna.models.sync_batchnorm import convert_sync_batchnorm
from msnas_optuna.runtime.distributed import ALONE, Ranks
from msnas_optuna.runtime.interrupts import deferred_interrupts
from msnas_optuna.training.checkpoint import (
    Checkpointing,
    damage_named,
    load_checkpoint,
    save_checkpoint,
)
from msnas_optuna.training.recipe import Recipe

Precision = Literal["bf16", "fp32"]
BatchSource = Callable[[range], Iterable[Batch]]

DRAW_STREAM = 3  # anchors and RoIs; batches and architectures have other random streams


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient became infinite or not a number."""


def train(
    model: DetectionNetwork,
    batches: BatchSource,
    *,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    precision: Precision = "bf16",
    sample: Callable[[int], Hashable] = lambda step: None,
    checkpointing: Checkpointing | None = None,
    on_step: Callable[[int, float], None] = lambda done, loss: None,
    ranks: Ranks = ALONE,
) -> list[float]:
    """Trains a network in place, from its last checkpoint where there is one; returns all losses.

    With several ranks, called with equal arguments, batch norms become synchronized, and the first
    rank alone reads and writes the checkpoint. At the end the network has the recipe's average of
    the weights, if it has one.

    Args:
        model: the network, on `device`.
        batches: gives the batches of a range of steps, with several ranks this one's shares.
        recipe: steps, optimizer and schedule.
        seed: of the anchors and RoIs that enter the losses.
        device: where to compute.
        precision: "bf16" computes convolutions and products in bfloat16.
        sample: draws the architecture that a step trains; makes it supernet training.
        checkpointing: where to save; None saves nothing.
        on_step: called with the number of steps done and the loss over the whole batch.
        ranks: the processes that train this network together.

    Raises:
        NonFiniteLossError: in loss or gradient; the weights are those before the step.
        CheckpointError: the checkpoint belongs to other settings or cannot be written.
    """
    model.train()
    optimizer = build_optimizer(model, recipe)
    average = MovingAverage(model, recipe.ema) if recipe.ema else None
    losses = resume(model, optimizer, average, checkpointing, ranks=ranks)
    if len(losses) >= recipe.steps:
        return losses
    if losses:
        on_step(len(losses), losses[-1])
    network = parallelize(model, device, ranks)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    saved = time.monotonic()
    with deferred_interrupts() as interrupts:
        for step, batch in enumerate(batches(range(len(losses), recipe.steps)), len(losses)):
            architecture = sample(step)
            terms = forward(
                network, batch.to(device), architecture,
                seed=seed, step=step, precision=precision, rank=ranks.rank,
            )  # fmt: skip
            loss, value = reduce(terms, model.n_drawn, ranks)
            check_finite("loss", value, step=step, architecture=architecture)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm or math.inf)
            check_finite("norm of the gradient", float(norm), step=step, architecture=architecture)
            optimizer.step()
            if average is not None:
                average.update(model, step)
            losses.append(value)
            on_step(step + 1, value)
            stop = ranks.any(bool(interrupts))  # all at one step, whoever got the signal
            last = stop or step + 1 == recipe.steps
            if average is not None and step + 1 == recipe.steps:
                model.load_state_dict(average.state)
            if checkpointing and ranks.first and (last or checkpointing.due(saved)):
                content: dict[str, Any] = {"step": len(losses), "losses": losses}
                content |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                content |= {} if average is None else {"average": average.state}
                save_checkpoint(checkpointing.path, content, fingerprint=checkpointing.fingerprint)
                saved = time.monotonic()
            if stop:
                ranks.wait()  # torchrun ends all when one ends, also one that is still saving
                raise KeyboardInterrupt
    return losses


def resume(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
    checkpointing: Checkpointing | None,
    *,
    ranks: Ranks,
) -> list[float]:
    """Loads the checkpoint that the first rank finds, if any; returns the losses of its steps."""
    state = None
    if ranks.first and checkpointing is not None and checkpointing.path.exists():
        state = load_checkpoint(checkpointing.path, fingerprint=checkpointing.fingerprint)
    state = ranks.broadcast(state)
    if state is None:
        return []
    assert checkpointing is not None
    with damage_named(checkpointing.path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.state = state["average"]
        return [float(loss) for loss in state["losses"]]


class MovingAverage:
    """The exponential moving average of a network's weights and statistics.

    Attributes:
        state: as `Module.state_dict` has it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after a 0-based step; the first ones fade fast."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def parallelize(model: nn.Module, device: torch.device, ranks: Ranks) -> nn.Module:
    """The model whose backward averages the gradients over the ranks.

    What is not part of the architecture is found anew at each step, and its gradient stays None,
    as in one process: zeros would let momentum and weight decay move it.
    """
    if ranks.size == 1:
        return model
    return DistributedDataParallel(
        convert_sync_batchnorm(model, device), find_unused_parameters=True
    )


def forward(
    network: nn.Module,
    batch: Batch,
    architecture: Hashable,
    *,
    seed: int,
    step: int,
    precision: Precision,
    rank: int = 0,
) -> Losses:
    """The losses, each a mean over what was drawn in this rank's images."""
    device = batch.images.device
    generators = []
    for place in range(rank * len(batch), (rank + 1) * len(batch)):
        (state,) = np.random.SeedSequence([seed, DRAW_STREAM, step, place]).generate_state(1)
        generators.append(Generator(device).manual_seed(int(state)))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        _, losses = network(
            batch.images, batch.sizes, targets=batch.targets, architecture=architecture,
            generators=generators,
        )  # fmt: skip
    return dict(losses)


def reduce(losses: Losses, n_drawn: Mapping[str, int], ranks: Ranks) -> tuple[Tensor, float]:
    """The loss that this rank differentiates, and the loss of the whole batch.

    Each rank's mean counts in proportion to its anchors (or RoIs); DistributedDataParallel takes
    the mean over the ranks afterwards.
    """
    terms = torch.stack(list(losses.values()))  # [number of losses]
    if ranks.size == 1:
        loss = terms.sum()
        return loss, float(loss.detach())
    counts = terms.new_tensor([n_drawn[name] for name in losses])
    weighted, whole = ranks.sum(torch.stack((terms * counts, counts)))
    whole = whole.clamp(min=1)  # images without objects have no RoIs with a mask
    loss = (terms * (counts * ranks.size / whole)).sum()
    return loss, float((weighted / whole).sum())


def check_finite(name: str, value: float, *, step: int, architecture: Hashable) -> None:
    """Raises NonFiniteLossError for infinity and what is not a number."""
    if not math.isfinite(value):
        path = "" if architecture is None else f" on path {architecture}"
        raise NonFiniteLossError(
            f"the {name} is {value} at step {step + 1}{path}; "
            f"lower learning_rate, lengthen warmup or set precision = 'fp32'"
        )


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; biases and normalization have no weight decay."""
    # Deviation: the paper names no parameters without weight decay; biases and norms have none,
    # because it would only draw the scales of normalized features to zero (Goyal et al.,
    # "Accurate, Large Minibatch SGD", 2017, §5.1).
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
    model: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: Precision
) -> None:
    """Replaces the running statistics of batch norm by those of `batches`, one architecture's."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    model.train()
    for step, batch in enumerate(batches):
        forward(model, batch.to(device), None, seed=0, step=step, precision=precision)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
