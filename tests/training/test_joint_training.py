"""Several processes train one network: torchrun, gloo, signals and kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch

from msnas_optuna.study.experiment import Experiment
from msnas_optuna.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
WORKER = Path(__file__).with_name("joint_worker.py")
COMMAND = ["-m", "msnas_optuna"]


def start(*command: str | Path, n: int, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    launcher = [*TORCHRUN, "--nproc-per-node", str(n), *options] if n > 1 else [sys.executable]
    return subprocess.Popen(
        [*launcher, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def run(*command: str | Path, n: int, options: tuple[str, ...] = ()) -> str:
    out, err = start(*command, n=n, options=options).communicate(timeout=240)
    assert "error:" not in err, err
    return out


def change(study_file: Path, values: dict[str, str] | None = None) -> Path:
    text = study_file.read_text().replace("batch_size = 2", "batch_size = 4")
    text = text.replace("[runtime]", '[runtime]\nprecision = "fp32"')  # bf16 rounds at 1e-3
    for old, new in (values or {}).items():
        text = text.replace(old, new, 1)
    study_file.write_text(text)
    return study_file


def stored(path: Path) -> dict:
    content = torch.load(path, weights_only=True)
    return load_checkpoint(path, fingerprint=content["fingerprint"])


def copy(study_file: Path, name: str) -> Path:
    target = study_file.parent / name
    shutil.copytree(study_file.parent, target, ignore=shutil.ignore_patterns(name))
    return target / study_file.name


def until(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


def steps_done(study_file: Path) -> int:
    path = study_file.parent / "supernet.pt"
    return stored(path)["step"] if path.exists() else 0


def pid_of_rank(launcher: int, rank: int) -> int:
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(pid)
    raise AssertionError(f"rank {rank} does not run")


def test_two_processes_train_as_one_does(trained, tmp_path):
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        run(WORKER, trained, tmp_path / str(n), n=n)
    alone = json.loads((tmp_path / "1/rank0.json").read_text())
    first, second = (json.loads((tmp_path / f"2/rank{r}.json").read_text()) for r in (0, 1))
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert first["paths"] == second["paths"] == alone["paths"]
    assert first["weights"] == second["weights"]
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == [
        "net0.pt", "rank0.json", "rank1.json",  # one rank writes
    ]  # fmt: skip
    one, two = (stored(tmp_path / f"{n}/net0.pt")["model"] for n in (1, 2))
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)


def test_two_processes_train_masks_as_one_does(tiny, tmp_path):
    small = "masks = true\nmask_pool_size = 7\nmask_channels = 8\nmask_convolutions = 1"
    change(tiny, {"hidden = 16": f"hidden = 16\n{small}"})
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        run(WORKER, tiny, tmp_path / str(n), n=n)
    alone, joint = (json.loads((tmp_path / f"{n}/rank0.json").read_text()) for n in (1, 2))
    assert alone["error"] is None
    assert joint["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    one, two = (stored(tmp_path / f"{n}/net0.pt")["model"] for n in (1, 2))
    assert any("mask" in name for name in one)
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)


def test_a_loss_that_diverges_on_one_rank_ends_all_at_that_step(trained, tmp_path):
    run(WORKER, trained, tmp_path, "diverge", n=2)
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first["error"] == second["error"]
    assert first["error"].startswith("NonFiniteLossError: the loss is nan at step 4 on path")


def test_a_signal_to_one_rank_ends_all_after_a_saved_step(trained, tmp_path):
    run(WORKER, trained, tmp_path, "stop", n=2)
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first["error"] == second["error"] == "KeyboardInterrupt: "
    assert stored(tmp_path / "net0.pt")["step"] == 3
    assert first["weights"] == second["weights"]


def test_a_run_goes_on_with_another_number_of_processes(tiny, tmp_path):
    changes = {
        "n_blocks": 'norm = "group"\nn_blocks',
        "steps = 4": "steps = 20\nlearning_rate = 1e-4",  # so that rounding stays small
        "[data]": "[data]\nworkers = 1",  # torchrun signals loaders too
    }
    study = change(tiny, changes)
    undisturbed = copy(study, "undisturbed")
    process = start(*COMMAND, "train", study, n=2)
    until(lambda: steps_done(study) >= 3, process)
    process.send_signal(signal.SIGTERM)  # as a job scheduler does
    _, err = process.communicate(timeout=60)
    done = steps_done(study)
    assert 3 <= done < 20
    assert err.count("interrupted; the same command continues") == 1  # one rank speaks
    run(*COMMAND, "train", study, n=1)
    run(*COMMAND, "train", undisturbed, n=1)
    losses, expected = (
        stored(file.parent / "supernet.pt")["losses"] for file in (study, undisturbed)
    )
    assert len(losses) == 20
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def undisturbed(tiny_text: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The checkpoint of two processes' training that nothing has disturbed."""
    study = tmp_path_factory.mktemp("undisturbed") / "tiny.toml"
    study.write_text(tiny_text)
    run(*COMMAND, "train", change(study, {"steps = 4": "steps = 20"}), n=2)
    return stored(study.parent / "supernet.pt")


@pytest.mark.parametrize("rank", [0, 1])
def test_an_elastic_restart_resumes_from_the_checkpoint(tiny, undisturbed, rank):
    study = change(tiny, {"steps = 4": "steps = 20"})
    process = start(*COMMAND, "train", study, n=2, options=("--max-restarts", "1"))
    until(lambda: steps_done(study) >= 5, process)
    os.kill(pid_of_rank(process.pid, rank), signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.count("supernet: 20 steps") == 1
    content = stored(study.parent / "supernet.pt")
    assert content["losses"] == undisturbed["losses"]
    assert all(
        torch.equal(content["model"][key], undisturbed["model"][key]) for key in content["model"]
    )


def test_two_processes_retrain_as_one_does(tiny, tmp_path):
    study = change(tiny)
    Experiment.load(study).train_supernet()
    run(*COMMAND, "search", study, n=1)  # apart, so that no connection stays open
    twin = copy(study, "twin")
    trials = {}
    for n, file in ((1, study), (2, twin)):
        out = run(*COMMAND, "retrain", file, "--top", "2", "--json", n=n)
        assert json.loads(out)["completed"] == 7  # printed once
        storage = f"sqlite:///{file.parent / 'study.db'}"
        trials[n] = optuna.load_study(study_name="tiny-retrain", storage=storage).trials
    assert [t.params for t in trials[1]] == [t.params for t in trials[2]]
    assert len(trials[2]) == 3
    assert all(t.state.is_finished() for t in trials[2])
    for trial in trials[2]:
        one, two = (
            stored(file.parent / "retrained" / trial.user_attrs["checkpoint"])
            for file in (study, twin)
        )
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)


def test_what_only_the_first_rank_finds_out_ends_all(trained):
    process = start(*COMMAND, "retrain", trained, n=2)  # no architecture was searched
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "has no finished trial to retrain; run `msnas search` first" in err
