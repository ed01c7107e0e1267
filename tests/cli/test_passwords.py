"""No password comes out again, in whatever place of whatever command or study file it is typed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
import typing
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import optuna
import pytest
import sqlalchemy
import typer

from msnas_optuna.cli import app
from msnas_optuna.methods import METHODS
from msnas_optuna.study import config
from msnas_optuna.study.config import ConfigError, load_config
from msnas_optuna.study.setting import Setting

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

VALID = {
    "a URL": "postgresql+psycopg://keeper:hunter2@127.0.0.1:1/db",
    "a parameter": "postgresql+psycopg://keeper@127.0.0.1:1/db?password=hunter2",
    "signs encoded": "postgresql+psycopg://keeper:hunter1%40hunter2%20hunter3@127.0.0.1:1/db",
}
MISSPELLED = {
    "one slash": "postgresql:/keeper:hunter2@h/db",
    "no slash": "postgresql+psycopg:keeper:hunter2@h/db",
    "no colon": "postgresql//keeper:hunter2@h/db",
    "no scheme": "keeper:hunter2@h/db",
    "no host": "postgresql+psycopg://keeper:hunter2/db",
    "at": "postgresql+psycopg://keeper:hunter1@hunter2@h/db",
    "at encoded": "postgresql+psycopg://keeper:hunter2%40h/db",
    "slash": "postgresql+psycopg://keeper:hunter1/hunter2@127.0.0.1:1/db",
    "slashes": "postgresql:/keeper:hunter1://hunter2@h/db",
    "colon": "postgresql+psycopg://keeper:hunter1:hunter2@h:x/db",
    "space": "postgresql+psycopg://keeper:hunter1 hunter2@h/db",
    "space without scheme": "keeper:hunter1 hunter2@h/db",
    "quotes": "postgresql+psycopg://keeper:hunter1'hunter2\"hunter3@h/db",
    "a parameter behind one slash": "postgresql:/h/db?sslkey=hunter2",
    "words": "host=h user=keeper password=hunter2",
    "quoted words": "host=h password = 'hunter1 hunter2'",
    "all encoded": "postgresql%3A%2F%2Fkeeper%3Ahunter2%40h%2Fdb",
    "twice encoded": "postgresql%253A%252F%252Fkeeper%253Ahunter2%2540h%252Fdb",
    "a variable": "PGPASSWORD=hunter2",
    "another server": "mysql://keeper:hunter2@h/db",
    "a file": "sqlite:///keeper:hunter2@h/db",
}
FORMS = VALID | MISSPELLED


def assert_nothing_is_left(folder: Path) -> None:
    """No file or folder has a password, in its name or inside."""
    for path in folder.rglob("*"):
        assert "hunter" not in str(path.relative_to(folder))
        if not path.is_file():
            continue
        contents = [path.read_bytes()]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in archive.namelist()]
        assert not any(b"hunter" in content for content in contents), path


MSNAS = typer.main.get_command(app)
COMMANDS = MSNAS.commands


def said(*words: object) -> tuple[int, str]:
    """Exit code and all that a command prints."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            MSNAS.main([str(word) for word in words], prog_name="msnas")
        except SystemExit as end:
            return int(end.code or 0), output.getvalue()
    return 0, output.getvalue()


@pytest.fixture(params=["some", pytest.param("all", marks=pytest.mark.slow)])
def forms(request: pytest.FixtureRequest) -> dict[str, str]:
    """URLs with passwords; without the slow tests, each test has others."""
    if request.param == "all":
        return FORMS
    chosen = random.Random(request.node.name).sample(list(MISSPELLED), 2)
    return {form: FORMS[form] for form in ("a URL", *chosen)}


# Command lines


def is_argument(parameter: typing.Any) -> bool:
    return not parameter.opts[0].startswith("-")


def typed(parameter: typing.Any, value: str) -> list[str]:
    return [value] if is_argument(parameter) else [parameter.opts[0], value]


PLACES = {
    f"{name} {parameter.opts[0] if not is_argument(parameter) else parameter.metavar}": (
        name,
        parameter,
    )
    for name, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and parameter.opts[0] != "--help"
} | {f"{name} more": (name, None) for name in COMMANDS}
"""Each argument and option that takes a text, and whatever else may be typed behind a command."""


