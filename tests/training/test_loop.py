from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msnas_optuna.data.transforms import training_batches
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.training.checkpoint import CheckpointError, load_checkpoint
from msnas_optuna.training.loop import (
    Checkpointing,
    NonFiniteLossError,
    build_optimizer,
    recalibrate,
    train,
)
from msnas_optuna.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(steps=6, batch_size=2, learning_rate=1e-3)


@pytest.fixture
def experiment(trained: Path) -> Experiment:
    return Experiment.load(trained)


def run(experiment: Experiment, *, path: Path | None = None, stop: int | None = None, **changes):
    """Trains a supernet and returns losses, the paths of its steps and its weights."""
    paths = {}

    def sample(step):
        paths[step] = experiment.setting.valid.sample(np.random.default_rng([7, step]))
        return paths[step]

    def on_step(done, loss):
        if done == stop:
            raise KeyboardInterrupt

    recipe = replace(RECIPE, **changes)
    model = experiment.build_detector()
    losses = train(
        model,
        experiment.task.batches(recipe, 7),
        recipe=recipe,
        seed=7,
        device=CPU,
        sample=sample,
        checkpointing=None if path is None else Checkpointing(path, {"made": "here"}, 0.0),
        on_step=on_step,
    )
    return losses, paths, model.state_dict()


def test_a_resumed_run_continues_batches_paths_and_weights(experiment, tmp_path):
    losses, paths, weights = run(experiment)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, path=tmp_path / "net.pt", stop=4)
    resumed, later_paths, resumed_weights = run(experiment, path=tmp_path / "net.pt")
    assert set(later_paths) == {3, 4, 5}  # the checkpoint is from before step 4 was told
    assert later_paths == {step: paths[step] for step in later_paths}
    assert resumed == losses
    assert all(torch.equal(weights[key], resumed_weights[key]) for key in weights)


def test_a_finished_run_does_nothing_again(experiment, tmp_path):
    losses, _, _ = run(experiment, path=tmp_path / "net.pt")
    again, paths, _ = run(experiment, path=tmp_path / "net.pt")
    assert (again, paths) == (losses, {})


def test_a_checkpoint_holds_optimizer_and_step(experiment, tmp_path):
    run(experiment, path=tmp_path / "net.pt")
    content = load_checkpoint(tmp_path / "net.pt", fingerprint={"made": "here"})
    assert content["step"] == 6
    assert len(content["losses"]) == 6
    assert content["optimizer"]["state"]
    assert content["optimizer"]["param_groups"][0]["lr"] == RECIPE.rate(5) < RECIPE.rate(3)


def test_a_checkpoint_of_other_settings_is_refused(experiment, tmp_path):
    run(experiment, path=tmp_path / "net.pt")
    model = experiment.build_detector()
    with pytest.raises(CheckpointError, match="made: 'here' in the checkpoint, 'there' in"):
        train(
            model, experiment.task.batches(RECIPE, 7), recipe=RECIPE, seed=7, device=CPU,
            checkpointing=Checkpointing(tmp_path / "net.pt", {"made": "there"}),
        )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_loss_falls(experiment, optimizer, precision):
    recipe = Recipe(
        steps=30, batch_size=4, optimizer=optimizer,
        learning_rate=0.02 if optimizer == "sgd" else 3e-3,
    )  # fmt: skip
    path = experiment.setting.baseline
    losses = train(
        experiment.build_detector(path), experiment.task.batches(recipe, 0),
        recipe=recipe, seed=0, device=CPU, precision=precision,
    )  # fmt: skip
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


def test_a_non_finite_loss_stops_before_it_spoils_the_weights(experiment):
    path = experiment.setting.baseline
    model = experiment.build_detector(path)
    with torch.no_grad():
        model.rpn.head.objectness[0].bias.fill_(float("nan"))
    before = {key: value.clone() for key, value in model.named_parameters()}
    with pytest.raises(
        NonFiniteLossError, match=r"the loss is nan at step 1; lower learning_rate"
    ):
        train(
            model, experiment.task.batches(RECIPE, 0), recipe=RECIPE, seed=0, device=CPU,
        )  # fmt: skip
    unchanged = [torch.equal(before[k], v) for k, v in model.named_parameters()]
    assert sum(unchanged) == len(unchanged) - 1  # nan is not equal to itself


