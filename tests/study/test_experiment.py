from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState, create_trial

from msnas_optuna.data.images import DataError
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.runtime.distributed import resolve_device
from msnas_optuna.samplers import queue_architectures
from msnas_optuna.spaces.lattice import EmptyWindowError
from msnas_optuna.storage import StudyMismatchError, Worker, read_record
from msnas_optuna.storage.records import OWNER, QUEUED
from msnas_optuna.study.config import RETRAIN, ConfigError
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.rank import RECALIBRATED, Score, measure, pool
from msnas_optuna.study.view import StudyView
from msnas_optuna.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def edited(study_file: Path, old: str, new: str) -> Path:
    text = study_file.read_text()
    assert old in text
    study_file.write_text(text.replace(old, new))
    return study_file


def proposals(study: optuna.Study) -> list[tuple[str, float]]:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return sorted((t.user_attrs["arch"], t.values[0]) for t in complete)


@pytest.fixture(scope="session")
def _searched_to_the_end(_trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched_to_the_end") / "study"
    shutil.copytree(_trained_once, folder)
    Experiment.load(folder / "tiny.toml").search()
    return folder


@pytest.fixture
def searched(_searched_to_the_end: Path, trained: Path) -> tuple[Experiment, optuna.Study]:
    """The experiment of `trained`, which has been searched, too, and its study."""
    shutil.copytree(_searched_to_the_end, trained.parent, dirs_exist_ok=True)
    experiment = Experiment.load(trained)
    return experiment, experiment.setting.stored_study()


def test_every_trial_is_valid_new_and_inside_the_window(searched):
    experiment, study = searched
    low, high = experiment.setting.window
    assert len(study.trials) == 7
    found = [experiment.setting.space.decode(t.params) for t in study.trials]
    assert len(set(found)) == 7
    for architecture, trial in zip(found, study.trials, strict=True):
        assert trial.state == TrialState.COMPLETE
        assert experiment.setting.space.violation(architecture) is None
        assert low <= experiment.setting.cost.total(architecture) <= high


def test_a_trial_keeps_all_that_was_measured(searched):
    experiment, study = searched
    for trial in study.trials:
        record = read_record(trial)
        architecture = experiment.setting.space.decode(trial.params)
        values = record.values
        assert values["gflops"] == experiment.setting.cost.total(architecture) / 1e9
        assert values["mparams"] * 1e6 == experiment.build_detector(architecture).n_parameters
        assert record.arch == str(architecture)
        assert values["train_seconds"] > 0
        assert values["evaluate_seconds"] > 0
        assert 0 <= trial.values[0] <= values["ap50"] <= 1
        assert "ap_large" not in values  # objects have 90 pixels at most
        assert trial.user_attrs["generation"] == (0 if trial.number < 3 else trial.number // 3)
    origins = [t.user_attrs["origin"] for t in study.trials]
    assert origins[:4] == ["random"] * 4
    assert origins[6] == "random"  # one in each generation (Algorithm 1, line 8)
    assert {"random"} < set(origins)


def test_the_study_is_named_after_its_metric_for_cli_and_dashboard(searched):
    assert searched[1].metric_names == ["AP"]


def test_a_second_run_does_no_work_twice(searched, trained):
    _, study = searched
    checkpoint = trained.parent / "supernet.pt"
    written = checkpoint.stat().st_mtime_ns
    again = Experiment.load(trained)
    losses = again.train_supernet()
    assert len(losses) == 4
    assert checkpoint.stat().st_mtime_ns == written
    assert [t.datetime_start for t in again.search().trials] == [
        t.datetime_start for t in study.trials
    ]
    first = again.retrain(top=1).trials
    second = Experiment.load(trained).retrain(top=1).trials
    assert len(first) == 2  # the winner and the hand-made path
    assert [t.datetime_complete for t in first] == [t.datetime_complete for t in second]


def test_trials_count_the_study_not_the_run(trained):
    assert len(Experiment.load(trained).search(trials=2).trials) == 2
    assert len(Experiment.load(trained).search(trials=5).trials) == 5
    assert len(Experiment.load(trained).search(trials=3).trials) == 5


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "n_reevaluated = 1\nseeds = ['fpn-like']"])
def test_an_interrupted_search_ends_like_an_uninterrupted_one(trained, tmp_path, more):
    edited(trained, "[sampler]", f"[sampler]\n{more}")
    twin = tmp_path / "twin"
    shutil.copytree(trained.parent, twin)
    undisturbed = Experiment.load(trained).search()

    interrupted = Experiment.load(twin / "tiny.toml")
    calls = []

    class Interrupting:
        def __call__(self, trial):
            calls.append(trial.number)
            objective = interrupted_objective
            if len(calls) in (2, 6):
                raise KeyboardInterrupt
            return objective(trial)

    interrupted_objective = interrupted.one_shot_objective(interrupted.setting.feasible)
    interrupted.one_shot_objective = lambda feasible: Interrupting()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted.search()
    resumed = interrupted.search()
    assert len(resumed.trials) == 9  # two of them failed and were repeated
    assert proposals(resumed) == proposals(undisturbed)


