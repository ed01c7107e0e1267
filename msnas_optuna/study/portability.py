"""Moves the studies of a study file between storages: into a file, out of one, or directly.

Where the text that names the other side is the URL of a storage, the studies go there; else it
is a file, which holds the artifacts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from msnas_optuna.storage import (
    CONFIG,
    StudyMismatchError,
    is_storage_url,
    open_storage,
    require_equal,
    storage_exists,
)
from msnas_optuna.storage.bundle import extract_artifacts, load_bundle, save_bundle
from msnas_optuna.storage.snapshots import (
    Progress,
    Snapshot,
    put_snapshots,
    refuse_present,
    take_snapshot,
)
from msnas_optuna.study.config import ADDED_KEYS
from msnas_optuna.study.setting import Setting


@dataclass(frozen=True)
class Moved:
    """What was moved.

    Attributes:
        studies: name -> number of trials.
        artifacts: how many files belong to them.
        copied: whether those went along; between two storages they stay in the run folder.
        missing: artifacts that the studies refer to, but whose files are nowhere.
        unfinished: trials that a process was evaluating; the copy repeats them.
    """

    studies: dict[str, int]
    artifacts: int
    copied: bool
    missing: list[str]
    unfinished: int


def export_study(setting: Setting, destination: str, *, progress: Progress | None = None) -> Moved:
    """Copies the search and its stages out of the storage of the study file.

    Args:
        setting: the study file.
        destination: a new file, or the URL of a storage that has none of the studies. Artifacts
            stay in the run folder where it is a storage.
        progress: told how many trials are written into a storage.

    Raises:
        ValueError: the study has not begun.
        FileExistsError, StudyMismatchError: the destination has it already.
    """
    if not storage_exists(setting.storage_url):
        raise _absent(setting)
    snapshots = _snapshots(setting, setting.storage)
    if not snapshots:
        raise _absent(setting)
    if is_storage_url(destination):
        put_snapshots(open_storage(destination), snapshots, progress=progress)
        return _moved(snapshots, _missing(setting, snapshots), copied=False)
    missing = save_bundle(Path(destination), snapshots, setting.artifact_dir)
    return _moved(snapshots, missing, copied=True)


def import_study(setting: Setting, source: str, *, progress: Progress | None = None) -> Moved:
    """Copies the search and its stages into the storage of the study file.

    Args:
        setting: the study file; its storage has none of the studies.
        source: a file that `export_study` has written, or the URL of a storage.
        progress: told how many trials are written.

    Raises:
        ValueError: the source is no export, or does not hold the search of the study file, or
            the run folder has other artifacts of the same names.
        StudyMismatchError: the study exists, or was made with other settings.
    """
    from_storage = is_storage_url(source)
    if not from_storage:
        snapshots = load_bundle(Path(source))
    elif storage_exists(source):
        snapshots = _snapshots(setting, open_storage(source))
    else:
        raise ValueError("the storage to import from does not exist; correct its URL")
    _check(setting, snapshots)
    if storage_exists(setting.storage_url):  # before the artifacts are written
        refuse_present(setting.storage, [snapshot.name for snapshot in snapshots])
    if from_storage:
        missing = _missing(setting, snapshots)
    else:
        missing = extract_artifacts(Path(source), snapshots, setting.artifact_dir)
    put_snapshots(setting.storage, snapshots, progress=progress)
    return _moved(snapshots, missing, copied=not from_storage)


def _snapshots(setting: Setting, storage: optuna.storages.BaseStorage) -> list[Snapshot]:
    present = set(optuna.get_all_study_names(storage))
    names = [setting.study_name(stage) for stage in setting.stages]
    return [take_snapshot(storage, name) for name in names if name in present]


def _absent(setting: Setting) -> ValueError:
    names = [setting.study_name(stage) for stage in setting.stages]
    return ValueError(f"there is nothing to export: the storage has no study {', '.join(names)}")


def _check(setting: Setting, snapshots: Sequence[Snapshot]) -> None:
    """Whether the study file can go on with them."""
    known = {setting.study_name(stage) for stage in setting.stages}
    names = {snapshot.name for snapshot in snapshots}
    if not names or names - known:
        raise StudyMismatchError(
            f"the import must hold the study {setting.study_name()!r} of study.name or its "
            f"stages, got {sorted(names)}; set study.name to the name that was exported"
        )
    for snapshot in snapshots:
        if snapshot.name == setting.study_name() and CONFIG in snapshot.user_attrs:
            stored = snapshot.user_attrs[CONFIG]
            require_equal(snapshot.name, stored, setting.config.identity(), added=ADDED_KEYS)


def _missing(setting: Setting, snapshots: Sequence[Snapshot]) -> list[str]:
    identifiers = [i for snapshot in snapshots for i in snapshot.artifact_ids()]
    return [i for i in identifiers if not (setting.artifact_dir / i).is_file()]


def _moved(snapshots: Sequence[Snapshot], missing: list[str], *, copied: bool) -> Moved:
    return Moved(
        studies={snapshot.name: len(snapshot.trials) for snapshot in snapshots},
        artifacts=sum(len(snapshot.artifact_ids()) for snapshot in snapshots),
        copied=copied,
        missing=missing,
        unfinished=sum(len(snapshot.unfinished()) for snapshot in snapshots),
    )
