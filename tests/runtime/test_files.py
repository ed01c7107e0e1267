from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msnas_optuna.runtime.files import atomic_write


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


def test_no_link_is_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("precious")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(victim)
    with atomic_write(path) as file:
        file.write(b"new")
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


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
