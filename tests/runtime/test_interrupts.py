"""Signals are held back, passed on, and never lost: in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

DROPPED = """
import os, signal, sys, time
import msnas_optuna.runtime.interrupts as interrupts
interrupts._REPEAT_SECONDS = 0.2

class Finalized:
    def __del__(self):  # Python drops what is raised in here
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.01)
"""

INSISTING = """
try:
    with interrupts.insist_on_interrupts():
        Finalized()
        print("dropped", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)  # it does not come again
    print("heeded", flush=True)
"""

DEFERRED = """
try:
    with interrupts.insist_on_interrupts(), interrupts.deferred_interrupts() as held:
        with held.allowed():
            Finalized()
            print("dropped", flush=True)
        print("kept on", flush=True)
except KeyboardInterrupt:
    print("heeded", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("code", "said"), [(INSISTING, "dropped heeded"), (DEFERRED, "dropped kept on heeded")]
)
def test_a_signal_that_a_finalizer_swallows_is_heeded(name: str, code: str, said: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", DROPPED + code, name], capture_output=True, text=True, timeout=50
    )
    assert (found.returncode, found.stderr) == (0, "")  # Python would show a traceback
    assert found.stdout.split() == said.split()


IGNORING = """
import os, signal
from msnas_optuna.runtime.interrupts import deferred_interrupts, insist_on_interrupts
signal.signal(signal.SIGINT, signal.SIG_IGN)
try:
    with insist_on_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        with deferred_interrupts() as held, held.allowed():
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("only the other")
"""


def test_an_ignored_signal_does_nothing() -> None:
    found = subprocess.run([sys.executable, "-c", IGNORING], capture_output=True, text=True)
    assert found.stdout == "only the other\n", found.stderr


FAILING = """
import os, signal, sys
from msnas_optuna.runtime.interrupts import deferred_interrupts, insist_on_interrupts

def bookkeeping(error):
    with deferred_interrupts():
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        raise error

def opening():
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    finally:
        raise OSError("half used")  # as a connection is

for work in (lambda: bookkeeping(OSError("the server went away")), opening):
    try:
        with insist_on_interrupts():
            work()
    except KeyboardInterrupt as interrupt:
        print(interrupt.__cause__)
with insist_on_interrupts():
    bookkeeping(SystemExit(7))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_comes_before_the_failure_of_what_held_it_back(name: str) -> None:
    found = subprocess.run([sys.executable, "-c", FAILING, name], capture_output=True, text=True)
    assert found.stdout.splitlines() == ["the server went away", "half used"], found.stderr
    assert found.returncode == 7  # an end that was asked for stays one


WAITING = """
import os, signal, sys, time
from msnas_optuna.runtime.interrupts import deferred_interrupts, insist_on_interrupts
try:
    with insist_on_interrupts(), deferred_interrupts(at_most=0.2):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        print("held", flush=True)
        time.sleep(60)  # as a call to a server that has gone away
        print("over")
except KeyboardInterrupt:
    print("heeded")
with deferred_interrupts(at_most=0.2):
    time.sleep(0.5)
print("without a signal nothing is cut short")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_held_back_for_so_long_and_no_longer(name: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", WAITING, name], capture_output=True, text=True, timeout=50
    )
    assert found.stdout.splitlines() == (
        ["held", "heeded", "without a signal nothing is cut short"]
    ), found.stderr


TWICE = """
import os, signal, sys
from msnas_optuna.runtime.interrupts import deferred_interrupts, insist_on_interrupts
number = getattr(signal, sys.argv[1])
try:
    with insist_on_interrupts(), deferred_interrupts():
        os.kill(os.getpid(), number)
        print("held")
        os.kill(os.getpid(), number)
        print("held again")
except KeyboardInterrupt:
    print("stopped")
try:
    with insist_on_interrupts(), deferred_interrupts() as interrupts:
        os.kill(os.getpid(), number)
        with interrupts.allowed():
            print("begun")
except KeyboardInterrupt:
    print("not begun")
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_second_signal_stops_at_once_and_a_held_one_where_it_may(name: str) -> None:
    found = subprocess.run([sys.executable, "-c", TWICE, name], capture_output=True, text=True)
    assert found.stdout.splitlines() == ["held", "stopped", "not begun"], found.stderr
    assert found.returncode == 0, found.stderr
