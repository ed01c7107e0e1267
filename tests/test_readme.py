"""The README and docs/: what they tell a reader to type, and what they name, exists and works."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import typing
from pathlib import Path

import pytest
import typer

from msnas_optuna.cli import app
from msnas_optuna.methods import METHODS
from msnas_optuna.study.config import StudyConfig

ROOT = Path(__file__).parents[1]
GUIDES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
"""What a user reads and types."""

PAGES = (*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")

VERBS = typer.main.get_command(app).commands

OTHERS_OPTIONS = {
    *("--artifact-dir", "--study-name"),  # Optuna's
    *("--max-restarts", "--nproc-per-node"),  # torchrun's
    *("--onnx", "--tune"),  # of exported/load.py and of a benchmark
    *("--version", "--help"),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands() -> list[str]:
    """Every line of a guide that a reader types, once, in reading order."""
    lines = [line for page in GUIDES for block in blocks(page, "console") for line in
             block.splitlines()]  # fmt: skip
    return [line for line in dict.fromkeys(lines) if line and not line.startswith("pip install")]


def pythons() -> list[str]:
    return [block for page in GUIDES for block in blocks(page, "python")]


def links() -> list[tuple[Path, str]]:
    return [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(((?!http)[^)]+)\)", prose(page))
    ]


def sections() -> dict[str, set[str]]:
    """Section of a study file -> its keys, of all methods."""
    kinds = {name: [kind] for name, kind in typing.get_type_hints(StudyConfig).items()}
    kinds["space"] = [method.section for method in METHODS.values()]
    kinds["detector"] = [method.detector_section for method in METHODS.values()]
    return {
        name: {field.name for kind in of_name for field in dataclasses.fields(kind)}
        for name, of_name in kinds.items()
    }


@pytest.fixture
def reader(tiny: Path) -> Path:
    """A folder with a study that is the quickstart's in name, and tiny."""
    folder = tiny.parent / "msnas-quickstart"
    folder.mkdir()
    text = tiny.read_text().replace('"tiny"', '"quickstart"')
    (folder / "quickstart.toml").write_text(text)
    return tiny.parent


def typed(line: str, folder: Path) -> None:
    line = line.replace("--architectures 60", "--architectures 3")  # else hundreds of trainings
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
def test_every_command_and_the_python_examples_run(reader):
    found = commands()
    assert len(found) >= 20
    typed("msnas quickstart", reader)
    for line in found:
        typed(line, reader)
    assert len(pythons()) >= 3
    for example in pythons():
        subprocess.run(
            [sys.executable, "-c", example], cwd=reader, check=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip


@pytest.mark.parametrize("line", [line for line in commands() if "msnas" in line.split()[0]])
def test_commands_have_the_options_that_are_typed(line):
    _, verb, *arguments = shlex.split(line)
    VERBS[verb].make_context(verb, arguments)


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: page.name)  # changes name the past
def test_what_is_named_in_passing_exists(page):
    options = {option for verb in VERBS.values() for p in verb.params for option in p.opts}
    keys = set.union(*sections().values())
    for code in (code for code in inline_code(page) if "NAME" not in code):
        for verb in re.findall(r"\bmsnas ([a-z-]+)", code):
            assert verb in VERBS, code
        for option in re.findall(r"(?<!\S)--[a-z-]+", code):
            assert option in options | OTHERS_OPTIONS or code.startswith("pytest"), code
        for path in re.findall(r"\b(?:tests|benchmarks|studies|docs|msnas_optuna)/[\w./-]*", code):
            assert (ROOT / path).exists(), code
        for name in re.findall(r"\bmsnas_optuna(?:\.\w+)+", code):
            assert resolves(name), code
        for key in re.findall(r"^([a-z_]+) = ", code):
            assert key in keys, code
        for section in re.findall(r"^\[(\w+)\]$", code):
            assert section in sections(), code


def resolves(dotted: str) -> bool:
    """Whether a module or an attribute of one has this name."""
    module, _, name = dotted.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name) or bool(
            importlib.import_module(dotted)
        )
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("example", pythons())
def test_python_examples_import_what_there_is(example):
    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page, "toml")])
def test_examples_of_study_files_have_known_keys(block):
    for section, values in tomllib.loads(block).items():
        assert set(values) <= sections()[section]


@pytest.mark.parametrize(
    ("page", "target"), [pytest.param(*link, id=f"{link[0].name}-{link[1]}") for link in links()]
)
def test_links_lead_somewhere(page, target):
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    assert file.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in slugs


def test_every_guide_is_linked_from_the_contents():
    linked = {target for page, target in links() if page == ROOT / "docs" / "README.md"}
    assert {page.name for page in GUIDES} - {"README.md"} <= linked


def test_the_readme_is_short_and_its_set_up_is_two_commands():
    readme = GUIDES[0]
    assert len(readme.read_text().split()) <= 1500
    assert "pip install . && msnas quickstart\n" in blocks(readme, "console")[0]
    assert "pip install '.[test]' && pytest\n" in blocks(readme, "console")[-1]
