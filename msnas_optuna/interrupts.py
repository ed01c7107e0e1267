"""Holds signals back where an interruption would leave something half done."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Deferred:
    """The signals that came while they were held back; true once there is one."""

    def __init__(self, handlers: dict[signal.Signals, Callable[..., Any]]) -> None:
        self._handlers = handlers
        self._received: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._received)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Inside, a signal interrupts at once; one that was held back does so now."""
        if self:
            raise KeyboardInterrupt
        self.release()
        try:
            yield
        finally:
            self.hold()

    def hold(self) -> None:
        """From now on, signals are remembered."""
        for number in self._handlers:
            signal.signal(number, self._remember)

    def release(self) -> None:
        """From now on, signals do what they did before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) > 1:
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupts() -> Iterator[Deferred]:
    """Holds SIGINT and SIGTERM back until the block has ended; a second one stops at once.

    Ignored signals and foreign handlers stay as they are. Other threads than the main one receive
    no signals: there nothing is held back.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    main = threading.current_thread() is threading.main_thread()
    deferred = Deferred({n: h for n, h in handlers.items() if main and callable(h)})
    deferred.hold()
    try:
        yield deferred
    finally:
        deferred.release()
        if deferred and sys.exc_info()[0] is None:
            raise KeyboardInterrupt
