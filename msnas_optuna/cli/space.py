"""The verbs that count without training: flops, space."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from msnas_optuna.cli.terminal import AsJson, app, facts, out, print_json, session, table
from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.data.shapes import CLASSES
from msnas_optuna.methods import METHODS
from msnas_optuna.methods.base import Method
from msnas_optuna.report.table import Column, record, titled
from msnas_optuna.study.anchors import AnchorFit, AnchorReport, anchor_report
from msnas_optuna.study.feasibility import (
    QUANTILES,
    Feasibility,
    WidthCount,
    best_width,
    histogram,
    preset_feasibility,
    scan_widths,
    study_feasibility,
)
from msnas_optuna.study.setting import Setting

FINE_BINS, COARSE_BINS = 120, 24  # bins, about, of a distribution in JSON and as text
BAR_CELLS = 16  # characters of the longest bar of a distribution
COCO_CLASSES = 80
WIDTHS_BESIDE = 4  # widths that are printed on either side of the best
PUBLISHED = {name: one for m in METHODS.values() for name, one in m.published.items()}
PRESETS = ", ".join(name for method in METHODS.values() for name in method.presets)

PresetName = Annotated[str | None, typer.Option("--preset", help=f"Published setting: {PRESETS}.")]


def _options(method: Method[Any]) -> dict[str, str]:
    """Options of `flops` for the columns of an architecture, and the keys of these."""
    return {f"--{column.key.replace('_', '-')}": column.key for column in method.columns}


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Or give the columns of an architecture, as tables show them: "
    + "; ".join(f"{name} {' '.join(_options(method))}" for name, method in METHODS.items()),
)
def flops(
    context: typer.Context,
    architecture: Annotated[
        str | None, typer.Option(help="A name, or the notation of tables and trials.")
    ] = None,
    published: Annotated[
        str | None, typer.Option(help=f"A published architecture: {', '.join(PUBLISHED)}.")
    ] = None,
    preset: PresetName = None,
    study_file: Annotated[
        Path | None, typer.Option("--study", metavar="STUDY.toml", help="Setting of a study.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Classes that the whole network tells apart; default "
            f"{len(CLASSES)} for the generated shapes, else {COCO_CLASSES} as in COCO.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the multiply-adds of an architecture, part by part, and those of a whole network."""
    with session():
        if published is not None and published not in PUBLISHED:
            raise ValueError(f"--published must be one of {', '.join(PUBLISHED)}")
        if published is not None and study_file is None:
            preset = preset or PUBLISHED[published].preset
        if (preset is None) == (study_file is None):
            raise ValueError("give one of --preset, --study and --published")
        if study_file is not None:
            setting = Setting.load(study_file)
            counted, config = study_feasibility(setting), setting.config
            section, detector = config.space, config.detector
            known = len(CLASSES) if config.data.shapes is not None else COCO_CLASSES
        else:
            counted, section = preset_feasibility(preset or "")
            detector, known = counted.method.detector_section(), COCO_CLASSES
        method, cost, references = counted.method, counted.cost, counted.references
        options, given = _options(method), architecture or published
        words = [word for argument in context.args for word in argument.split("=", 1)]
        cells = dict(zip(words[::2], words[1::2], strict=False))
        if unknown := sorted(set(words[::2]) - options.keys()):
            raise ValueError(f"there is no option {unknown[0]}; see `msnas flops --help`")
        complete = cells.keys() == options.keys() and len(words) == 2 * len(cells)
        if [architecture is not None, published is not None, complete].count(True) != 1 or (
            words and not complete
        ):
            raise ValueError(
                f"give either {' and '.join(options)}, or --architecture, or --published"
            )
        text = given or method.notation({key: cells[name] for name, key in options.items()})
        found = method.resolve(text, counted.space)
        parts = method.cost_parts(found, cost)
        classes = classes or known
        further = method.further_parts(section, detector, n_classes=classes)
        whole = cost.total(found) + sum(part.amount for part in further)
        rows, further_rows = (
            [{"part": p.name, **p.details, "gflops": p.amount / 1e9} for p in group]
            for group in (parts, further)
        )
        if as_json:
            print_json(
                {
                    "gflops": cost.total(found) / 1e9,
                    "unit": f"1e9 multiply-adds of {cost.scope}",
                    "input_size": list(cost.input_size),
                    **method.as_json(found),
                    "parts": rows,
                    "reference_gflops": {name: n / 1e9 for name, n in references.items()},
                    "classes": classes,
                    "further_parts": further_rows,
                    "whole_gflops": whole / 1e9 if further else None,
                }
            )
            return
        height, width = cost.input_size
        named = dict.fromkeys(key for part in parts for key in part.details)
        costs = {cost.scope: cost.total(found), **references}
        totals = [{"part": name, "gflops": amount / 1e9} for name, amount in costs.items()]
        columns = [
            Column("part", itemgetter("part")),
            *(Column(key, itemgetter(key), right=True) for key in named),
            Column("GFLOPs", itemgetter("gflops"), "{:.4f}", right=True),
        ]
        blank = dict.fromkeys(named, "")
        network = {"part": f"whole network, {classes} classes", "gflops": whole / 1e9}
        beyond = [*further_rows, network] if further else []
        groups = [[blank | row for row in group] for group in (rows, totals, beyond) if group]
        title = f"GFLOPs (1e9 multiply-adds) at {height}x{width}"
        out.print(table(columns, *groups, title=title))


