"""Optuna's gRPC proxy: opened so that its restart only takes the workers' time, and served."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any, Final

import optuna
from optuna.storages import BaseStorage, get_storage, run_grpc_proxy_server

from msnas_optuna.storage.optuna_private import ProxyClient, database_of, quiet

_OPEN_SECONDS: Final = 10.0  # until a proxy must answer for the first time
_LONGEST_PAUSE: Final = 5  # seconds between two attempts to reach a proxy

# Calls that mean another thing the second time; the loop of the worker sorts those out.
_NOT_TWICE: Final = ("CreateNewStudy", "DeleteStudy", "CreateNewTrial", "SetTrialStateValues")


def open_proxy(host: str, port: int, *, patience: float) -> ProxyClient:
    """Opens the storage that a proxy serves; each call waits `patience` seconds for a lost one.

    Raises:
        ImportError: grpcio is not installed.
        ConnectionError: nothing answers.
    """
    _require_grpc()
    with quiet():
        storage = ProxyClient(host=host, port=port, options=_channel_options(patience))
    storage.wait_server_ready(timeout=_OPEN_SECONDS)
    return storage


def _channel_options(patience: float) -> list[tuple[str, Any]]:
    """Makes gRPC wait for a proxy that does not answer, and repeat calls that it has cut off."""
    patient = {"waitForReady": True, "timeout": f"{patience}s"}
    retry = {
        "maxAttempts": 5,
        "initialBackoff": "1s",
        "maxBackoff": f"{_LONGEST_PAUSE}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    once = [{"service": "optuna.StorageService", "method": method} for method in _NOT_TWICE]
    methods = [{"name": [{}], **patient, "retryPolicy": retry}, {"name": once, **patient}]
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_reconnect_backoff_ms", 1000 * _LONGEST_PAUSE),
        ("grpc.service_config", json.dumps({"methodConfig": methods})),
    ]


def serve_storage(
    storage: BaseStorage, *, host: str, port: int, ready: Callable[[], None] | None = None
) -> None:
    """Serves a storage to workers that open `grpc://host:port`, until it is interrupted.

    The proxy knows the password, the workers need not; it asks nobody for one. Heartbeats do not
    pass through it. `ready` is called when nothing keeps it from listening.

    Raises:
        ImportError: grpcio is not installed.
        ValueError: the storage is neither sqlite nor PostgreSQL.
        RuntimeError: the port is taken, or the address is none of this machine.
    """
    if database_of(storage) is None:
        raise ValueError(f"a proxy serves sqlite or PostgreSQL, got {type(storage).__name__}")
    _require_grpc()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:  # gRPC shares its port with other processes: each would get some of the trials
        socket.create_server((host.strip("[]"), port), family=family).close()
    except OSError:
        raise RuntimeError(
            f"a proxy needs a free port of an address of this machine, got {host}:{port}; end "
            "what listens there, such as another proxy, or choose --port or --host"
        ) from None
    cached = get_storage(storage)
    for name in optuna.get_all_study_names(cached):  # else trials begun before a restart are lost
        optuna.load_study(study_name=name, storage=cached).get_trials(deepcopy=False)
    if ready is not None:
        ready()
    with quiet():
        run_grpc_proxy_server(cached, host=host, port=port)


def _require_grpc() -> None:
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise ImportError("grpcio is missing: `pip install 'msnas-optuna[grpc]'`") from None
