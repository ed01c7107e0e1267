"""A run folder of version 0.1.0 before the redesign: its weights go on, its search is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.storage import LAYOUT
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.setting import Setting
from msnas_optuna.training.checkpoint import save_checkpoint

FINGERPRINT = json.loads(Path(__file__).with_name("supernet_0_1.json").read_text())
"""Of the supernet of the tiny study, as stored at commit 6df50bb, without the data's digest."""

NAMES = "ad98768d0c9248a4c3a33afda13835c6681a92e3aa0bae8a32a9252c79632bdb"
"""SHA-256 of the names and shapes of its 314 tensors."""


def test_the_weights_of_a_supernet_of_then_have_the_names_of_now(trained):
    model = torch.load(trained.parent / "supernet.pt", weights_only=True)["model"]
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(model.items()))
    assert len(model) == 314
    assert hashlib.sha256(lines.encode()).hexdigest() == NAMES


def test_a_supernet_of_then_is_searched(trained):
    path = trained.parent / "supernet.pt"
    content = torch.load(path, weights_only=True)
    digest = {key: value for key, value in content["fingerprint"].items() if "sha256" in key}
    assert list(digest) == ["data.train_annotations.sha256"]
    run = {key: content[key] for key in ("step", "losses", "model", "optimizer")}
    save_checkpoint(path, run, fingerprint=FINGERPRINT | digest)
    experiment = Experiment.load(trained)
    assert experiment.train_supernet() == content["losses"]  # nothing is trained anew
    assert len(experiment.search(1).trials) == 1


def test_a_search_of_then_is_refused(finished):
    setting = Setting.load(finished)
    setting.stored_study().set_user_attr(LAYOUT, 2)
    for command in ("results", "search", "retrain", "ask", "report"):
        shown = CliRunner().invoke(app, [command, str(finished)])
        assert shown.exit_code == 1
        assert "'tiny' is stored in layout 2" in shown.stderr
        assert "go on with the version that made the study, or choose another" in shown.stderr
