"""Silences messages of Optuna and SQLAlchemy that nobody can act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning
from sqlalchemy.engine import Engine


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Optuna's notes that a feature used here is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def silence_broken_cursors(engine: Engine) -> None:
    """Logs no traceback of a cursor that an interruption has broken; its connection is dropped."""
    logger = logging.getLogger(f"{type(engine.pool).__module__}.{type(engine.pool).__name__}")
    logger.addFilter(lambda record: record.msg != "Error closing cursor")
