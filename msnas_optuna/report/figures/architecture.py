"""Pictures of architectures as plotly figures: one alone, and the best beside the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import plotly.graph_objects as go
from optuna.study import Study
from plotly.basedatatypes import BaseTraceType
from plotly.subplots import make_subplots

from msnas_optuna.methods.picture import Line, Marker, Panel, Picture
from msnas_optuna.report.figures.style import (
    COLORS,
    INK,
    ONE_SHOT,
    legend_below,
    message,
    rounded,
    styled,
)
from msnas_optuna.study.view import Result, StudyView

COLUMNS: Final = 3  # pictures side by side
WIDTH: Final = 500  # pixels, about, of the axes of a figure on a page of two columns


def picture_of(view: StudyView[Any], result: Result[Any]) -> Picture:
    """The picture of an architecture, with its name and AP above it."""
    name = f"{result.name}: {100 * result.ap:.1f} {ONE_SHOT}" if result.values else result.name
    return view.method.picture(result.architecture, name=name, cost=view.cost)


def plot_architecture(study: Study | StudyView[Any], *, trial: int | None = None) -> go.Figure:
    """Plots a trial's architecture, by default that of the best AP, and the FLOPs of its parts.

    Raises:
        ValueError: the study has no such finished trial.
    """
    view = StudyView.of(study)
    title = "Best architecture" if trial is None else f"Architecture of trial {trial}"
    shown = view.results[:1] if trial is None else [view.measurement(trial)]
    if not shown:
        return message(title)
    picture = picture_of(view, shown[0])
    figure = make_subplots(
        rows=len(picture.panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[panel.height for panel in picture.panels],
    )
    styled(figure, title, note=picture.name)
    named: set[str] = set()
    for row, panel in enumerate(picture.panels, start=1):
        for trace in _traces(panel, named):
            figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(_resolution(panel) | {"title": {"text": panel.title}}, row=row, col=1)
    figure.update_xaxes(_depth(picture, WIDTH))
    figure.update_layout(barmode="stack", bargap=0.35)
    return legend_below(figure, y=-0.1)


def plot_best_architectures(study: Study | StudyView[Any], *, top: int = 5) -> go.Figure:
    """Plots the `top` best architectures side by side, with the hand-made baseline beside them."""
    view = StudyView.of(study)
    if not view.results or view.baseline is None:
        return message("The best architectures")
    best = view.results[:top]
    title = "The best architecture" if len(best) == 1 else f"The best {len(best)} architectures"
    by = " by AP" if len(best[0].values) > 1 else ""  # not the front
    pictures = [picture_of(view, result) for result in (*best, view.baseline)]
    rows = -(-len(pictures) // COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=COLUMNS,
        subplot_titles=[picture.name.replace(", ", "<br>") for picture in pictures],
        horizontal_spacing=0.07,
        vertical_spacing=0.46 / rows,
    )
    title += f"{by}, and the {view.method.baseline}"
    styled(figure, title, note=pictures[0].panels[0].title)
    figure.update_layout(margin={"t": 108, "l": 35, "r": 10})
    named: set[str] = set()
    for i, picture in enumerate(pictures):
        place = {"row": 1 + i // COLUMNS, "col": 1 + i % COLUMNS}
        for trace in _traces(picture.panels[0], named):
            trace.update(hovertext=None, hoverinfo="skip")  # many texts make a large figure
            figure.add_trace(trace, **place)
        axis = _depth(picture, WIDTH // COLUMNS) | {"tickfont": {"size": 10}}
        figure.update_xaxes(axis, **place)
        figure.update_yaxes(_resolution(picture.panels[0]), **place)
    figure.update_annotations(font={"size": 11, "color": INK})
    figure.update_traces(marker={"size": 7}, selector={"mode": "markers"})
    return legend_below(figure, y=-0.12)


def _traces(panel: Panel, named: set[str]) -> Iterator[BaseTraceType]:
    """The marks of a panel, a trace for each name; `named` collects those in the legend."""
    groups: dict[tuple[type, str], list[Any]] = {}
    for mark in sorted(panel.marks, key=lambda mark: not isinstance(mark, Line)):
        groups.setdefault((type(mark), mark.name), []).append(mark)
    for (kind, name), marks in groups.items():
        first, color = marks[0], COLORS[marks[0].color]
        shown = bool(name) and name not in named
        legend = {"name": name, "legendgroup": name, "showlegend": shown}
        named.add(name)
        if kind is Line:
            x, y = [], []
            for line in marks:
                x += [*rounded([point[0] for point in line.points]), None]
                y += [*rounded([point[1] for point in line.points]), None]
            shape = "spline" if first.curved else "linear"
            pen = {"color": color, "dash": first.dash, "width": 1.6, "shape": shape}
            yield go.Scatter(x=x, y=y, mode="lines", line=pen, hoverinfo="skip", **legend)
            continue
        at, texts = rounded([mark.x for mark in marks]), [mark.text for mark in marks]
        legend |= {"x": at, "hovertext": texts, "hoverinfo": "text"}
        if kind is Marker:
            up = rounded([mark.y for mark in marks])
            sign = {"symbol": first.symbol, "size": 11, "color": color}
            yield go.Scatter(y=up, mode="markers", marker=sign, **legend)
        else:
            up = rounded([mark.height for mark in marks])
            fill = {"color": color, "line": {"width": 0}}
            yield go.Bar(y=up, width=0.6, marker=fill, **legend)


def _resolution(panel: Panel) -> dict[str, Any]:
    """The y axis of a panel."""
    if not panel.ticks:
        return {"range": [panel.y[0], 1.08 * panel.y[1]]}
    values, texts = zip(*panel.ticks, strict=True)
    return {"tickvals": list(values), "ticktext": list(texts), "range": list(panel.y)}


def _depth(picture: Picture, width: float) -> dict[str, Any]:
    """The x axis of a picture, with as many labels as have room in so many pixels."""
    unit = width / (picture.x[1] - picture.x[0])
    every = 1
    while any(
        unit * (right[0] - left[0]) < 4 * (len(left[1]) + len(right[1])) + 2
        for left, right in zip(picture.ticks[::every], picture.ticks[every::every], strict=False)
    ):
        every += 1
    shown = picture.ticks[::every]
    return {
        "tickvals": [value for value, _ in shown],
        "ticktext": [text for _, text in shown],
        "range": list(picture.x),
        "tickangle": 0,
        "showgrid": False,
    }
