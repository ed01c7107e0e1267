"""`msnas ablation`, on the tiny study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.study.setting import Setting


def msnas(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_an_ablation_that_there_is_not_is_refused(tmp_path):
    shown = msnas("ablation", "table6", "--dir", tmp_path, code=1).stderr
    assert "an ablation is one of table2, table3, table4, table5, got 'table6'" in shown
    assert not [*tmp_path.iterdir()]


def test_before_anything_is_trained_the_paper_s_rows_are_there(tmp_path):
    shown = msnas("ablation", "table2", "--so-far", "--seeds", 2, "--dir", tmp_path)
    assert "34.98" in shown.stdout
    assert "ours, 0 seeds" in shown.stdout
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {f"seed-{s}/{arm}.toml" for s in (0, 1) for arm in ("base", "fpn-style")}


@pytest.mark.slow
def test_both_arms_run_to_their_end_share_what_is_equal_and_are_not_run_twice(tiny, tmp_path):
    folder, written = tmp_path / "all", tmp_path / "table4.json"
    command = ("ablation", "table4", "--study", tiny, "--dir", folder, "--seeds", 2, "--top", 2)
    numbers = json.loads(msnas(*command, "--json", "--record", written).stdout)
    assert [[*arm["seeds"]] for arm in numbers["arms"]] == [["0", "1"]] * 2
    assert numbers["difference"]["mean"]["ours"]["n"] == 2
    assert json.loads(written.read_text())["numbers"] == numbers
    assert json.loads(written.read_text())["seeds"] == [0, 1]

    seeds = [sorted(p.name for p in (folder / f"seed-{s}").iterdir()) for s in (0, 1)]
    assert seeds == [["base", "base.toml", "without-fine-tuning.toml"]] * 2  # one supernet
    for arm in ("base", "without-fine-tuning"):
        setting = Setting.load(folder / "seed-1" / f"{arm}.toml")
        found = json.loads(msnas("results", setting.study_file, "--json").stdout)
        assert found["completed"] == 7
        assert found["retrained"] >= 2

    def stamps():
        return {f: f.stat().st_mtime_ns for f in folder.rglob("*.pt")}

    before = stamps()
    assert json.loads(msnas(*command, "--json").stdout) == numbers
    assert stamps() == before
    # Another ablation finds the unchanged arm done, and trains the supernet of its own alone.
    other = ("ablation", "table3", *command[2:-2], "--top", 2)
    both = json.loads(msnas(*other, "--json").stdout)["arms"]
    assert both[1]["seeds"] == numbers["arms"][1]["seeds"]
    new = {str(f.relative_to(folder)) for f in stamps() if f not in before}
    assert new >= {f"seed-{s}/without-constraints/supernet.pt" for s in (0, 1)}
    assert all("/without-constraints/" in name for name in new)
