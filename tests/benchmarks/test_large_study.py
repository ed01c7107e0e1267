from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from msnas_optuna.storage import finished_slots
from msnas_optuna.study.view import StudyView


def test_its_study_is_one_that_a_search_could_have_made(large_study: ModuleType, tmp_path: Path):
    setting = large_study.large_study(tmp_path, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = StudyView.load(setting)
        assert len(view.measurements) == finished_slots(view.study) == 40
    assert [m.generation for m in view.measurements] == [0] * 10 + [1] * 12 + [2] * 12 + [3] * 6
    assert {m.kind for m in view.measurements} == {"random", "crossover"}
    (trial, *_) = large_study.made_up(setting, view.study, range(40, 41))
    view.study.add_trial(trial)
    assert StudyView.load(setting).measurements[-1].generation == 3


@pytest.mark.slow
def test_it_times_every_command(large_study: ModuleType):
    command = [sys.executable, large_study.__file__, "--trials", "15", "--json"]
    rows = json.loads(subprocess.run(command, check=True, stdout=-1).stdout)
    assert [row["command"] for row in rows] == [
        *large_study.COMMANDS, "look", "look, new trial", "publish", "publish again"
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in rows)
