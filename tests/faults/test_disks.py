"""Full disks and torn files: what was finished stays, and the error says what to do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import optuna
import pytest
import torch
from cheap import SPACE, cheap_study, value_of
from conftest import check_whole, complete
from optuna.trial import TrialState

from msnas_optuna.storage import StorageError, finished_slots
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.workers import evaluate_trials
from msnas_optuna.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A folder, what fills its disk to the last byte, and what makes room again.

    A file system of its own where this user may mount one; else a limit on the size of files,
    which the operating system reports in another way.
    """
    folder, ballast = tmp_path / "disk", tmp_path / "disk" / "ballast"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

        yield folder, fill, ballast.unlink
        subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield (
        folder,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1])),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_keeps_the_checkpoint_and_the_training_goes_on(
    tiny: Path, trained: Path, small_disk
) -> None:
    folder, fill, make_room = small_disk
    study_file = shutil.copy(tiny, folder / "tiny.toml")
    undisturbed = Experiment.load(trained).train_supernet()
    experiment = Experiment.load(study_file)

    def fill_at(step: str, done: int, total: int, note: str = "") -> None:
        if step == "supernet" and done == 3:
            fill()

    experiment.report = fill_at
    with pytest.raises(CheckpointError, match=r"the previous checkpoint is kept\. Free some disk"):
        experiment.train_supernet()
    assert not list(folder.glob("*.tmp"))
    make_room()
    resumed = []
    experiment = Experiment.load(study_file)
    experiment.report = lambda step, done, *_: resumed.append(done) if step == "supernet" else None
    assert experiment.train_supernet() == undisturbed
    assert resumed[0] == 2  # from the checkpoint before the disk was full


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_full_disk_under_the_storage_loses_no_trial(
    kind: str, small_disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.failures.POLL_SECONDS", 0)
    folder, fill, make_room = small_disk
    file = folder / "study.db"
    study = cheap_study(f"{kind}:///{file}")

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 6 and not (folder / "ballast").exists():
            if kind == "sqlite":  # else its log has room left
                with sqlite3.connect(file) as database:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            fill()
        return value_of({n: trial._suggest(n, d) for n, d in SPACE.distributions.items()})

    with pytest.raises(StorageError, match=r"finished trials are kept: check the server or the d"):
        evaluate_trials(study, objective, wanted=500)
    if kind == "journal" and os.path.ismount(folder):
        assert not file.read_bytes().endswith(b"\n")  # torn indeed
    make_room()
    before = {t.number: t.values for t in complete(study)}
    assert len(before) >= 6
    (folder / "ballast").touch()  # no more of it
    again = cheap_study(f"{kind}:///{file}")
    wanted = len(before) + 5
    evaluate_trials(again, objective, wanted=wanted)
    assert before.items() <= {t.number: t.values for t in complete(again)}.items()
    check_whole(again, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_disk_that_is_full_for_seconds_only_takes_the_workers_time(
    kind: str, small_disk, trained: Path
) -> None:
    folder, fill, make_room = small_disk
    if not os.path.ismount(folder):
        pytest.skip("needs a file system of its own, which this user may not mount")
    text = trained.read_text().replace("tolerance = 0.05", "tolerance = 0.2")
    trained.write_text(text.replace("trials = 7", "trials = 24"))
    url, wanted = f"{kind}:///{folder}/study.db", 24
    command = [sys.executable, "-m", "msnas_optuna", "search", str(trained), "--workers", "3"]
    process = subprocess.Popen(
        [*command, "--storage", url, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        setting = Setting.load(trained, storage=url)
        while (study := setting.stored_study()) is None or finished_slots(study) < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        if kind == "sqlite":  # else its log has room left
            with closing(sqlite3.connect(folder / "study.db", timeout=60)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        fill()
        before = finished_slots(study)
        time.sleep(3.5)
        assert before < wanted - 3  # workers had something to write
        make_room()
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert json.loads(out)["completed"] == wanted
    states = {t.state for t in study.get_trials(deepcopy=False)}
    assert states <= {TrialState.COMPLETE, TrialState.FAIL}


def test_a_journal_cut_at_every_length_of_its_last_line_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    study = cheap_study(str(file))
    study.set_user_attr("before", "a value that is long enough to be torn")
    study.set_user_attr("torn", "another")
    content = file.read_bytes()
    whole = content.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(whole, len(content)):
        file.write_bytes(content[:length])
        again = cheap_study(str(file))
        assert "torn" not in again.user_attrs
        for number in range(2):
            again.set_user_attr("after", number)
        attributes = cheap_study(str(file)).user_attrs
        assert attributes["before"] == "a value that is long enough to be torn"
        assert attributes["after"] == 1
    file.write_bytes(content[5:])  # no torn end: nobody may guess what it was
    with pytest.raises(
        StorageError, match=r"study\.journal has a damaged line .* remove that line"
    ):
        cheap_study(str(file))


def test_a_checkpoint_cut_at_every_length_is_refused(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    save_checkpoint(whole, {"step": 1, "model": {"w": torch.ones(3)}}, fingerprint={"a": 1})
    content = whole.read_bytes()
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"is damaged .* remove it and run the command"):
            load_checkpoint(cut, fingerprint={"a": 1})
    cut.write_bytes(content)
    assert load_checkpoint(cut, fingerprint={"a": 1})["step"] == 1


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_cut_supernet_is_refused_by_training_and_search(trained: Path, part: float) -> None:
    path = trained.parent / "supernet.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    for step in ("train_supernet", "search"):
        with pytest.raises(CheckpointError, match=r"supernet\.pt is damaged .* remove it and run"):
            getattr(Experiment.load(trained), step)()
    path.unlink()
    assert len(Experiment.load(trained).train_supernet()) == 4
