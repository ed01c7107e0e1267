"""Optuna's private names that the package needs, each behind one function.

It gives third parties no other way to storages, ids and attributes that people do not see. A new
version may rename any of these: `tests/storage/test_optuna_private.py` ran with `TESTED_VERSIONS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, DEFAULT_MIME_TYPE
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import Study
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, Trial, TrialState

__all__ = ["ARTIFACTS_ATTR_PREFIX", "DEFAULT_MIME_TYPE"]  # names that are used as they are

TESTED_VERSIONS: Final = ("5.0.0",)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Optuna's notes that a feature used here is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def storage_of(study: Study) -> BaseStorage:
    """The storage that a study reads and writes."""
    return study._storage


def database_of(storage: BaseStorage) -> RDBStorage | None:
    """The database of a storage; None for a journal and behind a proxy."""
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    return backend if isinstance(backend, RDBStorage) else None


def study_id(study: Study) -> int:
    """The id that the storage has given the study."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """The id that the storage has given the trial; its number is another."""
    return trial._trial_id


def system_attrs(study: Study) -> dict[str, Any]:
    """The system attributes of a study."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_system_attr(study: Study, key: str, value: Any) -> None:
    """Sets a system attribute of a study to a value of JSON types."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def set_trial_system_attr(study: Study, trial: Trial | FrozenTrial, key: str, value: Any) -> None:
    """Sets a system attribute of a trial that is not finished; `trial` itself stays as it is.

    Raises:
        UpdateFinishedTrialError: it is finished.
    """
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def set_trial_user_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Sets a user attribute of a trial that is not finished; `trial` itself stays as it is."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def set_state(study: Study, trial: FrozenTrial, state: TrialState) -> bool:
    """Starts a waiting trial, or ends one that is not finished; True for the call that did so."""
    try:
        return study._storage.set_trial_state_values(trial._trial_id, state=state)
    except UpdateFinishedTrialError:
        return False


def create_trial_in(study: Study, template: FrozenTrial) -> int:
    """Adds a trial, in whatever state, and returns its id."""
    return study._storage.create_new_trial(study._study_id, template_trial=template)


def forget_trials(study: Study) -> None:
    """Makes the next sampler read all trials again, as `Study.ask` does."""
    study._thread_local.cached_all_trials = None


def sample(trial: Trial) -> None:
    """Lets the sampler choose a trial's parameters now, not when the first is asked for."""
    _ = trial.relative_params


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """The trial's value of a parameter, whatever its distribution."""
    return trial._suggest(name, distribution)


def fixed_params(trial: Trial) -> dict[str, Any]:
    """The parameters that were queued with the trial."""
    return dict(trial._fixed_params)


def stale_trial_ids(database: RDBStorage, study: Study) -> list[int]:
    """Ids of running trials whose heartbeat has ceased, by the clock of the database."""
    return database._get_stale_trial_ids(study._study_id)


def non_domination_ranks(losses: np.ndarray, *, n_below: int | None = None) -> np.ndarray:
    """The front of each point, integers (n,), 0 for those that no other dominates.

    Args:
        losses: (n, objectives), each to be minimized.
        n_below: points are ranked until so many have a rank; the others share the next one.
    """
    return _fast_non_domination_rank(losses, n_below=n_below)


class ProxyClient(GrpcStorageProxy):
    """Optuna's client of a gRPC proxy, with other options of `grpc.insecure_channel`."""

    def __init__(self, *, host: str, port: int, options: list[tuple[str, Any]]) -> None:
        self._options = options
        super().__init__(host=host, port=port)

    def _setup(self) -> None:
        import grpc  # an optional dependency

        super()._setup()
        self._channel.close()
        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=self._options)
        self._stub = type(self._stub)(self._channel)
        self._cache = type(self._cache)(self._stub)
