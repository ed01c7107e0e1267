"""Copies studies that belong together into another storage.

`optuna.copy_study` would leave RUNNING trials which nobody will finish, notes of optuna-dashboard
that point to ids of the old storage, and after a kill a part of a study that looks like the whole.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.storage.optuna_private import (
    ARTIFACTS_ATTR_PREFIX,
    quiet,
    set_system_attr,
    study_id,
    system_attrs,
    trial_id,
)
from msnas_optuna.storage.records import IMPORT, INTERRUPTED, Worker, is_told
from msnas_optuna.storage.studies import StudyMismatchError

# File names of artifacts: no folders, no hidden files. Keys of optuna-dashboard's notes of a study
# or, by its id, a trial, see its `_note.py`. Links of notes to artifacts of a study or a trial.
ARTIFACT_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")
_NOTE: Final = re.compile(r"dashboard:(?:(\d+):)?note_(?:ver|str:(\d+))")
_LINK: Final = re.compile(r"/artifacts/(\d+)/(?:(\d+)/)?(?=[0-9a-fA-F-])")

Progress = Callable[[int, int], None]  # called with the number of trials written, and of all


def copy_studies(
    studies: Sequence[Study], target: BaseStorage, *, progress: Progress | None = None
) -> None:
    """Copies studies, first the one that the others belong to; a killed call can be repeated.

    Until all are whole the first has a mark, by which `require_usable` refuses it. Trials that a
    process was evaluating become FAIL, marked as interrupted: the next run repeats them.

    Raises:
        StudyMismatchError: the target has one of them, or it is being imported.
    """
    names = [study.study_name for study in studies]
    for name in refuse_present(target, names):
        with suppress(KeyError):  # somebody else was faster
            optuna.delete_study(study_name=name, storage=target)
    mark = {"studies": names, "worker": asdict(Worker.current())}
    trials = [study.get_trials(deepcopy=False) for study in studies]
    total, done = sum(map(len, trials)), 0
    with quiet():
        for study, its_trials in zip(studies, trials, strict=True):
            copied = optuna.create_study(
                storage=target, study_name=study.study_name, directions=study.directions
            )
            if study is studies[0]:
                marked = copied
                set_system_attr(marked, IMPORT, mark)
            for trial in its_trials:
                if is_evaluated_now(trial):  # as if its process had been stopped by Ctrl-C
                    trial = copy.deepcopy(trial)
                    trial.state, trial.datetime_complete = TrialState.FAIL, datetime.now()
                    trial.system_attrs[INTERRUPTED] = trial.number
                copied.add_trial(trial)
                done += 1
                if progress is not None:
                    progress(done, total)
            _copy_attributes(study, its_trials, copied)
        set_system_attr(marked, IMPORT, None)


def is_evaluated_now(trial: FrozenTrial) -> bool:
    """True if a process evaluates the trial, so that nobody would end a copy of it."""
    return trial.state == TrialState.RUNNING and not is_told(trial)


def _copy_attributes(study: Study, trials: Sequence[FrozenTrial], copied: Study) -> None:
    ids = zip(map(trial_id, trials), map(trial_id, copied.get_trials(deepcopy=False)), strict=True)
    attributes = {key: value for key, value in system_attrs(study).items() if key != IMPORT}
    moved = readdressed(attributes, study=(study_id(study), study_id(copied)), trials=dict(ids))
    for key, value in moved.items():
        set_system_attr(copied, key, value)
    for key, value in study.user_attrs.items():
        copied.set_user_attr(key, value)


def readdressed(
    attributes: Mapping[str, Any], *, study: tuple[int, int], trials: Mapping[int, int]
) -> dict[str, Any]:
    """System attributes of a study (old id, new id), with notes that name the new ids."""

    def link(match: re.Match[str]) -> str:
        if int(match[1]) != study[0]:
            return match[0]
        trial = match[2] and f"{trials.get(int(match[2]), int(match[2]))}/"
        return f"/artifacts/{study[1]}/{trial or ''}"

    moved: dict[str, Any] = {}
    notes: dict[str, dict[int, str]] = {}  # beginning of the keys -> pieces of the text
    for key, value in attributes.items():
        match = _NOTE.fullmatch(key)
        if match is None:
            moved[key] = value
            continue
        whose = f"{trials.get(int(match[1]), int(match[1]))}:" if match[1] else ""
        if match[2] is None:
            moved[f"dashboard:{whose}note_ver"] = value
        else:
            notes.setdefault(f"dashboard:{whose}note_str:", {})[int(match[2])] = value
    for beginning, pieces in notes.items():
        moved[f"{beginning}0"] = _LINK.sub(link, "".join(pieces[i] for i in sorted(pieces)))
    return moved


def refuse_present(target: BaseStorage, names: Sequence[str]) -> list[str]:
    """Refuses studies that a copy would overwrite; returns what a killed one has left.

    Raises:
        StudyMismatchError: a study of one of the names exists, or is being imported.
    """
    stored = {
        name: optuna.load_study(study_name=name, storage=target)
        for name in optuna.get_all_study_names(target)
    }
    present = [study for name, study in stored.items() if name in names]
    marks = [mark for study in present if (mark := system_attrs(study).get(IMPORT)) is not None]
    if not marks:
        for study in present:  # one that has nothing but its name was killed before its mark
            if study.get_trials(deepcopy=False) or study.user_attrs or system_attrs(study):
                raise StudyMismatchError(
                    f"study {study.study_name!r} exists there, and an import overwrites nothing; "
                    "import into another storage, or delete the study with `optuna delete-study`"
                )
        return [study.study_name for study in present]
    worker = Worker(**marks[0]["worker"])
    if not (worker.is_dead() or worker.is_this()):
        where = "" if worker.is_here() else f" on {worker.host_name}"
        raise StudyMismatchError(
            f"study {names[0]!r} is being imported by process {worker.pid}{where}; wait for it, "
            "or, if that process has ended, delete the study with `optuna delete-study` and "
            "import again"
        )
    return [name for name in stored if name in {*names, *marks[0]["studies"]}]


def artifact_ids(study: Study) -> list[str]:
    """The files in the artifact store that a study or one of its trials refers to.

    Raises:
        ValueError: one is no plain file name.
    """
    trials = study.get_trials(deepcopy=False)
    found = [
        key.removeprefix(ARTIFACTS_ATTR_PREFIX)
        for attributes in (system_attrs(study), *(trial.system_attrs for trial in trials))
        for key, value in attributes.items()
        if key.startswith(ARTIFACTS_ATTR_PREFIX) and json.loads(value) is not None  # deleted
    ]
    for identifier in found:
        if not ARTIFACT_ID.fullmatch(identifier):
            raise ValueError(
                f"an artifact is a file of the artifact store, named by letters, digits, '.', '_' "
                f"and '-'; got {identifier!r}"
            )
    return found
