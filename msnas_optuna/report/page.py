"""Fills the page's template. Whatever is text stays text: the template escapes all of it.

Tables follow "Multi-Scale Network Architecture Search for Object Detection", ICLR 2021
submission: Table 1 (mean, variance and maximum) and Tables 7-9 (architectures).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from optuna.trial import TrialState
from optuna_dashboard import get_note
from plotly.offline import get_plotlyjs

from msnas_optuna.report.detections import Detections, absence, image_name, stored_detections
from msnas_optuna.report.figures.catalogue import study_figures
from msnas_optuna.report.figures.svg import LEGEND, draw_architecture
from msnas_optuna.report.notes import by_people
from msnas_optuna.report.overview import Overview, budget_parts, giga, sentences, table_rows
from msnas_optuna.storage import CONFIG, ERROR, read_versions, versions
from msnas_optuna.study.results import Result

_MOST_FAILURES: Final = 20


def write_report(overview: Overview, path: Path) -> None:
    """Writes the page; whatever happens, `path` holds a whole one, the old or the new.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_text(report_page(overview), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def report_page(overview: Overview) -> str:
    """The whole page as HTML; it loads nothing."""
    figures = study_figures(overview.observed)
    detections = stored_detections(overview.setting, overview.search)
    return _template().render(
        name=overview.setting.study_name(),
        sentences=sentences(overview),
        ranking=overview.setting.ranking,
        architectures=table_rows(overview),
        one_shot=one_shot_table(overview),
        standalone=standalone_table(overview),
        tau=overview.transfer.tau,
        winner=overview.best[0] if overview.best else None,
        parts=_parts(overview),
        legend=LEGEND,
        pictures=[_picture(overview, r) for r in (*overview.best, overview.by_hand)],
        source=None if detections is None else detections.source,
        detections=[] if detections is None else _images(detections),
        absence=absence(overview.setting, overview.search),
        figures={name: _script_safe(figure) for name, figure in figures.items()},
        plotly=Markup(get_plotlyjs()),
        configuration=_configuration(overview),
        versions=_versions(overview),
        seed=overview.setting.config.study.seed,
        file=_study_file(overview),
        commands=_commands(overview),
        failures=_failures(overview),
        note=by_people(get_note(overview.search)),
    )


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("msnas_optuna", "report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html")


# ---------------------------------------------------------------------- tables


def one_shot_table(overview: Overview) -> list[list[str]]:
    """One-shot mAP of chance, children and population: how many, mean, variance, maximum."""
    found = overview.comparison
    rows = [["one-shot mAP", "architectures", "mean", "variance", "max"]]
    if found is None:
        return rows
    last = overview.observed.generations[-1]
    population = [100 * o.ap for o in overview.observed.population(last)]
    rows += [
        _moments(name, aps)
        for name, aps in (
            ("random, a uniform sample of the window", found.random),
            ("children", found.bred),
            ("last population", population),
        )
        if len(aps)
    ]
    if found.by_hand is not None:
        rows.append(_moments("FPN-like path", [found.by_hand]))
    return rows


def standalone_table(overview: Overview) -> list[list[str]]:
    """MAP after training from scratch, as in Table 1; the heading alone before the retraining."""
    found = overview.transfer
    rows = [["mAP after training from scratch", "architectures", "mean", "variance", "max"]]
    if found.pairs:
        rows.append(_moments("best of the search", [pair.alone for pair in found.pairs]))
    if found.by_hand is not None:
        rows.append(_moments("FPN-like path", [found.by_hand.alone]))
    return rows


def _moments(name: str, aps: Sequence[float]) -> list[str]:
    return [
        name,
        str(len(aps)),
        f"{np.mean(aps):.2f}",
        f"{np.var(aps):.4f}" if len(aps) > 1 else "-",
        f"{max(aps):.1f}",
    ]


def _parts(overview: Overview) -> list[list[str]]:
    if not overview.best:
        return []
    best = overview.best[0]
    rows = [["part", "GFLOPs", "share"]]
    for part in budget_parts(best.architecture, overview.setting.cost):
        rows.append([part.name, giga(part.gflops), f"{part.gflops / best.gflops:.1%}"])
    return [*rows, ["encoder + RPN head", giga(best.gflops), ""]]


def _configuration(overview: Overview) -> list[tuple[str, str]]:
    """What the study was created with; the search refuses to go on with anything else."""
    stored: Mapping[str, Any] = overview.search.user_attrs.get(CONFIG) or {}
    return [(key, json.dumps(value)) for key, value in sorted(stored.items())]


def _versions(overview: Overview) -> list[list[str]]:
    """What searched, and beside it what made this page where that is something else."""
    searched, here = read_versions(overview.search), versions()
    rows = [
        [package, ", ".join(searched.get(package, ["unknown"])), here.get(package, "-")]
        for package in {**here, **searched}
    ]
    if all(then == now for _, then, now in rows):
        return [["package", "version"], *(row[:2] for row in rows)]
    return [["package", "of the search", "of this page"], *rows]


def _study_file(overview: Overview) -> str:
    file = overview.setting.study_file
    return "" if file is None else file.read_text(encoding="utf-8-sig", errors="replace")


def _commands(overview: Overview) -> list[str]:
    retrained = len(overview.transfer.pairs)
    report = overview.setting.command("report", "-o", "report.html")
    return [*overview.commands(max(retrained, 1)), report]


def _failures(overview: Overview) -> list[tuple[int, str]]:
    failed = overview.search.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [(t.number, str(t.user_attrs[ERROR])) for t in failed if ERROR in t.user_attrs][
        :_MOST_FAILURES
    ]


# ---------------------------------------------------------------------- pictures


def _picture(overview: Overview, result: Result) -> Markup:
    name = "FPN-like path" if result.trial is None else f"trial {result.trial}"
    if result.one_shot_ap is not None:
        name += f": {100 * result.one_shot_ap:.1f} mAP"
    drawn = draw_architecture(result.architecture, name=name, cost=overview.setting.cost)
    return Markup(drawn)  # it escapes what it is given


def _images(detections: Detections) -> list[tuple[str, str]]:
    """Captions and data URLs."""
    return [
        (
            f"trial {detections.source.trial} on {image_name(name)}",
            f"data:{guess_type(name)[0]};base64,{base64.b64encode(picture.content).decode()}",
        )
        for name, picture in detections.pictures.items()
    ]


def _script_safe(figure: go.Figure) -> Markup:
    """The figure's JSON, in which nothing can end the script around it."""
    text: str = figure.to_json()
    return Markup(text.replace("<", "\\u003c"))
