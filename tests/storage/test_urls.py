"""Where a study lives: option, variable, study file or proxy; and no password is shown."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.cli.search import _print_next_steps
from msnas_optuna.storage import StorageError, open_storage, redact
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.setting import Setting

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

COMMANDS = [
    ("train",), ("search",), ("search", "--workers", "2"), ("retrain",), ("results",),
    ("results", "--json"), ("doctor",), ("doctor", "--json"), ("storage-proxy",), ("ask",),
    ("tell", "--trial", "0", "--values", "0.4"), ("report",), ("dashboard",),
    ("predict", "picture.png"), ("export",),
]  # fmt: skip


def msnas(*arguments: object) -> str:
    """All that a command prints, and its exit code."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return f"{result.exit_code} {result.output}"


def test_option_before_variable_before_study_file(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_text(
        tiny.read_text().replace("trials = 7", 'trials = 7\nstorage = "sqlite:///a.db"')
    )

    def named(*arguments: str) -> str:
        return CliRunner().invoke(app, ["results", str(tiny), "--json", *arguments]).stdout

    assert f"sqlite:///{tmp_path / 'a.db'}" in named()
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///b.db")
    assert '"sqlite:///b.db"' in named()  # relative to the working folder
    assert '"sqlite:///c.db"' in named("--storage", "sqlite:///c.db")


def test_python_reads_the_variable_too(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///b.db")
    assert Experiment.load(tiny).setting.storage_url == "sqlite:///b.db"
    assert Experiment.load(tiny, storage="sqlite:///c.db").setting.storage_url == "sqlite:///c.db"
    monkeypatch.setenv("OPTUNA_STORAGE", "")
    assert Setting.load(tiny).storage_url == f"sqlite:///{tiny.parent / 'study.db'}"


def test_the_password_may_come_from_a_password_file(
    tiny: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_url.replace(":hunter2@", "@")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "absent"))
    assert msnas("results", tiny, "--storage", url).startswith("1 error: ")
    kept = tmp_path / "pgpass"  # in place of ~/.pgpass
    kept.write_text("*:*:*:keeper:hunter2")
    kept.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(kept))
    assert msnas("results", tiny, "--storage", url).startswith("0 ")


UNOPENED = "postgresql+psycopg://keeper@127.0.0.1:1/db"

BROKEN = {
    "wrong password": "",
    "wrong database": "",
    "missing driver": "",
    "nobody listens": "postgresql+psycopg://keeper:hunter2@127.0.0.1:1/db",
    "port": "postgresql+psycopg://keeper:hunter2@host:port/db",
    "at": "postgresql+psycopg://keeper:hun@ter2@127.0.0.1:1/db",
    "slash": "postgresql+psycopg://keeper:hun/ter2@127.0.0.1:1/db",
    "one slash": "postgresql+psycopg:/keeper:hunter2@h/db",
    "no slash": "postgresql+psycopg:keeper:hunter2@h/db",
    "three slashes": "",
    "no scheme": "keeper:hunter2@h/db",
    "other schemes": "mysql://keeper@h/db?x=hunter2",
    "no host": "postgresql+psycopg://keeper:hunter2/db",
    "quoted colon": "",
    "words": "host=h password=hunter2",
    "words in the database": "postgresql+psycopg://127.0.0.1:1/db password=hunter2",
    "client key": f"{UNOPENED}?scram_client_key=hunter2",
    "unknown parameter": f"{UNOPENED}?pwd=hunter2",
    "wrong parameter": f"{UNOPENED}?sslmode=hunter2",
    "sqlite": "sqlite://keeper:hunter2@h/db",
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> str:
    """A URL with a password that cannot be opened."""
    if BROKEN[request.param]:
        return BROKEN[request.param]
    url = make_url(request.getfixturevalue("postgres_url"))
    wrong = {
        "wrong password": url.set(password="hunter3").update_query_dict(
            {"sslpassword": "hunter4"}
        ),
        "wrong database": url.set(database="absent"),
        "three slashes": url.set(database="keeper:hunter5@h/db"),
        "quoted colon": url.set(username="keeper:hunter5"),
        "missing driver": url.set(drivername="postgresql+asyncpg"),
    }[request.param]
    return wrong.render_as_string(hide_password=False)


def test_no_error_shows_a_password(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, StorageError)) as caught:
        open_storage(broken)
    printed = "".join(traceback.format_exception(caught.value)).replace(__file__, "")
    for text in (str(caught.value), printed, redact(broken)):
        for part in ("hunter", "ter2", "hun@", "hun/"):
            assert part not in text
    assert not [*tmp_path.iterdir()]  # nor is a file made of it


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_password(
    command: tuple[str, ...], postgres_url: str, trained: Path
) -> None:
    wrong = make_url(postgres_url).set(password="hunter3")
    url = wrong.update_query_dict({"sslpassword": "hunter4"}).render_as_string(hide_password=False)
    shown = msnas(command[0], trained, *command[1:], "--storage", url)
    if command != ("train",):  # which opens no storage
        assert shown.startswith("1 error: "), shown
    assert "Traceback" not in shown
    assert "hunter" not in shown