def test_a_non_finite_gradient_stops_before_it_spoils_the_weights(experiment):
    model = experiment.build_detector(experiment.setting.baseline)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.rpn.head.objectness[0].bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        NonFiniteLossError, match=r"the norm of the gradient is (nan|inf) at step 1; lower"
    ):
        train(
            model, experiment.task.batches(RECIPE, 0), recipe=RECIPE, seed=0, device=CPU,
        )  # fmt: skip
    after = dict(model.named_parameters())
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_each_step_and_each_image_draws_anchors_of_its_own(experiment):
    (batch,) = experiment.task.batches(RECIPE, 7)(range(1))
    model, draws = experiment.build_detector(experiment.setting.baseline), []
    forward = model.forward

    def spy(*arguments, **options):
        draws.extend(torch.rand(3, generator=g).tolist() for g in options["generators"])
        return forward(*arguments, **options)

    model.forward = spy
    recipe = Recipe(steps=2, batch_size=2)
    train(model, lambda steps: [batch] * len(steps), recipe=recipe, seed=7, device=CPU)
    assert len({tuple(numbers) for numbers in draws}) == 4


def test_training_leaves_the_global_generator_alone(experiment):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(experiment, steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_average_of_the_weights_is_kept_and_resumed(experiment, tmp_path):
    decay, shots = 0.4, []
    model = experiment.build_detector()
    first = {k: v.clone() for k, v in model.state_dict().items()}
    train(
        model, experiment.task.batches(RECIPE, 7), recipe=RECIPE, seed=7, device=CPU,
        sample=lambda step: experiment.setting.valid.sample(np.random.default_rng([7, step])),
        on_step=lambda *_: shots.append({k: v.clone() for k, v in model.state_dict().items()}),
    )  # fmt: skip
    _, _, averaged = run(experiment, ema=decay)
    expected = first
    for step, shot in enumerate(shots):
        share = min(decay, (1 + step) / (10 + step))
        expected = {
            k: share * expected[k] + (1 - share) * v if v.is_floating_point() else v
            for k, v in shot.items()
        }
    assert all(torch.allclose(averaged[k], v, atol=1e-6) for k, v in expected.items())
    assert not torch.equal(
        averaged["rpn.head.objectness.0.weight"], shots[-1]["rpn.head.objectness.0.weight"]
    )
    with pytest.raises(KeyboardInterrupt):
        run(experiment, path=tmp_path / "net.pt", stop=4, ema=decay)
    for _ in range(2):  # resumed, then finished already
        _, _, resumed = run(experiment, path=tmp_path / "net.pt", ema=decay)
        assert all(torch.equal(averaged[k], v) for k, v in resumed.items())


def test_gradients_are_clipped(experiment):
    _free, _, loose = run(experiment, steps=2, clip_norm=0, optimizer="sgd")
    _, _, tight = run(experiment, steps=2, clip_norm=1e-6, optimizer="sgd", weight_decay=0)
    start = experiment.build_detector().state_dict()
    key = "rpn.head.objectness.0.weight"
    assert (tight[key] - start[key]).abs().max() < 1e-7
    assert (loose[key] - start[key]).abs().max() > 1e-6


def test_biases_and_norms_have_no_weight_decay(experiment):
    decayed, free = build_optimizer(experiment.build_detector(), RECIPE).param_groups
    assert {p.ndim for p in free["params"]} == {1}
    assert free["weight_decay"] == 0
    assert decayed["weight_decay"] == RECIPE.weight_decay


def test_recalibration_replaces_the_running_statistics(experiment):
    model = experiment.build_detector(experiment.setting.baseline)
    norm = model.encoder.stem.convolution[1]
    batches = list(training_batches(experiment.task.train, batch_size=4, steps=range(3), seed=0))
    recalibrate(model, batches, device=CPU, precision="fp32")
    with torch.no_grad():
        means = [
            model.encoder.stem.convolution[0](
                (b.images.float() / 255 - model.mean) / model.std
            ).mean(dim=(0, 2, 3))
            for b in batches
        ]
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(dim=0), atol=1e-5)
    assert norm.momentum == 0.1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_after_a_saved_step(experiment, tmp_path, number):
    def on_step(done, loss):
        if done == 3:
            os.kill(os.getpid(), number)

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(
                experiment.build_detector(experiment.setting.baseline),
                experiment.task.batches(RECIPE, 7), recipe=RECIPE, seed=7, device=CPU,
                checkpointing=Checkpointing(tmp_path / "net.pt", {"made": "here"}, 1e9),
                on_step=on_step,
            )  # fmt: skip
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    assert load_checkpoint(tmp_path / "net.pt", fingerprint={"made": "here"})["step"] == 3
    assert [p.name for p in tmp_path.iterdir() if p.name != "study"] == ["net.pt"]