@app.command()
def space(
    study_file: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="The study file.")
    ] = None,
    preset: PresetName = None,
    figure: Annotated[
        Path | None, typer.Option(help="Write the distribution here, as .html or .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count a space and its FLOPs window; propose channels and, from the boxes, anchors."""
    with session(plain=as_json) as progress:
        if (preset is None) == (study_file is None):
            raise ValueError("give either STUDY.toml or --preset")
        setting = Setting.load(study_file) if study_file is not None else None
        if setting is None:
            found, section = preset_feasibility(preset or "")
        else:
            found, section = study_feasibility(setting), setting.config.space
        if figure is not None:
            from msnas_optuna.report.figures import write_figure  # plotly is slow
            from msnas_optuna.report.figures.space import plot_counted_space

            write_figure(plot_counted_space(found), figure)
        width = found.method.width
        widths, anchors = scan_widths(found, section) if width else (), None
        if setting is not None:
            split = setting.splits(partial(progress, "data set"))["train"]
            # No image is read: a budget can be planned where the annotations alone are.
            boxes = CocoDetection(split.images, split.annotations, check_files=False)
            anchors = anchor_report(setting, boxes)
        progress.stop()
        if as_json:
            described = {
                **dataclasses.asdict(section),
                **_as_json(found),
                "anchors": None if anchors is None else dataclasses.asdict(anchors),
            }
            if widths:
                scan = [{width: one.width, "in_window": one.in_window} for one in widths]
                best = best_width(widths, getattr(section, width)).width
                described |= {f"{width}_scan": scan, f"best_{width}": best}
            print_json(described)
            return
        out.print(f"Space: {found.method.describe(section)}.")
        _print_space(found)
        if widths:
            _print_widths(widths, width, getattr(section, width))
        if anchors is not None:
            _print_anchors(anchors)


def _range(ends: Sequence[float]) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}"


COUNTS: Final[list[Column[Feasibility]]] = [
    Column("valid architectures", lambda f: f.valid, "{:,}", "valid"),
    Column("in the window", lambda f: f.in_window, "{:,}", "in_window"),
    Column("share in the window", lambda f: f.share, "{:.2%}", "share"),
    Column(None, lambda f: dict(f.method.counts(f.space)), key="counts"),
]
COSTS: Final[list[Column[Feasibility]]] = [
    Column("GFLOPs counted at", lambda f: f.cost.input_size, "{0[0]}x{0[1]}", "input_size"),
    Column(None, lambda f: f"1e9 multiply-adds of {f.cost.scope}", key="unit"),
    Column("target", lambda f: f.target / 1e9, "{:.4f}", "target_gflops"),
    Column(None, lambda f: f.tolerance, key="tolerance"),
    Column("window", lambda f: [end / 1e9 for end in f.window], _range, "window_gflops"),
    Column("reachable", lambda f: [end / 1e9 for end in f.range], _range, "range_gflops"),
    Column(None, lambda f: [end and end / 1e9 for end in f.nearest], key="nearest_gflops"),
    Column(None, lambda f: f.baseline / 1e9, key="baseline_gflops"),
    Column(None, lambda f: {k: n / 1e9 for k, n in f.references.items()}, key="reference_gflops"),
]


def _as_json(found: Feasibility) -> dict[str, Any]:
    bars, distribution = histogram(found.distribution, FINE_BINS), found.distribution
    return {
        "method": found.method.name,
        **record([*COUNTS, *COSTS], found),
        "quantiles_gflops": {f"{q:g}": distribution.quantile(q) / 1e9 for q in QUANTILES},
        "histogram": {"edges_gflops": [edge / 1e9 for edge in bars.edges], "counts": bars.counts},
    }


def _print_space(found: Feasibility) -> None:
    counts, costs = ({c.title: c.cell(found) for c in titled(g)} for g in (COUNTS, COSTS))
    counts |= {name: f"{n:,}" for name, n in found.method.counts(found.space).items()}
    others = {found.method.baseline: found.baseline, **found.references}
    costs |= {name: f"{cost / 1e9:.4f}" for name, cost in others.items()}
    out.print(facts(counts, costs))
    if not found.in_window:
        below, above = ("none" if f is None else f"{f / 1e9:.6f}" for f in found.nearest)
        out.print(
            f"The window holds no architecture. Nearest reachable targets in GFLOPs: "
            f"{below} below, {above} above. Set budget.target_gflops to one of them, widen "
            f"budget.tolerance, or change [space]."
        )
    bars, (low, high) = histogram(found.distribution, COARSE_BINS), found.window
    most = max(bars.counts)

    def bar(row: tuple[int, int, int]) -> str:
        first, end, count = row
        marks = ["window"] if low < end and high >= first else []
        marks += [found.method.baseline] if first <= found.baseline < end else []
        mark = f"<- {', '.join(marks)}" if marks else ""
        return f"{'█' * round(BAR_CELLS * count / most)} {mark}".rstrip()

    columns: list[Column[tuple[int, int, int]]] = [
        Column("GFLOPs", lambda r: f"{r[0] / 1e9:.6g} to {r[1] / 1e9:.6g}", right=True),
        Column("count", lambda r: r[2], "{:,}", right=True),
        Column("share", lambda r: r[2] / found.valid, "{:.1%}", right=True),
        Column("", bar),
    ]
    rows = [(*edges, n) for edges, n in zip(pairwise(bars.edges), bars.counts, strict=True)]
    out.print(table(columns, rows, title="FLOPs of all valid architectures"))
    quantiles = (
        f"{q:.0%} {found.distribution.quantile(q) / 1e9:.4g}" for q in QUANTILES if 0 < q < 1
    )
    out.print(f"quantiles: {', '.join(quantiles)} GFLOPs")


def _print_widths(widths: Sequence[WidthCount], name: str, own: int) -> None:
    best = best_width(widths, own)
    at = widths.index(best)
    marks = {own: "now", best.width: "most" if best.width != own else "most, now"}
    columns: list[Column[WidthCount]] = [
        Column(name, lambda one: one.width, right=True),
        Column("architectures", lambda one: one.in_window, "{:,}", right=True),
        Column("", lambda one: marks.get(one.width, "")),
    ]
    near = [w for i, w in enumerate(widths) if abs(i - at) <= WIDTHS_BESIDE or w.width == own]
    out.print(table(columns, near, title=f"In the window by {name}"))


def _print_anchors(anchors: AnchorReport) -> None:
    columns: list[Column[tuple[AnchorFit, str]]] = [
        Column("anchor_base", lambda row: row[0].base, "{:g}", right=True),
        Column("mean IoU", lambda row: row[0].mean_iou, "{:.3f}", right=True),
        Column("IoU >= 0.5", lambda row: row[0].at_half, "{:.2%}", right=True),
        Column("IoU >= 0.7", lambda row: row[0].at_foreground, "{:.2%}", right=True),
        Column("", lambda row: row[1]),
    ]
    rows = [(anchors.proposed, "proposed"), (anchors.configured, "now")]
    out.print(table(columns, rows, title="Best IoU of a training box with an anchor"))
    sides = ", ".join(f"{q:.0%} {side:.1f}" for q, side in anchors.sides.items())
    routed = ", ".join(f"{share:.2%}" for share in anchors.routed)
    of = "" if anchors.judged == anchors.boxes else f", {anchors.judged:,} of them judged"
    out.print(
        f"{anchors.boxes:,} boxes{of}; side in pixels of the resized image: {sides}\n"
        f"boxes of levels 1 to {len(anchors.routed)} (canonical_size "
        f"{anchors.canonical_size:g}): {routed}"
    )
