"""Where optuna-dashboard addresses trials and studies by ids, which differ between storages.

It keeps notes in attributes of the study: "dashboard:note_ver" and chunks "dashboard:note_str:0",
.. for the study, and the same with "dashboard:ID:" for the trial of this id; see
`optuna_dashboard/_note.py`. Notes show artifacts by links to "/artifacts/STUDY/TRIAL/ARTIFACT".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

_TRIAL_KEY: Final = re.compile(r"^dashboard:(artifacts:)?(\d+):")
_CHUNK: Final = re.compile(r"^(dashboard:(?:\d+:)?note_str:)(\d+)$")
_LINK: Final = re.compile(r"/artifacts/(\d+)/(?:(\d+)/)?(?=[0-9a-fA-F-])")
_CHUNK_LENGTH: Final = 2045
"""Characters in one attribute, as optuna-dashboard writes notes."""


def readdressed(
    attrs: Mapping[str, Any], *, study: tuple[int, int], trials: Mapping[int, int]
) -> dict[str, Any]:
    """The system attributes of a study with the ids of another storage.

    Args:
        attrs: of the study, as they are.
        study: its old and its new id.
        trials: old id -> new id.
    """

    def key(match: re.Match[str]) -> str:
        trial = int(match[2])
        return f"dashboard:{match[1] or ''}{trials.get(trial, trial)}:"

    renamed = {_TRIAL_KEY.sub(key, name): value for name, value in attrs.items()}
    for prefix in {match[1] for name in renamed if (match := _CHUNK.match(name))}:
        renamed |= _relinked(prefix, renamed, study=study, trials=trials)
    return renamed


def _relinked(
    prefix: str, attrs: Mapping[str, Any], *, study: tuple[int, int], trials: Mapping[int, int]
) -> dict[str, str]:
    """The chunks of one note, where a link in it changes."""
    n = sum(name.startswith(prefix) for name in attrs)
    note = "".join(attrs.get(f"{prefix}{i}", "") for i in range(n))
    moved = _LINK.sub(partial(_link, study=study, trials=trials), note)
    if moved == note:
        return {}
    chunks = -(-len(moved) // _CHUNK_LENGTH)
    return {
        f"{prefix}{i}": moved[i * _CHUNK_LENGTH : (i + 1) * _CHUNK_LENGTH]
        for i in range(max(n, chunks))
    }


def _link(match: re.Match[str], *, study: tuple[int, int], trials: Mapping[int, int]) -> str:
    if int(match[1]) != study[0]:
        return match[0]
    trial = match[2] and f"{trials.get(int(match[2]), int(match[2]))}/"
    return f"/artifacts/{study[1]}/{trial or ''}"
