"""Serves optuna-dashboard for a study, with its artifacts, on this machine alone."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping
from functools import lru_cache
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages.journal import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.report.artifacts import artifact_folder
from msnas_optuna.report.overview import NothingToShowError
from msnas_optuna.storage import CONFIG
from msnas_optuna.study.setting import Setting

HOST = "127.0.0.1"
"""The dashboard asks nobody who he is, and lets everybody delete studies."""


class _Announcing(BaseStorage):
    """Mixed into a storage, says which parameters trials that are under way will have."""

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """All trials by number, see `_announced`."""
        trials = super().get_all_trials(  # type: ignore[safe-super]  # that of the storage
            study_id, deepcopy=deepcopy, states=states
        )
        return _announced(trials, self.get_study_user_attrs(study_id))


class _Database(_Announcing, _CachedStorage):
    """A database, read through Optuna's cache of finished trials."""


class _Journal(_Announcing, JournalStorage):
    """A journal file."""


class _Proxy(_Announcing, GrpcStorageProxy):
    """A database behind a proxy, read through the connection and the cache of `storage`."""

    def __init__(self, storage: GrpcStorageProxy) -> None:
        self.__dict__.update(storage.__dict__)


def _announced(trials: list[FrozenTrial], study_attrs: Mapping[str, Any]) -> list[FrozenTrial]:
    """Says of trials that are under way which parameters they will have.

    optuna-dashboard intersects the parameters of all trials for its parallel coordinates, and
    remembers the intersection: a trial that is seen before its parameters are stored would take
    all axes away until the server starts again.
    """
    expected = _distributions((study_attrs.get(CONFIG) or {}).get("space.n_blocks"))
    return [t if t.state.is_finished() else _with_space(t, expected) for t in trials]


@lru_cache(maxsize=8)
def _distributions(n_blocks: Any) -> dict[str, BaseDistribution]:
    try:
        return {**MSNASSpace(n_blocks).distributions}
    except (TypeError, ValueError):  # somebody else's study
        return {}


def _with_space(trial: FrozenTrial, expected: dict[str, BaseDistribution]) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.distributions = {**expected, **trial.distributions}
    return shown


def _view(storage: BaseStorage) -> BaseStorage:
    if isinstance(storage, RDBStorage):
        return _Database(storage)
    if isinstance(storage, JournalStorage):
        return _Journal(storage._backend)
    if isinstance(storage, GrpcStorageProxy):
        return _Proxy(storage)
    return storage


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser's open connection must not hold the end back


class _Quiet(WSGIRequestHandler):
    """Prints no line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def dashboard_server(setting: Setting, port: int) -> WSGIServer:
    """A server that is bound and does not serve yet; call its `serve_forever`.

    Args:
        setting: the study.
        port: TCP port on 127.0.0.1; 0 takes any free one.

    Raises:
        NothingToShowError: nothing is stored yet.
        ValueError: the port is taken or cannot be used.
    """
    if setting.stored_study() is None:
        raise NothingToShowError(
            f"study {setting.study_name()} has not begun; run `msnas train` and `msnas search` "
            f"first"
        )
    app = optuna_dashboard.wsgi(_view(setting.storage), artifact_store=artifact_folder(setting))
    try:
        return make_server(HOST, port, app, server_class=_Server, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--port must be a free port of this machine, {port} is not ({error}); give another"
        ) from None
