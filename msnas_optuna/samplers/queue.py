"""Queues architectures that a study is to evaluate whatever its sampler proposes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from msnas_optuna.spaces.base import A, FeasibleSet, InvalidArchitectureError, Space
from msnas_optuna.storage import (
    QUEUED,
    QUEUED_REPEAT,
    is_withdrawn,
    known_params,
    read_plan,
    withdraw,
)


def resolve_architectures(
    architectures: Iterable[A | str],
    space: Space[A],
    *,
    resolve: Callable[[str], A] | None = None,
    feasible: FeasibleSet[A] | None = None,
) -> list[A]:
    """Each architecture once, in order; `resolve` reads names and texts among them.

    Raises:
        InvalidArchitectureError: one is unknown, invalid or not feasible; it is named.
    """
    if isinstance(architectures, str):
        raise InvalidArchitectureError(
            f"architectures must be a list of names or values, got {architectures!r} alone"
        )
    resolved: dict[A, None] = {}
    for given in architectures:
        architecture = cast("A", resolve(given) if resolve and isinstance(given, str) else given)
        try:
            violation = (feasible or space).violation(architecture)
        except (AttributeError, TypeError) as error:
            raise InvalidArchitectureError(
                f"{given!r} cannot be queued: it is neither an architecture nor a text that "
                "`resolve` reads"
            ) from error
        if violation is not None:
            raise InvalidArchitectureError(f"{str(given)!r} cannot be queued: {violation}")
        resolved[architecture] = None
    return list(resolved)


def queue_architectures(
    study: Study,
    space: Space[A],
    architectures: Iterable[A | str],
    *,
    resolve: Callable[[str], A] | None = None,
    feasible: FeasibleSet[A] | None = None,
    retry_failed: bool = False,
    times: int | None = None,
) -> int:
    """Queues the architectures that the study does not hold; its next trials evaluate them.

    Args:
        study: the study.
        space: its space.
        architectures: values, or names and texts that `resolve` reads.
        resolve: name or text -> architecture, or InvalidArchitectureError.
        feasible: what the study may evaluate; None allows all that is valid.
        retry_failed: whether to queue those again whose trials have all failed.
        times: measurements of each, with other seeds; None is content with any one.

    Returns:
        How many were queued.

    Raises:
        InvalidArchitectureError: one is unknown, invalid or not feasible; then none is queued.
    """
    gone = (TrialState.FAIL, TrialState.PRUNED) if retry_failed else ()
    wanted = resolve_architectures(architectures, space, resolve=resolve, feasible=feasible)
    repeats = range(times or 1)

    def held(trial: FrozenTrial) -> tuple[A | None, int]:
        return _held(trial, space), _repeat(trial) if times else 0

    present = {held(t) for t in study.get_trials(deepcopy=False) if t.state not in gone}
    # All for the first time, then all for the second: whatever is finished can be compared.
    missing = [pair for repeat in repeats for a in wanted if (pair := (a, repeat)) not in present]
    for architecture, repeat in missing:
        # Not `enqueue_trial`: optuna-dashboard loses its axes over trials without parameters.
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=space.encode(architecture),
                distributions=dict(space.distributions),
                system_attrs={QUEUED: True, **({} if times is None else {QUEUED_REPEAT: repeat})},
            )
        )
    queued: dict[tuple[A | None, int], list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False) if missing else ():
        if trial.state not in gone:
            queued.setdefault(held(trial), []).append(trial)
    for pair in missing:  # another worker may have queued the same meanwhile
        withdraw(study, queued.get(pair, [])[1:])
    return len(missing)


def _held(trial: FrozenTrial, space: Space[A]) -> A | None:
    if is_withdrawn(trial):
        return None
    try:
        return space.decode(known_params(trial, read_plan(trial)))
    except InvalidArchitectureError:
        return None


def _repeat(trial: FrozenTrial) -> int:
    plan = read_plan(trial)
    stored = trial.system_attrs.get(QUEUED_REPEAT)
    return int(stored or 0) if plan is None else plan.repeat
