"""The experiment of a study file for a verb; torch is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msnas_optuna.runtime.processes import Place
from msnas_optuna.study.setting import Setting

if TYPE_CHECKING:
    from msnas_optuna.runtime.distributed import Ranks
    from msnas_optuna.study.experiment import Experiment, Report


def open_experiment(
    study_file: Path,
    storage: str | None,
    report: Report | None = None,
    *,
    place: Place | None = None,
    ranks: Ranks | None = None,
) -> Experiment:
    """The experiment of a study file, which shows detections in the dashboard.

    `place` is that of a worker that evaluates trials of its own, `ranks` train together.
    """
    from msnas_optuna.inference.samples import sample_detections
    from msnas_optuna.report.dashboard import Publisher
    from msnas_optuna.runtime.distributed import ALONE
    from msnas_optuna.study.experiment import Experiment, placed, silent

    setting = Setting.load(study_file, storage=storage)
    if place is not None:
        setting = Setting(placed(setting.config, place), storage=storage, study_file=study_file)
    publisher = Publisher(setting, lambda selected: sample_detections(experiment, selected))
    experiment = Experiment(
        setting,
        report=report or silent,
        ranks=ranks or ALONE,
        after_trial=publisher.after_trial,
        refresh=publisher.refresh,
    )
    return experiment


@contextmanager
def joint_experiment(
    study_file: Path, storage: str | None, report: Report
) -> Iterator[Experiment]:
    """The experiment of the processes that torchrun started for one job, or of this one alone."""
    from msnas_optuna.runtime.distributed import process_group, resolve_device, torchrun_ranks

    runtime = Setting.load(study_file, storage=storage).config.runtime
    with process_group(resolve_device(runtime.device, torchrun_ranks())) as ranks:
        yield open_experiment(study_file, storage, report, ranks=ranks)
