"""A tiny study with real images and networks, trained once for all tests that need one."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from msnas_optuna.models import Detector

settings.register_profile("any machine", deadline=None)  # timing decides no test
settings.load_profile("any machine")

TINY = """
[study]
name = "tiny"
run_dir = "."
trials = 7

[space]
n_blocks = 5
channels = 8
stem_channels = 8

[budget]
tolerance = 0.05

[data]
image_size = [128, 128]
shapes = { train = 12, val = 4, size = 128, extent = [30.0, 90.0] }

[detector]
anchor_base = 8
rpn_batch = 32
roi_batch = 16
proposals_train = 30
proposals_test = 30
pool_size = 5
hidden = 16

[supernet]
steps = 4
batch_size = 2

[finetune]
steps = 1
batch_size = 2
learning_rate = 1e-3
schedule = "constant"
warmup = 0

[retrain]
steps = 3
batch_size = 2

[sampler]
population_size = 3
n_children = 2
n_random = 1

[runtime]
checkpoint_seconds = 0
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The study file of a study that has not begun."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from msnas_optuna.study import Experiment

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY)
    Experiment.load(folder / "tiny.toml").train_supernet()
    return folder


@pytest.fixture
def trained(_trained_once: Path, tmp_path: Path) -> Path:
    """The study file of a study with data and a trained supernet."""
    shutil.copytree(_trained_once, tmp_path / "study")
    return tmp_path / "study" / "tiny.toml"


@pytest.fixture(scope="session")
def _searched_once(_trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from msnas_optuna.study import Experiment

    folder = tmp_path_factory.mktemp("searched") / "study"
    shutil.copytree(_trained_once, folder)
    experiment = Experiment.load(folder / "tiny.toml")
    experiment.evaluate_fpn_like()
    experiment.search(5)
    return folder


@pytest.fixture(scope="session")
def _retrained_once(_searched_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from msnas_optuna.study import Experiment

    folder = tmp_path_factory.mktemp("retrained") / "study"
    shutil.copytree(_searched_once, folder)
    Experiment.load(folder / "tiny.toml").retrain(top=2)
    return folder


@pytest.fixture
def searched(_searched_once: Path, tmp_path: Path) -> Path:
    """The study file of a study with five finished trials."""
    shutil.copytree(_searched_once, tmp_path / "study")
    return tmp_path / "study" / "tiny.toml"


@pytest.fixture
def retrained(_retrained_once: Path, tmp_path: Path) -> Path:
    """The study file of a study whose two best architectures are retrained."""
    shutil.copytree(_retrained_once, tmp_path / "study")
    return tmp_path / "study" / "tiny.toml"


@pytest.fixture
def random_detector() -> Callable[..., Detector]:
    """Makes a small detector of an architecture whose random weights find things."""
    import torch

    from msnas_optuna.models import Detector, MSNASEncoder
    from msnas_optuna.spaces.msnas import Architecture

    def make(architecture: str, *, norm: str = "batch") -> Detector:
        torch.manual_seed(0)
        path = Architecture.parse(architecture)
        encoder = MSNASEncoder(
            len(path.strides), "basic", channels=8, stem_channels=8, norm=norm, only=path
        )
        model = Detector(
            encoder, 5, channels=8, norm=norm, anchor_base=8, canonical_size=40,
            proposals_test=60, hidden=16,
        )  # fmt: skip
        for name, parameter in model.named_parameters():  # so that boxes and scores differ
            if "box_predictor" in name or "rpn.head" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        return model.eval()

    return make


@pytest.fixture
def unused_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
