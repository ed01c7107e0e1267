"""The sample, and what a storage tells of it; values come from a formula, nothing is trained."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, strategies as st

from msnas_optuna.report.figures.ranking import get_ranking_info, plot_ranking
from msnas_optuna.report.ranking import RankReport
from msnas_optuna.samplers import queue_architectures, suggest
from msnas_optuna.spaces.gaussian_process import GaussianProcess
from msnas_optuna.storage import repeat_of
from msnas_optuna.study.config import RETRAIN, FinetuneSection
from msnas_optuna.study.portability import export_study, import_study
from msnas_optuna.study.rank import (
    RECALIBRATED,
    RECALIBRATION_BATCHES,
    SAMPLE,
    SMOOTHED,
    Ranking,
    Score,
    pool,
    stratified,
)
from msnas_optuna.study.rank_statistics import agreement, variance_components
from msnas_optuna.study.setting import Setting


def wide(folder: Path, text: str) -> Setting:
    """A study with a window that holds more architectures."""
    (folder / "tiny.toml").write_text(text.replace("tolerance = 0.05", "tolerance = 0.3"))
    return Setting.load(folder / "tiny.toml")


@pytest.fixture
def setting(tmp_path, tiny_text) -> Setting:
    return wide(tmp_path, tiny_text)


def test_a_pool_is_different_architectures_and_grows_at_its_end(setting):
    feasible = setting.feasible
    small, large = (pool(feasible, size, seed=3) for size in (10, 25))
    assert len({*large}) == 25
    assert large[:10] == small
    assert all(feasible.violation(a) is None for a in large)
    assert pool(feasible, 10, seed=4) != small
    assert {*pool(feasible, 10**6, seed=3)} == {*feasible}


def test_a_pool_is_uniform(setting):
    n = setting.feasible.count()
    counts = Counter(a for seed in range(400) for a in pool(setting.feasible, 5, seed=seed))
    assert max(counts.values()) < 2000 / n + 6 * math.sqrt(2000 / n)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60, unique=True), st.integers(1, 20))
def test_a_sample_has_one_of_each_stratum(values, size):
    scores = dict(enumerate(values))
    sample = stratified(scores, size)
    assert len(sample) == len({*sample}) == min(size, len(values))
    assert sample == sorted(sample, key=scores.__getitem__)
    ranked = sorted(values)
    for stratum, one in zip(np.array_split(ranked, len(sample)), sample, strict=True):
        assert scores[one] in stratum
        assert one == min(i for i, value in scores.items() if value in stratum)


def test_recipes_of_scores():
    finetune = FinetuneSection(steps=30, batch_size=4, learning_rate=1e-3)
    recipes = {s: s.recipe(finetune) for s in (Score(0), RECALIBRATED, Score(50))}
    assert [(r.steps, r.recalibration_batches) for r in recipes.values()] == [
        (0, 0), (0, RECALIBRATION_BATCHES), (50, 0)
    ]  # fmt: skip
    assert {r.batch_size for r in recipes.values()} == {4}
    own = FinetuneSection(steps=30, recalibration_batches=7)
    batches = [score.recipe(own).recalibration_batches for score in recipes]
    assert batches == [0, 7, 7]  # a score with fine-tuning is what a search would measure


def test_a_stage_names_its_score():
    for score in (Score(0), Score(20), RECALIBRATED):
        assert Score.of_stage(score.stage) == score
    assert [Score.of_stage(s) for s in (RETRAIN, "rank-x", "20", "fpn-like")] == [None] * 4


def measured(setting: Setting, stage: str, rows: dict) -> optuna.Study:
    """A stage with these values; of several each is a training."""
    study = setting.open_study({}, stage)
    runs = {a: np.atleast_1d(values).tolist() for a, values in rows.items()}
    for architecture, values in runs.items():
        queue_architectures(study, setting.space, [architecture], times=len(values))

    def value(trial: optuna.Trial) -> float:
        architecture = suggest(trial, setting.valid)
        return runs[architecture][repeat_of(trial)]

    study.optimize(value, n_trials=len(study.trials))
    return study


@pytest.fixture(scope="module")
def _ranked_once(tmp_path_factory, tiny_text) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    setting = wide(folder, tiny_text)
    rng = np.random.default_rng(0)
    candidates = pool(setting.feasible, 20, seed=0)
    true = {a: 0.3 + i / 100 for i, a in enumerate(candidates)}
    scores = {a: ap + rng.normal(0, 0.02) for a, ap in true.items()}
    sample = stratified(scores, 8)
    study = measured(setting, RECALIBRATED.stage, scores)
    study.set_user_attr(SAMPLE, [str(a) for a in sample])
    measured(setting, Score(0).stage, dict.fromkeys(sample, 0.0))
    measured(setting, Score(20).stage, {a: true[a] for a in sample[:-1]})
    trainings = {a: true[a] + rng.normal(0, 0.02, 2) for a in sample}
    trainings[sample[0]] = trainings[sample[0]][:1]
    outside = {setting.baseline: 0.9}
    measured(setting, RETRAIN, trainings | outside)
    return folder


@pytest.fixture
def ranked(_ranked_once, tmp_path) -> Setting:
    """20 scored architectures, 8 of them a sample that is trained, two seeds each but for one."""
    shutil.copytree(_ranked_once, tmp_path, dirs_exist_ok=True)
    return Setting.load(tmp_path / "tiny.toml")


def test_a_ranking_is_what_is_stored(ranked):
    found = Ranking.load(ranked)
    assert list(found.scores) == ["as is", "recalibrated", "fine-tuned 20", SMOOTHED]
    assert len(found.sample) == 8
    known = found.scores["recalibrated"]
    assert len(known) == 20
    smoothed = GaussianProcess(ranked.space, list(known), list(known.values()))
    assert [*found.scores[SMOOTHED].values()] == pytest.approx(smoothed.mean(list(known)))
    assert [len(runs) for runs in found.trained] == [1] + [2] * 7
    assert ranked.baseline not in found.pairs("recalibrated")  # trained, but not of the sample
    assert len(found.pairs("fine-tuned 20")) == 7


def test_a_report_is_the_statistics_of_it(ranked):
    ranking = Ranking.load(ranked)
    found = RankReport(ranking, half_width=0.2, seed=5)
    rows = {row.score: row for row in found.rows}
    pairs = ranking.pairs("fine-tuned 20").values()
    scores, truth = zip(*((s, np.mean(runs)) for s, runs in pairs), strict=True)
    assert rows["fine-tuned 20"].found == agreement(scores, truth, seed=5)
    assert rows["as is"].found.tau is None  # all ties
    noise = variance_components(ranking.trained)
    seeds = 1 / np.mean([1] + [1 / 2] * 7)
    assert found.reliability == pytest.approx(noise.reliability(seeds))
    assert found.halves is None  # one architecture is trained once
    known = [row for row in found.rows if row.found.tau is not None]
    assert abs(found.widest.found.tau.value) == min(abs(row.found.tau.value) for row in known)
    assert [plan.seeds for plan in found.plans] == [1, 2, 3, 5]
    content = found.as_json()
    assert (content["sample"], content["trained"], content["trainings"]) == (8, 8, 15)
    assert [row["score"] for row in content["scores"]] == list(rows)
    assert content["scores"][0]["tau"] is None
    assert content["scores"][2]["n"] == 7


def test_a_report_of_what_is_not_trained_yet(ranked):
    optuna.delete_study(study_name=ranked.study_name(RETRAIN), storage=ranked.storage)
    found = RankReport(Ranking.load(ranked))
    assert found.ceiling is found.halves is found.widest is None
    assert found.plans == []
    assert all(row["tau"] is None for row in found.as_json()["scores"])
    assert "yet" in str(plot_ranking(found.ranking).layout.annotations)


def test_points_have_the_error_of_their_mean(ranked):
    ranking = Ranking.load(ranked)
    info, noise = get_ranking_info(ranking), variance_components(ranking.trained)
    assert {score: len(points) for score, points in info.items()} == {
        "as is": 8, "recalibrated": 8, "fine-tuned 20": 7, SMOOTHED: 8
    }  # fmt: skip
    once, twice = info["recalibrated"][:2]
    assert once.error == pytest.approx(100 * math.sqrt(noise.within))
    assert twice.error == pytest.approx(100 * math.sqrt(noise.within / 2))
    assert twice.truth == pytest.approx(100 * np.mean(ranking.trained[1]))
    figure = plot_ranking(ranking)
    assert [trace.name for trace in figure.data] == list(info)
    assert figure.data[1].error_y.array[0] == pytest.approx(once.error, rel=1e-3)


def test_nothing_to_tell_before_a_sample_is_drawn(setting):
    for measure in (lambda: None, lambda: setting.open_study({}, RECALIBRATED.stage)):
        measure()
        with pytest.raises(
            ValueError, match=r"has no sample to rank yet; run `msnas rank .*toml`"
        ):
            Ranking.load(setting)


@pytest.mark.slow
def test_the_stages_of_scores_move_with_a_study(ranked, tmp_path):
    optuna.create_study(study_name="tiny-rank-20-retrain", storage=ranked.storage)  # of another
    assert ranked.stages_in(ranked.storage) == [RETRAIN, "rank-0", "rank-20", "rank-recalibrated"]
    found = Ranking.load(ranked)
    moved = export_study(ranked, str(tmp_path / "moved.zip"))
    assert "tiny-rank-20" in moved.studies
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "tiny.toml").write_text(ranked.study_file.read_text())
    other = Setting.load(folder / "tiny.toml")
    import_study(other, str(tmp_path / "moved.zip"))
    assert Ranking.load(other).scores == found.scores
