"""Several search workers on one machine: started, watched and ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import optuna

from msnas_optuna.cli.experiments import open_experiment
from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.terminal import message_of, redact_output
from msnas_optuna.runtime.interrupts import insist_on_interrupts
from msnas_optuna.runtime.processes import Place
from msnas_optuna.storage import (
    StorageFailures,
    finished_slots,
    holders,
    is_of_storage,
    outstanding_trials,
    owner_of,
)
from msnas_optuna.study.setting import Setting

_LOOK_SECONDS: Final = 2.0  # between two looks at the progress of the study
_END_SECONDS: Final = 30.0  # until workers that are told to end are killed


@dataclass
class _Worker:
    """A worker process and the pipe that its messages come through."""

    name: str
    process: BaseProcess
    messages: Connection
    texts: list[str] = field(default_factory=list)

    def drain(self) -> Iterator[str]:
        """The messages that have come."""
        with suppress(EOFError, OSError):
            while self.messages.poll():
                text = self.messages.recv()
                self.texts.append(text)
                yield text

    def failure(self) -> str | None:
        """A sentence about how it has ended, None if nobody needs to know."""
        code, pid = self.process.exitcode, self.process.pid
        if code is None or code in (0, 130) or (code == 1 and self.texts):
            return None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"process {pid} has ended by {how}; the other workers repeat its trial"


def search_with_workers(
    setting: Setting, storage: str | None, trials: int | None, *, count: int, progress: Bars
) -> None:
    """Searches with several processes, which end with this one, until the study has its trials.

    Raises:
        RuntimeError: workers have ended and trials are left.
    """
    wanted = setting.n_trials(trials)
    _settled(setting)  # a storage that cannot be opened is told once, and at once
    workers: list[_Worker] = []
    spawn = multiprocessing.get_context("spawn")  # an open storage does not survive a fork
    try:
        for i in range(count):
            receiver, sender = spawn.Pipe(duplex=False)
            place = Place(i, count, i, count)
            process = spawn.Process(
                target=_work, args=(setting.study_file, storage, trials, place, sender)
            )
            process.start()
            sender.close()
            workers.append(_Worker(f"worker {i + 1}", process, receiver))
        _watch(workers, setting, wanted, progress)
    except BaseException:
        _end(workers)
        raise
    left = wanted - _settled_at_last(setting)
    broken = sum(worker.process.exitcode != 0 for worker in workers)
    if broken and left > 0:
        raise RuntimeError(
            f"{broken} of {count} workers have ended early and {left} of {wanted} trials are "
            "left; the same command continues"
        )


def _end(workers: list[_Worker]) -> None:
    """Ends the processes: politely, then not; at a second Ctrl-C at once."""
    # Interruptions are repeated by SIGTERM; that must not cut short what the workers have left.
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + _END_SECONDS
        for worker in workers:
            worker.process.join(max(0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
        signal.signal(signal.SIGTERM, handler)


def _watch(workers: list[_Worker], setting: Setting, wanted: int, progress: Bars) -> None:
    """Shows what the workers do and say until the last one has ended."""
    alive, said, settled = list(workers), set[str](), 0
    while alive:
        wait([w.process.sentinel for w in alive], timeout=_LOOK_SECONDS)
        for worker in list(alive):
            ended = not worker.process.is_alive()
            texts = list(worker.drain())
            if ended:
                alive.remove(worker)
                texts += filter(None, [worker.failure()])
            for text in texts:
                if text not in said:  # one cause often ends them all
                    warnings.warn(f"{worker.name}: {text}", stacklevel=2)
                said.add(text)
        if alive:
            note = f"{len(alive)} workers"
            try:
                settled = _settled(setting)
                note += _awaited(setting, wanted - settled, {w.process.pid for w in alive})
            except Exception as error:
                if not is_of_storage(error):
                    raise
                note += ", the storage does not answer"  # how long to bear it they decide
            progress("search", min(settled, wanted), wanted, note)
    progress("search", min(_settled_at_last(setting), wanted), wanted)


def _settled(setting: Setting) -> int:
    study = setting.stored_study()
    return 0 if study is None else finished_slots(study)


def _awaited(setting: Setting, left: int, pids: set[int | None]) -> str:
    """What processes without a trial wait for once `left` slots are all taken, in words."""
    baseline = setting.stored_study(setting.method.baseline_stage)
    studies = [study for study in (setting.stored_study(), baseline) if study is not None]
    others = [(study, outstanding_trials(study)) for study in studies]
    owners = [owner_of(trial) for _, trials in others for trial in trials]
    idle = pids - {owner.pid for owner in owners if owner is not None and owner.is_here()}
    if not owners or not idle or left > len(others[0][1]):
        return ""
    words = [holders(study, trials) for study, trials in others if trials]
    return f", waiting for {', '.join(words)}"


def _settled_at_last(setting: Setting) -> int:
    """The same, with the patience of a worker."""
    failures = StorageFailures()
    while True:
        try:
            return _settled(setting)
        except Exception as error:
            failures.wait(error)


# What follows runs in the processes of the workers.


def _work(
    study_file: Path, storage: str | None, trials: int | None, place: Place, sender: Connection
) -> None:
    redact_output()
    # Ctrl-C reaches all processes of a terminal, and the parent passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.showwarning = lambda message, *_, **__: sender.send(str(message))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with insist_on_interrupts():
            experiment = open_experiment(Setting.load(study_file, storage=storage), place=place)
            experiment.evaluate_baseline(wait=False)
            experiment.search(trials, patience=inf)
            experiment.evaluate_baseline()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        sender.send(message_of(error))
        raise SystemExit(1) from None
