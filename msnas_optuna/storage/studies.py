"""Creates studies, and resumes those that were made with the same configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection

from msnas_optuna.storage.optuna_private import quiet, system_attrs
from msnas_optuna.storage.records import (
    CONFIG,
    EXTERNAL,
    IMPORT,
    LAYOUT,
    LAYOUT_VERSION,
    OBJECTIVE,
)

_CREATION_SECONDS: Final = 10.0  # if it still has no configuration then, its creator has died


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

    Of several processes that create it at once, the first one decides its `config`: what must not
    change while the study lives, in JSON types. A single objective is named "AP" by default.

    Raises:
        StudyMismatchError: the stored study differs, or cannot be used, see `require_usable`.
        ValueError: a direction is neither "maximize" nor "minimize".
    """
    for direction in directions:
        if direction not in ("maximize", "minimize", *StudyDirection):
            raise ValueError(f"a direction is 'maximize' or 'minimize', got {direction!r}")
    asked = [d if isinstance(d, StudyDirection) else StudyDirection[d.upper()] for d in directions]
    wanted: dict[str, Any] = json.loads(json.dumps(dict(config)))
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=asked, sampler=sampler
        )
        _write_config(study, wanted)
    except DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
    deadline = time.monotonic() + _CREATION_SECONDS
    while (stored := _read_config(study)) is None and time.monotonic() < deadline:
        require_usable(study)
        time.sleep(0.1)  # the process that has just created the study writes the configuration
    ways = {"directions": [d.name.lower() for d in study.directions]}
    asked_ways = {"directions": [d.name.lower() for d in asked]}
    if stored is None:  # whoever created it died before
        _refuse_mismatch(name, ways, asked_ways)
        _write_config(study, wanted)
        stored = _read_config(study) or wanted
    require_usable(study)
    refuse_mixed(study, external=_is_external(wanted))
    _refuse_mismatch(name, {**ways, **stored}, {**asked_ways, **wanted})
    if metric_names is None and len(directions) == 1:
        metric_names = ["AP"]
    if metric_names is not None and study.metric_names != list(metric_names):
        with quiet():
            study.set_metric_names(list(metric_names))
    return study


def _write_config(study: Study, config: Mapping[str, Any]) -> None:
    study.set_user_attr(LAYOUT, LAYOUT_VERSION)
    study.set_user_attr(CONFIG, config)


def _read_config(study: Study) -> dict[str, Any] | None:
    stored = study.user_attrs.get(CONFIG)
    if stored is not None and not isinstance(stored, dict):
        raise StudyMismatchError(
            f"the configuration of study {study.study_name!r} cannot be read: its user attribute "
            f"{CONFIG} is {stored!r:.80}; restore it, or choose another study name"
        )
    return stored


def require_usable(study: Study) -> None:
    """Keeps everyone away from a study that this version cannot go on with.

    Raises:
        StudyMismatchError: its import has not ended, or another program or version has made it.
    """
    name, attributes = study.study_name, study.user_attrs
    if system_attrs(study).get(IMPORT) is not None:
        raise StudyMismatchError(
            f"study {name!r} is a part of an import that has not ended; run the same "
            "`msnas import-study` again"
        )
    if CONFIG not in attributes:
        if study.get_trials(deepcopy=False):
            raise StudyMismatchError(
                f"study {name!r} was not created by msnas: it has trials, but no configuration; "
                "choose another study name"
            )
        return
    layout = attributes.get(LAYOUT, 1)
    if layout != LAYOUT_VERSION:
        raise StudyMismatchError(
            f"study {name!r} is stored in layout {layout!r}, this version of msnas-optuna uses "
            f"layout {LAYOUT_VERSION}; go on with the version that made the study, or choose "
            "another study.name and search anew"
        )


def require_config(study: Study, config: Mapping[str, Any]) -> None:
    """Compares the configuration of a stored study with another, as far as both can be known.

    Digests of files, which take data to compute, may be left out, as may be where values come
    from. A study of an external trainer has no digests.

    Raises:
        StudyMismatchError: a key has another value.
    """
    stored, wanted = _read_config(study) or {}, json.loads(json.dumps(dict(config)))
    optional = ({key for key in stored if key.endswith(".sha256")} | {OBJECTIVE}) - wanted.keys()
    if _is_external(stored):
        optional |= {key for key in wanted if key.endswith(".sha256")}
    was, now = ({k: v for k, v in one.items() if k not in optional} for one in (stored, wanted))
    _refuse_mismatch(study.study_name, was, now)


def refuse_mixed(study: Study, *, external: bool) -> None:
    """Keeps values of an external trainer and of the supernet apart; `external` are to be added.

    Raises:
        StudyMismatchError: the study has values of the other kind.
    """
    stored = _read_config(study)
    if stored is None or _is_external(stored) == external:
        return
    told, searched = "an external trainer (`msnas tell`)", "the supernet (`msnas search`)"
    source, other = (searched, told) if external else (told, searched)
    verbs = "`msnas search`" if external else "`msnas ask` and `msnas tell`"
    raise StudyMismatchError(
        f"study {study.study_name!r} takes its values from {source}; those of {other} cannot be "
        f"ranked beside them. Continue it with {verbs}, or choose another study.name"
    )


def is_external(study: Study) -> bool:
    """True if an external trainer tells the values of a study."""
    return _is_external(_read_config(study) or {})


def _is_external(config: Mapping[str, Any]) -> bool:
    return config.get(OBJECTIVE) == EXTERNAL


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
