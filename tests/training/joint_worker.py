"""One rank of a joint training; torchrun starts it. Writes what it saw into a file of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from msnas_optuna.runtime.distributed import process_group, resolve_device
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.setting import Setting
from msnas_optuna.training.loop import Checkpointing, NonFiniteLossError, train
from msnas_optuna.training.recipe import Recipe

RECIPE = Recipe(steps=6, batch_size=4, learning_rate=1e-3)
STEPS_BEFORE = 3


def main(study_file: Path, folder: Path, *, diverge: bool, stop: bool) -> None:
    setting = Setting.load(study_file)
    with process_group(resolve_device("cpu")) as ranks:
        experiment = Experiment(setting, ranks=ranks)
        model = experiment.build_detector()
        paths = {}

        def sample(step):
            paths[step] = setting.valid.sample(np.random.default_rng([7, step]))
            if diverge and step == STEPS_BEFORE and not ranks.first:  # one rank's image is bad
                with torch.no_grad():
                    model.encoder.stem.convolution[0].weight.fill_(float("nan"))
            return paths[step]

        def on_step(done, loss):
            if stop and done == STEPS_BEFORE and not ranks.first:  # one rank alone is signalled
                os.kill(os.getpid(), signal.SIGINT)

        error, losses = None, []
        try:
            losses = train(
                model, experiment.task.batches(RECIPE, 7, ranks), recipe=RECIPE, seed=7,
                device=torch.device("cpu"), precision="fp32", sample=sample,
                on_step=on_step, ranks=ranks,
                checkpointing=Checkpointing(folder / f"net{ranks.rank}.pt", {}, 1e9),
            )  # fmt: skip
        except (NonFiniteLossError, KeyboardInterrupt) as caught:
            error = f"{type(caught).__name__}: {caught}"
        report = {
            "error": error,
            "losses": losses,
            "paths": {step: str(path) for step, path in paths.items()},
            "weights": digest(model),
        }
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(report))


def digest(model: torch.nn.Module) -> str:
    values = (value.numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(b"".join(values)).hexdigest()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), Path(sys.argv[2]),
        diverge="diverge" in sys.argv, stop="stop" in sys.argv,
    )  # fmt: skip
