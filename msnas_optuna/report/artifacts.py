"""Pictures of a study, stored where optuna-dashboard finds them."""

from __future__ import annotations

import json
import mimetypes
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, DEFAULT_MIME_TYPE
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import Study

from msnas_optuna.study.setting import Setting

_NAMESPACE: Final = uuid.UUID("6f1c1f0e-3c0a-5d7b-9a53-0d9a7c3b2e41")
"""Of the ids of pictures."""


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

    However many processes do so at once, and wherever one is killed, a name has one id.

    Returns:
        Artifact ids by file name.
    """
    known = _ids(study)
    ids = {name: known.get(name) or _new_id(study, name) for name in pictures}
    for name, content in pictures.items():
        if _stored(folder, ids[name]) != content:
            folder.write(ids[name], BytesIO(content))
        if name not in known:
            _announce(study, ids[name], name)
    return ids


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
    for name, identifier in sorted(_ids(study).items()):
        content = _stored(folder, identifier) if name.startswith(prefix) else None
        if content is not None:
            found[name] = Picture(identifier, content)
    return found


def _ids(study: Study) -> dict[str, str]:
    """Ids of the artifacts of the study itself by file name."""
    attrs = study._storage.get_study_system_attrs(study._study_id)
    texts = (value for key, value in attrs.items() if key.startswith(ARTIFACTS_ATTR_PREFIX))
    metas = [meta for meta in map(json.loads, texts) if meta is not None]  # null: deleted
    return {meta["filename"]: meta["artifact_id"] for meta in metas}


def _new_id(study: Study, name: str) -> str:
    """An id on which all processes agree, and which no other study of the folder has."""
    first = study.get_trials(deepcopy=False)[:1]
    began = [trial.datetime_start.timestamp() for trial in first if trial.datetime_start]
    return str(uuid.uuid5(_NAMESPACE, json.dumps([study.study_name, began, name])))


def _announce(study: Study, identifier: str, name: str) -> None:
    """Makes a file an artifact of the study, as `optuna.artifacts.upload_artifact` does."""
    mimetype, encoding = mimetypes.guess_type(name)
    meta = ArtifactMeta(
        artifact_id=identifier,
        filename=name,
        mimetype=mimetype or DEFAULT_MIME_TYPE,
        encoding=encoding,
    )
    study._storage.set_study_system_attr(
        study._study_id, f"{ARTIFACTS_ATTR_PREFIX}{identifier}", json.dumps(asdict(meta))
    )


def _stored(folder: ArtifactFolder, artifact_id: str) -> bytes | None:
    try:
        with folder.open_reader(artifact_id) as file:
            return file.read()
    except (ArtifactNotFound, ValueError):  # the study was moved without its files
        return None
