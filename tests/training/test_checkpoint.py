from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from msnas_optuna.study.experiment import Experiment
from msnas_optuna.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    read_losses,
    save_checkpoint,
)

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
    leftover = tmp_path / f".supernet.pt.{dead.pid}.0a.tmp"
    leftover.write_bytes(b"half")
    living = tmp_path / f".supernet.pt.{os.getppid()}.0a.tmp"
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


# Damage that loads: torch does not look at the checksums of its files


def same(one: object, other: object) -> bool:
    """Equal to the last bit, whatever holds what."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        alike = (one.dtype, one.shape) == (other.dtype, other.shape)
        return alike and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict) and isinstance(other, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def flip(path: Path, whole: bytes, position: int, bit: int) -> None:
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged)


def loads_as_written(path: Path, made_for: dict[str, object], written: dict[str, object]) -> bool:
    """False where the file is refused; another content than the written one fails."""
    for load in (lambda: load_checkpoint(path, fingerprint=made_for), lambda: read_losses(path)):
        try:
            content = load()
        except CheckpointError as error:
            said = str(error)
        else:
            assert same(content, written if isinstance(content, dict) else written["losses"])
            continue
        assert f"checkpoint {path} is damaged" in said
        assert "remove it and run the command again" in said
        return False
    return True


def test_a_flipped_bit_of_a_real_checkpoint_loads_no_other_weights(trained: Path) -> None:
    path = trained.parent / "supernet.pt"
    made_for = torch.load(path)["fingerprint"]
    written, whole = load_checkpoint(path, fingerprint=made_for), path.read_bytes()
    random = np.random.default_rng(0)
    flips = [(int(random.integers(len(whole))), int(random.integers(8))) for _ in range(100)]
    loaded = 0
    for position, bit in flips:
        flip(path, whole, position, bit)
        loaded += loads_as_written(path, made_for, written)
    assert loaded < 50  # those between the records change nothing


def test_a_flipped_bit_anywhere_in_a_checkpoint_loads_no_other_content(tmp_path: Path) -> None:
    path = tmp_path / "supernet.pt"
    save_checkpoint(path, {"w": torch.arange(9.0), "losses": [0.5]}, fingerprint=MADE_FOR)
    written, whole = load_checkpoint(path, fingerprint=MADE_FOR), path.read_bytes()
    for position in range(0, len(whole), 3):
        flip(path, whole, position, position % 8)
        loads_as_written(path, MADE_FOR, written)


def deep(path: Path) -> None:
    """Rewrites the pickle of a checkpoint: the fingerprint is 100,000 lists inside each other."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    lists = b"]" * 100_000 + b"a" * 99_999
    pickled = b"\x80\x02}(X\x06\0\0\0formatK\x01X\x0b\0\0\0fingerprint" + lists + b"u."
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else record)


CRAFTED = {
    "no dict": {"fingerprint": [1, 2]},
    "a tensor": {"fingerprint": torch.zeros(3)},
    "a tensor inside": {"fingerprint": {"study.seed": torch.zeros(3)}},
    "keys of two types": {"fingerprint": {1: 2}},
    "a tensor as format": {"format": torch.zeros(3)},
}


@pytest.mark.parametrize("kind", [*CRAFTED, "deep"])
def test_a_crafted_checkpoint_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "supernet.pt"
    torch.save({"format": 1, "fingerprint": MADE_FOR, **CRAFTED.get(kind, {})}, path)
    if kind == "deep":
        deep(path)
    with pytest.raises(CheckpointError, match=r"supernet\.pt (is damaged|does not fit)"):
        load_checkpoint(path, fingerprint=MADE_FOR)


WRONG = {
    "step": "many",
    "model": {"w": torch.zeros(3)},
    "losses": ["low"],
    "optimizer": {"state": {}, "param_groups": []},
}


@pytest.mark.parametrize("key", WRONG)
def test_a_checkpoint_of_another_network_is_named(trained: Path, key: str) -> None:
    path = trained.parent / "supernet.pt"
    content = torch.load(path)
    save_checkpoint(path, content | {key: WRONG[key]}, fingerprint=content["fingerprint"])
    use = "search" if key in ("step", "model") else "train_supernet"
    with pytest.raises(CheckpointError, match=r"supernet\.pt is damaged .* remove it and run the"):
        getattr(Experiment.load(trained), use)()
