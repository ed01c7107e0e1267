"""Heartbeats, by which a worker on any machine says that it lives; databases alone keep them."""

from __future__ import annotations

from typing import Final

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled
from optuna.study import Study
from sqlalchemy import text

HEARTBEAT_INTERVAL: Final = 60
GRACE_PERIOD: Final = 120
"""Seconds. Shorter heartbeats cost SQLite writes."""

_BEATING: Final = text(
    "SELECT h.trial_id FROM trial_heartbeats h JOIN trials t ON t.trial_id = h.trial_id "
    "WHERE t.study_id = :study AND t.state = 'RUNNING'"
)


def keeps_heartbeats(study: Study) -> bool:
    """Whether this process can write and read heartbeats in the study's storage."""
    return is_heartbeat_enabled(study._storage)


def beating(study: Study) -> set[int]:
    """Ids of the running trials that have a heartbeat, however old."""
    storage = study._storage
    backend = storage._backend if isinstance(storage, _CachedStorage) else storage
    if not keeps_heartbeats(study) or not isinstance(backend, RDBStorage):
        return set()
    with backend.engine.connect() as connection:
        return set(connection.execute(_BEATING, {"study": study._study_id}).scalars())


def stale(study: Study) -> set[int]:
    """Ids of running trials whose heartbeat has ceased, by the clock of the database alone."""
    storage = study._storage
    if not keeps_heartbeats(study):
        return set()
    assert isinstance(storage, BaseHeartbeat)
    return set(storage._get_stale_trial_ids(study._study_id))
