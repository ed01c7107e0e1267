"""Studies and their artifacts as one zip file.

study.db            an ordinary sqlite database of Optuna
artifacts/ID        each file of the artifact store that a study or a trial refers to
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study

from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.storage.opening import empty_database, open_storage
from msnas_optuna.storage.studies import StudyMismatchError
from msnas_optuna.storage.transfer import ARTIFACT_ID, Progress, artifact_ids, copy_studies
from msnas_optuna.storage.urls import sqlite_url

_DATABASE: Final = "study.db"
_ENTRY: Final = re.compile(rf"study\.db|artifacts/{ARTIFACT_ID.pattern}")
_SMALL: Final = 1 << 20  # bytes that any file may unpack to
_RATIO: Final = 20  # times its size that a larger one may unpack to; of 600 trials 6
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
        content = database.read_bytes()
        dense = len(content) > _RATIO * len(zlib.compress(content))  # an import would refuse it
        method = zipfile.ZIP_STORED if dense else zipfile.ZIP_DEFLATED
        with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(_DATABASE, content, method)
            for identifier in sorted(identifiers):  # pictures, which are small already
                if (artifact_dir / identifier).is_file():
                    archive.write(artifact_dir / identifier, _entry(identifier))


@contextmanager
def open_bundle(path: Path) -> Iterator[tuple[BaseStorage, zipfile.ZipFile]]:
    """The storage and the archive in a file that `save_bundle` has written.

    The file may come from anybody: entries, sizes and tables are those of such a file, and all
    studies can be read, before anything is handed out.

    Raises:
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
            _check_entries(archive.infolist(), path.stat().st_size)
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} has another checksum")
            database, empty = Path(archive.extract(_DATABASE, folder)), Path(folder) / "empty.db"
            empty.write_bytes(empty_database())
            if _layout(database) != _layout(empty):
                raise ValueError(f"its tables are not those of Optuna {optuna.__version__}")
            storage = open_storage(sqlite_url(database))
            for name in optuna.get_all_study_names(storage):
                artifact_ids(optuna.load_study(study_name=name, storage=storage))  # reads it all
        except StudyMismatchError:
            raise
        except Exception as error:  # a file that somebody has made can raise anything
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


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Raises ValueError where an archive of `size` bytes is none that `save_bundle` writes."""
    content = sum(entry.file_size for entry in entries)
    if content > max(_SMALL, _RATIO * size):
        raise ValueError(f"it unpacks to {content:,} bytes, more than {_RATIO} times its size")
    for entry in entries:
        if not _ENTRY.fullmatch(entry.filename):
            raise ValueError(f"an entry is named {entry.filename!r:.80}")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{entry.filename} is compressed by another method")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("two entries have one name")


def _layout(database: Path) -> list[tuple[str, str, str]]:
    """Type, name and definition of all that an SQLite file defines; nothing of it runs."""
    with closing(sqlite3.connect(database)) as connection:
        select = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
        return connection.execute(select).fetchall()


def _entry(identifier: str) -> str:
    return f"artifacts/{identifier}"


def _close(storage: BaseStorage) -> None:
    assert isinstance(storage, RDBStorage)
    storage.engine.dispose()
