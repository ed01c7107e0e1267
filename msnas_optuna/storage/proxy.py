"""Optuna's gRPC proxy: opened so that its restart only takes the workers' time, and served."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    RDBStorage,
    get_storage,
)
from optuna.storages._grpc.client import GrpcClientCache

from msnas_optuna.storage.quiet import quiet

_THREADS: Final = 10
"""Calls that a proxy answers at once, as many as Optuna's own."""

_OPEN_SECONDS: Final = 10.0
"""Until a proxy must answer for the first time."""

_NO_GRPC: Final = "grpcio is missing: `pip install 'msnas-optuna[grpc]'`"

_SERVICE: Final = "optuna.StorageService"

_NOT_TWICE: Final = ("CreateNewStudy", "DeleteStudy", "CreateNewTrial", "SetTrialStateValues")
"""Calls that mean another thing the second time; the loop of the worker sorts those out."""

_LONGEST_PAUSE: Final = 5
"""Seconds between two attempts to reach a proxy, which begin with one."""


def open_proxy(host: str, port: int, *, patience: float) -> GrpcStorageProxy:
    """Opens the storage that a proxy serves.

    Args:
        host: of the proxy.
        port: of the proxy.
        patience: seconds that each call waits for a proxy that has gone away.

    Raises:
        ImportError: grpcio is not installed.
        ConnectionError: nothing answers.
    """
    with quiet():
        try:
            storage = _PatientProxy(host=host, port=port, patience=patience)
        except ImportError:
            raise ImportError(_NO_GRPC) from None
    storage.wait_server_ready(timeout=_OPEN_SECONDS)
    return storage


class _PatientProxy(GrpcStorageProxy):
    def __init__(self, *, host: str, port: int, patience: float) -> None:
        self._patience = patience
        super().__init__(host=host, port=port)

    def _setup(self) -> None:
        import grpc  # an optional dependency, as what Optuna has made with it
        from optuna.storages._grpc.auto_generated import api_pb2_grpc

        self._channel = grpc.insecure_channel(
            f"{self._host}:{self._port}",
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_reconnect_backoff_ms", 1000 * _LONGEST_PAUSE),
                ("grpc.service_config", json.dumps(_service_config(self._patience))),
            ],
        )
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._cache = GrpcClientCache(self._stub)


def _service_config(patience: float) -> dict[str, Any]:
    """How gRPC treats calls that a proxy does not answer: fails none before it is reached."""
    patient = {"waitForReady": True, "timeout": f"{patience}s"}
    retry = {
        "maxAttempts": 5,
        "initialBackoff": "1s",
        "maxBackoff": f"{_LONGEST_PAUSE}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    once = [{"service": _SERVICE, "method": method} for method in _NOT_TWICE]
    return {
        "methodConfig": [
            {"name": [{}], **patient, "retryPolicy": retry},
            {"name": once, **patient},
        ]
    }


def serve_storage(
    storage: BaseStorage, *, host: str, port: int, ready: Callable[[], None] | None = None
) -> None:
    """Serves a storage to workers that open `grpc://host:port`, until it is interrupted.

    The proxy knows the password, the workers need not; it asks nobody for one. Heartbeats do not
    pass through it.

    Args:
        storage: sqlite or PostgreSQL.
        host: address to listen on; 127.0.0.1 admits this machine alone.
        port: TCP port.
        ready: called once it listens.

    Raises:
        ImportError: grpcio is not installed.
        ValueError: a storage that cannot be served.
        RuntimeError: the port is taken, or the address is none of this machine.
    """
    if not isinstance(storage, RDBStorage):
        raise ValueError(f"a proxy serves sqlite or PostgreSQL, got {type(storage).__name__}")
    server = _server(storage)
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise RuntimeError(
            f"a proxy needs a free port of an address of this machine, got {host}:{port}; end "
            "what listens there, such as another proxy, or choose --port or --host"
        ) from None
    server.start()
    if ready is not None:
        ready()
    server.wait_for_termination()


def _server(storage: RDBStorage) -> Any:
    """As Optuna's own, whose port another process may share: each would get some of the trials."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the error says why it does not listen
    try:
        import grpc
    except ImportError:
        raise ImportError(_NO_GRPC) from None
    from optuna.storages._grpc.auto_generated import api_pb2_grpc
    from optuna.storages._grpc.servicer import OptunaStorageProxyService

    pool = ThreadPoolExecutor(max_workers=_THREADS)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    service = OptunaStorageProxyService(get_storage(storage))
    api_pb2_grpc.add_StorageServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    return server
