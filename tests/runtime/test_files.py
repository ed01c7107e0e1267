from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msnas_optuna.runtime.files import atomic_write, sha256


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file"


@pytest.mark.parametrize("durable", [True, False])
def test_the_new_file_takes_the_place_of_the_old_at_once(path: Path, durable: bool) -> None:
    for content in (b"old", b"new"):
        with atomic_write(path, durable=durable) as file:
            file.write(content)
            assert not path.exists() or path.read_bytes() == b"old"
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_there_is_not_overwritten_where_that_is_asked(path: Path) -> None:
    for content in (b"first", b"second"):
        if content == b"first":
            with atomic_write(path, overwrite=False) as file:
                file.write(content)
        else:
            with pytest.raises(FileExistsError), atomic_write(path, overwrite=False) as file:
                file.write(content)
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_nobody_can_guess_the_name_of_the_temporary_file(tmp_path: Path, durable: bool) -> None:
    names = []
    for _ in range(3):
        with atomic_write(tmp_path / "file", durable=durable):
            names += [path.name for path in tmp_path.iterdir() if path.name != "file"]
    assert len(set(names)) == 3
    assert all(name.startswith(f".file.{os.getpid()}.") for name in names)


def test_two_files_of_one_process_and_name_do_not_meet(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as first, atomic_write(tmp_path / "file") as second:
        first.write(b"first")
        second.write(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".jpg")
    with atomic_write(path) as file:
        file.write(b"whole")
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 9)
    said = subprocess.run(["sha256sum", tmp_path / "file"], capture_output=True, text=True)
    assert said.stdout.startswith(sha256(tmp_path / "file"))


KILLED = """
import os, signal, sys
from pathlib import Path
from msnas_optuna.runtime.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_is_removed_by_the_next(path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(path.parent.iterdir())) == 1
    with atomic_write(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]
