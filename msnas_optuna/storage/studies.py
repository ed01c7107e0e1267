"""Creates studies, and resumes those that were made with the same configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection

from msnas_optuna.storage.quiet import quiet
from msnas_optuna.storage.records import CONFIG


class StudyMismatchError(ValueError):
    """A stored study was created with another configuration than the one that resumes it."""


def open_study(
    storage: BaseStorage,
    *,
    name: str,
    directions: Sequence[str | StudyDirection],
    sampler: BaseSampler,
    config: Mapping[str, Any],
    metric_names: Sequence[str] | None = None,
) -> Study:
    """Creates a study, or resumes the stored one of this name.

    Args:
        storage: where the study lives.
        name: name of the study.
        directions: "maximize" or "minimize" for each objective.
        sampler: proposes architectures.
        config: what must not change while the study lives, in JSON types.
        metric_names: names of the objectives; "AP" where there is one and None is given.

    Raises:
        StudyMismatchError: the stored study has other directions or another configuration.
        ValueError: a direction is neither "maximize" nor "minimize".
    """
    asked = [_direction(d) for d in directions]
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=asked,
        sampler=sampler,
        load_if_exists=True,
    )
    wanted: dict[str, Any] = json.loads(json.dumps(dict(config)))
    stored = study.user_attrs.get(CONFIG)
    if stored is None and study.get_trials(deepcopy=False):
        raise StudyMismatchError(
            f"study {name!r} was not created by msnas: it has trials, but no configuration; "
            "choose another study name"
        )
    _refuse_mismatch(
        name,
        {"directions": _words(study.directions), **(wanted if stored is None else stored)},
        {"directions": _words(asked), **wanted},
    )
    if stored is None:
        study.set_user_attr(CONFIG, wanted)
    _name_metrics(study, metric_names)
    return study


def _direction(direction: str | StudyDirection) -> StudyDirection:
    if isinstance(direction, StudyDirection):
        return direction
    if direction not in ("maximize", "minimize"):
        raise ValueError(f"a direction is 'maximize' or 'minimize', got {direction!r}")
    return StudyDirection[direction.upper()]


def _words(directions: Sequence[StudyDirection]) -> list[str]:
    return [direction.name.lower() for direction in directions]


def _name_metrics(study: Study, names: Sequence[str] | None) -> None:
    wanted = ["AP"] if names is None and len(study.directions) == 1 else names
    if wanted is None or study.metric_names == list(wanted):
        return
    with quiet():
        study.set_metric_names(list(wanted))


def require_config(study: Study, config: Mapping[str, Any]) -> None:
    """Compares the configuration, as far as it is given, with that of a stored study.

    Digests of files may be left out, because they take data to compute.

    Raises:
        StudyMismatchError: a key has another value.
    """
    stored: dict[str, Any] = study.user_attrs.get(CONFIG) or {}
    wanted = json.loads(json.dumps(dict(config)))
    digests = {key for key in stored if key.endswith(".sha256")} - wanted.keys()
    known = {key: value for key, value in stored.items() if key not in digests}
    _refuse_mismatch(study.study_name, known, wanted)


def _refuse_mismatch(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    was, now = flatten(stored), flatten(wanted)
    lines = [
        f"  {key}: {_shown(was, key)} stored, {_shown(now, key)} given"
        for key in sorted(was.keys() | now.keys())
        if key not in was or key not in now or was[key] != now[key]
    ]
    if lines:
        raise StudyMismatchError(
            f"study {name!r} exists with another configuration:\n"
            + "\n".join(lines)
            + "\nrestore the stored values, or choose another study name"
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one with dotted keys, as in a study file: `sampler.population_size`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "nothing"
