"""Every command that reads weights refuses a file in which a single bit has changed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.study.setting import RETRAIN, Setting

READ_NO_WEIGHTS = {
    "ask", "dashboard", "doctor", "export-study", "flops", "import-study", "report", "results",
    "space", "storage-proxy", "tell",
}  # fmt: skip
TRAIN_BY_THEMSELVES = {"ablation", "baseline"}  # through the code of train, search and retrain
COMMANDS = {
    "train": "train STUDY",
    "quickstart": "quickstart --dir FOLDER",
    "rank": "rank STUDY --architectures 2 --seeds 1 --fine-tuning 0",
    "search": "search STUDY",  # the first one; a later one would see another digest
    "retrain": "retrain STUDY --top 1",
    "predict": "predict STUDY IMAGE",
    "predict one-shot": "predict STUDY IMAGE --one-shot",
    "export": "export STUDY",
    "export one-shot": "export STUDY --one-shot",
}


def test_each_command_either_reads_weights_or_not() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    reading = {line.split()[0] for line in COMMANDS.values()}
    assert {name.replace("_", "-") for name in names} == (
        reading | READ_NO_WEIGHTS | TRAIN_BY_THEMSELVES
    )


def flip_a_weight(path: Path) -> None:
    """Changes the highest bit but one of the exponent of a number in the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        with archive.open(largest) as record:
            content = record.read()
    whole = bytearray(path.read_bytes())
    start = whole.index(content)
    whole[start + 4 * (len(content) // 8) + 3] ^= 1 << 5
    path.write_bytes(whole)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flipped_bit_is_refused(
    request: pytest.FixtureRequest, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = command in ("train", "quickstart", "rank", "search")
    from_supernet = begun or "one-shot" in command
    study_file: Path = request.getfixturevalue("trained" if begun else "retrained")
    folder = study_file.parent
    (folder / "quickstart.toml").write_text(study_file.read_text())
    if (
        command == "retrain"
    ):  # a training that has ended is read again where its value is not stored
        setting = Setting.load(study_file)
        optuna.delete_study(study_name=setting.study_name(RETRAIN), storage=setting.storage)
    files = [folder / "supernet.pt"] if from_supernet else [*(folder / "retrained").glob("*.pt")]
    for file in files:
        flip_a_weight(file)
    words = {"STUDY": study_file, "FOLDER": folder, "IMAGE": folder / "data/val/000000.jpg"}
    line = [str(words.get(word, word)) for word in COMMANDS[command].split()]
    shown = CliRunner().invoke(app, line)
    assert shown.exit_code == 1
    (error,) = (text for text in shown.stderr.splitlines() if text.startswith("error"))
    assert any(f"checkpoint {file} is damaged" in error for file in files)
    assert error.endswith("; remove it and run the command again")
    for made in ("predictions", "exported"):
        assert not (folder / made).exists()