def test_a_non_finite_loss_fails_its_trial_alone(trained):
    experiment = Experiment.load(trained)
    fingerprint = experiment._training_identity("supernet")
    content = load_checkpoint(experiment.supernet_path, fingerprint=fingerprint)
    spoiled = [k for k in content["model"] if k.startswith("encoder.blocks.3.doubles")]
    for key in spoiled:
        if content["model"][key].is_floating_point():
            content["model"][key].fill_(float("nan"))
    del content["fingerprint"]
    save_checkpoint(experiment.supernet_path, content, fingerprint=fingerprint)
    study = experiment.search()
    for trial in study.trials:
        through = trial.params["stride_04"] == 0.5
        assert trial.state == (TrialState.FAIL if through else TrialState.COMPLETE)
    states = [t.state for t in study.trials]
    assert len(states) == 7
    assert TrialState.FAIL in states, "no trial went through the spoiled block: choose another"
    assert StudyView.load(experiment.setting).summary.failed == states.count(TrialState.FAIL)


def test_a_queued_architecture_outside_the_budget_is_refused(trained):
    experiment = Experiment.load(trained)
    study = experiment.search(trials=1)
    outside = Architecture((1, 1, 1, 1, 2), (4, 4, 4, 4, 8))
    assert "outside the window" in experiment.setting.feasible.violation(outside)
    study.enqueue_trial(experiment.setting.space.encode(outside))
    resumed = experiment.search(trials=3)
    assert [t.state.name for t in resumed.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_the_hand_made_path_is_the_default_target_and_stands_beside_the_best(trained):
    experiment = Experiment.load(trained)
    by_hand = experiment.setting.space.fpn_like()
    assert experiment.setting.target == experiment.setting.cost.total(by_hand)
    experiment.evaluate_baseline()
    experiment.search()
    experiment.retrain(top=2)
    view = StudyView.load(experiment.setting)
    best, reference = view.best[:3], view.baseline
    assert [r.ap for r in best] == sorted((r.ap for r in best), reverse=True)
    assert [r.standalone_ap is None for r in best] == [False, False, True]
    assert reference.architecture == by_hand
    assert None not in (reference.values.get("ap"), reference.standalone_ap)
    summary = StudyView.load(experiment.setting).summary
    alone = [r.standalone_ap for r in best[:2]]
    assert summary.retrained == 2
    assert summary.standalone_mean == pytest.approx(sum(alone) / 2)
    assert summary.standalone_variance == pytest.approx((alone[0] - alone[1]) ** 2 / 4)
    assert summary.standalone_max == max(alone)


def test_a_score_is_what_a_search_with_its_steps_measures(searched):
    experiment, study = searched
    first, second = study.trials[:2]
    architectures = [experiment.setting.space.decode(t.params) for t in (first, second)]
    for _ in range(2):  # nothing is measured twice
        experiment.score(architectures, [Score(1)])
        scored = experiment.setting.stored_study("rank-1")
        assert [t.value for t in scored.trials] == [first.value, second.value]
    experiment.score(architectures, [RECALIBRATED])
    recalibrated = experiment.setting.stored_study("rank-recalibrated")
    assert [t.value for t in recalibrated.trials] != [first.value, second.value]
    assert recalibrated.metric_names == ["AP"]
    edited(experiment.setting.study_file, "learning_rate = 1e-3", "learning_rate = 2e-3")
    other = Experiment.load(experiment.setting.study_file)
    with pytest.raises(StudyMismatchError, match=r"learning_rate[^$]*delete study 'tiny-rank-1'"):
        other.score(architectures, [Score(1)])


def test_a_sample_waits_for_its_whole_pool(trained):
    experiment = Experiment.load(trained)
    setting = experiment.setting
    candidates = pool(setting.feasible, 4, seed=0)
    experiment.score(candidates[:2], [RECALIBRATED])
    study = setting.stored_study(RECALIBRATED.stage)
    trial = create_trial(
        state=TrialState.RUNNING,
        params=setting.space.encode(candidates[2]),
        distributions=setting.space.distributions,
        system_attrs={QUEUED: True, OWNER: asdict(Worker.external(2))},
    )
    study.add_trial(trial)
    with (
        pytest.warns(UserWarning, match="are left to other workers"),
        pytest.raises(RuntimeError, match="whole pool is scored, 1 architectures are left"),
    ):
        measure(experiment, size=1, seeds=1, steps=[0])


def test_seeds_are_evaluated_first_and_once(trained):
    setting = Experiment.load(trained).setting
    by_hand = setting.space.fpn_like()
    literal = next(setting.feasible.at(i) for i in range(9) if setting.feasible.at(i) != by_hand)
    edited(trained, "[sampler]", f'[sampler]\nseeds = ["fpn-like", "{literal}"]')
    Experiment.load(trained).search(trials=1)
    study = Experiment.load(trained).search()
    found = [setting.space.decode(t.params) for t in study.trials]
    assert found[:2] == [by_hand, literal]
    assert len(set(found)) == len(found) == 7
    assert [t.user_attrs["origin"] for t in study.trials[:3]] == ["queued", "queued", "random"]


def test_a_seed_outside_the_window_is_refused_with_its_cost(trained):
    edited(trained, "[sampler]", '[sampler]\nseeds = ["1 1 1 1 2 | 4 4 4 4 8"]')
    message = r"sampler\.seeds: '1 1 1 1 2 \| 4 4 4 4 8' .*GFLOPs lie outside the window .*GFLOPs"
    with pytest.raises(ConfigError, match=message):
        Experiment.load(trained).search()


def test_the_best_are_measured_again_with_another_seed(trained):
    edited(trained, "[sampler]", "[sampler]\nn_reevaluated = 2")
    edited(trained, "trials = 7", "trials = 13")
    edited(trained, "[finetune]\nsteps = 1", "[finetune]\nsteps = 3")
    experiment = Experiment.load(trained)
    experiment.search(trials=5)
    study = Experiment.load(trained).search()
    view = StudyView.load(experiment.setting)
    results = view.results
    again = [r for r in results if len(r.records) > 1]
    assert [t.user_attrs["origin"] == "reevaluated" for t in study.trials].count(True) == 4
    assert sum(len(r.records) for r in results) == 13
    for result in again:
        values = [record.trial.value for record in result.records]
        assert result.ap == pytest.approx(sum(values) / len(values))
    aps = [r.ap for r in results]
    assert aps == sorted(aps, reverse=True)
    trials = [t for t in study.trials if t.user_attrs["arch"] == str(again[0].architecture)]
    assert [read_record(t).repeat for t in trials] == list(range(len(trials)))
    summary = StudyView.load(experiment.setting).summary
    assert (summary.completed, summary.architectures) == (13, len(results))


def test_a_repeated_measurement_trains_on_other_batches(trained):
    experiment = Experiment.load(trained)
    objective = experiment.one_shot_objective(experiment.setting.feasible)
    seeds = []
    batches = type(objective.task).batches

    class Spy(type(objective.task)):
        def batches(self, recipe, seed):
            seeds.append(seed)
            return batches(self, recipe, seed)

    objective.task = Spy(**vars(objective.task))
    architecture = experiment.setting.feasible.at(0)
    first, again = objective.measure(architecture), objective.measure(architecture)
    assert {key for key in first if first[key] != again[key]} <= {
        "train_seconds", "evaluate_seconds",
    }  # fmt: skip
    objective.measure(architecture, repeat=2)
    assert seeds == [0, 0, 2]


@pytest.mark.parametrize("cost", ["gflops", "latency"])
def test_two_objectives_give_a_pareto_front(trained, cost):
    edited(trained, "trials = 7", f'trials = 9\nobjectives = ["ap", "{cost}"]')
    edited(trained, "tolerance = 0.05", "tolerance = 0.3")
    experiment = Experiment.load(trained)
    study = experiment.search()
    assert study.metric_names == ["AP", {"gflops": "GFLOPs", "latency": "latency ms"}[cost]]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in study.trials:
        values = read_record(trial).values
        assert trial.values[1] == values["gflops" if cost == "gflops" else "latency_ms"] > 0
        assert ("latency_ms" in values) == (cost == "latency")
    front = StudyView.load(experiment.setting).best
    # Optuna keeps those too that equal another in every objective.
    assert {r.number for r in front} == {t.number for t in study.best_trials}
    aps = [r.ap for r in front]
    assert aps == sorted(aps, reverse=True)
    experiment.evaluate_baseline()
    retrained = experiment.retrain(top=1)
    assert retrained.metric_names == ["AP"]
    assert retrained.trials[0].params == front[0].records[0].trial.params
    view = StudyView.load(experiment.setting)
    assert view.best[0].standalone_ap is not None
    assert None not in (view.baseline.values.get("ap"), view.baseline.standalone_ap)
    with pytest.raises(StudyMismatchError, match="objectives"):
        Experiment.load(edited(trained, f', "{cost}"', "")).search()


def test_a_retrained_detector_is_kept_as_a_file(searched):
    experiment, _ = searched
    study = experiment.retrain(top=1)
    for trial in study.trials:
        file = experiment.setting.run_dir / "retrained" / trial.user_attrs["checkpoint"]
        weights = torch.load(file, weights_only=True)["model"]
        architecture = experiment.setting.space.decode(trial.params)
        experiment.build_detector(architecture).load_state_dict(weights)
    assert study.user_attrs["parent_study"] == "tiny"


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("tolerance = 0.05", "tolerance = 0.06", "budget.tolerance"),
        ("population_size = 3", "population_size = 4", "sampler.population_size"),
        ("learning_rate = 1e-3", "learning_rate = 2e-3", "finetune.learning_rate"),
    ],
)
def test_a_study_refuses_another_configuration(searched, trained, old, new, difference):
    with pytest.raises(StudyMismatchError, match=difference.replace(".", r"\.")):
        Experiment.load(edited(trained, old, new)).search()


