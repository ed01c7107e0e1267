"""The experiment of a setting for a verb; torch is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msnas_optuna.runtime.processes import Place
from msnas_optuna.study.setting import Setting

if TYPE_CHECKING:
    from msnas_optuna.runtime.distributed import Ranks
    from msnas_optuna.study.experiment import Experiment, Report


def open_experiment(
    setting: Setting,
    report: Report | None = None,
    *,
    place: Place | None = None,
    ranks: Ranks | None = None,
) -> Experiment:
    """The experiment of a setting, which shows detections in the dashboard.

    `place` is that of a worker that evaluates trials of its own, `ranks` train together.
    """
    from msnas_optuna.inference.samples import sample_detections
    from msnas_optuna.report.dashboard import Publisher
    from msnas_optuna.runtime.distributed import ALONE
    from msnas_optuna.study.experiment import Experiment, placed, silent

    if place is not None:
        setting.config = placed(setting.config, place)
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
def joint_experiment(setting: Setting, report: Report) -> Iterator[Experiment]:
    """The experiment of the processes that torchrun started for one job, or of this one alone."""
    from msnas_optuna.runtime.distributed import process_group, resolve_device, torchrun_ranks

    device = setting.config.runtime.device
    with process_group(resolve_device(device, torchrun_ranks())) as ranks:
        yield open_experiment(setting, report, ranks=ranks)
