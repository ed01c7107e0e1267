"""Keeps a study's figures, note and pictures in optuna-dashboard up to date.

A storage commits every attribute on its own, so what is unchanged is not written, and a figure is
one attribute: a process that is killed in between leaves old and new figures side by side, each of
them whole, and the next refresh goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA
from optuna_dashboard._note import get_note_from_system_attrs, note_str_key_prefix, note_ver_key
from optuna_dashboard.artifact import get_artifact_path

from msnas_optuna.artifacts import DETECTIONS, artifact_folder, put_pictures
from msnas_optuna.dashboard.note import study_note
from msnas_optuna.figures.catalogue import study_figures
from msnas_optuna.figures.svg import draw_architecture
from msnas_optuna.notes import merged
from msnas_optuna.overview import NothingToShowError, Overview
from msnas_optuna.results import Result
from msnas_optuna.samplers.history import Schedule
from msnas_optuna.setting import Setting
from msnas_optuna.storage import PUBLISHED, finished_slots

Detections = Callable[[Result], Mapping[str, bytes]]
"""Image files, by file name, of what an architecture detects on sample images. It is the first of
the best that is retrained; before the retraining it is the best, and `standalone_ap` is None."""


def _no_detections(result: Result) -> Mapping[str, bytes]:
    return {}


class Publisher:
    """Refreshes the dashboard of a study; a failure to do so is a warning, never an error.

    Args:
        setting: the study.
        detections: pictures of what an architecture detects.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        detections: Detections = _no_detections,
    ) -> None:
        self.setting, self.detections = setting, detections
        self._drawn: tuple[Result, Mapping[str, bytes]] | None = None

    def after_trial(self, study: Study) -> None:
        """Refreshes where the trial was the last of a generation that is not shown yet."""
        if self.setting.config.runtime.dashboard and self._is_due(study):
            self.refresh()

    def refresh(self) -> None:
        """Refreshes now."""
        if not self.setting.config.runtime.dashboard:
            return
        try:
            publish(self.setting, detections=self._detections)
        except NothingToShowError:
            return
        except Exception as error:
            warnings.warn(
                f"the dashboard is not refreshed: {type(error).__name__}: {error}", stacklevel=2
            )

    def _detections(self, result: Result) -> Mapping[str, bytes]:
        """Draws anew only for another architecture, or after its retraining."""
        if self._drawn is None or self._drawn[0] != result:
            self._drawn = result, self.detections(result)
        return self._drawn[1]

    def _is_due(self, study: Study) -> bool:
        """Whether a generation has ended since the last refresh, whichever process made it."""
        sampler = self.setting.config.sampler
        schedule = Schedule(
            sampler.population_size, sampler.n_children, sampler.n_random, sampler.n_reevaluated
        )
        attributes = study._storage.get_study_system_attrs(study._study_id)
        shown = attributes.get(PUBLISHED, 0)
        return schedule.generation(finished_slots(study)) > schedule.generation(shown)


def publish(
    setting: Setting,
    *,
    detections: Detections = _no_detections,
) -> None:
    """Writes figures, pictures and note of a study for optuna-dashboard.

    Args:
        setting: the study.
        detections: pictures of what an architecture detects.

    Raises:
        NothingToShowError: the search has not begun.
        StudyMismatchError: the stored study was made with other settings.
        OSError: the artifact folder cannot be written.
    """
    overview = Overview(setting)
    study, settled = overview.search, finished_slots(overview.search)
    stored = study._storage.get_study_system_attrs(study._study_id)
    for name, figure in study_figures(overview.observed).items():
        _write(study, stored, f"{SYSTEM_ATTR_PLOT_DATA}{name}:", figure.to_json())
    urls = _put_all(study, overview, detections)
    _write_note(study, stored, study_note(overview, urls))
    _set(study, stored, PUBLISHED, settled)  # last: until then, a refresh is due


def _put_all(study: Study, overview: Overview, detections: Detections) -> dict[str, str]:
    """Stores the pictures; their URLs by caption."""
    setting = overview.setting
    captions, pictures = {}, {}
    for rank, result in enumerate(overview.best, start=1):
        name = f"trial {result.trial}"
        if result.one_shot_ap is not None:
            name += f": {100 * result.one_shot_ap:.1f} mAP"
        file = f"best-{rank}.svg"
        captions[file] = name
        picture = draw_architecture(result.architecture, name=name, cost=setting.cost)
        pictures[file] = picture.encode()
    retrained = [r for r in overview.best if r.standalone_ap is not None]
    for shown in (retrained or overview.best)[:1]:
        for name, content in detections(shown).items():
            file = f"{DETECTIONS}{name}"
            captions[file] = f"what trial {shown.trial} detects on {Path(name).stem}"
            pictures[file] = content
    ids = put_pictures(study, artifact_folder(setting), pictures)
    return {captions[file]: get_artifact_path(study, ids[file]) for file in pictures}


def _write(study: Study, stored: Mapping[str, Any], prefix: str, text: str) -> None:
    """Stores a text in one piece; readers join the pieces `prefix`0, `prefix`1, ..."""
    _set(study, stored, f"{prefix}0", text)
    for key, value in stored.items():
        if key.startswith(prefix) and key != f"{prefix}0" and value:
            _set(study, stored, key, "")


def _write_note(study: Study, stored: Mapping[str, Any], own: str) -> None:
    note = get_note_from_system_attrs(dict(stored), None)
    body = merged(note["body"], own)
    if body != note["body"]:
        version = note["version"] + 1  # first: a reader's editor refuses an older version
        _set(study, stored, note_ver_key(None), version)
        _write(study, stored, note_str_key_prefix(None), body)


def _set(study: Study, stored: Mapping[str, Any], key: str, value: Any) -> None:
    if stored.get(key) != value:
        study._storage.set_study_system_attr(study._study_id, key, value)