def test_another_configuration_is_refused_before_the_baseline_is_measured(searched, trained):
    experiment = Experiment.load(edited(trained, "learning_rate = 1e-3", "learning_rate = 2e-3"))
    with pytest.raises(StudyMismatchError, match=r"finetune\.learning_rate"):
        experiment.evaluate_baseline()
    assert experiment.setting.begun_study("fpn-like") is None


def test_a_study_refuses_another_supernet(searched, trained):
    edited(trained, "steps = 4", "steps = 5")
    (trained.parent / "supernet.pt").unlink()
    experiment = Experiment.load(trained)
    experiment.train_supernet()
    with pytest.raises(StudyMismatchError, match=r"supernet\.sha256"):
        experiment.search()


def test_a_supernet_of_another_space_is_refused(trained):
    edited(trained, "channels = 8\n", "channels = 16\n")
    with pytest.raises(CheckpointError, match=r"space\.channels: 8 in the checkpoint, 16 in the"):
        Experiment.load(trained).train_supernet()


def test_an_unfinished_supernet_is_not_searched(tiny):
    experiment = Experiment.load(tiny)

    def stop(step, done, total, note=""):
        if step == "supernet" and done == 2:
            raise KeyboardInterrupt

    experiment.report = stop
    with pytest.raises(KeyboardInterrupt):
        experiment.train_supernet()
    with pytest.raises(CheckpointError, match=r"has 1 of 4 steps; run `msnas train`"):
        Experiment.load(tiny).search()
    experiment = Experiment.load(tiny)
    experiment.train_supernet()
    assert len(experiment.search(trials=1).trials) == 1  # the refusal has stored nothing


