"""The note of a study: what is searched, what has won so far, and how to go on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from optuna_dashboard.artifact import get_artifact_path

from msnas_optuna.report.detections import Detections, absence, image_name
from msnas_optuna.report.figures.svg import LEGEND
from msnas_optuna.report.overview import TOP, Overview, budget_parts, giga, sentences, table_rows


def study_note(
    overview: Overview, pictures: Mapping[str, str], detections: Detections | None
) -> str:
    """Our part of the note.

    Args:
        overview: the study.
        pictures: URL of an architecture's picture by its caption, in order.
        detections: those that are stored.
    """
    heading, *rows = table_rows(overview)
    parts = [
        f"# Architecture search `{overview.setting.study_name()}`",
        "\n".join(f"- {sentence}" for sentence in sentences(overview)),
        f"## {overview.setting.ranking}",
        _table([heading, *_architectures(rows)]),
        "Strides and feature strides are written as in the paper's Tables 7-9.",
        *_budget(overview),
        *(f"![{caption}]({url})" for caption, url in pictures.items()),
        *([LEGEND] if pictures else []),
        *_detections(overview, detections),
        "## Go on",
        _commands(overview),
        "Write below, or above, what you want to keep: the search writes this part anew.",
    ]
    return "\n\n".join(parts)


def _budget(overview: Overview) -> list[str]:
    if not overview.best:
        return []
    best, cost = overview.best[0], overview.setting.cost
    parts = budget_parts(best.architecture, cost)
    rows = [["part", "GFLOPs"], *([part.name, giga(part.gflops)] for part in parts)]
    rows.append(["encoder + RPN head", giga(best.gflops)])
    return [f"## What trial {best.trial} spends its budget on", _table(rows)]


def _detections(overview: Overview, detections: Detections | None) -> list[str]:
    if detections is None:
        return ["## Detections", absence(overview.setting, overview.search)]
    shown = detections.source
    return [
        f"## What trial {shown.trial} detects",
        str(shown),
        *(
            f"![trial {shown.trial} on {_plain(image_name(name))}]"
            f"({get_artifact_path(overview.search, picture.artifact_id)})"
            for name, picture in detections.pictures.items()
        ),
    ]


def _plain(text: str) -> str:
    r"""Text whose `[`, `]` and `\` end no alternative text of an image."""
    return re.sub(r"([\[\]\\])", r"\\\1", text)


def _architectures(rows: list[list[str]]) -> list[list[str]]:
    """Strides and what the heads read as code, so that each is seen as one thing."""
    return [
        [name, f"`{strides}`", f"`{reading}`", *rest] for name, strides, reading, *rest in rows
    ]


def _table(rows: list[list[str]]) -> str:
    # Of its own, optuna-dashboard leaves no space between the columns.
    lines = ["| " + "&emsp; | ".join(c.replace("|", r"\|") for c in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _commands(overview: Overview) -> str:
    lines = (
        *overview.commands(TOP),
        overview.setting.command("results"),
        overview.setting.command("report", "-o", "report.html"),
    )
    # Indented, not fenced: no path can end the block.
    return "\n".join("    " + " ".join(line.splitlines()) for line in lines)
