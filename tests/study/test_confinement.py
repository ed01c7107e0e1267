"""A study file makes the tool write inside its run folder, and stored state runs no code."""

from __future__ import annotations

import json
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import optuna
import pytest
import torch
from plotly.graph_objects import Figure
from sqlalchemy.engine import URL, make_url
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.data.shapes import MARKER, ShapesSettings, generate_shapes
from msnas_optuna.report.artifacts import ArtifactFolder
from msnas_optuna.report.figures import write_figure
from msnas_optuna.report.overview import Overview
from msnas_optuna.report.page import write_report
from msnas_optuna.runtime.distributed import Ranks
from msnas_optuna.storage import CONFIG, LAYOUT, LAYOUT_VERSION, open_storage
from msnas_optuna.study.config import ConfigError, load_config
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.setting import Setting
from msnas_optuna.training.checkpoint import (
    CheckpointError,
    exclusive,
    load_checkpoint,
    save_checkpoint,
)


def unhidden(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def edited(study_file: Path, old: str, new: str) -> Path:
    text = study_file.read_text()
    assert old in text
    study_file.write_text(text.replace(old, new))
    return study_file


# Where it writes


@pytest.mark.parametrize("run_dir", ["..", "../elsewhere", "/tmp/elsewhere", "a/../../b"])
def test_the_run_folder_lies_in_the_study_file_s(tiny: Path, run_dir: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.run_dir: the run folder lies in .* got '"):
        load_config(edited(tiny, 'run_dir = "."', f'run_dir = "{run_dir}"'))


@pytest.mark.parametrize("url", ["sqlite:///../s.db", "sqlite:////tmp/s.db", "journal:///s.log"])
def test_the_storage_lies_in_the_run_folder(tiny: Path, url: str) -> None:
    edited(tiny, 'run_dir = "."', f'run_dir = "run"\nstorage = "{url}"')
    with pytest.raises(ConfigError, match=r"study\.storage: the file lies in the run folder"):
        load_config(tiny)
    inside = edited(tiny, url, f"{url.split(':')[0]}:///run/s.db")
    assert load_config(inside).study.storage is not None


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///file:/tmp/s.db?uri=true",
        "postgresql+psycopg://keeper@host/db?sslkeylogfile=/tmp/keys",
        "postgresql+psycopg://keeper:hunter2@host/db",
    ],
)
def test_a_study_file_holds_no_password_and_no_parameters(tiny: Path, url: str) -> None:
    edited(tiny, "trials = 7", f'trials = 7\nstorage = "{url}"')
    with pytest.raises(ConfigError, match=r"no password and no parameters .* or --sto") as caught:
        load_config(tiny)
    assert "hunter2" not in str(caught.value)
    plain = url.partition("?")[0].replace(":hunter2", "").replace("file:/tmp/", "")
    assert load_config(edited(tiny, url, plain)).study.storage is not None


def test_the_user_may_tell_the_driver_anything(tiny: Path, postgres_url: str) -> None:
    url = make_url(postgres_url).update_query_dict({"options": "-cstatement_timeout=9000"})
    assert Setting.load(tiny, storage=unhidden(url)).storage is not None