def test_a_search_before_the_training_says_what_to_do(tiny):
    with pytest.raises(CheckpointError, match=r"supernet\.pt; run `msnas train` first"):
        Experiment.load(tiny).search()


def test_more_trials_than_architectures_ends_with_the_last_one(trained):
    edited(trained, "tolerance = 0.05", "tolerance = 0.001")
    experiment = Experiment.load(trained)
    count = experiment.setting.feasible.count()
    assert 1 < count < 7
    study = experiment.search()
    assert len({t.user_attrs["arch"] for t in study.trials}) == len(study.trials) == count


def test_a_target_that_nothing_meets_names_the_reachable_range(trained):
    edited(trained, "[budget]", "[budget]\ntarget_gflops = 50.0")
    (trained.parent / "supernet.pt").unlink()
    with pytest.raises(EmptyWindowError, match=r"they cost 0\.0055.* to 0\.0137"):
        Experiment.load(trained).train_supernet()
    assert not (trained.parent / "supernet.pt").exists()  # refused before any training


def test_splits_must_have_the_same_categories(trained):
    experiment = Experiment.load(trained)
    annotations = trained.parent / "data" / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    content["categories"][0]["name"] = "ring"
    annotations.write_text(json.dumps(content))
    with pytest.raises(DataError, match="must have the same categories"):
        _ = experiment.task


