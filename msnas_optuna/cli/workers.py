"""Several workers on one machine: started, watched and ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import optuna

from msnas_optuna.cli.experiments import joint_experiment, open_experiment
from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.terminal import message_of, redact_output
from msnas_optuna.runtime.interrupts import insist_on_interrupts
from msnas_optuna.runtime.processes import Place, torchrun_place
from msnas_optuna.storage import (
    StorageFailures,
    finished_slots,
    holders,
    is_of_storage,
    n_slots,
    outstanding_trials,
    owner_of,
)
from msnas_optuna.study.rank import Score
from msnas_optuna.study.setting import Setting

if TYPE_CHECKING:
    from msnas_optuna.study.experiment import Experiment, Run

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


@dataclass(frozen=True)
class Job:
    """What workers do together."""

    step: str  # its name in the progress
    wanted: Mapping[str | None, int]  # stage (None: the search) -> settled slots at the end
    work: Callable[[Experiment], object]  # the part of one worker; it can be pickled
    beside: tuple[str, ...] = ()  # stages that they evaluate too, and that are not counted


def run_with_workers(
    setting: Setting, storage: str | None, job: Job, *, count: int, progress: Bars
) -> None:
    """Does a job with several processes, which end with this one.

    Raises:
        RuntimeError: workers have ended and trials are left.
    """
    wanted = sum(job.wanted.values())
    _settled(setting, job)  # a storage that cannot be opened is told once, and at once
    workers: list[_Worker] = []
    spawn = multiprocessing.get_context("spawn")  # an open storage does not survive a fork
    try:
        for i in range(count):
            receiver, sender = spawn.Pipe(duplex=False)
            place = Place(i, count, i, count)
            process = spawn.Process(
                target=_work, args=(setting.study_file, storage, job.work, place, sender)
            )
            process.start()
            sender.close()
            workers.append(_Worker(f"worker {i + 1}", process, receiver))
        _watch(workers, setting, job, progress)
    except BaseException:
        _end(workers)
        raise
    left = wanted - _settled_at_last(setting, job)
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


def _watch(workers: list[_Worker], setting: Setting, job: Job, progress: Bars) -> None:
    """Shows what the workers do and say until the last one has ended."""
    alive, said, settled, wanted = list(workers), set[str](), 0, sum(job.wanted.values())
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
                settled = _settled(setting, job)
                note += _awaited(setting, job, wanted - settled, {w.process.pid for w in alive})
            except Exception as error:
                if not is_of_storage(error):
                    raise
                note += ", the storage does not answer"  # how long to bear it they decide
            progress(job.step, settled, wanted, note)
    progress(job.step, _settled_at_last(setting, job), wanted)


def _settled(setting: Setting, job: Job) -> int:
    """Settled slots of the job, of those that it wants."""
    settled = 0
    for stage, wanted in job.wanted.items():
        if (study := setting.stored_study(stage)) is not None:
            settled += min(finished_slots(study), wanted)
    return settled


def _awaited(setting: Setting, job: Job, left: int, pids: set[int | None]) -> str:
    """What processes without a trial wait for once `left` slots are all taken, in words."""
    stages = [(stage, setting.stored_study(stage)) for stage in (*job.wanted, *job.beside)]
    others = [(stage, study, outstanding_trials(study)) for stage, study in stages if study]
    owners = [owner_of(trial) for _, _, trials in others for trial in trials]
    idle = pids - {owner.pid for owner in owners if owner is not None and owner.is_here()}
    taken = sum(len(trials) for stage, _, trials in others if stage in job.wanted)
    if not owners or not idle or left > taken:
        return ""
    words = [holders(study, trials) for _, study, trials in others if trials]
    return f", waiting for {', '.join(words)}"


def _settled_at_last(setting: Setting, job: Job) -> int:
    """The same, with the patience of a worker."""
    failures = StorageFailures()
    while True:
        try:
            return _settled(setting, job)
        except Exception as error:
            failures.wait(error)


@contextmanager
def trainers(
    setting: Setting, storage: str | None, progress: Bars, *, workers: int
) -> Iterator[tuple[Experiment, Run | None]]:
    """The experiment that scores and trains detectors, and what its `run` is to be.

    One worker is this process, or those that torchrun started for one job.
    """
    if workers == 1:
        with joint_experiment(setting, progress) as experiment:
            yield experiment, None
        return
    refuse_torchrun()

    def run(studies: Mapping[str, optuna.Study]) -> None:
        wanted: dict[str | None, int] = {s: n_slots(study) for s, study in studies.items()}
        if any(finished_slots(study) < wanted[stage] for stage, study in studies.items()):
            step = "training" if any(Score.of_stage(s) is None for s in studies) else "scoring"
            job = Job(step, wanted, partial(_evaluate_queued, stages=tuple(studies)))
            run_with_workers(setting, storage, job, count=workers, progress=progress)

    yield open_experiment(setting, progress), run


def refuse_torchrun() -> None:
    """Workers are processes of their own."""
    if torchrun_place() is not None:
        raise ValueError("under torchrun each process is a worker; leave out --workers")


# What follows runs in the processes of the workers.


def _evaluate_queued(experiment: Experiment, stages: Sequence[str]) -> None:
    scores = {stage: Score.of_stage(stage) for stage in stages}
    for score in filter(None, scores.values()):
        experiment.score_queued(score, patience=inf)
    experiment.train_queued([s for s in stages if scores[s] is None], patience=inf)


def _work(
    study_file: Path,
    storage: str | None,
    work: Callable[[Experiment], object],
    place: Place,
    sender: Connection,
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
            work(open_experiment(Setting.load(study_file, storage=storage), place=place))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        sender.send(message_of(error))
        raise SystemExit(1) from None
