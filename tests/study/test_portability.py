"""Studies that move between storages: real files, a real PostgreSQL, real kills."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, upload_artifact
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from plotly.graph_objects import Figure
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.storage import (
    IMPORT,
    StudyMismatchError,
    Worker,
    open_storage,
    read_plan,
    recover_lost_trials,
    sqlite_url,
)
from msnas_optuna.storage.optuna_private import (
    database_of,
    sample,
    set_system_attr,
    study_id,
    suggest,
    system_attrs,
    trial_id,
)
from msnas_optuna.study.asktell import ask, tell
from msnas_optuna.study.portability import export_study, import_study
from msnas_optuna.study.setting import Setting

pytestmark = pytest.mark.filterwarnings(
    "ignore:Heartbeat of storage", "ignore::optuna.exceptions.ExperimentalWarning"
)
optuna.logging.set_verbosity(optuna.logging.ERROR)

IMAGE = "![strides](/artifacts/{}/{}/{})"


def searched(setting: Setting, stage: str | None = None) -> optuna.Study:
    return setting.open_study(setting.config.identity(), stage)


def search(setting: Setting, n: int) -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        values = [suggest(trial, n, d) for n, d in setting.space.distributions.items()]
        trial.report(values[0], 0)
        trial.report(math.inf, 1)
        trial.set_constraint("window", -1.5)
        trial.set_user_attr("mixed", [1, 1.0, True, None, "µ", {"a": {}}])
        return sum(i * v for i, v in enumerate(values, start=1)) / 100

    study = searched(setting)
    recover_lost_trials(study)
    study.optimize(objective, n_trials=n)
    return study


@pytest.fixture(scope="module")
def _rich_once(tiny_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich")
    (folder / "tiny.toml").write_text(tiny_text)
    setting = Setting.load(folder / "tiny.toml")
    other = optuna.create_study(storage=setting.storage, study_name="other")
    other.add_trials([create_trial(value=0.0)] * 3)  # so that ids and numbers differ
    study = search(setting, 4)
    setting.artifact_dir.mkdir()
    store, file = FileSystemArtifactStore(setting.artifact_dir), folder / "a.png"
    file.write_bytes(bytes(range(256)) * 50)
    asked = study.ask(setting.space.distributions)
    image = upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=asked)
    links = IMAGE.format(study_id(study), trial_id(asked), image)
    save_note(asked, f"{'long ' * 600}{links}")
    study.tell(asked, math.inf)
    pruned = study.ask(setting.space.distributions)
    pruned.report(0.5, 3)
    study.tell(pruned, state=TrialState.PRUNED)
    study.tell(study.ask(setting.space.distributions), state=TrialState.FAIL)
    study.enqueue_trial(setting.space.encode(setting.feasible.at(0)), user_attrs={"why": "I"})
    upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=study)
    save_note(study, f"# {links} and /artifacts/99/{image}")
    save_plotly_graph_object(study, Figure(layout={"title": "x" * 5000}), graph_object_id="fig")
    study.set_user_attr("dataset", {"n": 1, "share": 1.0})
    stage = searched(setting, "fpn-like")
    stage.add_trial(create_trial(value=0.25, user_attrs={"a": 1}))
    stage.set_user_attr("parent_study", "tiny")
    database_of(setting.storage).engine.dispose()  # writes all into the file
    return folder


@pytest.fixture
def rich(_rich_once: Path, tmp_path: Path) -> Path:
    """A study file whose search has trials in every state, notes, a figure and artifacts."""
    shutil.copytree(_rich_once, tmp_path / "rich")
    return tmp_path / "rich" / "tiny.toml"


def moved_to(study_file: Path, url: str | None, folder: str = "elsewhere") -> Setting:
    """The same study file in a folder and on a storage of its own."""
    target = study_file.parent / folder / study_file.name
    target.parent.mkdir()
    target.write_text(study_file.read_text())
    return Setting.load(target, storage=url)


def content(setting: Setting, name: str = "tiny") -> dict[str, Any]:
    """All of a study but the ids that its storage gives."""
    study = optuna.load_study(study_name=name, storage=setting.storage)
    attributes = system_attrs(study)
    trials = study.get_trials(deepcopy=False)

    def note(of: optuna.Study | optuna.Trial) -> str:
        text = get_note(of).replace(f"/artifacts/{study_id(study)}/", "/artifacts/#/")
        for trial in trials:
            text = text.replace(f"/#/{trial_id(trial)}/", f"/#/#{trial.number}/")
        return text

    return {
        "directions": study.directions,
        "metrics": study.metric_names,
        "user attributes": repr(study.user_attrs),
        "system attributes": {
            k: v for k, v in attributes.items() if k != IMPORT and "note" not in k
        },
        "trials": [everything(trial) for trial in trials],
        "notes": [note(study), *(note(optuna.Trial(study, trial_id(t))) for t in trials)],
    }


def everything(trial: FrozenTrial) -> str:
    return repr({k: v for k, v in sorted(vars(trial).items()) if k != "_trial_id"})


def names_of(setting: Setting) -> set[str]:
    return set(optuna.get_all_study_names(setting.storage))


def test_to_postgresql_and_back_through_a_file_nothing_changes(
    rich: Path, postgres_url: str
) -> None:
    home = Setting.load(rich)
    first, second = str(rich.with_name("1.zip")), str(rich.with_name("2.zip"))
    moved = export_study(home, first)
    assert moved.studies == {"tiny": 8, "tiny-fpn-like": 1}
    assert (moved.artifacts, moved.missing, moved.unfinished) == (2, [], 0)
    server = moved_to(rich, postgres_url)
    assert import_study(server, first) == moved
    export_study(server, second)
    back = moved_to(rich, None, "back")
    import_study(back, second)
    for setting in (server, back):
        assert names_of(setting) == {"tiny", "tiny-fpn-like"}
        for name in ("tiny", "tiny-fpn-like"):
            assert content(setting, name) == content(home, name)
        files = {p.name: p.read_bytes() for p in setting.artifact_dir.iterdir()}
        assert files == {p.name: p.read_bytes() for p in home.artifact_dir.iterdir()}


def test_directly_between_storages_nothing_changes(rich: Path, postgres_url: str) -> None:
    home, server = Setting.load(rich), moved_to(rich, postgres_url)
    shutil.copytree(home.artifact_dir, server.artifact_dir)
    assert export_study(home, postgres_url).missing == []
    back = moved_to(rich, f"journal:///{rich.parent}/back/study.log", "back")
    assert len(import_study(back, postgres_url).missing) == 2  # no copy of the artifact store here
    for setting in (server, back):
        for name in ("tiny", "tiny-fpn-like"):
            assert content(setting, name) == content(home, name)


def test_a_file_holds_a_database_that_optuna_reads(rich: Path) -> None:
    home, file = Setting.load(rich), rich.with_name("backups") / "new" / "s.zip"
    export_study(home, str(file))
    assert [file] == list(file.parent.iterdir())
    with zipfile.ZipFile(file) as archive:
        database = Path(archive.extract("study.db", rich.parent / "unzipped"))
    study = optuna.load_study(study_name="tiny-fpn-like", storage=sqlite_url(database))
    assert study.best_value == 0.25


def test_notes_and_their_images_follow_their_trials(rich: Path, postgres_url: str) -> None:
    home = Setting.load(rich)
    export_study(home, postgres_url)
    study = optuna.load_study(study_name="tiny", storage=open_storage(postgres_url))
    trial = optuna.Trial(study, trial_id(study.trials[4]))
    (key,) = (key for key in study.trials[4].system_attrs if key.startswith("artifacts:"))
    identifier = key.removeprefix("artifacts:")
    link = IMAGE.format(study_id(study), trial_id(trial), identifier)
    assert get_note(trial) == f"{'long ' * 600}{link}"
    assert get_note(study).startswith(f"# {link} and /artifacts/99/")
    path = rich.with_name("downloaded.png")
    store = FileSystemArtifactStore(home.artifact_dir)
    download_artifact(artifact_store=store, artifact_id=identifier, file_path=str(path))
    assert path.read_bytes() == rich.with_name("a.png").read_bytes()


# The search goes on


def proposals(study: optuna.Study) -> list[Any]:
    plans = [read_plan(trial) for trial in study.trials]
    return [plan and replace(plan, worker=None, study="") for plan in plans]  # type: ignore[arg-type]


def by_file(home: Setting, there: Setting) -> None:
    file = str(home.run_dir / f"{there.run_dir.parent.name}-{there.run_dir.name}.zip")
    export_study(home, file)
    import_study(there, file)


def by_url(home: Setting, there: Setting) -> None:
    import_study(there, home.storage_url)


def by_optuna(home: Setting, there: Setting) -> None:
    optuna.copy_study(from_study_name="tiny", from_storage=home.storage, to_storage=there.storage)


@pytest.mark.slow
@pytest.mark.parametrize("move", [by_file, by_url, by_optuna])
def test_the_search_goes_on_as_if_it_had_not_moved(
    move: Callable[[Setting, Setting], None], tiny: Path, postgres_url: str
) -> None:
    whole = search(moved_to(tiny, f"journal:///{tiny.parent}/whole.log", "whole"), 17)
    home, server, back = (
        moved_to(tiny, None, "home"), moved_to(tiny, postgres_url, "server"),
        moved_to(tiny, None, "back"),
    )  # fmt: skip
    search(home, 5)
    move(home, server)
    search(server, 6)
    move(server, back)
    study = search(back, 6)
    assert proposals(study) == proposals(whole)
    assert [t.number for t in study.trials] == list(range(17))
    assert [t.values for t in study.trials] == [t.values for t in whole.trials]


def test_a_trial_that_was_running_is_repeated_at_its_place(tiny: Path, postgres_url: str) -> None:
    home, server = moved_to(tiny, None, "home"), moved_to(tiny, postgres_url, "server")
    study = search(home, 5)
    sample(study.ask())
    by_file(home, server)
    moved = search(server, 1)
    assert [t.state.name for t in moved.trials] == [*["COMPLETE"] * 5, "FAIL", "COMPLETE"]
    assert moved.trials[6].system_attrs["retry_history"] == [5]
    first, second = read_plan(moved.trials[5]), read_plan(moved.trials[6])
    assert first is not None
    assert second is not None
    assert (first.slot, first.params) == (second.slot, second.params)
    assert study.trials[5].state == TrialState.RUNNING  # at home it goes on


def test_a_trial_that_was_handed_out_can_be_told_after_the_move(
    tiny: Path, postgres_url: str
) -> None:
    home, server = moved_to(tiny, None, "home"), moved_to(tiny, postgres_url, "server")
    (asked,) = ask(home)
    by_file(home, server)
    tell(server, asked.trial, [0.4])
    assert optuna.load_study(study_name="tiny", storage=server.storage).best_value == 0.4


# What is refused


def test_nothing_is_overwritten(rich: Path) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    before = content(home)
    with pytest.raises(StudyMismatchError, match="study 'tiny' exists there, and an import"):
        import_study(home, file)
    with pytest.raises(StudyMismatchError, match="overwrites nothing; import into another"):
        export_study(home, home.storage_url)
    with pytest.raises(FileExistsError, match="exists; remove it, or give another name"):
        export_study(home, file)
    assert content(home) == before


def test_a_stage_that_is_there_keeps_the_others_out(rich: Path) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    there = moved_to(rich, None)
    searched(there, "fpn-like")
    with pytest.raises(StudyMismatchError, match="'tiny-fpn-like' exists there"):
        import_study(there, file)
    assert names_of(there) == {"tiny-fpn-like"}
    assert not there.artifact_dir.exists()


@pytest.mark.parametrize("other", [b"another picture", bytes(range(255, -1, -1)) * 50])
def test_another_artifact_of_the_same_name_is_neither_kept_nor_overwritten(
    rich: Path, other: bytes
) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    there = moved_to(rich, None)
    first, second = sorted(p.name for p in home.artifact_dir.iterdir())
    there.artifact_dir.mkdir()
    (there.artifact_dir / second).write_bytes(other)
    with pytest.raises(ValueError, match=rf"{second} differs .* move the folder .* away, or"):
        import_study(there, file)
    assert [p.name for p in there.artifact_dir.iterdir()] == [second]
    assert (there.artifact_dir / second).read_bytes() == other
    assert not (there.run_dir / "study.db").exists()
    shutil.copyfile(home.artifact_dir / second, there.artifact_dir / second)
    assert import_study(there, file).missing == []
    assert {p.name for p in there.artifact_dir.iterdir()} == {first, second}


def test_another_study_file_is_refused(rich: Path) -> None:
    file = str(rich.with_name("s.zip"))
    export_study(Setting.load(rich), file)
    there = moved_to(rich, None)
    path = there.run_dir / "tiny.toml"
    text = path.read_text()
    path.write_text(text.replace("tolerance = 0.05", "tolerance = 0.1"))
    with pytest.raises(StudyMismatchError, match=r"budget.tolerance: 0.05 stored, 0.1 given"):
        import_study(Setting.load(path), file)
    path.write_text(text.replace('name = "tiny"', 'name = "small"'))
    with pytest.raises(StudyMismatchError, match=r"'small' of study.name .* got .*'tiny'"):
        import_study(Setting.load(path), file)
    assert [p.name for p in there.run_dir.iterdir()] == ["tiny.toml"]


def test_there_is_nothing_to_export_before_the_search(tiny: Path, postgres_url: str) -> None:
    for setting in (Setting.load(tiny), moved_to(tiny, postgres_url)):
        with pytest.raises(ValueError, match="the storage has no study tiny, tiny-fpn-like"):
            export_study(setting, str(tiny.with_name("s.zip")))
    assert not tiny.with_name("s.zip").exists()
    assert not tiny.with_name("study.db").exists()


def test_a_damaged_file_is_refused(rich: Path) -> None:
    file = rich.with_name("s.zip")
    export_study(Setting.load(rich), str(file))
    there, whole = moved_to(rich, None), file.read_bytes()
    damaged = [whole[:n] for n in range(0, len(whole), len(whole) // 23)]
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    for entry in (entries[0], entries[-1]):  # the database and an artifact
        data = entry.header_offset + 30 + len(entry.filename)
        flipped = bytearray(whole)
        flipped[data + entry.compress_size // 2] ^= 255
        damaged.append(bytes(flipped))
    for content_ in damaged:
        file.write_bytes(content_)
        with pytest.raises(ValueError, match=r"no file that .* has written, or it is damaged"):
            import_study(there, str(file))
        assert not (there.run_dir / "study.db").exists()


def test_a_file_that_is_not_there_is_named(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"^there is no file absent\.zip; give one"):
        import_study(Setting.load(tiny), "absent.zip")


def test_a_file_of_an_earlier_version_is_refused(rich: Path) -> None:
    file = rich.with_name("s.zip")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", '{"format": "msnas-study", "version": 1}')
    said = msnas("import-study", moved_to(rich, None).run_dir / "tiny.toml", file, code=1).stderr
    assert said.startswith(
        f"error: {file} holds studies of an earlier version of msnas-optuna; go"
    )
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("identifier", ["../../../evil", "/evil", ".."])
def test_no_artifact_leaves_its_folder(rich: Path, identifier: str) -> None:
    file, home = rich.with_name("s.zip"), Setting.load(rich)
    export_study(home, str(file))
    with zipfile.ZipFile(file) as archive:
        database = Path(archive.extract("study.db", rich.parent / "unzipped"))
    url = sqlite_url(database)
    study = optuna.load_study(study_name="tiny", storage=open_storage(url))
    set_system_attr(study, f"artifacts:{identifier}", json.dumps({"artifact_id": identifier}))
    database_of(study._storage).engine.dispose()  # writes all into the file
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(database, "study.db")
        for name in (f"artifacts/{identifier}", "../evil"):
            archive.writestr(name, b"evil")
    there = moved_to(rich, None)
    with pytest.raises(ValueError, match="an entry is named '"):
        import_study(there, str(file))
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(database, "study.db")
    with pytest.raises(ValueError, match="an artifact is a file of the artifact store, named by"):
        import_study(there, str(file))
    with pytest.raises(ValueError, match="an artifact is a file of the artifact store, named by"):
        export_study(Setting.load(rich, storage=url), str(rich.with_name("2.zip")))
    assert not any(rich.parent.parent.rglob("evil"))
    assert not (there.run_dir / "study.db").exists()


# Interruptions


def interrupted_at(limit: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == limit:
            raise KeyboardInterrupt

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, 8, 9])
def test_an_interrupted_import_is_no_study_and_can_be_repeated(rich: Path, trials: int) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    there = moved_to(rich, None)
    with pytest.raises(KeyboardInterrupt):
        import_study(there, file, progress=interrupted_at(trials))
    for use in (
        there.stored_study,
        lambda: searched(there),
        lambda: export_study(there, str(rich.with_name("part.zip"))),
    ):
        with pytest.raises(StudyMismatchError, match="import that has not ended; run the same"):
            use()
    import_study(there, file)
    for name in ("tiny", "tiny-fpn-like"):
        assert content(there, name) == content(home, name)


def test_another_import_after_an_interrupted_one_leaves_nothing_of_it(rich: Path) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    there = moved_to(rich, None)
    with pytest.raises(KeyboardInterrupt):
        import_study(there, file, progress=interrupted_at(9))
    assert names_of(there) == {"tiny", "tiny-fpn-like"}
    optuna.delete_study(study_name="tiny-fpn-like", storage=home.storage)
    import_study(there, home.storage_url)
    assert names_of(there) == {"tiny"}


KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from msnas_optuna.study.portability import import_study
from msnas_optuna.study.setting import Setting

setting = Setting.load(sys.argv[1])
setting.storage  # the tables are not what is killed here
seen = 0

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, *_):
    global seen
    seen += statement.startswith(("INSERT", "UPDATE"))
    if seen == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

import_study(setting, sys.argv[2])
print(seen)
"""