def test_retraining_needs_a_search(trained):
    with pytest.raises(ValueError, match="no finished trial to retrain; run `msnas search`"):
        Experiment.load(trained).retrain(top=1)


def test_a_missing_gpu_is_named():
    with pytest.raises(ValueError, match=r"runtime\.device is 'cuda:99'"):
        resolve_device("cuda:99")


def test_optuna_drives_the_parts_without_us(trained):
    """The README's Python example, with a storage of its own."""
    from msnas_optuna import ArchitectureSampler

    experiment = Experiment.load(trained)
    study = optuna.create_study(
        direction="maximize",
        sampler=ArchitectureSampler(experiment.setting.feasible, population_size=3, seed=0),
        storage=f"sqlite:///{trained.parent / 'mine.db'}",
    )
    study.optimize(experiment.one_shot_objective(experiment.setting.feasible), n_trials=2)
    best = experiment.setting.space.decode(study.best_params)
    assert experiment.setting.feasible.violation(best) is None


def test_a_failed_trial_keeps_the_reason(trained):
    experiment = Experiment.load(trained)
    study = experiment.search(trials=1)
    outside = Architecture((1, 1, 1, 1, 2), (4, 4, 4, 4, 8))
    study.enqueue_trial(experiment.setting.space.encode(outside))
    with pytest.warns(UserWarning, match=r"trial 1 failed: .*outside the window"):
        experiment.search(trials=2)
    assert "outside the window" in study.trials[1].user_attrs["error"]


def test_a_bad_image_in_the_search_costs_no_trial(trained):
    image = next((trained.parent / "data" / "val").iterdir())
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    for _ in range(2):
        with pytest.raises(DataError, match=image.name):
            Experiment.load(trained).search()
    image.write_bytes(whole)
    study = Experiment.load(trained).search()
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == 7
    assert not [t for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]


def test_a_bad_validation_image_shows_before_the_training(tiny):
    experiment = Experiment.load(tiny)
    _ = experiment.task  # generates the data
    image = next((tiny.parent / "data" / "val").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=image.name):
        Experiment.load(tiny).train_supernet()
    assert not (tiny.parent / "supernet.pt").exists()


def test_validation_without_objects_is_refused_before_the_training(tiny):
    experiment = Experiment.load(tiny)
    experiment.setting.splits()
    annotations = tiny.parent / "data" / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(DataError, match=r"instances_val\.json has none"):
        experiment.train_supernet()