def test_a_password_is_hidden_where_the_storage_is_named(tiny: Path, postgres_url: str) -> None:
    shown = msnas("results", tiny, "--json", "--storage", postgres_url)
    assert shown.startswith("0 ")
    assert "hunter2" not in shown
    assert f"postgresql+psycopg://***@/{make_url(postgres_url).database}?***" in shown


def test_the_next_steps_of_the_quickstart_name_no_password(
    tiny: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_next_steps(Setting.load(tiny, storage=postgres_url))
    shown = capsys.readouterr().out
    assert 'optuna trials --storage "$OPTUNA_STORAGE" --study-name tiny' in shown
    assert f'msnas dashboard {tiny} --storage "$OPTUNA_STORAGE"' in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a.db?timeout=60", "sqlite:///a.db?***"),
        ("sqlite:////a b/c@d.db", "sqlite:////a b/c@d.db"),
        ("postgresql://u:p@h:5/d-e", "postgresql://***@h:5/d-e"),
        ("postgresql://h/d?password=x&sslmode=require", "postgresql://h/d?***"),
        ("postgresql+psycopg://u@[::1]:5432/d", "postgresql+psycopg://u@[::1]:5432/d"),
        ("grpc://proxy:13000", "grpc://proxy:13000"),
        ("mysql://u:hunter2@h/d", "mysql://***@h/d"),
        ("keeper:hunter2@h/d", "***@h/d"),
        ("journal:///a/b.log", "journal:///a/b.log"),
        ("/a b/c@d.log", "/a b/c@d.log"),
        ("../study.db", "../study.db"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert redact(url) == redact(shown) == shown


def test_a_wrong_password_says_what_to_check(postgres_url: str) -> None:
    url = make_url(postgres_url).set(password="hunter3").render_as_string(hide_password=False)
    with pytest.raises(StorageError, match=r"password authentication failed.*check that the ser"):
        open_storage(url)


def test_a_role_without_rights_on_another_s_tables_reads_why(
    postgres_server, postgres_url: str
) -> None:
    open_storage(postgres_url)
    postgres_server.psql("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN;")
    stranger = make_url(postgres_url).set(username="stranger", password=None)
    with pytest.raises(StorageError, match="permission denied for table"):
        open_storage(stranger.render_as_string())


READER = """
DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN;
GRANT pg_read_all_data TO reader;
"""


@pytest.mark.parametrize(
    ("command", "through"),
    [
        ("search", "directly"),
        ("tell --trial 0 --values 0.4", "directly"),
        ("ask", "a proxy"),
        pytest.param("search --workers 2", "directly", marks=pytest.mark.slow),
        pytest.param("doctor --fail --trial 0", "a proxy", marks=pytest.mark.slow),
    ],
)
def test_a_storage_that_may_not_be_written_says_what_to_do(
    trained: Path, postgres_server, postgres_url: str, unused_port: int, command: str, through: str
) -> None:
    verb, *options = command.split()
    open_storage(postgres_url)
    if verb != "search":
        assert msnas("ask", trained, "--storage", postgres_url).startswith("0 ")
    postgres_server.psql(READER)
    reader = make_url(postgres_url).set(username="reader", password=None)
    url = reader.render_as_string()
    with proxy_of(url, trained, unused_port) if through == "a proxy" else nullcontext(url) as url:
        shown = msnas(verb, trained, *options, "--storage", url)
    assert shown.startswith("1 "), shown
    assert "the storage has failed (" in shown
    assert "finished trials are kept: check the server or the disk, and that its user" in shown
    assert len(shown.splitlines()) <= 4, shown
    if through == "directly":
        assert "permission denied for" in shown


@contextmanager
def proxy_of(url: str, study_file: Path, port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "msnas_optuna", "storage-proxy", str(study_file)]
    command += ["--storage", url, "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        assert line.startswith("serving ")
        assert "hunter" not in line
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0


def test_a_proxy_needs_a_host_and_a_port_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"a proxy's URL is grpc://host:port, got 'grpc://host'"):
        open_storage("grpc://host")
    monkeypatch.setattr("msnas_optuna.storage.proxy._OPEN_SECONDS", 0.1)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1.*`msnas storage-proxy` runs there"):
        open_storage("grpc://127.0.0.1:1")


def test_a_proxy_listens_on_this_machine_alone_and_shares_no_port(
    tiny: Path, unused_port: int
) -> None:
    url = f"sqlite:///{tiny.parent / 'study.db'}"
    with proxy_of(url, tiny, unused_port) as proxy:
        study = optuna.create_study(storage=open_storage(proxy), study_name="s")
        addresses = listening_addresses(unused_port)
        assert addresses
        assert addresses <= LOOPBACK
        other = f"sqlite:///{tiny.parent / 'other.db'}"
        shown = msnas("storage-proxy", tiny, "--port", unused_port, "--storage", other)
        assert shown.startswith("1 error: ")
        assert f"got 127.0.0.1:{unused_port}; end what listens there" in shown
        assert len(shown.splitlines()) == 1
        study.set_user_attr("still", "there")


@pytest.mark.slow
def test_a_trial_goes_on_when_its_proxy_has_restarted(tiny: Path, unused_port: int) -> None:
    url = f"sqlite:///{tiny.parent / 'study.db'}"
    with proxy_of(url, tiny, unused_port) as proxy:
        trial = optuna.create_study(storage=open_storage(proxy), study_name="s").ask()
        trial.suggest_float("x", 0, 1)
    with proxy_of(url, tiny, unused_port):
        trial.suggest_float("y", 0, 1)
    (stored,) = optuna.load_study(storage=open_storage(url), study_name="s").trials
    assert set(stored.params) == {"x", "y"}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as the kernel writes it, also in IPv6's notation."""


def listening_addresses(port: int) -> set[str]:
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [line[1].split(":") for line in lines if line[3] == "0A"]
    return {address for address, at in listening if int(at, 16) == port}


@pytest.mark.slow
def test_a_search_through_a_proxy(
    trained: Path, tmp_path: Path, postgres_url: str, unused_port: int
) -> None:
    with proxy_of(postgres_url, trained, unused_port) as proxy:
        shown = msnas("search", trained, "--storage", proxy, "--json")
        assert shown.startswith("0 "), shown
        assert f'"storage": "{proxy}"' in shown
    through = optuna.load_study(study_name="tiny", storage=open_storage(postgres_url))
    directly = Setting.load(trained, storage=f"sqlite:///{tmp_path}/direct.db")
    assert msnas("search", trained, "--storage", directly.storage_url).startswith("0 ")
    alone = directly.stored_study()
    assert alone is not None
    assert [t.params for t in through.trials] == [t.params for t in alone.trials]
    assert [t.values for t in through.trials] == [t.values for t in alone.trials]


def test_postgres_survives_connections_that_were_cut(
    postgres_server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msnas_optuna.storage.opening._RECONNECT_PAUSE", 0.05)
    storage = open_storage(postgres_url)
    assert isinstance(storage, RDBStorage)
    study = optuna.create_study(storage=storage, study_name="s")
    name = make_url(postgres_url).database
    postgres_server.psql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false;")
    postgres_server.psql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}';"
    )
    allow = f"ALTER DATABASE {name} ALLOW_CONNECTIONS true;"
    threading.Timer(1, postgres_server.psql, (allow,)).start()
    study.set_user_attr("still", "there")  # waits until the server admits it again
    assert study.user_attrs == {"still": "there"}
