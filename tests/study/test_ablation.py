"""Study files of the arms of an ablation: they differ in what the paper's table names alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from msnas_optuna.study.ablation import BASE, Ablation
from msnas_optuna.study.config import load_config
from msnas_optuna.study.setting import Setting

FOLDER = Path(__file__).parents[2] / "studies" / "ablations"
CHANGES = {
    "table2": {"space.feature_strides": "fpn"},
    "table3": {"space.constraints": False},
    "table4": {"finetune.steps": 0},
    "table5": {"sampler.n_random": 0},
}
SHARED = {"table4", "table5"}  # the supernet's paths are the same


@pytest.fixture(params=CHANGES)
def ablation(request):
    return Ablation.load(FOLDER / f"{request.param}.toml")


def test_the_arms_differ_in_what_the_table_compares(ablation, tmp_path):
    base = Setting.load(FOLDER / "base.toml")
    files = ablation.write_studies(base, tmp_path, seed=3)
    changed, unchanged = (load_config(file) for file in files.values())
    differing = {
        key: value
        for key, value in changed.identity().items()
        if unchanged.identity().get(key, value) != value or key not in unchanged.identity()
    }
    assert differing == CHANGES[ablation.name]
    assert unchanged.identity() == base.config.identity() | {"study.seed": 3}
    assert changed.study.trials == unchanged.study.trials == base.config.study.trials
    assert (changed.study.run_dir == unchanged.study.run_dir) == (ablation.name in SHARED)
    assert changed.study.name != unchanged.study.name
    assert {s.window for s in map(Setting.load, files.values())} == {base.window}


@pytest.mark.parametrize("base", ["base", "bccd"])
def test_every_arm_has_more_architectures_than_trials(base, ablation, tmp_path):
    setting = Setting.load(FOLDER / f"{base}.toml")
    counts = {
        name: Setting.load(file).feasible.count()
        for name, file in ablation.write_studies(setting, tmp_path, seed=0).items()
    }
    assert counts[BASE] == 34_359
    assert min(counts.values()) >= (117 if ablation.name == "table2" else 34_359)
    assert min(counts.values()) > 2 * setting.config.study.trials


def test_arms_of_one_s_own_data_find_it_and_get_other_trials(tmp_path):
    own = tmp_path / "own" / "mine.toml"
    own.parent.mkdir()
    text = (FOLDER / "bccd.toml").read_text().replace('"."', '"run"')
    own.write_text(text.replace("target_gflops = 0.3\n", ""))  # then it is the baseline's cost
    setting = Setting.load(own)
    ablation = Ablation.load(FOLDER / "table2.toml")
    files = ablation.write_studies(setting, tmp_path / "all", seed=0, trials=9)
    for file in files.values():
        config = load_config(file)
        assert config.data.val_images == own.parent / "bccd" / "images"
        assert config.study.trials == 9
        assert Setting.load(file).window == setting.window  # not that of its own baseline
        assert config.study.run_dir.parent == tmp_path / "all" / "seed-0"


def test_a_base_that_has_the_change_already_is_refused(tmp_path):
    same = tmp_path / "same.toml"
    text = (FOLDER / "base.toml").read_text()
    same.write_text(text.replace("n_random = 2", "n_random = 0"))
    ablation = Ablation.load(FOLDER / "table5.toml")
    message = r"both arms of table5 are equal: .*same\.toml has the value of sampler\.n_random"
    with pytest.raises(ValueError, match=message):
        ablation.write_studies(Setting.load(same), tmp_path, seed=0)


def test_every_table_has_the_paper_s_numbers_of_both_arms(ablation):
    content = tomllib.loads((FOLDER / f"{ablation.name}.toml").read_text())
    assert [*content["arms"]][1] == BASE
    expected = {  # Tables 2-5, MSNAS-R18: mean, variance, max, tau
        "table2": ((34.98, 0.061, 35.3, -0.2247), (36.94, 0.03, 37.2, 0.4495)),
        "table3": ((36.98, 0.107, 37.4), (36.94, 0.03, 37.2)),
        "table4": ((-0.0899,), (0.4495,)),
        "table5": ((36.94,), (37.1,)),
    }
    found = tuple(tuple(arm.paper.values()) for arm in ablation.arms.values())
    assert found == expected[ablation.name]
