"""Files for `msnas import-study` that somebody has crafted: refused before anything is written."""

from __future__ import annotations

import json
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from msnas_optuna.storage.optuna_private import set_system_attr
from msnas_optuna.study.portability import export_study, import_study
from msnas_optuna.study.setting import Setting

Entries = dict[str, bytes]


@pytest.fixture
def bundle(finished: Path) -> Path:
    """An exported study."""
    file = finished.with_name("s.zip")
    export_study(Setting.load(finished), str(file))
    return file


@pytest.fixture
def there(finished: Path) -> Setting:
    """The same study file in an empty run folder."""
    folder = finished.parent / "elsewhere"
    folder.mkdir()
    (folder / "tiny.toml").write_text(finished.read_text())
    return Setting.load(folder / "tiny.toml")


def entries_of(bundle: Path) -> Entries:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(bundle: Path, entries: Entries, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(bundle, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def refused(bundle: Path, there: Setting, reason: str) -> None:
    said = (
        rf"^{bundle} is no file that .* or it is damaged \(.*{reason}.*\); export the study again"
    )
    with pytest.raises(ValueError, match=said):
        import_study(there, str(bundle))
    assert [path.name for path in there.run_dir.iterdir()] == ["tiny.toml"]
    assert not any(there.run_dir.parent.rglob("evil"))


# Archives


def test_what_is_much_larger_than_the_file_is_not_unpacked(bundle: Path, there: Setting) -> None:
    write(bundle, entries_of(bundle) | {"artifacts/zeros": bytes(100 << 20)})
    assert bundle.stat().st_size < 1 << 18
    refused(bundle, there, r"unpacks to 10\d,\d{3},\d{3} bytes, more than 20 times its size")


def test_what_an_export_has_written_is_not_refused(finished: Path, there: Setting) -> None:
    home, file = Setting.load(finished), finished.with_name("zeros.zip")
    study = home.stored_study()
    assert study is not None
    name = "00000000-0000-4000-8000-000000000000"
    set_system_attr(study, f"artifacts:{name}", json.dumps({"artifact_id": name}))
    study.set_user_attr("dense", "x" * (3 << 20))
    home.artifact_dir.mkdir(exist_ok=True)
    (home.artifact_dir / name).write_bytes(bytes(30 << 20))
    export_study(home, str(file))
    assert import_study(there, str(file)).missing == []
    assert (there.artifact_dir / name).read_bytes() == bytes(30 << 20)


@pytest.mark.parametrize("claimed", [10, 1 << 31])
def test_a_size_that_is_a_lie_is_refused(bundle: Path, there: Setting, claimed: int) -> None:
    write(bundle, entries_of(bundle) | {"artifacts/zeros": bytes(3 << 20)})
    content = bundle.read_bytes()
    honest = struct.pack("<L", 3 << 20)
    assert content.count(honest) == 2  # before the data and in the directory
    bundle.write_bytes(content.replace(honest, struct.pack("<L", claimed)))
    refused(bundle, there, "checksum" if claimed == 10 else "unpacks to")


@pytest.mark.parametrize(
    "name", ["/etc/evil", "../evil", "artifacts/../../evil", "artifacts/", "artifacts/a/b", "evil"]
)
def test_an_entry_of_another_name_is_refused(bundle: Path, there: Setting, name: str) -> None:
    write(bundle, entries_of(bundle) | {name: b"evil"})
    refused(bundle, there, f"an entry is named '{name}'")


def test_thousands_of_entries_are_refused(bundle: Path, there: Setting) -> None:
    write(bundle, entries_of(bundle) | {f"e{i}": b"" for i in range(20_000)})
    refused(bundle, there, "an entry is named 'e0'")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["study.db", "artifacts/a"])
def test_two_entries_of_one_name_are_refused(bundle: Path, there: Setting, name: str) -> None:
    entries = entries_of(bundle)
    with zipfile.ZipFile(bundle, "w") as archive:
        for content in (entries["study.db"], entries["study.db"], b"a", b"b"):
            archive.writestr(
                "study.db" if name == "study.db" and len(content) > 1 else name, content
            )
    refused(bundle, there, "two entries have one name")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(bundle: Path, there: Setting, method: int) -> None:
    write(bundle, entries_of(bundle), method)
    refused(bundle, there, "compressed by another method")


# Databases


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"
LAYOUTS = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM studies; END",
    "view": "CREATE VIEW evil AS SELECT 1",
    "endless view": (
        "DROP TABLE study_directions; CREATE VIEW study_directions AS "
        f"{ENDLESS} x AS study_direction_id, 'MAXIMIZE' AS direction, 1 AS study_id, "
        "0 AS objective FROM n"
    ),
    "virtual table": "CREATE VIRTUAL TABLE evil USING fts5(a)",
    "another table": "CREATE TABLE evil (a)",
    "computed column": (
        "ALTER TABLE studies ADD COLUMN big AS (printf('%.*c', 900000000, 'x')) VIRTUAL"
    ),
    "another column": "ALTER TABLE trials RENAME COLUMN number TO numero",
    "a table less": "DROP TABLE trial_heartbeats",
    "index": "CREATE INDEX evil ON trials (number) WHERE number > 3",
}


