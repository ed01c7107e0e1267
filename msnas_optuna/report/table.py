"""Tables as data: one description of the columns, for text, pages and JSON alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from msnas_optuna.methods import base as methods
from msnas_optuna.spaces.base import A
from msnas_optuna.study.seeds import Trainings
from msnas_optuna.study.setting import VALIDATION
from msnas_optuna.study.view import AP, Result, StudyView
from msnas_optuna.training.metrics import Metric

R = TypeVar("R")


@dataclass(frozen=True)
class Column(Generic[R]):
    """One value of each row, as people and as programs read it."""

    title: str | None  # may have a line break; without one the value is in JSON alone
    value: Callable[[R], Any]  # of a row, in a type that JSON keeps
    text: str | Callable[[Any], str] = "{}"  # a format or a function, for people; None is "-"
    key: str | None = None  # its name in JSON; without one the value is in text alone
    right: bool = False  # aligned to the right, as numbers are

    def cell(self, row: R) -> str:
        """The value of a row for people."""
        value = self.value(row)
        if value is None:
            return "-"
        return self.text.format(value) if isinstance(self.text, str) else self.text(value)


def titled(columns: Sequence[Column[R]]) -> list[Column[R]]:
    """The columns that people see."""
    return [column for column in columns if column.title is not None]


def cells(columns: Sequence[Column[R]], rows: Iterable[R]) -> list[list[str]]:
    """A table as text: the titles, then a list of cells for each row."""
    shown = titled(columns)
    heading = [(column.title or "").replace("\n", " ") for column in shown]
    return [heading, *([c.cell(row) for c in shown] for row in rows)]


def record(columns: Sequence[Column[R]], row: R) -> dict[str, Any]:
    """A row as JSON keeps it."""
    return {column.key: column.value(row) for column in columns if column.key is not None}


# ---------------------------------------------------------------------- tables of a study


def percent(ap: float | None) -> str:
    """An AP in [0, 1] as mAP; a dash where it is unknown."""
    return "-" if ap is None else f"{100 * ap:.1f}"


def spread(trainings: Trainings) -> str:
    """The mean mAP over seeds, with its standard error where there are several."""
    mean, error = percent(trainings.mean), trainings.error
    return mean if error is None else f"{mean} ± {percent(error)}"


def result_columns(view: StudyView[A]) -> list[Column[Result[A]]]:
    """The columns that a search's method and objectives have, as in the paper's Tables 7-9."""
    metrics = view.method.metrics.items()
    further = [(name, metric) for name, metric in metrics if name not in (AP, "gflops")]
    costs = [(name, metric) for name, metric in further if not metric.is_ap]
    measured = (*view.results, *view.retrained.values())
    aps = [m for _, m in further if m.is_ap and any(r.mean(m.key) is not None for r in measured)]
    return [
        Column("", lambda r: r.name),
        Column(None, lambda r: r.number, key="trial"),
        *(column for given in view.method.columns for column in architecture_columns(given)),
        Column("GFLOPs", lambda r: r.gflops, "{:.4f}", key="gflops", right=True),
        *(metric_column(n, metric, shown=n in view.objectives) for n, metric in costs),
        Column(
            "one-shot\nval mAP", lambda r: r.values.get(AP), percent, "one_shot_ap", right=True
        ),
        Column(None, lambda r: [m.trial.values[0] for m in r.records], key="measurements"),
        *training_columns(view.reported_images, lambda r: r.trainings, view.several_seeds),
        *(column for metric in aps for column in ap_columns(metric, view.reported_images)),
    ]


def training_columns(
    images: str, trainings: Callable[[R], Trainings | None], several: bool
) -> list[Column[R]]:
    """The AP after training from scratch, measured on these images; `several` seeds are told."""

    def key(name: str, value: Callable[[Trainings], Any]) -> Column[R]:
        def of(row: R) -> Any:
            found = trainings(row)
            return None if found is None else value(found)

        return Column(None, of, key=f"standalone_{name}")

    seeds = Column[R]("seeds", lambda row: (t := trainings(row)) and len(t.values), right=True)
    return [
        Column(f"retrained\n{short_name(images)} mAP", trainings, spread, right=True),
        *([seeds] if several else []),
        key("ap", lambda t: t.mean),
        key("deviation", lambda t: t.deviation),
        key("error", lambda t: t.error),
        key("by_seed", lambda t: {str(seed): ap for seed, ap in t.values.items()}),
    ]


def short_name(images: str) -> str:
    """The word for a set of images in the heading of a table."""
    return "val" if images == VALIDATION else images


def ap_columns(metric: Metric, images: str) -> list[Column[Result[Any]]]:
    """A further AP, as that of masks, in the search and after the retraining, on these images."""

    def alone(result: Result[Any]) -> float | None:
        return None if result.standalone is None else result.standalone.mean(metric.key)

    kind = metric.label.replace("AP", "mAP")
    return [
        Column(
            f"one-shot\nval {kind}", lambda r: r.mean(metric.key), percent,
            f"one_shot_{metric.key}", right=True,
        ),
        Column(
            f"retrained\n{short_name(images)} {kind}", alone, percent,
            f"standalone_{metric.key}", right=True,
        ),
    ]  # fmt: skip


def architecture_columns(given: methods.Column[A]) -> list[Column[Result[A]]]:
    """The text and the JSON of a column that the method gives."""
    return [
        Column(given.title, lambda r: given.text(r.architecture)),
        Column(None, lambda r: given.value(r.architecture), key=given.key),
    ]


def metric_column(name: str, metric: Metric, *, shown: bool) -> Column[Result[Any]]:
    """The mean of an objective; in JSON alone where the study has another."""
    return Column(
        metric.label.replace(" ", "\n") if shown else None,
        lambda r: r.values.get(name),
        "{:.2f}",
        key=metric.label.replace(" ", "_"),
        right=True,
    )


def budget_rows(view: StudyView[A], result: Result[A]) -> list[list[str]]:
    """GFLOPs and share of the parts of an architecture, and their sum, with a heading."""
    amounts: dict[str, int] = {}
    for part in view.method.cost_parts(result.architecture, view.cost):
        amounts[part.group] = amounts.get(part.group, 0) + part.amount
    total = sum(amounts.values())
    rows = [[name, f"{n / 1e9:.4f}", f"{n / total:.1%}"] for name, n in amounts.items()]
    scope = "" if view.cost is None else view.cost.scope
    return [["part", "GFLOPs", "share"], *rows, [scope, f"{total / 1e9:.4f}", ""]]
