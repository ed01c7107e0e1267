"""Queues architectures that a study is to evaluate whatever its sampler proposes.

"Multi-Scale Network Architecture Search for Object Detection", ICLR 2021 submission, Tables 7-9:
the published architectures have names, r18-1 to r50-5.
"""

from __future__ import annotations

from collections.abc import Iterable

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna.methods.msnas.published import resolve_architecture
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.spaces.base import FeasibleSet, InvalidArchitectureError
from msnas_optuna.storage import QUEUED, is_withdrawn, known_params, read_plan, withdraw


def resolve_architectures(
    architectures: Iterable[Architecture | str],
    space: MSNASSpace,
    *,
    feasible: FeasibleSet[Architecture] | None = None,
) -> list[Architecture]:
    """Each architecture once, in order.

    Args:
        architectures: values, names or texts, see `spaces.published.resolve_architecture`.
        space: the study's space.
        feasible: what the study may evaluate; None allows all that is valid.

    Raises:
        InvalidArchitectureError: one is unknown, invalid or not feasible; it is named.
    """
    if isinstance(architectures, str):
        raise InvalidArchitectureError(
            f"architectures must be a list of names or values, got {architectures!r} alone"
        )
    known = feasible or space
    resolved: dict[Architecture, None] = {}
    for given in architectures:
        architecture = resolve_architecture(given, space) if isinstance(given, str) else given
        if not isinstance(architecture, Architecture):
            raise InvalidArchitectureError(
                f"{given!r} cannot be queued: it is neither an Architecture nor a text"
            )
        if (violation := known.violation(architecture)) is not None:
            raise InvalidArchitectureError(f"{str(given)!r} cannot be queued: {violation}")
        resolved[architecture] = None
    return list(resolved)


def queue_architectures(
    study: Study,
    space: MSNASSpace,
    architectures: Iterable[Architecture | str],
    *,
    feasible: FeasibleSet[Architecture] | None = None,
    retry_failed: bool = False,
) -> int:
    """Queues the architectures that the study does not hold; its next trials evaluate them.

    Args:
        study: the study.
        space: its space.
        architectures: values, names (`r18-5`, `fpn-like`) or texts (`1 2 2 .5 | 8 8 16 16 32`).
        feasible: what the study may evaluate; None allows all that is valid.
        retry_failed: whether to queue those again whose trials have all failed.

    Returns:
        How many were queued.

    Raises:
        InvalidArchitectureError: one is unknown, invalid or not feasible; then none is queued.
    """
    gone = (TrialState.FAIL, TrialState.PRUNED) if retry_failed else ()
    wanted = resolve_architectures(architectures, space, feasible=feasible)
    held = {_held(t, space) for t in study.get_trials(deepcopy=False) if t.state not in gone}
    missing = [architecture for architecture in wanted if architecture not in held]
    for architecture in missing:
        # Not `enqueue_trial`: optuna-dashboard loses its axes over trials without parameters.
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=space.encode(architecture),
                distributions={**space.distributions},
                system_attrs={QUEUED: True},
            )
        )
    for architecture in missing:  # another worker may have queued the same meanwhile
        trials = study.get_trials(deepcopy=False)
        equal = [t for t in trials if t.state not in gone and _held(t, space) == architecture]
        withdraw(study, equal[1:])
    return len(missing)


def _held(trial: FrozenTrial, space: MSNASSpace) -> Architecture | None:
    if is_withdrawn(trial):
        return None
    try:
        return space.decode(known_params(trial, read_plan(trial)))
    except InvalidArchitectureError:
        return None
