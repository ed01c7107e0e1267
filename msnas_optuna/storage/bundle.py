"""Studies and their artifacts as one file: a zip archive of JSON, without pickles.

manifest.json       format, version, and for each study its name, directions and attributes
trials/0.jsonl      the trials of the first study, one a line
artifacts/ID        each file of the artifact store that a study or a trial refers to

JSON as Python writes it, with Infinity and NaN. Times are UTC.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.storage.records import CONFIG
from msnas_optuna.storage.snapshots import ARTIFACT, Snapshot

FORMAT: Final = "msnas-study"
VERSION: Final = 1
_MANIFEST: Final = "manifest.json"
_ARTIFACT_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")
"""What an artifact may be called: no folders, no hidden files."""

_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, LookupError, TypeError,
    AttributeError, ValueError,
)  # fmt: skip
"""What reading bytes that are no bundle raises."""


def save_bundle(path: Path, snapshots: Sequence[Snapshot], artifact_dir: Path) -> list[str]:
    """Writes studies and their artifacts; the file is there as a whole or not at all.

    Args:
        path: the new file.
        snapshots: the studies.
        artifact_dir: folder of the artifact store.

    Returns:
        The artifacts that the studies refer to, but whose files are missing.

    Raises:
        FileExistsError: the file is there already.
        ValueError: an artifact is no plain file name.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it, or give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                missing = _write(archive, snapshots, artifact_dir)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return missing


def _write(
    archive: zipfile.ZipFile, snapshots: Sequence[Snapshot], artifact_dir: Path
) -> list[str]:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "created": _utc(datetime.now()),
        "studies": [_study_to_json(snapshot) for snapshot in snapshots],
    }
    archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
    for i, snapshot in enumerate(snapshots):
        lines = "".join(json.dumps(trial_to_json(trial)) + "\n" for trial in snapshot.trials)
        archive.writestr(f"trials/{i}.jsonl", lines)
    missing = []
    for identifier in _artifact_ids(snapshots):
        file = artifact_dir / identifier
        if file.is_file():
            archive.write(file, f"artifacts/{identifier}")
        else:
            missing.append(identifier)
    return missing


