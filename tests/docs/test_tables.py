"""Tables of the documentation agree with the records of the commands that measured them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "studies" / "results").glob("*.json"))


@pytest.fixture(scope="module")
def make_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_that_the_command_makes(make_tables):
    for page in make_tables.PAGES:
        agrees = page.read_text() == make_tables.made(page)  # a diff of pages helps nobody
        assert agrees, f"run python docs/make_tables.py for {page.name}"


def test_every_record_has_a_table(make_tables):
    pages = [page.read_text() for page in make_tables.PAGES]
    named = {found[1] for text in pages for found in make_tables.MARKED.findall(text)}
    assert named == {record.stem for record in RECORDS}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_what_it_takes_to_repeat_it(path):
    record = json.loads(path.read_text())
    assert record["command"].startswith("msnas ")
    assert {"commit", "date", "versions", "settings", "seeds", "numbers"} <= record.keys()
    assert {"processor", "cores", "torch threads", "device"} <= record["machine"].keys()


def test_a_changed_number_is_noticed(make_tables, tmp_path, monkeypatch):
    record = json.loads(RECORDS[0].read_text())
    page = tmp_path / "page.md"
    page.write_text(f"before <!-- table: {RECORDS[0].stem} -->\nold\n<!-- end --> after")
    page.write_text(made := make_tables.made(page))
    assert made.startswith("before <!-- table: ")
    assert "old" not in made
    assert make_tables.made(page) == made
    record["seeds"] = [97]
    (tmp_path / RECORDS[0].name).write_text(json.dumps(record))
    monkeypatch.setattr(make_tables, "RESULTS", tmp_path)
    assert "seed 97" in make_tables.made(page)


def test_the_table_of_hand_made_detectors_has_errors_where_there_are_several_seeds(make_tables):
    detector = {"name": "R18-FPN", "gflops": 0.098, "mparams": 0.5, "standalone_ap": 0.4}
    several = detector | {
        "standalone_error": 0.01,
        "standalone_by_seed": {"0": 0.39, "1": 0.41},
        "ahead_of_best": -0.05,
        "ahead_of_best_error": 0.02,
    }
    one = detector | {
        "standalone_error": None,
        "standalone_by_seed": {"0": 0.4},
        "ahead_of_best": None,
        "ahead_of_best_error": None,
    }
    _, *rows = make_tables.detector_rows({"images": "test", "detectors": [several, one]})
    first = ["R18-FPN", "0.0980", "0.500"]
    assert rows == [
        [*first, "40.0 ± 1.0", "2", "-5.0 ± 2.0"],
        [*first, "40.0", "1", "-"],
    ]
