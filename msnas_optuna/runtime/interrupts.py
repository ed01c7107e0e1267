"""SIGINT and SIGTERM, held back where an interruption would leave something half done."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_REPEAT_SECONDS: Final = 5.0  # after which an interruption that had no effect is repeated


class _Reminder:
    """Sends a signal to this process again and again: Python drops exceptions in finalizers."""

    def __init__(self, delay: float) -> None:
        self._number: int = signal.SIGTERM
        self._begun, self._stopped = Event(), Event()
        # Now, because a thread that is started by a handler could wait for its own thread's locks.
        Thread(target=self._run, args=(delay,), daemon=True).start()

    def _run(self, delay: float) -> None:
        self._begun.wait()
        while not self._stopped.wait(delay):
            os.kill(os.getpid(), self._number)
            delay = _REPEAT_SECONDS  # what cleans up may wait for the same server

    def begin(self, number: int) -> None:
        self._number = number
        self._begun.set()

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    def stop(self) -> None:
        self._stopped.set()
        self._begun.set()


class InterruptFlag:
    """True once a signal has come; its handler while signals are held back."""

    def __init__(
        self, handlers: dict[signal.Signals, Callable[..., Any]], reminder: _Reminder | None
    ) -> None:
        self._handlers = handlers
        self._reminder = reminder
        self._at_once = self._held = self._passed_on = False

    def __bool__(self) -> bool:
        return self._held or self._passed_on

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Inside, a signal interrupts at once; one that was held back does so now."""
        self._at_once = True
        try:
            if self:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if self._at_once:
            self._passed_on = True
            self._handlers[signal.Signals(number)](number, frame)
        elif self._held:
            raise KeyboardInterrupt
        else:
            self._held = True
            if self._reminder is not None:
                self._reminder.begin(number)


@contextmanager
def deferred_interrupts(*, at_most: float | None = None) -> Iterator[InterruptFlag]:
    """Holds SIGINT and SIGTERM back until the block has ended; a second one stops at once.

    After `at_most` seconds the first one stops it too. A signal comes before an error of the
    block, which else would be taken for the end of the matter. Ignored signals and foreign
    handlers stay as they are; nothing is held back outside the main thread.

    Raises:
        KeyboardInterrupt: a signal was held back; an error of the block is its cause.
    """
    before = {n: signal.getsignal(n) for n in _SIGNALS if current_thread() is main_thread()}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    reminder = None if at_most is None else _Reminder(at_most)
    flag = InterruptFlag(handlers, reminder)
    for number in handlers:
        signal.signal(number, flag)
    try:
        try:
            yield flag
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if reminder is not None:
                reminder.stop()
    except Exception as error:
        if flag:
            raise KeyboardInterrupt from error
        raise
    if flag:
        raise KeyboardInterrupt


@contextmanager
def insist_on_interrupts() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise KeyboardInterrupt, again and again until the block ends.

    It is SIGTERM that is repeated. Signals that are ignored, as under nohup, stay so. Only for
    the main thread.

    Raises:
        KeyboardInterrupt: a signal has come; an error that it has led to is its cause.
    """
    reminder, show = _Reminder(_REPEAT_SECONDS), sys.unraisablehook
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}

    def interrupt(number: int, frame: FrameType | None) -> None:
        reminder.begin(signal.SIGTERM)
        raise KeyboardInterrupt

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    # What Python drops comes again.
    sys.unraisablehook = lambda dropped: (
        None if isinstance(dropped.exc_value, KeyboardInterrupt) else show(dropped)
    )
    try:
        yield
    except Exception as error:
        if reminder.has_begun:  # it has left a connection half used, for example
            raise KeyboardInterrupt from error
        raise
    finally:
        reminder.stop()
        sys.unraisablehook = show
        for number, handler in handlers.items():
            signal.signal(number, handler)
