"""`msnas baseline` and `msnas retrain --seeds` on real detectors, and what they record."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from msnas_optuna.cli import app

SCALED = "ResNet-18-FPN-scaled"
ONLY = ("--only", "fpn-like", "--only", SCALED)


def msnas(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def stage(study_file: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{study_file.parent / 'study.db'}"
    return optuna.load_study(study_name=f"tiny-{name}", storage=url).trials


@pytest.mark.slow
def test_baselines_are_trained_over_seeds_and_nothing_twice(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    out = msnas("baseline", tiny, "--seeds", 2, *ONLY, "--json", "-q", "--record", "out/r.json")
    found = json.loads(out)
    assert found["images"] == "test"
    rows = {row["name"]: row for row in found["detectors"]}
    assert [*rows] == ["FPN-like path", SCALED]
    for row in rows.values():
        assert row["gflops"] == pytest.approx(found["target_gflops"], rel=0.02)
        assert [*row["standalone_by_seed"]] == ["0", "1"]
    recorded = json.loads(Path("out/r.json").read_text())
    assert recorded["command"] == (
        f"msnas baseline tiny.toml --seeds 2 --only fpn-like --only {SCALED} --json -q "
        "--record out/r.json"
    )
    assert recorded["seeds"] == [0, 1]
    assert recorded["numbers"]["detectors"] == found["detectors"]
    assert recorded["settings"]["retrain.steps"] == 3
    assert {"processor", "cores", "torch threads", "device"} == recorded["machine"].keys()
    before = [t.datetime_complete for name in ("retrain", "baseline") for t in stage(tiny, name)]
    text = msnas("baseline", tiny, "--seeds", 2, *ONLY, "-q")
    after = [t.datetime_complete for name in ("retrain", "baseline") for t in stage(tiny, name)]
    assert before == after
    assert len(before) == 4
    assert "test mAP" in text
    assert "±" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_default_are_detectors_of_the_studys_flops(tiny):
    from msnas_optuna.study.baselines import chosen_baselines
    from msnas_optuna.study.setting import Setting

    setting = Setting.load(tiny)
    every = ["fpn-like", *(f"ResNet-{n}-FPN-scaled" for n in (18, 34, 50))]
    assert chosen_baselines(setting) == every
    full = [f"ResNet-{n}-FPN" for n in (18, 34, 50)]
    assert chosen_baselines(setting, full_size=True) == every + full
    with pytest.raises(ValueError, match="--only must be one of fpn-like, ResNet-18"):
        chosen_baselines(setting, ["r18"])
    tiny.write_text(tiny.read_text().replace("[budget]", "[budget]\ntarget_gflops = 0.0045"))
    setting = Setting.load(tiny)
    with pytest.warns(UserWarning, match="ResNet-50-FPN-scaled is left out"):
        assert "ResNet-50-FPN-scaled" not in chosen_baselines(setting)


@pytest.mark.slow
def test_chosen_trials_are_retrained_over_seeds(searched):
    found = json.loads(
        msnas(
            "retrain", searched, "--trial", 3, "--trial", "fpn-like", "--seeds", 2, "--json", "-q"
        )
    )
    (chosen,) = found["standalone"]
    assert chosen["trial"] == 3
    for row in (chosen, found["baseline"]):
        aps = row["standalone_by_seed"]
        assert [*aps] == ["0", "1"]
        assert row["standalone_ap"] == pytest.approx(sum(aps.values()) / 2)
    assert found["images"] == {"one_shot": "validation", "standalone": "test"}
    text = msnas("results", searched, "--top", 1)
    assert "trial 3" in text  # though it need not be among the best
    assert "±" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line)


def test_a_record_holds_no_password_and_no_path_of_the_machine(tmp_path, monkeypatch):
    from msnas_optuna.cli.records import _command

    monkeypatch.chdir(tmp_path)
    words = [
        "retrain",
        str(tmp_path / "a.toml"),
        "--storage",
        "postgresql://u:pw@h/d",
        "--top",
        "5",
    ]
    assert _command(words) == "msnas retrain a.toml --top 5"