@pytest.mark.parametrize("name", ["artifacts", "exported", "predictions"])
def test_what_is_made_for_people_stays_in_the_run_folder(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (tiny.parent / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="a study writes in its run folder alone"):
        Setting.load(tiny).inside(name)
    if name == "artifacts":
        with pytest.raises(ConfigError, match="a study writes in its run folder alone"):
            _ = Setting.load(tiny).artifact_dir


def test_a_name_is_no_path(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.name"):
        load_config(edited(tiny, 'name = "tiny"', 'name = "../../x"'))


def test_the_run_folder_may_be_a_link_to_another_disk(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    setting = Setting.load(edited(tiny, 'run_dir = "."', 'run_dir = "run"'))
    assert setting.storage is not None
    assert (tmp_path / "disk" / "study.db").exists()


@pytest.mark.parametrize("name", ["study.db", "study.db-wal", "data", "retrained", "supernet.pt"])
def test_links_out_of_the_run_folder_are_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    target = tmp_path / "elsewhere"
    (tmp_path / "run" / name).symlink_to(target)
    experiment = Experiment.load(edited(tiny, 'run_dir = "."', 'run_dir = "run"'))
    if name in ("data", "retrained"):
        target.mkdir()
    write = {
        "retrained": lambda: experiment.standalone_objective(experiment.setting.valid),
        "study.db": lambda: experiment.setting.storage,
        "study.db-wal": lambda: experiment.setting.storage,
    }.get(name, experiment.train_supernet)
    with pytest.raises(ConfigError, match=f"run folder alone, but .*{name} leads to .*elsewhere"):
        write()
    assert not target.exists() or not list(target.iterdir())


def test_a_storage_that_the_user_names_may_lie_anywhere(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    edited(tiny, 'run_dir = "."', 'run_dir = "run"')
    assert Setting.load(tiny, storage=f"sqlite:///{tmp_path}/mine.db").storage is not None


def predict(folder: Path) -> None:
    predicted = ["predict", str(folder / "tiny.toml"), str(folder / "data" / "val" / "000000.jpg")]
    assert CliRunner().invoke(app, [*predicted, "--out", str(folder)]).exit_code == 0


def export(folder: Path) -> None:
    exported = ["export", str(folder / "tiny.toml"), "--out", str(folder)]
    assert CliRunner().invoke(app, exported).exit_code == 0


def unfinished_shapes(folder: Path) -> None:
    settings = ShapesSettings(train=1, val=1, test=1)
    generate_shapes(folder / "made", settings)
    marker = folder / "made" / MARKER
    marker.write_text(marker.read_text().replace("true", "false"))
    (folder / "made" / "val" / "000000.jpg").unlink()
    (folder / "made" / "val" / "000000.jpg").symlink_to(folder.parent / "victim")
    generate_shapes(folder / "made", settings)


def quickstart(folder: Path) -> None:
    (folder / "quickstart.tmp").symlink_to(folder.parent / "victim")
    copied = CliRunner().invoke(app, ["quickstart", "--dir", str(folder), "--storage", "none"])
    assert "none" in copied.stderr  # it has ended there, before any training
    assert (folder / "quickstart.toml").is_file()


WRITERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "checkpoint": (lambda f: save_checkpoint(f / "c.pt", {}, fingerprint={}), ("c.pt",)),
    "artifact": (lambda f: ArtifactFolder(f).write("a", BytesIO(b"picture")), ("a",)),
    "figure": (lambda f: write_figure(Figure(), f / "f.html"), ("f.html",)),
    "json": (lambda f: write_figure(Figure(), f / "f.json"), ("f.json",)),
    "report": (
        lambda f: write_report(Overview(Setting.load(f / "tiny.toml")), f / "r.html"), ("r.html",)
    ),
    "shapes": (unfinished_shapes, ()),
    "quickstart": (quickstart, ()),
    "predict": (predict, ("000000.jpg", "results.json", "images.json")),
    "export": (export, ("model.pt2", "load.py", "architecture.json", "SHA256SUMS")),
}  # fmt: skip


@pytest.mark.parametrize(
    "writer", [*[*WRITERS][:-1], pytest.param("export", marks=pytest.mark.slow)]
)
def test_nothing_is_written_through_a_link(retrained: Path, writer: str) -> None:
    folder = retrained.parent
    victim = folder.parent / "victim"
    victim.write_text("precious")
    write, names = WRITERS[writer]
    for name in names:
        guessed = (name, f"{name}.tmp", f".{name}.tmp", f".{name}.{os.getpid()}.tmp")
        for planted in (*guessed, Path(name).with_suffix(".tmp").name):
            if not (folder / planted).is_symlink():
                (folder / planted).symlink_to(victim)
    write(folder)
    assert victim.read_text() == "precious"
    for name in names:
        assert (folder / name).is_file()
        assert not (folder / name).is_symlink()


# What it reads


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def pickled(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, pickled])
def test_a_checkpoint_runs_no_code(tmp_path: Path, save) -> None:
    save({"format": 1, "fingerprint": {}, "bomb": Bomb(tmp_path / "fired")}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "c.pt", fingerprint={})
    assert not (tmp_path / "fired").exists()


# One training at a time


HOLDER = """
import sys, time
from pathlib import Path
from msnas_optuna.training.checkpoint import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_training_is_refused_and_a_dead_one_holds_nothing(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained.parent / "supernet.pt"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setenv("RANK", "1")  # as in a script under torchrun whose processes work alone
    with pytest.raises(CheckpointError, match=r"another process trains into .*supernet\.pt; wait"):
        Experiment.load(trained).train_supernet()
    with exclusive(path, Ranks(rank=1, size=2)):
        pass  # the first of those that train together holds the lock
    holder.kill()
    holder.wait()
    assert len(Experiment.load(trained).train_supernet()) == 4


def test_other_checkpoints_are_not_locked(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a.pt"), exclusive(tmp_path / "b.pt"):
        pass


# Studies of other layouts


def stored(study_file: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=Setting.load(study_file).storage)


def test_a_study_of_another_layout_is_refused_by_every_command(finished: Path) -> None:
    before = [trial.values for trial in stored(finished).trials]
    with sqlite3.connect(finished.parent / "study.db") as database:  # Optuna deletes no key
        database.execute(
            "DELETE FROM study_user_attributes WHERE key = ? AND study_id = "
            "(SELECT study_id FROM studies WHERE study_name = 'tiny')",
            (LAYOUT,),
        )
    database.close()
    for layout in (1, LAYOUT_VERSION - 1, LAYOUT_VERSION + 1, "x"):
        if layout != 1:
            stored(finished).set_user_attr(LAYOUT, layout)
        for command in ("search", "ask", "results", "doctor", f"export-study {finished}.zip"):
            verb, *options = command.split()
            shown = CliRunner().invoke(app, [verb, str(finished), *options])
            assert shown.exit_code == 1
            assert shown.output.startswith(
                f"error: study 'tiny' is stored in layout {layout!r}, this version of "
                f"msnas-optuna uses layout {LAYOUT_VERSION}; go on with the version that made"
            )
    assert [trial.values for trial in stored(finished).trials] == before


def test_a_damaged_configuration_is_refused(finished: Path) -> None:
    stored(finished).set_user_attr(CONFIG, [1])
    for verb in ("search", "results"):
        shown = CliRunner().invoke(app, [verb, str(finished)])
        assert shown.exit_code == 1
        assert re.match(r"error: .* cannot be read: .* is \[1\]; restore it", shown.output)


CREATOR = textwrap.dedent("""
    import json, sys, time
    sys.path[:0] = ["tests/study", "."]
    from test_workers import open_storage, open_study
    from optuna.samplers import RandomSampler
    storage = open_storage(sys.argv[1])
    time.sleep(max(0, float(sys.argv[3]) - time.time()))
    open_study(storage, name="s", directions=["maximize"], sampler=RandomSampler(),
               config={"seed": int(sys.argv[2]), "same": 1})
""")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_of_two_configurations_at_once_one_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"{kind}:///{tmp_path}/s"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    open_storage(url)
    start = str(time.time() + 10)
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", CREATOR, url, str(seed), start],
            stderr=subprocess.PIPE, text=True,
        )
        for seed in range(4)
    ]  # fmt: skip
    errors = [command.communicate(timeout=120)[1] for command in commands]
    codes = [command.returncode for command in commands]
    assert codes.count(0) == 1, errors
    winner = codes.index(0)
    study = optuna.load_study(study_name="s", storage=open_storage(url))
    assert json.loads(json.dumps(study.user_attrs[CONFIG])) == {"seed": winner, "same": 1}
    for seed, error in enumerate(errors):
        if seed != winner:
            assert f"seed: {winner} stored, {seed} given" in error
            assert "same:" not in error