def test_the_supernet_does_not_depend_on_what_is_for_evaluation(trained):
    written = (trained.parent / "supernet.pt").stat().st_mtime_ns
    annotations = trained.parent / "data" / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    content["annotations"].pop()
    annotations.write_text(json.dumps(content))
    edited(trained, "[detector]", "[detector]\nscore_threshold = 0.1\nmax_detections = 50")
    experiment = Experiment.load(trained)
    assert len(experiment.train_supernet()) == 4
    assert (trained.parent / "supernet.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["q?mark", "per%20cent", "a #b", "zwölf ß"])
def test_the_database_lies_in_the_study_s_folder_whatever_its_name(trained, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(trained.parent, folder)
    Experiment.load(folder / "tiny.toml").search(trials=1)
    assert (folder / "study.db").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"study", name}


def test_a_storage_file_is_relative_to_the_study_file(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edited(trained, "trials = 7", 'trials = 1\nstorage = "sqlite:///mine.db"')
    Experiment.load(trained).search()
    assert (trained.parent / "mine.db").exists()
    assert not (tmp_path / "mine.db").exists()


def test_results_of_another_configuration_are_refused(searched, trained):
    edited(trained, "channels = 8\n", "channels = 16\n")
    with pytest.raises(StudyMismatchError, match=r"space\.channels: 8 stored, 16 given"):
        StudyView.load(Experiment.load(trained).setting)


def test_another_recipe_for_the_retraining_says_how_to_begin_anew(searched, trained):
    experiment, _ = searched
    experiment.retrain(top=1)
    edited(trained, "[retrain]\nsteps = 3", "[retrain]\nsteps = 2")
    with pytest.raises(StudyMismatchError, match=r"retrain\.steps: 3 stored, 2 given") as error:
        Experiment.load(trained).retrain(top=1)
    assert "optuna delete-study" in str(error.value)


def test_a_retrained_detector_is_loaded_with_its_weights(searched):
    experiment, _ = searched
    by_hand = experiment.setting.space.fpn_like()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        experiment.retrained(by_hand)
    study = experiment.retrain(top=1)
    detector = experiment.retrained(by_hand)
    (value,) = [t.value for t in study.trials if t.user_attrs["arch"] == str(by_hand)]
    assert experiment.task.evaluate(detector, experiment.task.test)["ap"] == value


def test_lost_weights_are_trained_again_and_the_stored_value_stays(searched):
    experiment, _ = searched
    study = experiment.retrain(top=1)
    best = experiment.setting.space.decode(study.trials[0].params)
    values = [t.value for t in study.trials]
    lost = list((experiment.setting.run_dir / "retrained").glob("*.pt"))
    assert len(lost) == len(values) == 2
    for file in lost:
        file.unlink()
    with pytest.raises(
        CheckpointError, match=r"there is no .*; run `msnas retrain .* --trial \d+`"
    ):
        experiment.retrained(best)
    assert [t.value for t in experiment.retrain(top=1).trials] == values
    assert all(file.exists() for file in lost)
    measured = experiment.task.evaluate(experiment.retrained(best), experiment.task.test)
    assert measured["ap"] == values[0]


def test_more_measurements_than_architectures_end_cleanly(trained):
    edited(trained, "tolerance = 0.05", "tolerance = 0.0005")
    edited(trained, "population_size = 3", "population_size = 6\nn_reevaluated = 1")
    experiment = Experiment.load(trained)
    count = experiment.setting.feasible.count()
    assert count < 6
    states = [t.state for t in experiment.search().trials]
    assert states == [TrialState.COMPLETE] * count


def test_a_retraining_refuses_other_data_than_the_search_had(searched, trained):
    annotations = trained.parent / "data" / "annotations" / "instances_train.json"
    content = json.loads(annotations.read_text())
    content["annotations"].pop()
    annotations.write_text(json.dumps(content))
    with pytest.raises(StudyMismatchError, match=r"train_annotations\.sha256"):
        Experiment.load(trained).retrain(top=1)


def test_results_refuse_another_source_of_data(searched, trained):
    shapes = "shapes = { train = 12, val = 4, test = 4, size = 128, extent = [30.0, 90.0] }"
    paths = [
        f'{part}_{kind} = "x"' for part in ("train", "val") for kind in ("images", "annotations")
    ]
    edited(trained, shapes, "\n".join(paths))
    with pytest.raises(StudyMismatchError, match=r"data\.shapes"):
        StudyView.load(Experiment.load(trained).setting)


def test_the_search_never_reads_the_test_images_and_a_trained_detector_is_reported_on_them(
    trained,
):
    experiment = Experiment.load(trained)
    first = experiment.task.test.dataset.records[0].path
    picture = first.read_bytes()
    first.write_bytes(b"no picture")
    study = experiment.search(2)
    assert not any(key.startswith("data.test") for key in study.user_attrs["msnas:config"])
    with pytest.raises(DataError, match=r"test/000000\.jpg"):
        experiment.retrain(top=1)
    first.write_bytes(picture)
    by_hand = experiment.setting.baseline
    trials = experiment.retrain(top=1).trials
    (value,) = (
        t.value for t in trials if t.value is not None and t.user_attrs["arch"] == str(by_hand)
    )
    detector = experiment.retrained(by_hand)
    assert experiment.task.evaluate(detector, experiment.task.test)["ap"] == value
    assert experiment.setting.reported_images == "test"


def test_another_test_set_changes_the_retraining_alone(searched, trained):
    experiment, _ = searched
    experiment.retrain(top=1)
    folder = experiment.setting.run_dir / "data" / "annotations"
    content = json.loads((folder / "instances_test.json").read_text())
    content["annotations"] = content["annotations"][:-1]
    (folder / "instances_test.json").write_text(json.dumps(content))
    again = Experiment.load(trained)
    again.search()
    with pytest.raises(StudyMismatchError, match=r"data\.test_annotations\.sha256"):
        again.retrain(top=1)


def test_without_test_images_the_validation_images_stand_in(searched, tmp_path):
    experiment, _ = searched
    data = experiment.setting.run_dir / "data"
    text = (data.parent / "tiny.toml").read_text()
    start = text.index("shapes = ")
    paths = "".join(
        f'{part}_images = "data/{part}"\n'
        f'{part}_annotations = "data/annotations/instances_{part}.json"\n'
        for part in ("train", "val")
    )
    own = data.parent / "own.toml"
    own.write_text(text[:start] + paths + text[text.index("\n", start) :])
    found = Experiment.load(own)
    assert found.task.test is found.task.val
    assert found.setting.reported_images == "validation"


def test_each_training_of_an_architecture_has_a_seed_of_its_own(searched, trained):
    experiment, _ = searched
    by_hand = experiment.setting.baseline
    experiment.train_alone([by_hand])
    study = Experiment.load(trained).train_alone([by_hand], 3)
    assert [t.user_attrs.get("repeat", 0) for t in study.trials] == [0, 1, 2]
    files = [
        experiment.setting.run_dir / "retrained" / t.user_attrs["checkpoint"] for t in study.trials
    ]
    weights = [torch.load(file, weights_only=True)["model"] for file in files]
    heads = [w["encoder.stem.convolution.0.weight"] for w in weights]
    assert not any(torch.equal(a, b) for a, b in zip(heads, heads[1:] + heads[:1], strict=True))
    values = [t.values for t in study.trials]
    files[0].unlink()  # whose weights are the ones to use
    again = Experiment.load(trained).train_alone([by_hand], 3)
    assert [t.values for t in again.trials] == values
    retrained = torch.load(files[0], weights_only=True)["model"]
    assert all(torch.equal(retrained[k], v) for k, v in weights[0].items())


def test_a_failed_training_is_tried_again_with_its_own_seed(searched):
    experiment, _ = searched
    by_hand = experiment.setting.baseline
    study = experiment.train_alone([by_hand], 2)
    (experiment.setting.run_dir / "retrained" / study.trials[0].user_attrs["checkpoint"]).unlink()
    gone = study.trials[0]
    copied = optuna.create_study(
        study_name="copied", storage=study._storage, direction="maximize", sampler=study.sampler
    )
    for trial in study.trials:
        trial.state = TrialState.FAIL if trial.number == gone.number else trial.state
        trial.values = None if trial.number == gone.number else trial.values
        copied.add_trial(trial)
    space = experiment.setting.space
    assert queue_architectures(copied, space, [by_hand], retry_failed=True, times=2) == 1
    assert queue_architectures(copied, space, [by_hand], retry_failed=True, times=2) == 0
    experiment._run(copied, (), experiment.standalone_objective, stage=RETRAIN, step="again")
    assert copied.trials[-1].user_attrs["arch"] == gone.user_attrs["arch"]
    assert copied.trials[-1].user_attrs.get("repeat", 0) == 0
    assert copied.trials[-1].values == gone.values