def changed(bundle: Path, script: str) -> None:
    database = bundle.with_name("crafted.db")
    entries = entries_of(bundle)
    database.write_bytes(entries["study.db"])
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(script)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    write(bundle, entries | {"study.db": database.read_bytes()})
    for path in bundle.parent.glob("crafted.db*"):
        path.unlink()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_that_are_not_optuna_s_are_refused(
    bundle: Path, there: Setting, layout: str
) -> None:
    changed(bundle, LAYOUTS[layout])
    refused(bundle, there, r"its tables are not those of Optuna \d")


VALUES: dict[str, Callable[[], str]] = {
    "deep": lambda: "[" * 200_000 + "]" * 200_000,
    "long number": lambda: "9" * 5000,
    "no JSON": lambda: "{",
    "large": lambda: json.dumps(["x" * (5 << 20)]),
}


@pytest.mark.parametrize("table", ["study_user_attributes", "trial_system_attributes"])
@pytest.mark.parametrize("value", VALUES)
def test_values_that_cannot_be_read_are_refused(
    bundle: Path, there: Setting, table: str, value: str
) -> None:
    changed(bundle, f"UPDATE {table} SET value_json = '{VALUES[value]()}' WHERE rowid = 1")
    reason = {"deep": "recursion", "long number": "limit", "no JSON": "Expecting"}
    refused(bundle, there, reason.get(value, "unpacks to"))


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE trials SET state = 'EVIL'",
        "UPDATE study_directions SET direction = 'SIDEWAYS'",
        "UPDATE trial_params SET distribution_json = '[]'",
        "UPDATE alembic_version SET version_num = 'v99'",
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
        "VALUES (1, 'artifacts:../evil', '\"{}\"')",
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
        "VALUES (1, 'artifacts:evil', '7')",
    ],
)
def test_rows_that_optuna_cannot_read_are_refused(
    bundle: Path, there: Setting, script: str
) -> None:
    changed(bundle, script)
    refused(bundle, there, "")


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"x" * 5000])
def test_what_is_no_database_is_refused(bundle: Path, there: Setting, content: bytes) -> None:
    write(bundle, {"study.db": content})
    refused(bundle, there, "")


def test_a_damaged_page_is_refused_or_its_study_is(bundle: Path, there: Setting) -> None:
    entries, read = entries_of(bundle), 0
    for position in range(4096, len(entries["study.db"]), 29_989):
        damaged = bytearray(entries["study.db"])
        damaged[position] ^= 255
        write(bundle, entries | {"study.db": bytes(damaged)})
        setting = Setting.load(there.run_dir / "tiny.toml")
        with suppress(ValueError):
            read += import_study(setting, str(bundle)).studies["tiny"] == 7
        for path in there.run_dir.glob("study.db*"):
            path.unlink()
    assert read
