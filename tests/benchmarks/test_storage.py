from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "storage.py"


@pytest.mark.slow
def test_it_times_every_storage_with_real_processes():
    command = [sys.executable, SCRIPT, "--workers", "1,3", "--trials", "7", "--sleep", "0.01"]
    rows = json.loads(subprocess.run([*command, "--json"], check=True, stdout=-1).stdout)
    seen = [(row["storage"], row["workers"], row["sampler"]) for row in rows]
    assert seen == [
        (storage, workers, sampler)
        for storage in ("sqlite", "journal", "postgresql")
        for workers in (1, 3)
        for sampler in ("ArchitectureSampler", "RandomSampler")
    ]
    for row in rows:
        assert (row["trials"], row["lost"]) == (7, 0)
        assert row["trials_per_second"] > 0


def test_an_unknown_storage_is_refused():
    command = [sys.executable, SCRIPT, "--storages", "redis"]
    found = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert "must be some of sqlite,journal,postgresql, got ['redis']" in found.stderr
