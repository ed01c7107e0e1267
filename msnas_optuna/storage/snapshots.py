"""Takes a study out of one storage and puts it, unchanged, into another.

`optuna.copy_study` keeps numbers, states, values, parameters, attributes and times too, and our
search resumes from its copies. It leaves RUNNING trials that nobody will finish, notes and links
of optuna-dashboard that point to ids of the old storage, artifacts behind, and after a kill a
part of a study that looks like the whole.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.storage.dashboard import readdressed
from msnas_optuna.storage.quiet import quiet
from msnas_optuna.storage.records import IMPORT, INTERRUPTED, Worker, is_told
from msnas_optuna.storage.studies import StudyMismatchError, refuse_foreign, refuse_unfinished

ARTIFACT: Final = "artifacts:"
"""Prefix of the system attributes that Optuna keeps for each artifact."""


class Progress(Protocol):
    """Told how many of the trials have been written."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` are."""


@dataclass(frozen=True)
class Snapshot:
    """A whole study at one moment.

    Attributes:
        name: of the study.
        directions: "maximize" or "minimize" for each objective.
        user_attrs: of the study.
        system_attrs: of the study, with metric names, notes and figures.
        trials: all of them by number.
        study_id: in the storage it was taken from; addresses of optuna-dashboard contain it.
    """

    name: str
    directions: tuple[str, ...]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    trials: Sequence[FrozenTrial]
    study_id: int

    def artifact_ids(self) -> list[str]:
        """The files in the artifact store that belong to the study or to a trial."""
        attrs = [self.system_attrs, *(trial.system_attrs for trial in self.trials)]
        return [
            key.removeprefix(ARTIFACT)
            for one in attrs
            for key, value in one.items()
            if key.startswith(ARTIFACT) and json.loads(value) is not None  # null: deleted
        ]

    def unfinished(self) -> list[int]:
        """Numbers of the RUNNING trials that a process evaluates, so that no copy ends them."""
        return [trial.number for trial in self.trials if _is_cut_off(trial)]


def take_snapshot(storage: BaseStorage, name: str) -> Snapshot:
    """Reads a study.

    Raises:
        KeyError: there is no study of this name.
        StudyMismatchError: its own import has not ended, or another program has made it.
    """
    study = optuna.load_study(study_name=name, storage=storage)
    refuse_unfinished(study)
    refuse_foreign(study)
    trials = study.get_trials(deepcopy=False)
    return Snapshot(
        name=name,
        directions=tuple(direction.name.lower() for direction in study.directions),
        user_attrs=study.user_attrs,
        system_attrs={k: v for k, v in _system_attrs(study).items() if k != IMPORT},
        trials=trials,
        study_id=study._study_id,
    )


def put_snapshots(
    storage: BaseStorage, snapshots: Sequence[Snapshot], *, progress: Progress | None = None
) -> None:
    """Writes studies that belong together; after a kill, the same call begins anew.

    Until all are whole, each has a mark by which `open_study` refuses it. Trials that a process
    was evaluating become FAIL, marked as interrupted: the next run repeats them at their place.

    Args:
        storage: where they go; it has none of them.
        snapshots: the studies, first the one that the others belong to.
        progress: told how many trials are written, of all studies.

    Raises:
        StudyMismatchError: a study of one of the names exists, or is being imported.
    """
    for study in refuse_present(storage, [snapshot.name for snapshot in snapshots]):
        with suppress(KeyError):  # somebody else was faster
            optuna.delete_study(study_name=study.study_name, storage=storage)
    mark = {"attempt": str(uuid.uuid4()), "complete": False, **asdict(Worker.current())}
    total, done = sum(len(snapshot.trials) for snapshot in snapshots), 0
    with quiet():
        for snapshot in snapshots:
            for _ in _write(storage, snapshot, mark):
                done += 1
                if progress is not None:
                    progress(done, total)
        for snapshot in reversed(snapshots):  # the search, which comes first, is whole last
            study = optuna.load_study(study_name=snapshot.name, storage=storage)
            _set_system_attr(study, IMPORT, {**mark, "complete": True})


def _write(
    storage: BaseStorage, snapshot: Snapshot, mark: Mapping[str, Any]
) -> Iterator[FrozenTrial]:
    directions = [StudyDirection[word.upper()] for word in snapshot.directions]
    study = optuna.create_study(storage=storage, study_name=snapshot.name, directions=directions)
    _set_system_attr(study, IMPORT, dict(mark))
    now = datetime.now()
    for trial in snapshot.trials:
        study.add_trial(_ended(trial, now) if _is_cut_off(trial) else trial)
        yield trial
    written = study.get_trials(deepcopy=False)
    if len(written) != len(snapshot.trials):
        raise RuntimeError(
            f"study {snapshot.name!r} has {len(written)} trials after {len(snapshot.trials)} were "
            "imported: something else writes to it; stop that, and import again"
        )
    ids = {old._trial_id: t._trial_id for old, t in zip(snapshot.trials, written, strict=True)}
    attrs = readdressed(
        snapshot.system_attrs, study=(snapshot.study_id, study._study_id), trials=ids
    )
    for key, value in attrs.items():
        _set_system_attr(study, key, value)
    for key, value in snapshot.user_attrs.items():
        study.set_user_attr(key, value)


def _is_cut_off(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING and not is_told(trial)


def _ended(trial: FrozenTrial, now: datetime) -> FrozenTrial:
    """The trial as if its process had been stopped by Ctrl-C."""
    ended = copy.deepcopy(trial)
    ended.state, ended.datetime_complete = TrialState.FAIL, now
    ended.system_attrs[INTERRUPTED] = trial.number
    return ended


def refuse_present(storage: BaseStorage, names: Sequence[str]) -> list[Study]:
    """Refuses studies that an import would overwrite; returns what a killed import has left.

    Raises:
        StudyMismatchError: see `put_snapshots`.
    """
    present = set(optuna.get_all_study_names(storage)) & set(names)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in sorted(present)]
    marks = [_system_attrs(study).get(IMPORT) for study in studies]
    killed = {mark["attempt"] for mark in marks if mark and not mark["complete"]}
    for study, mark in zip(studies, marks, strict=True):
        # A whole one of the same attempt was marked just before the kill, and nobody could use
        # it: the others were not.
        if not _is_empty(study) and (mark is None or mark["attempt"] not in killed):
            raise StudyMismatchError(
                f"study {study.study_name!r} exists there, and an import overwrites nothing; "
                "import into another storage, or delete the study with `optuna delete-study`"
            )
        if mark is not None:
            _refuse_alive(study.study_name, mark)
    return studies


def _is_empty(study: Study) -> bool:
    """Whether nothing but its name is there: the kill came before the mark."""
    return not (study.get_trials(deepcopy=False) or study.user_attrs or _system_attrs(study))


def _refuse_alive(name: str, mark: Mapping[str, Any]) -> None:
    worker = Worker(**{k: mark[k] for k in ("host", "pid", "started", "trial")})
    if worker.is_dead() or worker.is_this():
        return
    where = "" if worker.is_here() else f" on {worker.host_name}"
    raise StudyMismatchError(
        f"study {name!r} is being imported by process {worker.pid}{where}; wait for it, or, if "
        "that process has ended, delete the study with `optuna delete-study` and import again"
    )


def _system_attrs(study: Study) -> dict[str, Any]:
    return study._storage.get_study_system_attrs(study._study_id)


def _set_system_attr(study: Study, key: str, value: Any) -> None:
    study._storage.set_study_system_attr(study._study_id, key, value)
