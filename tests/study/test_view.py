"""The one view of a study, whatever is stored of it."""

from __future__ import annotations

import math
from random import Random

import optuna
import pytest

from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.samplers.history import averaged, top
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import Result, StudyView


def names(results: tuple[Result, ...]) -> list[str]:
    return [result.name for result in results]


def test_before_the_search_the_baseline_stands_alone(tiny, run_cheaply):
    setting = Setting.load(tiny)
    view = StudyView.load(setting)
    assert (view.study, view.results, view.best, view.populations) == (None, (), (), {})
    assert (view.summary.completed, view.summary.one_shot_mean) == (0, None)
    assert view.baseline.architecture == setting.baseline
    assert math.isnan(view.baseline.ap)
    stage = setting.method.baseline_stage
    study = run_cheaply(setting, stage, architectures=[setting.baseline])
    assert StudyView.load(setting).baseline.ap == study.best_value


def test_a_study_and_its_file_give_the_same_view(finished):
    setting = Setting.load(finished)
    of_file, of_study = StudyView.load(setting), StudyView.of(setting.stored_study())
    assert StudyView.of(of_file) is of_file
    assert of_study.results == of_file.results
    assert len(of_file.results) == 7
    assert of_study.baseline == of_file.baseline
    assert of_study.populations == of_file.populations
    assert of_study.window == of_file.window == setting.window
    assert [r.standalone_ap is None for r in of_file.best[:3]] == [False, False, True]


def test_a_study_without_configuration_has_the_space_of_its_sampler(finished):
    setting = Setting.load(finished)
    sampler = ArchitectureSampler(setting.feasible, population_size=3, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for value in (0.1, 0.2):
        study.tell(study.ask(setting.space.distributions), value)
    view = StudyView.of(study)
    assert names(view.results) == ["trial 1", "trial 0"]
    assert (view.cost, view.window, view.feasibility) == (None, None, None)
    assert StudyView.of(optuna.create_study()).results == ()


def test_the_front_is_optuna_s_and_repeats_are_averaged(finished):
    setting = Setting.load(finished)
    study = optuna.create_study(directions=["maximize", "minimize"])
    values = [(0.5, 5.0), (0.4, 6.0), (0.4, 4.0), (0.5, 5.0), (0.1, 1.0)]
    for i, pair in enumerate(values):
        params = setting.space.encode(setting.feasible.at(i))
        distributions = setting.space.distributions
        study.add_trial(
            optuna.create_trial(params=params, distributions=distributions, values=pair)
        )
    view = StudyView(study, method=setting.method, space=setting.space)
    assert {result.number for result in view.best} == {t.number for t in study.best_trials}
    assert names(view.best) == ["trial 0", "trial 3", "trial 2", "trial 4"]
    study.add_trial(study.trials[0])
    study.add_trial(
        optuna.create_trial(
            params=study.trials[0].params, distributions=distributions, values=(0.2, 2.0)
        )
    )
    view = StudyView(study, method=setting.method, space=setting.space)
    (repeated,) = (result for result in view.results if len(result.records) == 3)
    assert repeated.name == "trial 0"
    assert list(repeated.values.values()) == pytest.approx([0.4, 4.0])
    assert (len(view.measurements), len(view.results)) == (7, 5)


def test_populations_are_the_best_of_all_that_was_measured_until_then(finished):
    setting = Setting.load(finished)
    for directions in (["maximize"], ["maximize", "minimize"]):
        sampler = ArchitectureSampler(
            setting.feasible, population_size=4, n_children=3, n_random=1, n_reevaluated=1, seed=0
        )
        study, rng = optuna.create_study(directions=directions, sampler=sampler), Random(0)
        for i in range(40):
            values = [rng.random() for _ in directions]
            study.tell(study.ask(setting.space.distributions), values)
            if i % 9 == 8:  # measured before, and not proposed: of generation 0
                study.add_trial(study.trials[i])
        records = sampler.ledger.read(study).records
        view = StudyView.of(study)
        assert view.n_generations == len(view.populations) > 5
        for g, population in view.populations.items():
            best = top(averaged(r for r in records if r.generation <= g), view.population_size)
            assert [r.architecture for r in population] == [c.architecture for c in best]


def test_only_a_finished_trial_is_measured(finished):
    view = StudyView.load(Setting.load(finished))
    assert view.measurement(3).records[0].trial.number == 3
    with pytest.raises(ValueError, match=r"trial must be .* finished trial, got 99"):
        view.measurement(99)


def test_trials_of_other_samplers_count_if_they_fit_and_are_named_if_not(finished):
    setting = Setting.load(finished)
    space, study = setting.space, setting.stored_study()
    held = {result.architecture for result in StudyView.load(setting).results}
    new = next(a for a in setting.feasible if a not in held)
    outside = next(a for a in setting.valid if setting.feasible.violation(a) is not None)
    for added in (new, outside):
        trial = optuna.create_trial(
            params=space.encode(added),
            distributions=space.distributions,
            value=0.9,
            user_attrs={"gflops": 99.0, "generation": 40, "origin": "random"},
        )
        study.add_trial(trial)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=3)
    view = StudyView.load(setting)
    with pytest.warns(UserWarning, match="leaves out") as warned:
        best = view.best[0]
    (said,) = (str(w.message) for w in warned)
    assert said.startswith("study tiny leaves out 4 of its complete trials")
    assert "trial 9-11 (no stride_01, stride_02, stride_03 and 7 more, but lr); trial 8 (" in said
    assert "GFLOPs lie outside the window 0.0" in said
    assert (best.number, best.architecture, best.kind, best.generation) == (7, new, "other", 0)
    assert best.gflops == setting.cost.total(new) / 1e9
    assert len(view.results) == 8
    assert (view.summary.completed, view.summary.failed) == (8, 0)
    assert view.n_generations == StudyView.of(study).n_generations < 40
