"""Every private name of Optuna that the package uses, run with the version that is installed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, RDBStorage, get_storage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState, create_trial

from msnas_optuna.storage import optuna_private as private

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat"
)

CHOICES = CategoricalDistribution([0.5, 1.0])


@pytest.fixture(params=["database", "journal"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    storage: BaseStorage = JournalStorage(JournalFileBackend(str(tmp_path / "s.log")))
    if request.param == "database":
        storage = RDBStorage(f"sqlite:///{tmp_path}/s.db", heartbeat_interval=60)
    other = optuna.create_study(storage=storage)  # so that ids and numbers differ
    other.ask()
    return optuna.create_study(storage=storage, study_name="s")


def test_the_installed_version_is_one_that_was_tested() -> None:
    assert optuna.__version__ in private.TESTED_VERSIONS, (
        f"Optuna {optuna.__version__} is new here: run all tests with it, then add it to "
        "TESTED_VERSIONS of storage/optuna_private.py"
    )


PRIVATE = {
    "_study_id", "_trial_id", "_thread_local", "_suggest", "_fixed_params", "_validate",
    "_contains", "_backend", "_get_stale_trial_ids", "_get_trials",
}  # fmt: skip


def private_names(file: Path) -> Iterator[str]:
    """Private names of Optuna in a module."""
    for node in ast.walk(ast.parse(file.read_text())):
        own = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
        if isinstance(node, ast.Attribute) and not own and node.attr in {*PRIVATE, "_storage"}:
            yield ast.unparse(node)
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (m for m in modules if m and m.startswith("optuna.") and "._" in m)


def test_no_other_module_uses_private_names() -> None:
    package = Path(private.__file__).parents[1]
    found = {
        str(file.relative_to(package)): names
        for file in package.rglob("*.py")
        if (names := list(private_names(file)))
    }
    assert set(found) == {"storage/optuna_private.py"}, found


def test_the_storage_and_its_ids(study: optuna.Study) -> None:
    storage = private.storage_of(study)
    assert storage.get_study_name_from_id(private.study_id(study)) == "s"
    asked = study.ask()
    assert private.trial_id(asked) == private.trial_id(study.trials[0])
    assert storage.get_trial(private.trial_id(asked)).number == asked.number == 0
    database = private.database_of(storage)
    assert (database is None) == isinstance(storage, JournalStorage)
    if database is not None:
        database.record_heartbeat(private.trial_id(asked))
        assert private.stale_trial_ids(database, study) == []
        with database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01'")
        assert private.stale_trial_ids(database, study) == [private.trial_id(asked)]


def test_attributes_that_people_do_not_see(study: optuna.Study) -> None:
    private.set_system_attr(study, "a", [1])
    assert private.system_attrs(study) == {"a": [1]}
    study.ask()
    (trial,) = study.trials
    private.set_trial_system_attr(study, trial, "b", {"c": 2})
    private.set_trial_user_attr(study, trial, "d", 3)
    assert study.trials[0].system_attrs == {"b": {"c": 2}}
    assert study.trials[0].user_attrs == {"d": 3}


def test_states(study: optuna.Study) -> None:
    template = create_trial(state=TrialState.WAITING, system_attrs={"a": 1})
    identifier = private.create_trial_in(study, template)
    (trial,) = study.trials
    assert private.trial_id(trial) == identifier
    for state in (TrialState.RUNNING, TrialState.FAIL):
        assert private.set_state(study, trial, state)
        assert not private.set_state(study, trial, state)
        assert study.trials[0].state == state


def test_suggestions_of_any_distribution(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 1.0})
    trial = study.ask()
    assert private.fixed_params(trial) == {"x": 1.0}
    assert private.suggest(trial, "x", CHOICES) == 1.0
    assert study.trials[0].params == {"x": 1.0}


def test_a_sampler_chooses_when_it_is_told_to(study: optuna.Study) -> None:
    study.sampler = TPESampler(n_startup_trials=1, seed=0)
    study.add_trial(create_trial(value=1.0, params={"x": 1.0}, distributions={"x": CHOICES}))
    trial = study.ask()
    private.sample(trial)
    study.sampler = None  # nobody else is asked
    assert private.suggest(trial, "x", CHOICES) in CHOICES.choices


def test_a_cache_of_trials_is_emptied(study: optuna.Study) -> None:
    study.ask()
    assert len(study._get_trials(use_cache=True)) == 1
    study.add_trial(create_trial(value=1.0))
    assert len(study._get_trials(use_cache=True)) == 1  # samplers read this
    private.forget_trials(study)
    assert len(study._get_trials(use_cache=True)) == 2


def test_non_domination_ranks() -> None:
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    assert private.non_domination_ranks(losses).tolist() == [0, 0, 1, 2]
    assert private.non_domination_ranks(losses, n_below=2).tolist()[:2] == [0, 0]


def test_artifacts_are_announced_as_optuna_does(study: optuna.Study, tmp_path: Path) -> None:
    file, store = tmp_path / "unknown.kind", FileSystemArtifactStore(tmp_path)
    file.write_bytes(b"x")
    identifier = upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=study)
    stored = private.system_attrs(study)[f"{private.ARTIFACTS_ATTR_PREFIX}{identifier}"]
    assert json.loads(stored)["mimetype"] == private.DEFAULT_MIME_TYPE


def test_a_client_of_a_proxy_has_options_of_its_own(tmp_path: Path, unused_port: int) -> None:
    served = get_storage(f"sqlite:///{tmp_path}/s.db")
    place = {"host": "127.0.0.1", "port": unused_port}
    Thread(target=run_grpc_proxy_server, args=(served,), kwargs=place, daemon=True).start()
    client = private.ProxyClient(**place, options=[("grpc.max_send_message_length", 10_000)])
    client.wait_server_ready(timeout=30)
    study = optuna.create_study(storage=client, study_name="s")
    study.set_user_attr("small", 1)
    with pytest.raises(Exception, match="larger than max"):
        study.set_user_attr("large", "x" * 20_000)
    assert optuna.load_study(storage=served, study_name="s").user_attrs == {"small": 1}
