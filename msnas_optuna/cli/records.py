"""Results of a command as a small JSON file, which tables of the documentation are made from."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from msnas_optuna.cli.terminal import typed_words
from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.runtime.processes import Place
from msnas_optuna.storage import flatten, redact, versions
from msnas_optuna.study.setting import Setting

RecordFile = Annotated[
    Path | None,
    typer.Option(
        "--record",
        metavar="FILE",
        help="Write the numbers, with command, settings, versions and machine, as JSON.",
    ),
]

_PACKAGE: Final = Path(__file__).parents[1]


def write_result(
    path: Path,
    setting: Setting,
    *,
    numbers: Mapping[str, Any],
    seeds: int = 1,
    workers: int = 1,
) -> None:
    """Writes what the running command has found out, and all that it takes to do it again.

    `seeds` is how many the trainings have, from the study's on; `numbers` have types of JSON.
    """
    config, shapes = setting.config, setting.config.data.shapes
    more = {"retrain": dataclasses.asdict(config.retrain)}
    if shapes is not None:
        more["data"] = {"shapes": dataclasses.asdict(shapes)}
    content = {
        "command": _command(typed_words.get()),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "machine": _machine(setting, workers),
        "settings": config.identity() | flatten(more),
        "seeds": [config.study.seed + i for i in range(seeds)],
        "numbers": dict(numbers),
    }
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _command(words: Sequence[str]) -> str:
    """A command line that holds no password and no path of this machine."""
    shown, skip = ["msnas"], False
    for word in words:
        if skip or word.startswith("--storage="):  # where it is stored changes no number
            skip = False
        elif word == "--storage":
            skip = True
        else:
            shown.append(os.path.relpath(word) if Path(word).is_absolute() else word)
    return redact(shlex.join(shown))


def _commit() -> str | None:
    """The commit of the package's checkout, "-dirty" where files differ; None without one."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(_PACKAGE), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else it lies inside another checkout
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None


def _machine(setting: Setting, workers: int) -> dict[str, Any]:
    """Processor, cores, threads of each worker, and the device."""
    import torch

    from msnas_optuna.runtime.distributed import resolve_device
    from msnas_optuna.study.experiment import placed

    runtime = placed(setting.config, Place(0, workers, 0, workers)).runtime
    device = resolve_device(runtime.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch threads": runtime.threads or torch.get_num_threads(),
        "device": name,
    }


def _processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
