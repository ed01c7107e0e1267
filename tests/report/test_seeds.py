"""Several trainings of one architecture, wherever a study is shown."""

from __future__ import annotations

import json
from functools import partial
from statistics import fmean, stdev

import optuna
import pytest
from typer.testing import CliRunner

from msnas_optuna import queue_architectures
from msnas_optuna.cli import app
from msnas_optuna.report.dashboard.note import study_note
from msnas_optuna.report.figures.training import get_transfer_info, plot_transfer
from msnas_optuna.report.overview import Overview
from msnas_optuna.report.page import report_page
from msnas_optuna.storage import TrialRecord, repeat_of, write_record
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.selection import select
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

APS = {"best": (0.41, 0.44, 0.38), "by hand": (0.36, 0.33, 0.39)}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory, tiny_text, run_cheaply) -> Setting:
    """A search of which two architectures are trained with three seeds each."""
    path = tmp_path_factory.mktemp("seeded") / "tiny.toml"
    path.write_text(tiny_text)
    setting = Setting.load(path)
    run_cheaply(setting, None, trials=4)
    run_cheaply(setting, setting.method.baseline_stage, architectures=[setting.baseline])
    best = StudyView.load(setting).best[0].architecture
    aps = {best: APS["best"], setting.baseline: APS["by hand"]}
    study = setting.open_study({}, RETRAIN)
    queue_architectures(study, setting.space, aps, times=3)
    study.optimize(partial(told, setting, aps), n_trials=6)
    return setting


def told(setting, aps, trial: optuna.Trial) -> float:
    space = setting.space
    params = {name: trial._suggest(name, d) for name, d in space.distributions.items()}
    architecture, repeat = space.decode(params), repeat_of(trial)
    write_record(trial, TrialRecord(str(architecture), {"mparams": 0.1}, repeat))
    return aps[architecture][repeat]


def test_tables_tell_mean_standard_error_and_seeds(seeded):
    runner = CliRunner()
    text = runner.invoke(app, ["results", str(seeded.study_file)]).output
    row = next(line for line in text.splitlines() if line.startswith("FPN-like"))
    assert [cell.strip() for cell in row.split("│")][-2:] == ["36.0 ± 1.7", "3"]
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line)
    assert "val mAP" in text
    assert "test mAP" in text
    found = json.loads(runner.invoke(app, ["results", str(seeded.study_file), "--json"]).output)
    best = found["best"][0]
    assert best["standalone_by_seed"] == dict(zip("012", APS["best"], strict=True))
    assert best["standalone_ap"] == pytest.approx(fmean(APS["best"]))
    assert best["standalone_deviation"] == pytest.approx(stdev(APS["best"]))
    assert best["standalone_error"] == pytest.approx(stdev(APS["best"]) / 3**0.5)


def test_report_note_and_sentences_tell_them_too(seeded):
    overview = Overview(seeded)
    for text in (report_page(overview), study_note(overview, {}, None)):
        assert "41.0 ± 1.7 mAP on the test images" in text
        assert "retrained test mAP" in text
        assert "36.0 ± 1.7" in text


def test_the_transfer_figure_has_error_bars_and_names_the_images(seeded):
    view = StudyView.load(seeded)
    info, figure = get_transfer_info(view), plot_transfer(view)
    assert info.pairs[0].error == pytest.approx(1.7321, abs=1e-4)
    assert list(figure.data[0].error_y.array) == [pytest.approx(info.pairs[0].error, abs=0.01)]
    assert figure.layout.xaxis.title.text == "one-shot mAP (validation)"
    assert figure.layout.yaxis.title.text == "mAP after training from scratch (test)"


def test_the_weights_are_those_of_the_first_seed_and_so_is_their_ap(seeded):
    assert select(seeded, "best").ap == APS["best"][0]