def load_bundle(path: Path) -> list[Snapshot]:
    """The studies in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or no file that `save_bundle` of this version reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest["format"] != FORMAT or manifest["version"] != VERSION:
                raise ValueError(
                    f"format {manifest['format']} {manifest['version']}, this version reads "
                    f"{FORMAT} {VERSION}"
                )
            if (damaged := archive.testzip()) is not None:
                raise ValueError(damaged)
            snapshots = [
                _study_from_json(study, archive.read(f"trials/{i}.jsonl").decode().splitlines())
                for i, study in enumerate(manifest["studies"])
            ]
            _check_names([snapshot.name for snapshot in snapshots])
            return snapshots
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is no file that `msnas export-study` has written, or it is damaged "
            f"({error}); export the study again"
        ) from error


def extract_artifacts(path: Path, snapshots: Sequence[Snapshot], artifact_dir: Path) -> list[str]:
    """Puts the artifacts of a file into the artifact store; equal ones that are there stay.

    Only names that the studies refer to are read, and they have no folders: nothing is written
    anywhere else.

    Returns:
        The artifacts that the studies refer to, but that neither the file nor the store has.

    Raises:
        ValueError: an artifact is no plain file name, or the store has another of its name; then
            nothing is written.
        OSError: the store cannot be written.
    """
    with zipfile.ZipFile(path) as archive:
        stored, wanted = set(archive.namelist()), _artifact_ids(snapshots)
        there = {i for i in wanted if (artifact_dir / i).exists()}
        for identifier in sorted(there):
            name = f"artifacts/{identifier}"
            if name in stored and not _holds(artifact_dir / identifier, archive, name):
                raise ValueError(
                    f"{artifact_dir / identifier} differs from the artifact of this name in "
                    f"{path}, and an import overwrites nothing; move the folder {artifact_dir} "
                    "away, or import with another study.run_dir"
                )
        for identifier in wanted:
            if identifier not in there and f"artifacts/{identifier}" in stored:
                _extract(archive, f"artifacts/{identifier}", artifact_dir / identifier)
    return [i for i in wanted if i not in there and f"artifacts/{i}" not in stored]


def _holds(file: Path, archive: zipfile.ZipFile, name: str) -> bool:
    """Whether a file has the bytes of an entry."""
    if file.stat().st_size != archive.getinfo(name).file_size:
        return False
    return file.read_bytes() == archive.read(name)


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Writes an entry to a file, which is there as a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with archive.open(name) as source, temporary.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())  # an empty one would keep the next import out
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _artifact_ids(snapshots: Iterable[Snapshot]) -> list[str]:
    """Each artifact once, in order.

    Raises:
        ValueError: one is no plain file name.
    """
    found = dict.fromkeys(i for snapshot in snapshots for i in snapshot.artifact_ids())
    for identifier in found:
        if not _ARTIFACT_ID.fullmatch(identifier):
            raise ValueError(
                f"an artifact is a file of the artifact store, named by letters, digits, '.', '_' "
                f"and '-'; got {identifier!r}"
            )
    return list(found)


def _study_to_json(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "name": snapshot.name,
        "directions": snapshot.directions,
        "study_id": snapshot.study_id,
        "user_attrs": dict(snapshot.user_attrs),
        "system_attrs": dict(snapshot.system_attrs),
    }


def _study_from_json(study: dict[str, Any], lines: Sequence[str]) -> Snapshot:
    name, directions = study["name"], study["directions"]
    if not directions or not all(d in ("maximize", "minimize") for d in directions):
        raise ValueError(
            f"the directions of study {name!r} must be 'maximize' or 'minimize', got {directions}"
        )
    _check_attributes(f"study {name!r}", study)
    trials = [_checked_trial(json.loads(line), len(directions)) for line in lines]
    if [trial.number for trial in trials] != list(range(len(trials))):
        raise ValueError("trials must be numbered from 0 without a gap")
    if trials and CONFIG not in study["user_attrs"]:
        raise ValueError(f"study {name!r} has trials, but no configuration {CONFIG}")
    return Snapshot(
        name=name,
        directions=tuple(directions),
        user_attrs=study["user_attrs"],
        system_attrs=study["system_attrs"],
        trials=trials,
        study_id=study["study_id"],
    )


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"studies must have names, each another one, got {names}")


def _checked_trial(stored: dict[str, Any], n_values: int) -> FrozenTrial:
    """A trial that Optuna takes."""
    where = f"trial {stored['number']}"
    _check_attributes(where, stored)
    trial = trial_from_json(stored)
    try:
        trial._validate()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if trial.values is not None and len(trial.values) != n_values:
        raise ValueError(f"{where} must have {n_values} values, got {trial.values}")
    return trial


def _check_attributes(where: str, stored: Mapping[str, Any]) -> None:
    """Whether a study or a trial has attributes by name, and artifacts that JSON describes."""
    for kind in ("user_attrs", "system_attrs"):
        if not isinstance(stored[kind], dict):
            raise ValueError(f"{kind} of {where} must be an object, got {stored[kind]!r:.80}")
    for key, value in stored["system_attrs"].items():
        if key.startswith(ARTIFACT):
            try:
                json.loads(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"attribute {key} of {where} must be JSON in a string, got {value!r:.80}"
                ) from None


def trial_to_json(trial: FrozenTrial) -> dict[str, Any]:
    """A trial in types that JSON keeps."""
    return {
        "number": trial.number,
        "trial_id": trial._trial_id,
        "state": trial.state.name,
        "values": trial.values,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
        "params": trial.params,
        "distributions": {
            name: json.loads(distribution_to_json(distribution))
            for name, distribution in trial.distributions.items()
        },
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "intermediate_values": trial.intermediate_values,
    }


def trial_from_json(stored: dict[str, Any]) -> FrozenTrial:
    """The inverse of `trial_to_json`."""
    return FrozenTrial(
        number=stored["number"],
        trial_id=stored["trial_id"],
        state=TrialState[stored["state"]],
        value=None,
        values=stored["values"],
        datetime_start=_local(stored["datetime_start"]),
        datetime_complete=_local(stored["datetime_complete"]),
        params=stored["params"],
        distributions={
            name: json_to_distribution(json.dumps(distribution))
            for name, distribution in stored["distributions"].items()
        },
        user_attrs=stored["user_attrs"],
        system_attrs=stored["system_attrs"],
        intermediate_values={int(k): v for k, v in stored["intermediate_values"].items()},
    )


def _utc(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


def _local(text: str | None) -> datetime | None:
    """Local time without a zone, as Optuna keeps it in memory."""
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
