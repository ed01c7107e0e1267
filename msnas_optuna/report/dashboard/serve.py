"""Serves optuna-dashboard for a study, with its artifacts, on this machine alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, socket
from socketserver import ThreadingMixIn
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from msnas_optuna.report.artifacts import ArtifactFolder
from msnas_optuna.report.overview import begun
from msnas_optuna.storage import CONFIG
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import stored_space

HOST: Final = "127.0.0.1"
"""The dashboard asks nobody who he is, and lets everybody delete studies."""


@BaseStorage.register
class _Announcing:
    """A storage that says which parameters trials that are under way will have.

    optuna-dashboard intersects the parameters of all trials for its parallel coordinates, and
    remembers the intersection: a trial that is seen before its parameters are stored would take
    all axes away until the server starts again.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        space = stored_space(self._storage.get_study_user_attrs(study_id).get(CONFIG))[1]
        for i, trial in enumerate(trials):
            if space is not None and not trial.state.is_finished():
                trials[i] = copy.copy(trial)
                trials[i].distributions = {**space.distributions, **trial.distributions}
        return trials


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser's open connection must not hold the end back


class _Quiet(WSGIRequestHandler):
    """Prints no line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def dashboard_server(setting: Setting, port: int, hosts: Iterable[str] = ()) -> WSGIServer:
    """A server that is bound, to any free port for 0, and does not serve yet.

    It answers as localhost, as the addresses of this machine and as each of `hosts`.

    Raises:
        NothingToShowError: nothing is stored yet.
        ValueError: the port is taken or cannot be used.
    """
    begun(setting)
    artifacts = ArtifactFolder(setting.artifact_dir)
    app = optuna_dashboard.wsgi(_Announcing(setting.storage), artifact_store=artifacts)
    app = _guarded(app, hosts)
    try:
        return make_server(HOST, port, app, server_class=_Server, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--port must be a free port of this machine, {port} is not ({error}); give another"
        ) from None


def _guarded(app: Callable[..., Iterable[bytes]], hosts: Iterable[str]) -> Any:
    """An application that answers under names of this machine, and under `hosts`, alone.

    Else a page of another site, whose name its owner makes lead to this machine, could read and
    delete studies (DNS rebinding).
    """
    allowed = {"localhost", *map(str.lower, hosts)}

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host, known = environ.get("HTTP_HOST", ""), False
        with suppress(ValueError, OSError):  # no host, no address, or that of another machine
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            known = name in allowed or name.endswith(".localhost") or _is_own_address(name)
        if known:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [
            f"The dashboard answers as {HOST} and as localhost, not as {host!r}: open one of "
            f"these, or start it with --allow-host and that name.\n".encode()
        ]

    return answer


def _is_own_address(name: str) -> bool:
    address = ip_address(name)
    with socket(AF_INET if address.version == 4 else AF_INET6) as probe:
        probe.bind((name, 0))
    return not address.is_unspecified
