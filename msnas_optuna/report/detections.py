"""Pictures of what an architecture detects, kept with the trial and the weights that they show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, NamedTuple

from optuna.study import Study

from msnas_optuna.report.artifacts import ArtifactFolder, Picture, put_pictures, stored_pictures
from msnas_optuna.storage import DETECTIONS, is_external
from msnas_optuna.storage.optuna_private import set_system_attr, system_attrs
from msnas_optuna.study.selection import Selection, select_trained
from msnas_optuna.study.setting import VALIDATION, Setting

SCORE: Final = 0.5  # least of a box that is drawn
_PREFIX: Final = "detections-"  # of the file names of the pictures


class Drawing(NamedTuple):
    """Pictures by a detector."""

    weights: str  # their file inside the run folder
    pictures: Mapping[str, bytes]  # image files by the name of the image


Draw = Callable[[Selection], Drawing]
"""Draws what an architecture with its weights detects on sample images."""


@dataclass(frozen=True)
class Source:
    """The detector whose detections are shown."""

    trial: int | None  # number of the trial in the search
    one_shot: bool  # the weights are the supernet's, fine-tuned; else those of the retraining
    ap: float | None  # stored COCO AP of these weights in [0, 1]
    weights: str  # their file inside the run folder
    images: str = VALIDATION  # that the AP is measured on

    def __str__(self) -> str:
        alone = "the weights of its training from scratch"
        kind = "the supernet's weights, fine-tuned as in the search" if self.one_shot else alone
        ap = "" if self.ap is None else f", {100 * self.ap:.1f} mAP on the {self.images} images"
        return (
            f"Trial {self.trial} with {kind} ({self.weights}){ap}. These are validation "
            f"images; boxes with a score of {SCORE:g} or more are drawn."
        )


class Detections(NamedTuple):
    """The stored pictures, by the name of the image, and whose they are."""

    source: Source
    pictures: Mapping[str, Picture]


def stored_detections(setting: Setting, study: Study) -> Detections | None:
    """The stored pictures; None where there are none, or not all of them."""
    stored = system_attrs(study).get(DETECTIONS)
    if not stored:
        return None
    found = stored_pictures(study, ArtifactFolder(setting.artifact_dir))
    names = {name: f"{_PREFIX}{name}" for name in stored["pictures"]}
    if not found.keys() >= set(names.values()):
        return None  # somebody has removed a file
    pictures = {name: found[file] for name, file in names.items()}
    return Detections(Source(**stored["source"]), pictures)


def refresh_detections(setting: Setting, study: Study, draw: Draw) -> None:
    """Draws the best architecture's detections, unless they are stored already.

    Whatever happens in between, pictures are never shown as another trial's: until all of them
    are stored, the study says that it has none.
    """
    selected, stored = select_trained(setting), stored_detections(setting, study)
    if selected is None:
        return
    wanted = Source(selected.trial, selected.one_shot, selected.ap, "")
    if not selected.one_shot:
        wanted = replace(wanted, images=setting.reported_images)
    if stored is not None and replace(stored.source, weights="") == wanted:
        return
    drawn = draw(selected)
    set_system_attr(study, DETECTIONS, {})
    named = {f"{_PREFIX}{name}": content for name, content in drawn.pictures.items()}
    put_pictures(study, ArtifactFolder(setting.artifact_dir), named)
    source = asdict(replace(wanted, weights=drawn.weights))
    set_system_attr(study, DETECTIONS, {"source": source, "pictures": list(drawn.pictures)})


def absence(setting: Setting, study: Study) -> str:
    """Why there are no pictures, and what makes some."""
    if is_external(study):
        alone = _code(setting.command("retrain", "--top", "1"))
        return f"None are stored, the external trainer has the weights; {alone} makes others."
    own = _code(setting.command("predict", "--trial", "best", "--one-shot", "IMAGE"))
    if not setting.config.runtime.dashboard:
        return f"None are stored, because runtime.dashboard is false; {own} draws some."
    return f"None are stored; {_code(setting.command('search'))} draws them, {own} others."


def _code(command: str) -> str:
    """A command as code in Markdown, whatever signs it has."""
    marks = "`" * (1 + max(map(len, re.findall("`+", command)), default=0))
    space = " " if len(marks) > 1 else ""
    return f"{marks}{space}{' '.join(command.splitlines())}{space}{marks}"
