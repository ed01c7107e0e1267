"""A real browser opens the dashboard and the report of a finished quickstart study.

The study is a reduced quickstart that is run first; MSNAS_BROWSER_STUDY names the study file of
another finished one. MSNAS_SCREENSHOTS names a folder to keep pictures in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msnas_optuna.inference.samples import SAMPLES
from msnas_optuna.methods import METHODS
from msnas_optuna.report.dashboard import dashboard_server
from msnas_optuna.report.detections import stored_detections
from msnas_optuna.report.figures import figures_of
from msnas_optuna.report.overview import TOP, Overview
from msnas_optuna.report.page import write_report
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

from . import chromium

REQUIRED = os.environ.get("MSNAS_REQUIRE_BROWSER") == "1"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        chromium.program() is None and not REQUIRED,
        reason="no Chromium is installed; `apt-get install chromium` brings it",
    ),
]

WIDTHS = [1280, 1920]

FIGURES = figures_of(METHODS["msnas"])

DRAWN = "[...document.querySelectorAll('.js-plotly-plot .gtitle')].map(t => t.textContent)"
"""Titles of the figures that are drawn."""

SHOWN = """[...document.querySelectorAll('img')]
    .filter(i => i.src.includes('/artifacts/') && i.complete && i.naturalWidth > 0)
    .map(i => i.src)"""
"""Pictures that have come."""


EMPTY = """[...document.querySelectorAll('.js-plotly-plot')]
    .filter(figure => figure.data.length === 0).length"""
"""Figures that only say why they are empty."""


@pytest.fixture(scope="module")
def setting(request) -> Setting:
    given = os.environ.get("MSNAS_BROWSER_STUDY")
    return Setting.load(given or request.getfixturevalue("quickstart"))


@pytest.fixture(scope="module")
def server(setting) -> Iterator[str]:
    server = dashboard_server(setting, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    study = setting.stored_study()
    yield f"http://127.0.0.1:{server.server_port}/dashboard/studies/{study._study_id}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def report(setting, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(Overview(setting), file)
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[chromium.Browser]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def look(tmp_path) -> Callable[[chromium.Page, str], None]:
    folder = Path(os.environ.get("MSNAS_SCREENSHOTS", tmp_path))
    return lambda page, name: page.screenshot(folder / f"{name}.png")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_dashboard_draws_all_figures_and_shows_the_pictures(browser, server, look, width):
    page = chromium.Page(browser, width, 5200)
    page.open(server)
    titles = page.wait_for(f"{DRAWN}.filter(t => /^[0-9]+[.] /.test(t)).length >= {len(FIGURES)}"
                           f" && {DRAWN}")  # fmt: skip
    for number in range(1, len(FIGURES) + 1):
        assert sum(title.startswith(f"{number}. ") for title in titles) == 1, titles
    page.wait_for(f"{SHOWN}.length >= {TOP}")
    assert page.value(EMPTY) == 0
    look(page, f"dashboard-{width}")
    assert page.complaints == []
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in page.requests)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_note_shows_the_winner_and_its_picture(browser, server, setting, look, width):
    page = chromium.Page(browser, width, 2800)
    page.open(f"{server}/note")
    best = StudyView.load(setting).best[0]
    page.wait_for(f"document.body.innerText.includes('Best: {best.name} with')")
    page.wait_for(f"{SHOWN}.length >= {TOP + SAMPLES}")
    text = page.value("document.body.innerText")
    assert "inside the window" in text
    assert "Against the hand-made FPN-like path" in text
    source = stored_detections(setting, setting.stored_study()).source
    assert f"What trial {source.trial} detects" in text
    assert source.weights in text
    assert "[//]" not in text
    assert page.value("document.querySelectorAll('table').length") == 2
    look(page, f"note-{width}")
    assert page.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_parallel_coordinates_have_every_axis(browser, server, setting, look, width):
    page = chromium.Page(browser, width, 1600)
    page.open(f"{server}/smartSelection")
    names = list(setting.space.distributions)
    page.wait_for(f"{names}.every(n => document.body.innerHTML.includes(n))")
    look(page, f"parallel-{width}")
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_draws_all_figures_and_asks_for_nothing(browser, report, look, width, scheme):
    page = chromium.Page(browser, width, 1000)
    if scheme == "dark":
        page.dark()
    page.open(report.as_uri())
    titles = page.wait_for(f"{DRAWN}.length === {len(FIGURES)} && {DRAWN}")
    assert [int(title.split(".")[0]) for title in titles] == list(range(1, len(FIGURES) + 1))
    assert page.value("document.querySelectorAll('.pictures svg').length") == TOP + 1
    seen = "[...document.querySelectorAll('.pictures img')].filter(i => i.naturalWidth > 0)"
    assert page.value(f"{seen}.length") == SAMPLES
    assert page.value(EMPTY) == 0
    assert page.value("document.documentElement.scrollWidth") <= width
    overlapping = """(() => {
        const boxes = [...document.querySelectorAll('.figure')].map(f => [
            f.getBoundingClientRect(), f.querySelector('.main-svg').getBoundingClientRect()]);
        return boxes.filter(([f, s]) => s.width > f.width + 1 || s.height > f.height + 1).length;
    })()"""
    assert page.value(overlapping) == 0
    assert page.value("window.hacked") is None
    look(page, f"report-{width}-{scheme}")
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_the_report_can_be_printed(browser, report, tmp_path):
    page = chromium.Page(browser, 1280, 1000)
    page.open(report.as_uri())
    page.wait_for(f"{DRAWN}.length === {len(FIGURES)}")
    printed = page.pdf()
    assert printed.startswith(b"%PDF-")
    assert 5 <= printed.count(b"/Type /Page\n") <= 40
    folder = Path(os.environ.get("MSNAS_SCREENSHOTS", tmp_path))
    (folder / "report.pdf").write_bytes(printed)
