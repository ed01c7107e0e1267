"""A method of under 150 lines goes from study file to trained, searched, retrained, reported."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.methods import METHODS
from msnas_optuna.storage import read_record
from msnas_optuna.study.config import ConfigError, load_config
from msnas_optuna.study.setting import Setting
from msnas_optuna.training.metrics import Metric

FILE = Path(__file__).with_name("toy.py")
STUDY = """
[study]
name = "toy"
run_dir = "."
trials = 6

[space]
method = "toy"
depth = 4
channels = 8

[budget]
tolerance = 0.5

[data]
image_size = [128, 128]
shapes = { train = 12, val = 4, test = 4, size = 128, extent = [30.0, 90.0] }

[supernet]
steps = 4
batch_size = 2

[finetune]
steps = 1
batch_size = 2

[retrain]
steps = 3
batch_size = 2

[sampler]
population_size = 2
n_children = 2
n_random = 1
seeds = ["1335", "plain"]
"""


@pytest.fixture(scope="module")
def toy():
    """The method, registered for the tests of this file."""
    spec = importlib.util.spec_from_file_location("toy", FILE)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "toy", module)  # dataclasses look it up
        spec.loader.exec_module(module)
        patch.setitem(METHODS, "toy", module.ToyMethod())
        yield METHODS["toy"]


@pytest.fixture
def study_file(toy, tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(STUDY)
    return path


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*arguments: str | Path):
    return json.loads(run(*arguments, "--json"))


def test_a_method_is_short():
    assert len(FILE.read_text().splitlines()) < 150


def test_from_study_file_to_report(study_file, tmp_path):
    assert as_json("train", study_file)["steps"] == 4
    searched = as_json("search", study_file)
    assert (searched["completed"], searched["failed"]) == (6, 0)
    assert all(0 <= result["one_shot_ap"] <= 1 for result in searched["best"])
    assert {len(result["kernels"]) for result in searched["best"]} == {4}
    assert searched["baseline"]["kernels"] == "3333"
    retrained = as_json("retrain", study_file, "--top", "1")
    assert retrained["best"][0]["standalone_ap"] is not None
    assert retrained["baseline"]["standalone_ap"] is not None
    table = run("results", study_file)
    assert "kernels" in table
    assert "plain network" in table
    run("report", study_file, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "the kernels of 4 blocks" in page
    assert "Squares are kernels." in page
    assert "strides" not in page
    exported = CliRunner().invoke(app, ["export", str(study_file)])
    assert "detectors of method toy cannot be exported" in exported.stderr
    found = as_json("predict", study_file, next((tmp_path / "data").rglob("*.jpg")))
    assert found["weights"] == "retrained"
    assert len(found["kernels"]) == 4


def test_a_method_may_measure_and_minimize_what_it_likes(study_file, toy, tmp_path, monkeypatch):
    class Measured(type(toy)):
        metrics = toy.metrics | {"cells": Metric("minimize", "kernel cells", "kernel_cells")}

        def costs(self, architecture, cost):
            cells = sum(int(kernel) ** 2 for kernel in architecture)
            return super().costs(architecture, cost) | {"kernel_cells": cells}

    monkeypatch.setitem(METHODS, "toy", Measured())
    study_file.write_text(STUDY.replace("trials = 6", 'trials = 4\nobjectives = ["ap", "cells"]'))
    run("train", study_file)
    searched = as_json("search", study_file)
    assert searched["objectives"] == ["ap", "cells"]
    study = Setting.load(study_file).stored_study()
    assert study.metric_names == ["AP", "kernel cells"]
    for trial in study.trials:
        kernels = read_record(trial).arch
        assert trial.values[1] == sum(int(kernel) ** 2 for kernel in kernels)
        assert read_record(trial).values["kernel_cells"] == trial.values[1]
    assert "36.00" in run("results", study_file)  # of the plain network
    run("report", study_file, "-o", tmp_path / "report.html")


def test_space_and_cost(study_file):
    counted = as_json("space", study_file)
    assert counted["valid"] == 15  # of 3^4, those that do not shrink
    assert counted["best_channels"] > 0
    assert counted["anchors"] is None
    flops = as_json("flops", "--study", study_file, "--kernels", "1335")
    assert flops["gflops"] == (1 + 9 + 9 + 25) * 64 * 32 * 32 / 1e9
    assert "kernel 5" in run("flops", "--study", study_file, "--architecture", "1335")


def test_an_external_trainer(study_file):
    asked = json.loads(run("ask", study_file))
    assert asked["architecture"] == asked["kernels"] == "1335"
    told = json.loads(run("tell", study_file, "--trial", "0", "--values", "0.5"))
    assert told["state"] == "complete"


def test_errors_name_what_the_method_knows(study_file):
    for old, new, message in [
        ("depth = 4", "deep = 4", r"space\.deep: unknown key, did you mean depth\?"),
        ('"plain"]', '"fpn-like"]', r"seeds: 'fpn-like' is none .* 4 kernels of 1, 3, 5"),
        ('"toy"\ndepth', '"toys"\ndepth', r'space\.method: expected "msnas" or "toy", got "toys"'),
        ("[sampler]", "[detector]\nhidden = 3\n[sampler]", r"detector\.hidden: unknown key"),
    ]:
        assert old in STUDY
        study_file.write_text(STUDY.replace(old, new))
        with pytest.raises(ConfigError, match=message):
            load_config(study_file)
