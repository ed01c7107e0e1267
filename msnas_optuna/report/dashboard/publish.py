"""Keeps a study's figures, note and pictures in optuna-dashboard up to date.

Of workers that share the run folder one publishes at a time, so that no old view comes after a
newer one. A storage commits every attribute on its own: a process that is killed in between
leaves old and new figures side by side, each of them whole, and the next refresh goes on.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final

from filelock import FileLock, Timeout
from optuna.study import Study
from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA
from optuna_dashboard._note import get_note_from_system_attrs, note_str_key_prefix, note_ver_key
from optuna_dashboard.artifact import get_artifact_path

from msnas_optuna.report.artifacts import ArtifactFolder, put_pictures
from msnas_optuna.report.dashboard.note import merged, study_note
from msnas_optuna.report.detections import Draw, refresh_detections, stored_detections
from msnas_optuna.report.figures import study_figures
from msnas_optuna.report.figures.architecture import picture_of
from msnas_optuna.report.figures.svg import svg
from msnas_optuna.report.overview import NothingToShowError, Overview, begun
from msnas_optuna.storage import DETECTIONS, PUBLISHED, SHOWN, finished_slots
from msnas_optuna.storage.optuna_private import (
    ARTIFACTS_ATTR_PREFIX,
    set_system_attr,
    system_attrs,
)
from msnas_optuna.study.setting import Setting

# Attributes of figures and notes, of pictures, and of whose detections they show.
_WRITTEN: Final = ("dashboard:", ARTIFACTS_ATTR_PREFIX, DETECTIONS)

WAIT_SECONDS: Final = 600.0  # for the refreshes of other workers


class PublishingError(RuntimeError):
    """Another process publishes."""


class Publisher:
    """Refreshes the dashboard of a study; a failure to do so is a warning, never an error."""

    def __init__(self, setting: Setting, draw: Draw | None = None) -> None:
        self.setting, self.draw = setting, draw

    def after_trial(self, study: Study) -> None:
        """Refreshes where the trial was the last of a generation that is not shown yet.

        While another worker refreshes, this one goes on; a later trial shows what is missing.
        """
        if self.setting.is_refresh_due(study):
            self.refresh(wait=0)

    def refresh(self, *, wait: float = WAIT_SECONDS) -> None:
        """Refreshes within `wait` seconds; with 0, to find another process at it is no failure."""
        if not self.setting.config.runtime.dashboard:
            return
        expected = [NothingToShowError] if wait else [NothingToShowError, PublishingError]
        try:
            with suppress(*expected):
                publish(self.setting, draw=self.draw, wait=wait)
        except Exception as error:
            warnings.warn(
                f"the dashboard is not refreshed: {type(error).__name__}: {error}", stacklevel=2
            )


def publish(setting: Setting, *, draw: Draw | None = None, wait: float = WAIT_SECONDS) -> None:
    """Writes figures, pictures and note of a study for optuna-dashboard, if anything has changed.

    Without `draw` the stored detections stay; a failure to draw some is a warning.

    Raises:
        NothingToShowError: the search has not begun.
        StudyMismatchError: the stored study was made with other settings.
        PublishingError: another process publishes, and does not end within `wait` seconds.
    """
    lock = FileLock(setting.inside(".dashboard.lock"), timeout=wait)  # free once a process is dead
    try:
        with lock:
            study = begun(setting)
            sources = _sources(setting, study, draw)
            if system_attrs(study).get(SHOWN) == _digest(setting, study, sources):
                return
            stored, overview, settled = (
                system_attrs(study),
                Overview(setting),
                finished_slots(study),
            )
            for name, figure in study_figures(overview.view).items():
                _write(study, stored, f"{SYSTEM_ATTR_PLOT_DATA}{name}:", figure.to_json())
            complete = _write_note(overview, draw)
            _set(study, stored, PUBLISHED, settled)  # until then, one is due
            if complete:
                _set(study, stored, SHOWN, _digest(setting, study, sources))
    except Timeout:
        raise PublishingError(
            f"another process has been publishing for {wait:g} seconds; the next trial, or the "
            "same command, tries again"
        ) from None


def _sources(setting: Setting, study: Study, draw: Draw | None) -> list[Any]:
    """What a publication follows from: trials, attributes, and how the study is called."""
    finished = [
        stage and sum(t.state.is_finished() for t in stage.get_trials(deepcopy=False))
        for stage in map(setting.stored_study, setting.stages)
    ]
    ours = (*_WRITTEN, PUBLISHED, SHOWN)
    attributes = {k: v for k, v in system_attrs(study).items() if not k.startswith(ours)}
    called = setting.command("search"), repr(setting.config.study), version("msnas-optuna")
    return [finished, attributes, *called, draw is not None]


def _digest(setting: Setting, study: Study, sources: list[Any]) -> str:
    """Digest of the sources, and of what stands in the dashboard, by us and by people."""
    written = {k: v for k, v in system_attrs(study).items() if k.startswith(_WRITTEN)}
    names = (key.removeprefix(ARTIFACTS_ATTR_PREFIX) for key in written)
    files = [name for name in names if (setting.artifact_dir / name).is_file()]
    return sha256(json.dumps([sources, written, files], sort_keys=True).encode()).hexdigest()


def _write_note(overview: Overview, draw: Draw | None) -> bool:
    """Stores the pictures of the best, the detections of one of them, and the note with both.

    False where the detections could not be drawn.
    """
    setting, study, complete = overview.setting, overview.study, True
    drawn = [picture_of(overview.view, result) for result in overview.best]
    files = {f"best-{rank}.svg": svg(p).encode() for rank, p in enumerate(drawn, start=1)}
    ids = put_pictures(study, ArtifactFolder(setting.artifact_dir), files).values()
    urls = {p.name: get_artifact_path(study, key) for p, key in zip(drawn, ids, strict=True)}
    if draw is not None:
        try:
            refresh_detections(setting, study, draw)
        except Exception as error:  # weights may be lost, and the note holds without them
            warnings.warn(f"the detections are not drawn: {error}", stacklevel=2)
            complete = False
    stored = system_attrs(study)  # now: people may have written while the detections were drawn
    note = get_note_from_system_attrs(stored, None)
    body = merged(note["body"], study_note(overview, urls, stored_detections(setting, study)))
    if body != note["body"]:
        # First the version: a reader's editor refuses an older one.
        _set(study, stored, note_ver_key(None), note["version"] + 1)
        _write(study, stored, note_str_key_prefix(None), body)
    return complete


def _write(study: Study, stored: Mapping[str, Any], prefix: str, text: str) -> None:
    """Stores a text in one piece; readers join the pieces `prefix`0, `prefix`1, ..."""
    _set(study, stored, f"{prefix}0", text)
    for key, value in stored.items():
        if key.startswith(prefix) and key != f"{prefix}0" and value:
            _set(study, stored, key, "")


def _set(study: Study, stored: Mapping[str, Any], key: str, value: Any) -> None:
    if stored.get(key) != value:
        set_system_attr(study, key, value)
