"""The report: one page, complete, that loads nothing and runs nothing but its figures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import optuna
import pytest
from optuna_dashboard import get_note, save_note
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.report.dashboard import publish
from msnas_optuna.report.detections import Drawing, refresh_detections
from msnas_optuna.report.figures import figures_of
from msnas_optuna.report.overview import NothingToShowError, Overview
from msnas_optuna.report.page import (
    one_shot_table,
    report_page,
    standalone_table,
    version_table,
    write_report,
)
from msnas_optuna.storage import (
    CONFIG,
    ERROR,
    open_study,
    read_versions,
    write_curve,
    write_versions,
)
from msnas_optuna.storage.records import VERSIONS
from msnas_optuna.study.setting import Setting

EVIL = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'&{{7*7}}"
)


class Reader(HTMLParser):
    """Tags, attributes and text of a page, without scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def overview(_finished_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Overview:
    """Of a finished study; to be read alone."""
    folder = tmp_path_factory.mktemp("overview") / "study"
    shutil.copytree(_finished_once, folder)
    return Overview(Setting.load(folder / "tiny.toml"))


@pytest.fixture(scope="module")
def page(overview: Overview) -> str:
    return report_page(overview)


def test_a_pareto_front_is_called_one(tiny):
    objectives = 'trials = 7\nobjectives = ["ap", "gflops"]'
    tiny.write_text(tiny.read_text().replace("trials = 7", objectives))
    setting = Setting.load(tiny)
    study = open_study(
        setting.storage,
        name=setting.study_name(),
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.RandomSampler(),
        config=setting.config.identity(),
    )
    for i in range(4):
        params = setting.space.encode(setting.feasible.at(i))
        values = [0.1 * i, setting.cost.total(setting.feasible.at(i)) / 1e9]
        study.add_trial(
            optuna.create_trial(
                params=params, distributions=setting.space.distributions, values=values
            )
        )
    publish(setting)
    page, note = report_page(Overview(setting)), get_note(study)
    assert '<h2 id="best">Pareto front, by AP</h2>' in page
    assert "## Pareto front, by AP" in note
    assert "Best architectures" not in Reader(page).text + note


def test_the_page_says_what_won_and_why(overview, page):
    text = Reader(page).text
    best = overview.best[0]
    architecture, study = str(best.architecture), overview.study
    for part in architecture.split(" | "):
        assert part in text
    assert f"Best: {best.name} with {100 * study.best_value:.1f} one-shot mAP" in text
    assert "GFLOPs are inside the window" in text
    assert "random architectures of the window have" in text
    assert "for its measured value, so a part of the margins is luck" in text
    assert "Against the hand-made FPN-like path:" in text
    assert "Kendall's tau between one-shot and stand-alone mAP: 1.0000" in text
    file = overview.setting.study_file
    for command in ("train", "search", "retrain", "report"):
        assert f"msnas {command} {file}" in text
    assert file.read_text() in text
    assert "Seed 0" in text
    for key, value in study.user_attrs[CONFIG].items():
        assert key in text
        assert json.dumps(value) in text


def test_versions_are_those_of_the_search_and_others_of_this_process_stand_beside(finished):
    overview = Overview(Setting.load(finished))
    study = overview.study
    assert "unknown" in {row[1] for row in version_table(overview)}  # a study of an older version
    write_versions(study)
    here = version("torch")
    assert ["torch", here] in version_table(overview)
    attributes = study._storage.get_study_system_attrs(study._study_id)[VERSIONS]
    old = {**attributes, "torch": ["1.0", "1.1"]}
    study._storage.set_study_system_attr(study._study_id, VERSIONS, old)
    assert ["torch", "1.0, 1.1", here] in version_table(overview)
    assert re.search(rf"torch\s*1.0, 1.1\s*{re.escape(here)}", Reader(report_page(overview)).text)
    write_versions(study)
    assert ["torch", f"1.0, 1.1, {here}", here] in version_table(overview)


def test_the_trials_that_a_search_was_told_are_repeated(searched):
    text = Reader(report_page(Overview(Setting.load(searched)))).text
    assert f"msnas search {searched} --trials 5" in text
    assert "So far: 5 of 5 trials finished" in text
    assert read_versions(Setting.load(searched).stored_study())["torch"] == [version("torch")]


def test_the_page_has_every_figure_and_plotly_once(overview, page):
    ids = [attributes.get("id") for _, attributes in Reader(page).tags]
    for name in figures_of(overview.setting.method):
        assert ids.count(f"figure-{name}") == 1
        assert page.count(f'Plotly.newPlot("figure-{name}"') == 1
    assert page.count("plotly.js v") == 1


def test_the_page_loads_nothing(page):
    for tag, attributes in Reader(page).tags:
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:")), (tag, value)
        assert tag not in ("iframe", "object", "embed", "base")
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    (policy,) = [
        a["content"]
        for _, a in Reader(page).tags
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_the_page_can_be_printed(page):
    assert "@media print" in page


def test_tables_are_those_of_the_results(overview):
    summary = overview.view.summary
    rows = {row[0]: row[1:] for row in one_shot_table(overview)}
    random = rows["random, a uniform sample of the window"]
    bred = rows.get("children", ["0"])
    assert int(random[0]) + int(bred[0]) == summary.architectures
    assert float(rows["last population"][3]) == pytest.approx(100 * summary.one_shot_max, abs=0.06)
    rows = {row[0]: row[1:] for row in standalone_table(overview)}
    assert rows["best of the search"] == [
        "2",
        f"{100 * summary.standalone_mean:.2f}",
        f"{1e4 * summary.standalone_variance:.4f}",
        f"{100 * summary.standalone_max:.1f}",
    ]


def test_free_text_stays_text(finished):
    setting = Setting.load(finished)
    study = setting.stored_study()
    config = study.user_attrs[CONFIG]
    study.set_user_attr(CONFIG, {**config, "data.train_annotations.sha256": EVIL})
    trial = optuna.load_study(
        study_name=study.study_name,
        storage=setting.storage,
        sampler=optuna.samplers.RandomSampler(),
    ).ask()
    trial.set_user_attr(ERROR, EVIL)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    publish(setting)
    write_curve(study, EVIL, [2.0, 1.0])
    save_note(study, EVIL)
    file = finished.with_name("evil <b>&.toml")
    file.write_text(f"# {EVIL}\n{finished.read_text()}")
    refresh_detections(setting, study, lambda _: Drawing(EVIL, {"<b>'.png": b"PNG"}))
    page = report_page(Overview(Setting.load(file)))
    tags = Reader(page).tags
    assert not any("onerror" in attributes for _, attributes in tags)
    assert [tag for tag, _ in tags].count("script") == 2
    assert "<b>" not in page.split("<script>")[0]
    text = Reader(page).text
    assert text.count(EVIL) == 4  # failure, note, study file, weights
    assert json.dumps(EVIL) in text  # configuration


def test_without_detections_the_page_says_what_draws_them(overview, page):
    file, text = overview.setting.study_file, Reader(page).text
    assert f"None are stored; `msnas search {file}` draws them" in text


def test_a_study_without_a_finished_trial_has_a_report(tiny):
    setting = Setting.load(tiny)
    open_study(
        setting.storage,
        name=setting.study_name(),
        directions=["maximize"],
        sampler=optuna.samplers.RandomSampler(),
        config=setting.config.identity(),
    )
    text = Reader(report_page(Overview(Setting.load(tiny)))).text
    assert "So far: 0 of 7 trials finished" in text
    assert "No architecture is trained from scratch yet." in text


def test_a_report_onto_a_folder_is_refused_in_words(finished, tmp_path):
    folder = tmp_path / "report.html"
    folder.mkdir()
    result = CliRunner().invoke(app, ["report", str(finished), "-o", str(folder)])
    assert result.exit_code == 1
    assert f"--output must be a file, {folder} is a folder; give {folder}/report.html" in (
        result.output
    )
    assert list(folder.iterdir()) == []


def test_nothing_stored_is_nothing_to_report(tiny):
    with pytest.raises(NothingToShowError, match="tiny has not begun"):
        Overview(Setting.load(tiny))


def test_a_page_is_written_whole_or_not_at_all(overview, tmp_path, monkeypatch):
    file = tmp_path / "new" / "report.html"
    write_report(overview, file)
    before = file.read_text()
    assert before.startswith("<!DOCTYPE html>")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(overview, file)
    assert file.read_text() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.slow
def test_the_command(finished):
    command = [sys.executable, "-m", "msnas_optuna", "report", str(finished), "-o"]
    folder = finished.parent
    done = subprocess.run(
        [*command, "new/report.html"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "wrote new/report.html\n"
    assert (folder / "new" / "report.html").read_text().rstrip().endswith("</html>")
    run = partial(subprocess.run, cwd=folder, capture_output=True, text=True)
    for options, said in ((["-q"], ""), (["--json"], {"study": "tiny", "report": "two.html"})):
        (folder / "two.html").unlink(missing_ok=True)
        done = run([*command, "two.html", *options], check=True)
        assert (json.loads(done.stdout) if done.stdout else "") == said
        assert done.stderr == ""
        assert (folder / "two.html").is_file()
    wrong = subprocess.run([*command, "report.pdf"], cwd=folder, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "--output must end in .html, got report.pdf" in wrong.stderr
