"""Two commands that are started on one study at once with different configurations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msnas_optuna.storage import is_withdrawn
from msnas_optuna.study.setting import Setting


@pytest.mark.slow
def test_one_of_two_configurations_is_refused(trained: Path) -> None:
    other = trained.with_name("other.toml")
    other.write_text(trained.read_text().replace("population_size = 3", "population_size = 4"))
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "msnas_optuna", "search", str(file)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        for file in (trained, other)
    ]  # fmt: skip
    errors = [command.communicate(timeout=240)[1] for command in commands]
    codes = [command.returncode for command in commands]
    assert sorted(codes) == [0, 1], errors
    refused = codes.index(1)
    was, now = (4, 3) if refused == 0 else (3, 4)
    assert f"sampler.population_size: {was} stored, {now} given" in errors[refused]
    assert errors[refused].count("stored,") == 1  # that key alone
    assert "restore the stored values, or choose another study name" in errors[refused]
    study = Setting.load((trained, other)[1 - refused]).stored_study()
    assert study is not None
    assert [t.state.name for t in study.trials if not is_withdrawn(t)] == ["COMPLETE"] * 7
