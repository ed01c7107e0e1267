"""A real browser opens the dashboard and the report of a finished quickstart study.

MSNAS_BROWSER_STUDY names the study file of a search that has really been run; by default the
quickstart's values come from a formula. MSNAS_SCREENSHOTS names a folder to keep pictures in.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from msnas_optuna.dashboard import dashboard_server, publish
from msnas_optuna.detections import Drawn
from msnas_optuna.figures.catalogue import FIGURES
from msnas_optuna.overview import TOP, Overview
from msnas_optuna.report import write_report
from msnas_optuna.results import best_results
from msnas_optuna.setting import FPN_LIKE, RETRAIN, Setting

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

DRAWN = "[...document.querySelectorAll('.js-plotly-plot .gtitle')].map(t => t.textContent)"
"""Titles of the figures that are drawn."""

SHOWN = """[...document.querySelectorAll('img')]
    .filter(i => i.src.includes('/artifacts/') && i.complete && i.naturalWidth > 0)
    .map(i => i.src)"""
"""Pictures that have come."""


@pytest.fixture(scope="module")
def setting(tmp_path_factory, run_cheaply) -> Setting:
    given = os.environ.get("MSNAS_BROWSER_STUDY")
    if given is not None:
        return Setting.load(given)
    file = tmp_path_factory.mktemp("browser") / "quickstart.toml"
    shutil.copyfile(Path(__file__).parents[2] / "studies" / "quickstart.toml", file)
    setting = Setting.load(file)
    by_hand = setting.space.fpn_like()
    run_cheaply(setting, None, setting.feasible, trials=setting.config.study.trials)
    run_cheaply(setting, FPN_LIKE, setting.valid, architectures=[by_hand])
    best = [result.architecture for result in best_results(setting, TOP)[0]]
    run_cheaply(setting, RETRAIN, setting.valid, architectures=[*best, by_hand])
    publish(
        setting,
        draw=lambda _: Drawn("supernet.pt", {"image-1.png": detection()}),
    )
    return setting


def detection() -> bytes:
    from io import BytesIO

    picture = Image.new("RGB", (256, 192), "#334455")
    ImageDraw.Draw(picture).rectangle((60, 40, 180, 150), outline="#E69F00", width=3)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


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
    look(page, f"dashboard-{width}")
    assert page.complaints == []
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in page.requests)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_note_shows_the_winner_and_its_picture(browser, server, setting, look, width):
    page = chromium.Page(browser, width, 2800)
    page.open(f"{server}/note")
    best = best_results(setting, 1)[0][0]
    page.wait_for(f"document.body.innerText.includes('Best: trial {best.trial} with')")
    page.wait_for(f"{SHOWN}.length >= {TOP}")
    text = page.value("document.body.innerText")
    assert "inside the window" in text
    assert "Against the hand-made FPN-like path" in text
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
