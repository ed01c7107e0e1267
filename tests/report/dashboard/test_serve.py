"""The server: what it answers, and that it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from msnas_optuna.report.dashboard import dashboard_server, publish
from msnas_optuna.report.overview import NothingToShowError
from msnas_optuna.study.setting import Setting


@pytest.fixture
def serve():
    """Serves a study and returns a function that asks for a path."""
    servers = []

    def start(setting, hosts=()):
        server = dashboard_server(setting, 0, hosts)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        get = lambda path: ask(f"http://127.0.0.1:{server.server_port}{path}")  # noqa: E731
        get.port = server.server_port
        return get

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


@pytest.fixture
def proxy(finished, unused_port):
    """The URL of a proxy that serves the storage of the finished study."""
    command = [sys.executable, "-m", "msnas_optuna", "storage-proxy", str(finished)]
    with subprocess.Popen(
        [*command, "--port", str(unused_port)], stderr=subprocess.PIPE, text=True
    ) as process:
        process.stderr.readline()  # it serves
        yield f"grpc://127.0.0.1:{unused_port}"
        process.terminate()


@pytest.mark.parametrize("storage", ["sqlite", "journal", "proxy"])
def test_a_trial_without_parameters_yet_breaks_no_axes(
    finished, storage, serve, tmp_path, request
):
    url = request.getfixturevalue("proxy") if storage == "proxy" else None
    setting = Setting.load(finished, storage=url)
    if storage == "journal":
        setting = in_journal(setting, finished, tmp_path)
    get = serve(setting)
    study = setting.stored_study()
    names = setting.space.distributions.keys()

    def axes():
        detail = json.loads(get(f"/api/studies/{study._study_id}?after=0"))
        return {axis["name"] for axis in detail["intersection_search_space"]}

    study.ask()  # as a search is for a moment: the trial runs and has no parameters
    assert axes() == names
    study.ask({"stride_01": setting.space.distributions["stride_01"]})  # abandoned half-way
    assert axes() == names
    waiting = setting.space.fpn_like()
    from msnas_optuna import queue_architectures

    queue_architectures(study, setting.space, [waiting])
    assert axes() == names


def in_journal(setting, study_file: Path, tmp_path: Path) -> Setting:
    import optuna

    text = study_file.read_text().replace("trials = 7", 'trials = 7\nstorage = "study.log"')
    study_file.write_text(text)
    moved = Setting.load(study_file)
    name = setting.study_name()
    optuna.copy_study(from_study_name=name, from_storage=setting.storage, to_storage=moved.storage)
    return moved


def test_pictures_of_the_note_are_served(finished, serve):
    setting = Setting.load(finished)
    publish(setting)
    get, study = serve(setting), setting.stored_study()
    detail = json.loads(get(f"/api/studies/{study._study_id}?after=0"))
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", detail["note"]["body"])
    assert len(pictures) == 5
    for path in pictures:
        assert get(path).startswith(b"<svg ")
    assert len(detail["plotly_graph_objects"]) > 10
    for plot in detail["plotly_graph_objects"]:
        json.loads(plot["graph_object"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LocalHost", 200),
        ("study.localhost:{port}", 200),
        ("[::1]:{port}", 200),
        ("127.0.0.2", 200),
        ("proxy.example", 200),
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("notlocalhost", 403),
        ("203.0.113.7", 403),
        ("0.0.0.0:{port}", 403),
        ("[::1", 403),
        ("", 403),
        (None, 403),
    ],
)
def test_only_names_of_this_machine_are_answered(finished, serve, host, status):
    port = serve(Setting.load(finished), ["Proxy.example"]).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", "/api/studies", skip_host=True)
    if host is not None:
        connection.putheader("Host", host.format(port=port))
    connection.endheaders()
    answer = connection.getresponse()
    said = answer.read().decode()
    assert answer.status == status, said
    if status == 403:
        assert said.startswith("The dashboard answers as 127.0.0.1 and as localhost, not as ")
        assert "--allow-host" in said
    else:
        assert json.loads(said)["study_summaries"]


def test_only_this_machine_is_answered(finished):
    with dashboard_server(Setting.load(finished), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_and_a_study_that_has_not_begun_are_explained(finished, tiny, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--port must be a free port .*, {port} is not"):
            dashboard_server(Setting.load(finished), port)
    (tmp_path / "new").mkdir()
    new = tmp_path / "new" / "new.toml"
    new.write_text(tiny.read_text())
    with pytest.raises(NothingToShowError, match="tiny has not begun"):
        dashboard_server(Setting.load(new), 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_is_and_ends_when_told(finished, number):
    command = [sys.executable, "-m", "msnas_optuna", "dashboard", str(finished), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard/studies/\d+", url)
        assert b"<html" in ask(url)
        process.send_signal(number)
        assert process.wait(timeout=60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-q", "--json"])
def test_scripts_get_the_address_and_no_more(finished, option):
    command = [sys.executable, "-m", "msnas_optuna", "dashboard", str(finished), "--port", "0"]
    command += ["--allow-host", "proxy.example"]
    with subprocess.Popen([*command, option], stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline()]
        while option == "--json" and lines[-1] != "}\n":
            lines.append(process.stdout.readline())
        said = "".join(lines)
        url = json.loads(said)["url"] if option == "--json" else said.strip()
        named = urllib.request.Request(url, headers={"Host": "proxy.example"})
        assert b"<html" in ask(named)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert rest == ""
        assert process.returncode == 0
