"""The report, one page of HTML. Whatever is text stays text: the template escapes all of it.

Tables follow those of the MSNAS paper: 1 (mean, variance, maximum) and 7-9 (architectures).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path
from typing import Final

import jinja2
import numpy as np
from markupsafe import Markup
from optuna.trial import TrialState
from optuna_dashboard import get_note
from plotly.offline import get_plotlyjs

from msnas_optuna.report.dashboard.note import by_people
from msnas_optuna.report.detections import absence, stored_detections
from msnas_optuna.report.figures import study_figures
from msnas_optuna.report.figures.architecture import picture_of
from msnas_optuna.report.figures.style import ONE_SHOT
from msnas_optuna.report.figures.svg import svg
from msnas_optuna.report.overview import Overview
from msnas_optuna.report.table import budget_rows
from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.storage import CONFIG, ERROR, read_versions, redact, versions

_MOST_FAILURES: Final = 20

_TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.PackageLoader("msnas_optuna", "report"),
    autoescape=True,
    finalize=lambda value: value if isinstance(value, Markup) else redact(str(value)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)


def write_report(overview: Overview, path: Path) -> None:
    """Writes the page; whatever happens, `path` holds a whole one, the old or the new."""
    page = report_page(overview)
    with atomic_write(path) as file:
        file.write(page.encode())


def report_page(overview: Overview) -> str:
    """The whole page as HTML; it loads nothing."""
    setting, view, study = overview.setting, overview.view, overview.study
    found, file = stored_detections(setting, study), setting.study_file
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    reasons = [(t.number, str(t.user_attrs[ERROR])) for t in failed if ERROR in t.user_attrs]
    winner = overview.best[0] if overview.best else None
    detections = {}
    for name, picture in ({} if found is None else found.pictures).items():
        content = base64.b64encode(picture.content).decode()
        detections[Path(name).stem] = f"data:{guess_type(name)[0]};base64,{content}"
    return _TEMPLATES.get_template("page.html").render(
        overview=overview,
        setting=setting,
        method=view.method,
        one_shot=one_shot_table(overview),
        standalone=standalone_table(overview),
        winner=winner,
        parts=budget_rows(view, winner) if winner else [],
        # The drawings escape what they are given.
        pictures=[Markup(svg(picture_of(view, result))) for result in overview.shown],
        source=found and found.source,
        detections=detections,
        absence=absence(setting, study),
        # Nothing in a figure's JSON can end the script around it.
        figures={
            name: Markup(figure.to_json().replace("<", "\\u003c"))
            for name, figure in study_figures(view).items()
        },
        plotly=Markup(get_plotlyjs()),
        configuration={
            key: json.dumps(value)
            for key, value in sorted((study.user_attrs.get(CONFIG) or {}).items())
        },
        versions=version_table(overview),
        file="" if file is None else file.read_text(encoding="utf-8-sig", errors="replace"),
        commands=overview.commands(max(len(overview.transfer.pairs), 1)),
        failures=reasons[:_MOST_FAILURES],
        note=by_people(get_note(study)),
    )


# ---------------------------------------------------------------------- tables


def one_shot_table(overview: Overview) -> list[list[str]]:
    """One-shot mAP of chance, children and population: how many, mean, variance, maximum."""
    rows = [[ONE_SHOT, "architectures", "mean", "variance", "max"]]
    found, view = overview.comparison, overview.view
    if found is None:
        return rows
    population = list(view.populations.values())[-1]
    groups = {
        "random, a uniform sample of the window": found.random,
        "children": found.bred,
        "last population": [100 * result.ap for result in population],
        view.method.baseline: [] if found.baseline is None else [found.baseline],
    }
    return rows + [_moments(name, aps) for name, aps in groups.items() if aps]


def standalone_table(overview: Overview) -> list[list[str]]:
    """MAP after training from scratch, as in Table 1; the heading alone before the retraining."""
    found = overview.transfer
    heading = f"mAP after training from scratch ({overview.view.reported_images})"
    rows = [[heading, "architectures", "mean", "variance", "max"]]
    if found.pairs:
        rows.append(_moments("best of the search", [pair.alone for pair in found.pairs]))
    if found.baseline is not None:
        rows.append(_moments(found.baseline.name, [found.baseline.alone]))
    return rows


def _moments(name: str, aps: Sequence[float]) -> list[str]:
    variance = f"{np.var(aps):.4f}" if len(aps) > 1 else "-"
    return [name, str(len(aps)), f"{np.mean(aps):.2f}", variance, f"{max(aps):.1f}"]


def version_table(overview: Overview) -> list[list[str]]:
    """Package versions of the search, and those of this page where they differ."""
    searched, here = read_versions(overview.study), versions()
    rows = [
        [package, ", ".join(searched.get(package, ["unknown"])), here.get(package, "-")]
        for package in {**here, **searched}
    ]
    if all(then == now for _, then, now in rows):
        return [["package", "version"], *(row[:2] for row in rows)]
    return [["package", "of the search", "of this page"], *rows]
