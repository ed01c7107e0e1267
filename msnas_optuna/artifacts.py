"""Pictures of a study, stored where optuna-dashboard finds them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import Study

from msnas_optuna.setting import Setting


class ArtifactFolder(FileSystemArtifactStore):
    """An artifact store in a folder; whatever happens, a file in it is whole.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes an artifact, in place of the one that has the name."""
        temporary = f".{artifact_id}.{os.getpid()}.tmp"
        try:
            super().write(temporary, content_body)
            os.replace(self._folder / temporary, self._folder / artifact_id)
        finally:
            (self._folder / temporary).unlink(missing_ok=True)


def artifact_folder(setting: Setting) -> ArtifactFolder:
    """Where the pictures of a study lie."""
    return ArtifactFolder(setting.artifact_dir)


def put_pictures(
    study: Study, folder: ArtifactFolder, pictures: Mapping[str, bytes]
) -> dict[str, str]:
    """Stores pictures by file name; one of the same name is replaced and keeps its id.

    Returns:
        Artifact ids by file name.
    """
    known = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
    for name, content in pictures.items():
        if name not in known:
            known[name] = _upload(study, folder, name, content)
        elif _stored(folder, known[name]) != content:
            folder.write(known[name], BytesIO(content))
    return {name: known[name] for name in pictures}


@dataclass(frozen=True)
class Picture:
    """A stored picture.

    Attributes:
        artifact_id: of Optuna's artifact.
        content: of the file.
    """

    artifact_id: str
    content: bytes


def stored_pictures(study: Study, folder: ArtifactFolder, prefix: str) -> dict[str, Picture]:
    """The stored pictures whose file name starts with `prefix`, by file name."""
    found = {}
    for meta in get_all_artifact_meta(study):
        content = _stored(folder, meta.artifact_id) if meta.filename.startswith(prefix) else None
        if content is not None:
            found[meta.filename] = Picture(meta.artifact_id, content)
    return dict(sorted(found.items()))


def _upload(study: Study, folder: ArtifactFolder, name: str, content: bytes) -> str:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / name
        file.write_bytes(content)
        return upload_artifact(artifact_store=folder, file_path=str(file), study_or_trial=study)


def _stored(folder: ArtifactFolder, artifact_id: str) -> bytes | None:
    try:
        with folder.open_reader(artifact_id) as file:
            return file.read()
    except (ArtifactNotFound, ValueError):  # a process died before it wrote the file
        return None
