"""Moves the studies of a study file between storages: into a file, out of one, or directly.

Where the text that names the other side is the URL of a storage, the studies go there; else it
is a file, which holds the artifacts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import optuna
from optuna.storages import BaseStorage

from msnas_optuna.storage import (
    StudyMismatchError,
    is_storage_url,
    open_storage,
    require_config,
    require_usable,
    storage_exists,
)
from msnas_optuna.storage.bundle import extract_artifacts, open_bundle, save_bundle
from msnas_optuna.storage.transfer import (
    Progress,
    artifact_ids,
    copy_studies,
    is_evaluated_now,
    refuse_present,
)
from msnas_optuna.study.setting import Setting


@dataclass(frozen=True)
class Transfer:
    """The studies that an export or an import has copied."""

    studies: dict[str, int]  # name -> number of trials
    artifacts: int
    copied: bool  # the artifacts went along; between two storages they stay in the run folder
    missing: list[str]  # artifacts that the studies refer to, but whose files are nowhere
    unfinished: int  # trials that a process was evaluating; the copy repeats them


def export_study(
    setting: Setting, destination: str, *, progress: Progress | None = None
) -> Transfer:
    """Copies the search and its stages to a new file, or a storage that has none of them.

    Raises:
        ValueError: the study has not begun.
        FileExistsError, StudyMismatchError: the destination has it already.
    """
    exists = storage_exists(setting.storage_url)
    studies = _studies_of(setting, setting.storage) if exists else []
    if not studies:
        names = ", ".join(map(setting.study_name, setting.stages))
        raise ValueError(f"there is nothing to export: the storage has no study {names}")
    to_file = not is_storage_url(destination)
    transfer = _transfer(studies, setting.artifact_dir, copied=to_file)
    if to_file:
        save_bundle(Path(destination), studies, setting.artifact_dir, progress=progress)
    else:
        copy_studies(studies, open_storage(destination), progress=progress)
    return transfer


def import_study(setting: Setting, source: str, *, progress: Progress | None = None) -> Transfer:
    """Copies the search and its stages from a file or a storage into that of the study file.

    Raises:
        ValueError: the source is no export, or the run folder has other artifacts of the names.
        StudyMismatchError: the study exists, was made with other settings, or is not there.
    """
    with ExitStack() as opened:
        archive: ZipFile | None = None
        if not is_storage_url(source):
            storage, archive = opened.enter_context(open_bundle(Path(source)))
        elif storage_exists(source):
            storage = open_storage(source)
        else:
            raise ValueError(
                f"the storage {source} to import from does not exist; correct its URL"
            )
        studies = _studies_of(setting, storage)
        if not studies:
            raise StudyMismatchError(
                f"the import must hold the study {setting.study_name()!r} of study.name or its "
                f"stages, got {optuna.get_all_study_names(storage)}; set study.name to the name "
                "that was exported"
            )
        if studies[0].study_name == setting.study_name():
            require_config(studies[0], setting.config.identity())
        identifiers = [identifier for study in studies for identifier in artifact_ids(study)]
        if storage_exists(setting.storage_url):  # before the artifacts are written
            refuse_present(setting.storage, [study.study_name for study in studies])
        if archive is not None:
            extract_artifacts(archive, identifiers, setting.artifact_dir)
        copy_studies(studies, setting.storage, progress=progress)
        return _transfer(studies, setting.artifact_dir, copied=archive is not None)


def _studies_of(setting: Setting, storage: BaseStorage) -> list[optuna.Study]:
    """The search and its stages, as far as they have begun."""
    names = map(setting.study_name, setting.stages_in(storage))
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    for study in studies:
        require_usable(study)
    return studies


def _transfer(studies: Sequence[optuna.Study], artifact_dir: Path, *, copied: bool) -> Transfer:
    trials = {study.study_name: study.get_trials(deepcopy=False) for study in studies}
    identifiers = [identifier for study in studies for identifier in artifact_ids(study)]
    return Transfer(
        studies={name: len(its_trials) for name, its_trials in trials.items()},
        artifacts=len(identifiers),
        copied=copied,
        missing=[i for i in dict.fromkeys(identifiers) if not (artifact_dir / i).is_file()],
        unfinished=sum(is_evaluated_now(t) for its_trials in trials.values() for t in its_trials),
    )
