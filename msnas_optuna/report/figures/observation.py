"""One finished trial as figures see it.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.storage import read_plan

KINDS: Final = ("random", "recombination", "crossover", "mutation", "other")
"""How an architecture can have come about, coarsely."""


@dataclass(frozen=True)
class Observation:
    """A finished trial.

    Attributes:
        number: of the trial.
        architecture: what it measured.
        ap: one-shot AP (or stand-alone AP in the study of a retraining).
        generation: 0 for the first population and for trials without a plan.
        kind: one of `KINDS`.
        parents: numbers of the trials that the architecture was made from.
        gflops: of encoder + RPN head, None where unknown.
        latency_ms: of a forward pass, None where it is not measured.
        ap_by_size: AP of small, medium and large objects, None where it is not known.
    """

    number: int
    architecture: Architecture
    ap: float
    generation: int
    kind: str
    parents: tuple[int, ...]
    gflops: float | None
    latency_ms: float | None
    ap_by_size: tuple[float | None, float | None, float | None]


def observe(trial: FrozenTrial, space: MSNASSpace) -> Observation | None:
    """A trial with what it has stored; None if it has no AP of an architecture of the space."""
    if trial.state != TrialState.COMPLETE:
        return None
    try:
        architecture = space.decode(trial.params)
        plan = read_plan(trial)
    except ValueError:  # of another space, or with a plan of another version
        return None
    ap, attrs = trial.values[0], trial.user_attrs
    if space.violation(architecture) is not None or not math.isfinite(ap):
        return None
    return Observation(
        number=trial.number,
        architecture=architecture,
        ap=ap,
        generation=0 if plan is None else plan.generation,
        kind="other" if plan is None else _kind(plan.origin),
        parents=() if plan is None else plan.parents,
        gflops=number_in(attrs.get("gflops")),
        latency_ms=number_in(attrs.get("latency_ms")),
        ap_by_size=(
            number_in(attrs.get("ap_small")),
            number_in(attrs.get("ap_medium")),
            number_in(attrs.get("ap_large")),
        ),
    )


def _kind(origin: str) -> str:
    if origin == "random":
        return "random"
    for kind, prefix in (
        ("crossover", "crossover"),
        ("recombination", "recombination"),
        ("mutation", "mutat"),
    ):
        if origin.startswith(prefix):
            return kind
    return "other"


def number_in(value: object) -> float | None:
    """A stored value as a finite number, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
