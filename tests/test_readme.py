"""Everything that the README tells a reader to type, typed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
ELSEWHERE = ("pip install",)  # what sets up the environment that the tests run in


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(ELSEWHERE)]


@pytest.fixture
def reader(tiny: Path) -> Path:
    """A folder with a study that is the quickstart's in name, and tiny."""
    folder = tiny.parent / "msnas-quickstart"
    folder.mkdir()
    text = tiny.read_text().replace('"tiny"', '"quickstart"')
    (folder / "quickstart.toml").write_text(text)
    return tiny.parent


def typed(line: str, folder: Path) -> None:
    program, *arguments = shlex.split(line.replace("STUDY.toml", "tiny.toml"))
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if program == "optuna-dashboard" or "dashboard" in arguments[:1]:  # runs until it is stopped
        time.sleep(8)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGTERM)
        process.wait()
        return
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{line}\n{output}"


@pytest.mark.slow
def test_every_command_and_the_python_example_run(reader):
    found = commands()
    assert len(found) >= 9
    typed("msnas quickstart", reader)
    for line in found:
        typed(line, reader)
    (example,) = blocks("python")
    assert len(example.splitlines()) < 20
    subprocess.run(
        [sys.executable, "-c", example], cwd=reader, check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def test_the_set_up_is_two_commands():
    assert "pip install . && msnas quickstart\n" in blocks("console")[0]
    assert "pip install '.[test]' && pytest\n" in blocks("console")[-1]


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_links_lead_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()