@pytest.fixture(scope="module")
def _study_once(_trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passwords") / "study"
    shutil.copytree(_trained_once, folder)
    (folder / "msnas-quickstart").symlink_to(folder)
    shutil.copyfile(folder / "tiny.toml", folder / "quickstart.toml")
    return folder


@pytest.fixture
def study(_study_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a study that the quickstart would go on with."""
    monkeypatch.chdir(_study_once)
    return _study_once


def command_line(name: str, planted: typing.Any = None, value: str = "") -> list[str]:
    """A command with a value in one place, or behind it, and a study where one is needed."""
    words = [name]
    for parameter in COMMANDS[name].params:
        if parameter is planted:
            words += typed(parameter, value)
        elif parameter.required or parameter.name == "study_file":
            words += typed(parameter, "0" if parameter.opts[0] == "--trial" else "tiny.toml")
    return words if planted or not value else [*words, value]


def takes_urls(parameter: typing.Any) -> bool:
    return parameter is not None and (parameter.metavar or "").endswith("URL")


@pytest.mark.parametrize("place", PLACES)
def test_no_word_of_a_command_line_shows_a_password(
    study: Path, forms: dict[str, str], place: str
) -> None:
    name, parameter = PLACES[place]
    before = {*study.rglob("*")}
    for form, value in forms.items():
        values = [value] if parameter is not None else [value, f"--{value}", f"--x={value}"]
        for word in values:
            code, output = said(*command_line(name, parameter, word))
            assert "hunter" not in output, (form, word)
            assert "Traceback" not in output
            assert code or (name == "train" and takes_urls(parameter)), form  # opens no storage
    if not takes_urls(parameter):
        assert {*study.rglob("*")} == before
    assert_nothing_is_left(study)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_variable_shows_a_password(
    study: Path, forms: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form, value in forms.items():
        monkeypatch.setenv("OPTUNA_STORAGE", value)
        code, output = said(*command_line(name))
        assert "hunter" not in output, form
        assert code or name in ("train", "space"), form  # they open no storage
    assert_nothing_is_left(study)


def test_a_password_where_none_may_stand_is_refused_in_words(tiny: Path) -> None:
    for words in (["report", tiny, "-o", VALID["a URL"]], ["results", MISSPELLED["one slash"]]):
        code, output = said(*words)
        assert code == 2
        assert "behind --storage or in OPTUNA_STORAGE, with @ written as %40" in output
        assert "***@" in output


def test_what_looks_alike_is_left_alone(tiny: Path) -> None:
    for name in ("me@host.toml", "a b.toml", "key=1.toml"):
        path = tiny.with_name(name)
        path.write_text(f"# see https://x.org/a?b=c or mail me@x.org: 1:2\n{tiny.read_text()}")
        code, output = said("results", path, "--storage", "sqlite:///a@b.db")
        assert code == 0, output


DEBUGGED = {**os.environ, "MSNAS_DEBUG": VALID["a URL"], "OPTUNA_STORAGE": VALID["a parameter"]}


def test_no_traceback_of_a_process_shows_a_password(tiny: Path) -> None:
    command = [sys.executable, "-m", "msnas_optuna", "results", str(tiny)]
    done = subprocess.run(command, env=DEBUGGED, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr
    assert "postgresql+psycopg://keeper@127.0.0.1:1/db?***" in done.stderr
    assert "hunter" not in done.stdout + done.stderr


PRINTING = """
import logging, sys, typer, warnings
from msnas_optuna.cli.terminal import err, out, print_json, redact_output
redact_output()
url = sys.argv[1]
print(url)
typer.echo(url)
out.print(url)
err.print(url)
print_json({"storage": url})
sys.stderr.writelines([url, "\\n"])
logging.warning(url)
warnings.warn(url)
raise RuntimeError(url)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_way_out_of_a_process_is_the_same(tmp_path: Path, encoding: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(PRINTING)
    done = subprocess.run(
        [sys.executable, str(script), VALID["a URL"]],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout + done.stderr).count("***@127.0.0.1:1/db") == 9
    assert "hunter" not in done.stdout + done.stderr


# Study files

SECTIONS = typing.get_type_hints(config.StudyConfig) | {
    "space": METHODS["msnas"].section,
    "detector": METHODS["msnas"].detector_section,
}


def keys(kind: typing.Any, *above: str) -> Iterator[tuple[str, ...]]:
    """The dotted names of all keys and tables of a study file."""
    hints = SECTIONS if kind is config.StudyConfig else typing.get_type_hints(kind)
    for name, hint in hints.items():
        yield *above, name
        inner = next(filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))), None)
        if inner is not None:
            yield from keys(inner, *above, name)


WRITTEN = {
    "text": '{key} = "{escaped}"',
    "array": '{key} = [["{escaped}"]]',
    "table": '{key} = {{url = "{escaped}"}}',
    "inner key": '{key}."{escaped}" = 1',
    "array of tables": '[[{key}]]\n"{escaped}" = 1',
    "no quotes": "{key} = {value}",
    "a quote missing": '{key} = "{value}',
    "twice": '{key} = "{escaped}"\n{key} = 1',
    "a comment": "{key} = 1 # {value}",
    "hidden signs": '{key} = "{hidden}"',
}


