"""Holds signals back where an interruption would leave something half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_REPEAT_SECONDS: Final = 5.0
"""After which an interruption that had no effect is repeated."""


class Deferred:
    """The signals that came while they were held back; true once there is one."""

    def __init__(self, handlers: dict[signal.Signals, Callable[..., Any]]) -> None:
        self._handlers = handlers
        self._received: list[int] = []
        self._passed_on = False
        self._held, self._ended = threading.Event(), threading.Event()

    def __bool__(self) -> bool:
        return self._passed_on or bool(self._received)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Inside, a signal interrupts at once; one that was held back does so now.

        Python drops an exception that is raised inside a finaliser, which may run at any moment;
        such an interruption takes effect at the end of `deferred_interrupts`.
        """
        if self:
            raise KeyboardInterrupt
        for number in self._handlers:
            signal.signal(number, self._pass_on)
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
        self._ended.set()
        self._held.set()

    def at_most(self, seconds: float) -> None:
        """A signal that was held back for this long comes again, until the block has ended."""

        def remind() -> None:
            self._held.wait()
            pause = seconds
            while not self._ended.wait(pause):
                os.kill(os.getpid(), self._received[0])
                pause = _REPEAT_SECONDS  # what cleans up may wait for the same server

        threading.Thread(target=remind, daemon=True).start()  # now, as a handler must not

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._passed_on = True
        self._handlers[signal.Signals(number)](number, frame)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) > 1:
            raise KeyboardInterrupt
        self._held.set()


def insist_on_interrupts(*, ignored: Collection[signal.Signals] = ()) -> Callable[[], None]:
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt, again and again until it is heeded.

    Python drops an exception that is raised inside a finaliser, and a process must not outlive a
    signal because of that. Only for the main thread.

    Args:
        ignored: signals that do nothing.

    Returns:
        What to call when the interruption has been heeded, or the work is done.
    """
    raised, ended = threading.Event(), threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raised.set()
        raise KeyboardInterrupt

    def insist() -> None:
        raised.wait()
        while not ended.wait(_REPEAT_SECONDS):
            os.kill(os.getpid(), signal.SIGTERM)

    def stop() -> None:
        ended.set()
        raised.set()

    # Now, because a thread that is started by a handler could wait for its own thread's locks.
    threading.Thread(target=insist, daemon=True).start()
    for number in _SIGNALS:
        if number in ignored:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, interrupt)
    return stop


@contextmanager
def deferred_interrupts(*, at_most: float | None = None) -> Iterator[Deferred]:
    """Holds SIGINT and SIGTERM back until the block has ended; a second one stops at once.

    A signal that was held back comes before an error of the block, which whoever handles it would
    take for the end of the matter. Ignored signals and foreign handlers stay as they are. Other
    threads than the main one receive no signals: there nothing is held back.

    Args:
        at_most: seconds that a signal is held back, where the block may have to wait for others.

    Raises:
        KeyboardInterrupt: a signal was held back; an error of the block is its cause.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    main = threading.current_thread() is threading.main_thread()
    deferred = Deferred({n: h for n, h in handlers.items() if main and callable(h)})
    deferred.hold()
    if at_most is not None:
        deferred.at_most(at_most)
    try:
        try:
            yield deferred
        finally:
            deferred.release()
    except Exception as error:
        if deferred:
            raise KeyboardInterrupt from error
        raise
    if deferred:
        raise KeyboardInterrupt
