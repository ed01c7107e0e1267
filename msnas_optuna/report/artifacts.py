"""Pictures of a study, stored where optuna-dashboard finds them."""

from __future__ import annotations

import json
import mimetypes
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import Study

from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.storage.optuna_private import (
    ARTIFACTS_ATTR_PREFIX,
    DEFAULT_MIME_TYPE,
    set_system_attr,
    system_attrs,
)

_NAMESPACE: Final = uuid.UUID("6f1c1f0e-3c0a-5d7b-9a53-0d9a7c3b2e41")
"""Of the ids of pictures."""


class ArtifactFolder(FileSystemArtifactStore):
    """An artifact store in a folder, which it makes; whatever happens, a file in it is whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self.folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes an artifact, in place of the one that has the name."""
        with atomic_write(self.folder / artifact_id, durable=False) as file:
            file.write(content_body.read())

    def content(self, artifact_id: str) -> bytes | None:
        """An artifact; None where the study was moved without its files."""
        try:
            with self.open_reader(artifact_id) as file:
                return file.read()
        except (ArtifactNotFound, ValueError):
            return None


class Picture(NamedTuple):
    """A stored picture: the id of its artifact, and the file's content."""

    artifact_id: str
    content: bytes


def put_pictures(
    study: Study, folder: ArtifactFolder, pictures: Mapping[str, bytes]
) -> dict[str, str]:
    """Stores pictures by file name; one of the same name is replaced and keeps its id.

    However many processes do so at once, and wherever one is killed, a name has one id.

    Returns:
        Artifact ids by file name.
    """
    known = _ids(study)
    first = study.get_trials(deepcopy=False)[:1]
    began = [trial.datetime_start.timestamp() for trial in first if trial.datetime_start]
    ids = {}
    for name, content in pictures.items():
        # All processes agree on it, and no other study of the folder has it.
        new = uuid.uuid5(_NAMESPACE, json.dumps([study.study_name, began, name]))
        ids[name] = known.get(name) or str(new)
        if folder.content(ids[name]) != content:
            folder.write(ids[name], BytesIO(content))
        if name not in known:  # as `optuna.artifacts.upload_artifact` does
            mimetype, encoding = mimetypes.guess_type(name)
            meta = ArtifactMeta(ids[name], name, mimetype or DEFAULT_MIME_TYPE, encoding)
            key = f"{ARTIFACTS_ATTR_PREFIX}{ids[name]}"
            set_system_attr(study, key, json.dumps(asdict(meta)))
    return ids


def stored_pictures(study: Study, folder: ArtifactFolder) -> dict[str, Picture]:
    """The stored pictures by file name."""
    contents = {name: (key, folder.content(key)) for name, key in sorted(_ids(study).items())}
    return {n: Picture(key, found) for n, (key, found) in contents.items() if found is not None}


def _ids(study: Study) -> dict[str, str]:
    """Ids of the artifacts of the study itself by file name."""
    attrs = system_attrs(study).items()
    texts = (value for key, value in attrs if key.startswith(ARTIFACTS_ATTR_PREFIX))
    metas = [meta for meta in map(json.loads, texts) if meta is not None]  # null: deleted
    return {meta["filename"]: meta["artifact_id"] for meta in metas}