@pytest.mark.parametrize("key", list(keys(config.StudyConfig)), ids=".".join)
def test_no_key_of_a_study_file_shows_a_password(
    tmp_path: Path, forms: dict[str, str], key: tuple[str, ...]
) -> None:
    path = tmp_path / "study.toml"
    for form, value in forms.items():
        escaped = json.dumps(value)[1:-1]
        hidden = escaped.replace(":", "\\u003a").replace("@", "\\u0040").replace("=", "\\u003d")
        for way, text in WRITTEN.items():
            if way == "a comment" and (" " in value or '"' in value) and "://" not in value:
                continue  # in free text the second word is any word
            path.write_text(
                text.format(key=".".join(key), value=value, escaped=escaped, hidden=hidden)
            )
            with pytest.raises(ConfigError) as caught:
                load_config(path)
            assert "hunter" not in str(caught.value), (form, way)
            assert "study.toml" in str(caught.value)


def test_a_study_file_with_a_password_says_where_to_keep_it(tiny: Path) -> None:
    tiny.write_text(f"# {VALID['a URL']}\n{tiny.read_text()}")
    code, output = said("results", tiny)
    assert code == 1
    assert "tiny.toml, line 1: a study file holds no password and" in output
    assert "keep the password in ~/.pgpass, or give the whole URL with OPTUNA_STORAGE" in output
    assert "hunter" not in output


@pytest.mark.parametrize("url", ["foo", "sqlite:///", "sqlite:///:memory:", "grpc://host"])
def test_what_the_error_about_a_storage_suggests_is_accepted(tiny: Path, url: str) -> None:
    text = tiny.read_text().replace('run_dir = "."\n', "")

    def kept(storage: str) -> str | None:
        tiny.write_text(text.replace("trials = 7", f'trials = 7\nstorage = "{storage}"'))
        return load_config(tiny).study.storage

    with pytest.raises(ConfigError, match=r"study\.storage: a") as caught:
        kept(url)
    rule, example = str(caught.value).split(" got ")
    suggested = re.findall(r"(?:postgresql|grpc)\S+[^\s,]", rule)
    for word in [example.split("for example ")[1].strip("'"), *suggested]:
        assert kept(word.replace("host:port", "host:13000")), word


# A storage that takes the password


@pytest.mark.slow
def test_nothing_that_a_study_writes_holds_the_password_of_its_storage(
    finished: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.parent)
    given = ["--storage", postgres_url]
    assert said("export-study", finished, postgres_url)[0] == 0
    for words in (
        ["results", finished, *given],
        ["results", finished, "--json", *given],
        ["report", finished, *given],
        ["doctor", finished, "--json", *given],
        ["export-study", finished, "copy.zip", *given],
    ):
        code, output = said(*words)
        assert code == 0, output
        assert "hunter" not in output
    from msnas_optuna.report.dashboard import publish
    from msnas_optuna.storage import write_error

    setting = Setting.load(finished, storage=postgres_url)
    publish(setting)
    trial = optuna.load_study(study_name="tiny", storage=setting.storage).ask()
    write_error(trial, RuntimeError(f"cannot open {postgres_url}"))
    trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert said("report", finished, *given)[0] == 0
    assert "cannot open postgresql+psycopg://***@/" in Path("report.html").read_text()
    assert_nothing_is_left(finished.parent)
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        for table in sqlalchemy.inspect(engine).get_table_names():
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}"):
                assert "hunter" not in str(row)
    engine.dispose()


def test_a_program_without_a_shell_can_start_what_ask_prints(
    tiny: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = said("ask", tiny, "--storage", postgres_url)
    assert code == 0
    assert "set OPTUNA_STORAGE to the URL" in output
    monkeypatch.setenv("OPTUNA_STORAGE", postgres_url)
    asked = json.loads(said("ask", tiny)[1])
    assert said(*(word.replace("AP", "0.4") for word in asked["tell"][1:]))[0] == 0
    study = Setting.load(tiny).stored_study()
    assert study is not None
    assert [trial.value for trial in study.trials] == [None, 0.4]


def test_shipped_study_files_and_their_comments_are_read() -> None:
    for path in (Path(__file__).parents[2] / "studies").rglob("*.toml"):
        if "study" in (plain := tomllib.loads(path.read_text())):
            assert load_config(path).study.name == plain["study"]["name"]
