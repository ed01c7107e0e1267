"""Studies and their artifacts as one zip file.

study.db            an ordinary sqlite database of Optuna
artifacts/ID        each file of the artifact store that a study or a trial refers to
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study

from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.storage.opening import StorageError, open_storage
from msnas_optuna.storage.studies import StudyMismatchError
from msnas_optuna.storage.transfer import Progress, artifact_ids, copy_studies
from msnas_optuna.storage.urls import sqlite_url

_DATABASE: Final = "study.db"
_FIRST_FORMAT: Final = "manifest.json"  # what earlier versions wrote in place of a database


def save_bundle(
    path: Path, studies: Sequence[Study], artifact_dir: Path, *, progress: Progress | None = None
) -> None:
    """Writes studies, first the one that the others belong to, and artifacts that are there.

    Raises:
        FileExistsError: the file is there already; a new one appears as a whole.
        ValueError: an artifact is no plain file name.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it, or give another name")
    identifiers = {identifier for study in studies for identifier in artifact_ids(study)}
    with TemporaryDirectory() as folder:
        database = Path(folder) / _DATABASE
        storage = open_storage(sqlite_url(database))
        copy_studies(studies, storage, progress=progress)
        _close(storage)
        with (
            atomic_write(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            archive.write(database, _DATABASE)
            for identifier in sorted(identifiers):
                if (artifact_dir / identifier).is_file():
                    archive.write(artifact_dir / identifier, _entry(identifier))


@contextmanager
def open_bundle(path: Path) -> Iterator[tuple[BaseStorage, zipfile.ZipFile]]:
    """The storage and the archive in a file that `save_bundle` has written.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or no such file.
        StudyMismatchError: an earlier version has written it.
    """
    if not path.is_file():
        raise ValueError(
            f"there is no file {path}; give one that `msnas export-study` has written, or the URL "
            "of a storage"
        )
    with TemporaryDirectory() as folder:
        try:
            archive = zipfile.ZipFile(path)
            if _FIRST_FORMAT in archive.namelist():
                raise StudyMismatchError(
                    f"{path} holds studies of an earlier version of msnas-optuna; go on with that "
                    "version, or search anew"
                )
            if (damaged := archive.testzip()) is not None:
                raise ValueError(damaged)
            archive.extract(_DATABASE, folder)
            storage = open_storage(sqlite_url(Path(folder) / _DATABASE))
        except StudyMismatchError:
            raise
        except (
            zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, LookupError, ValueError,
            NotImplementedError, StorageError,
        ) as error:  # fmt: skip
            raise ValueError(
                f"{path} is no file that `msnas export-study` of this version has written, or it "
                f"is damaged ({error}); export the study again"
            ) from error
        try:
            yield storage, archive
        finally:
            archive.close()
            _close(storage)


def extract_artifacts(
    archive: zipfile.ZipFile, identifiers: Iterable[str], artifact_dir: Path
) -> None:
    """Puts those artifacts that a bundle has into the artifact store; equal ones there stay.

    Raises:
        ValueError: the store has another artifact of the name; then nothing is written.
        OSError: the store cannot be written.
    """
    stored = {entry.filename: entry for entry in archive.infolist()}
    wanted = [i for i in dict.fromkeys(identifiers) if _entry(i) in stored]
    present = {i for i in wanted if (artifact_dir / i).exists()}
    for identifier in sorted(present):
        if zlib.crc32((artifact_dir / identifier).read_bytes()) != stored[_entry(identifier)].CRC:
            raise ValueError(
                f"{artifact_dir / identifier} differs from the artifact of this name in "
                f"{archive.filename}, and an import overwrites nothing; move the folder "
                f"{artifact_dir} away, or import with another study.run_dir"
            )
    for identifier in wanted:
        if identifier not in present:
            with (
                archive.open(_entry(identifier)) as source,
                atomic_write(artifact_dir / identifier) as file,
            ):
                shutil.copyfileobj(source, file)


def _entry(identifier: str) -> str:
    return f"artifacts/{identifier}"


def _close(storage: BaseStorage) -> None:
    assert isinstance(storage, RDBStorage)
    storage.engine.dispose()
