"""The note of a study: what is searched, what has won so far, and how to go on.

The search and people write it together, in Markdown: between two marks stands what the search
writes, and what people write outside of them stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from optuna_dashboard.artifact import get_artifact_path

from msnas_optuna.report.detections import Detections, absence
from msnas_optuna.report.overview import TOP, Overview
from msnas_optuna.report.table import budget_rows
from msnas_optuna.storage import redact

# Link definitions that nothing refers to: Markdown's only invisible lines without HTML.
BEGIN: Final = "[//]: # (msnas: begin)"
END: Final = "[//]: # (msnas: end)"

_MARKED: Final = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), flags=re.DOTALL)


def merged(written: str, own: str) -> str:
    """A stored note with our own part replaced, or put first where there is none yet."""
    part = f"{BEGIN}\n\n{own.strip()}\n\n{END}"
    if _MARKED.search(written):
        return _MARKED.sub(lambda _: part, written, count=1)
    return f"{part}\n\n{written}".rstrip() + "\n"


def by_people(written: str) -> str:
    """The part of a note that people wrote."""
    return _MARKED.sub("", written).strip()


def study_note(
    overview: Overview, pictures: Mapping[str, str], detections: Detections | None
) -> str:
    """Our part of the note; `pictures` are URLs of architectures' pictures by their captions."""
    setting, view = overview.setting, overview.view
    heading, *rows = overview.table()
    words = 1 + len(view.method.columns)
    rows = [[row[0], *(f"`{cell}`" for cell in row[1:words]), *row[words:]] for row in rows]
    parts = [
        f"# Architecture search `{setting.study_name()}`",
        "\n".join(f"- {sentence}" for sentence in overview.sentences()),
        f"## {setting.ranking}",
        _table([heading, *rows]),
        view.method.columns_note,
    ]
    if overview.best:
        best = overview.best[0]
        budget = [row[:2] for row in budget_rows(view, best)]
        parts += [f"## What {best.name} spends its budget on", _table(budget)]
    parts += [f"![{caption}]({url})" for caption, url in pictures.items()]
    parts += [view.method.legend] if pictures else []
    if detections is None:
        parts += ["## Detections", absence(setting, overview.study)]
    else:
        trial = detections.source.trial
        parts += [f"## What trial {trial} detects", escaped(str(detections.source))]
        for name, picture in detections.pictures.items():
            url = get_artifact_path(overview.study, picture.artifact_id)
            parts.append(f"![trial {trial} on {escaped(Path(name).stem)}]({url})")
    # Indented, not fenced: no path can end the block.
    lines = ("    " + " ".join(line.splitlines()) for line in overview.commands(TOP))
    parts += ["## Go on", "\n".join(lines)]
    parts.append("Write below, or above, what you want to keep: the search writes this part anew.")
    return redact("\n\n".join(filter(None, parts)))


def escaped(text: str) -> str:
    """A text as Markdown shows it: one line, in which no sign has a meaning."""
    return re.sub(r"([\\`*_[\]<>&|~$])", r"\\\1", " ".join(text.split()))


def _table(rows: list[list[str]]) -> str:
    # Of its own, optuna-dashboard leaves no space between the columns.
    lines = ["| " + "&emsp; | ".join(c.replace("|", r"\|") for c in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
