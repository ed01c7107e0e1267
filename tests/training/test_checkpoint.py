from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from msnas_optuna.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

MADE_FOR = {"space.n_blocks": 7, "study.seed": 0}


def content(value: float) -> dict[str, object]:
    return {"step": 3, "model": {"w": torch.full((1000,), value)}, "losses": [1.0, 0.5]}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "deep" / "supernet.pt"
    save_checkpoint(path, content(1.0), fingerprint=MADE_FOR)
    loaded = load_checkpoint(path, fingerprint=MADE_FOR)
    assert torch.equal(loaded["model"]["w"], torch.ones(1000))
    assert (loaded["step"], loaded["losses"]) == (3, [1.0, 0.5])
    assert [p.name for p in path.parent.iterdir()] == ["supernet.pt"]  # nothing left over


def test_every_difference_to_the_study_is_named(tmp_path):
    path = tmp_path / "supernet.pt"
    save_checkpoint(path, content(1.0), fingerprint=MADE_FOR)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, fingerprint={"space.n_blocks": 9, "study.seed": 0, "new": "x"})
    message = str(error.value)
    assert "space.n_blocks: 7 in the checkpoint, 9 in the study" in message
    assert "new: None in the checkpoint, 'x' in the study" in message
    assert "study.seed" not in message


def test_a_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="run `msnas train` first"):
        load_checkpoint(tmp_path / "supernet.pt", fingerprint={})


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path, fraction):
    path = tmp_path / "supernet.pt"
    save_checkpoint(path, content(1.0), fingerprint=MADE_FOR)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(CheckpointError, match=r"supernet\.pt is damaged"):
        load_checkpoint(path, fingerprint=MADE_FOR)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    path = tmp_path / "supernet.pt"
    torch.save({"fingerprint": MADE_FOR, "model": Malicious()}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, fingerprint=MADE_FOR)
    assert not (tmp_path / "pwned").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path):
    """A real file-size limit stands for the disk: the kernel refuses the write half-way."""
    import resource
    import signal

    path = tmp_path / "supernet.pt"
    save_checkpoint(path, content(1.0), fingerprint=MADE_FOR)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="the previous checkpoint is kept"):
            save_checkpoint(path, content(2.0), fingerprint=MADE_FOR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert load_checkpoint(path, fingerprint=MADE_FOR)["model"]["w"][0] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["supernet.pt"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover = tmp_path / f".supernet.pt.{dead.pid}.tmp"
    leftover.write_bytes(b"half")
    living = tmp_path / f".supernet.pt.{os.getppid()}.tmp"
    living.write_bytes(b"half")
    save_checkpoint(tmp_path / "supernet.pt", content(1.0), fingerprint=MADE_FOR)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["supernet.pt", living.name])


@pytest.mark.parametrize("other", [torch.zeros(3), {"fingerprint": MADE_FOR}, [1, 2], "text"])
def test_another_kind_of_file_is_named(tmp_path, other):
    path = tmp_path / "supernet.pt"
    torch.save(other, path)
    with pytest.raises(CheckpointError, match=r"supernet\.pt is damaged"):
        load_checkpoint(path, fingerprint=MADE_FOR)


def test_a_later_format_is_named(tmp_path):
    path = tmp_path / "supernet.pt"
    torch.save({"format": 99, "fingerprint": MADE_FOR}, path)
    with pytest.raises(CheckpointError, match="has format 99, this version reads format 1"):
        load_checkpoint(path, fingerprint=MADE_FOR)