def importing(setting: Setting, file: str, statement: int) -> subprocess.CompletedProcess[str]:
    study_file = setting.run_dir / "tiny.toml"
    command = [sys.executable, "-c", KILLED, str(study_file), file, str(statement)]
    environment = {**os.environ, "OPTUNA_STORAGE": setting.storage_url}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_import_is_no_study_and_can_be_repeated(
    kind: str, rich: Path, postgres_url: str
) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    there = moved_to(rich, postgres_url if kind == "postgresql" else None)
    last = int(importing(there, file, 10**6).stdout)
    for name in names_of(there):
        optuna.delete_study(study_name=name, storage=there.storage)
    for statement in (2, 4, 5, last // 3, last // 2, last - 1, last):
        killed = importing(there, file, statement)
        assert killed.returncode == -signal.SIGKILL
        fresh = Setting.load(there.run_dir / "tiny.toml", storage=there.storage_url)
        if "tiny" in names_of(fresh) and not _is_bare(fresh.storage):
            with pytest.raises(StudyMismatchError, match="run the same `msnas import"):
                fresh.stored_study()
            with pytest.raises(StudyMismatchError, match="a part of an import"):
                searched(fresh)
            with pytest.raises(StudyMismatchError, match="a part of an import"):
                export_study(fresh, str(rich.with_name("part.zip")))
    import_study(fresh, file)
    for name in ("tiny", "tiny-fpn-like"):
        assert content(fresh, name) == content(home, name)


def _is_bare(storage: BaseStorage) -> bool:
    study = optuna.load_study(study_name="tiny", storage=storage)
    return not (study.trials or system_attrs(study))


def test_an_import_at_work_is_left_alone(rich: Path) -> None:
    home, file = Setting.load(rich), str(rich.with_name("s.zip"))
    export_study(home, file)
    there = moved_to(rich, None)
    study = optuna.create_study(storage=there.storage, study_name="tiny")
    worker = Worker("another-machine pid:[1]", 1, "0", None)
    set_system_attr(study, IMPORT, {"studies": ["tiny"], "worker": asdict(worker)})
    with pytest.raises(StudyMismatchError, match="imported by process 1 on another-machine; wait"):
        import_study(there, file)


# The commands


def msnas(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_the_verbs(rich: Path) -> None:
    file = rich.with_name("s.zip")
    assert "exported tiny: 8 trials" in msnas("export-study", rich, file).stdout
    there = moved_to(rich, None).run_dir / "tiny.toml"
    moved = json.loads(msnas("import-study", there, file, "--json").stdout)
    assert moved["studies"] == {"tiny": 8, "tiny-fpn-like": 1}
    assert "exists there" in msnas("import-study", there, file, code=1).stderr
    searched(Setting.load(rich)).ask()
    Setting.load(rich).artifact_dir.rename(rich.with_name("lost"))
    warned = msnas("export-study", rich, rich.with_name("2.zip")).stderr
    assert "2 of 2 artifacts have no file" in warned
    assert "1 of the trials were being evaluated; the copy evaluates them again" in " ".join(
        warned.split()
    )


def test_between_storages_the_artifacts_stay_where_they_are_and_it_says_so(rich: Path) -> None:
    home, url = Setting.load(rich), f"journal:///{rich.with_name('x.journal')}"
    line = f"2 artifacts stay in {home.artifact_dir}; only a .zip file takes them along"
    assert line in msnas("export-study", rich, url).stdout.splitlines()
    back = f"sqlite:///{rich.with_name('back.db')}"
    assert line in msnas("import-study", rich, url, "--storage", back).stdout.splitlines()
    file = rich.with_name("s.zip")
    assert "exported 2 artifacts" in msnas("export-study", rich, file).stdout
    there = moved_to(rich, None).run_dir / "tiny.toml"
    moved = json.loads(msnas("import-study", there, file, "--json").stdout)
    assert moved["copied"] is True
    assert len(list(Setting.load(there).artifact_dir.iterdir())) == 2


def test_a_password_is_not_shown(rich: Path) -> None:
    url = "postgresql+psycopg://u:hunter2@127.0.0.1:1/db"
    for verb in ("export-study", "import-study"):
        assert "hunter2" not in msnas(verb, rich, url, code=1).output
