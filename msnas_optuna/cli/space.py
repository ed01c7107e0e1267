"""The verbs that count without training: flops, space."""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from msnas_optuna.cli.app import app
from msnas_optuna.cli.progress import Bars
from msnas_optuna.cli.terminal import AsJson, out, print_json, session
from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.methods.msnas.cost import Breakdown, EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.spaces.base import InvalidArchitectureError
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

FINE_BINS, COARSE_BINS = 120, 24
"""Bins, about, of a distribution in JSON and as text."""

BAR_CELLS = 16
"""Characters of the longest bar of a distribution."""

WIDTHS_BESIDE = 4
"""Widths that are printed on either side of the best."""


@app.command()
def flops(
    preset: Annotated[str | None, typer.Option(help="Published setting: r18, r34, r50.")] = None,
    study_file: Annotated[
        Path | None, typer.Option("--study", metavar="STUDY.toml", help="Setting of a study.")
    ] = None,
    strides: Annotated[str | None, typer.Option(help="Strides of the blocks: 1,2,2,1,.5")] = None,
    feature_strides: Annotated[
        str | None, typer.Option(help="Feature strides of the five groups: 8,8,16,16,32")
    ] = None,
    published: Annotated[
        str | None, typer.Option(help="A published architecture: r18-1 to r50-5.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the multiply-adds of encoder + RPN head of an architecture, part by part."""
    with session():
        preset = preset or (published.split("-")[0] if published and not study_file else None)
        space, cost = _space_and_cost(preset, study_file)
        architecture = _architecture(strides, feature_strides, published)
        if (violation := space.violation(architecture)) is not None:
            raise InvalidArchitectureError(f"{architecture}: {violation}")
        breakdown = cost.breakdown(architecture)
        baseline = fpn_baseline(preset, cost.input_size) if preset else None
        if as_json:
            print_json(_flops_json(architecture, cost, breakdown, baseline))
        else:
            _print_flops(architecture, cost, breakdown, baseline, preset)


@app.command()
def space(
    study_file: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="The study file.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Published setting: r18, r34, r50.")] = None,
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
        found = preset_feasibility(preset or "") if setting is None else study_feasibility(setting)
        if figure is not None:
            _write_flops_figure(found, figure)
        widths = scan_widths(found)
        anchors = None if setting is None else _anchors(setting, progress)
        progress.stop()
        if as_json:
            print_json(_space_json(found, widths, anchors))
        else:
            _print_space(found, preset)
            _print_distribution(found)
            _print_widths(widths, found.cost.channels)
            if anchors is not None:
                _print_anchors(anchors)


def _space_and_cost(preset: str | None, study_file: Path | None) -> tuple[MSNASSpace, EncoderCost]:
    if (preset is None) == (study_file is None):
        raise ValueError("give one of --preset, --study and --published")
    if study_file is not None:
        setting = Setting.load(study_file)
        return setting.space, setting.cost
    if preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    return MSNASSpace(PRESETS[preset].n_blocks), EncoderCost.from_preset(preset)


def _architecture(
    strides: str | None, feature_strides: str | None, published: str | None
) -> Architecture:
    if published is not None:
        if strides or feature_strides:
            raise ValueError("--published is a whole architecture; leave out the strides")
        if published not in PUBLISHED:
            raise ValueError(f"--published must be one of {', '.join(PUBLISHED)}")
        return PUBLISHED[published].architecture
    if strides is None or feature_strides is None:
        raise ValueError("give --strides and --feature-strides, or --published")
    return Architecture.parse(f"{strides}|{feature_strides}")


def _flops_json(
    architecture: Architecture, cost: EncoderCost, breakdown: Breakdown, baseline: int | None
) -> dict[str, Any]:
    return {
        "gflops": breakdown.total / 1e9,
        "unit": "1e9 multiply-adds of encoder + RPN head",
        "input_size": list(cost.input_size),
        "strides": list(architecture.strides),
        "feature_strides": list(architecture.feature_strides),
        "stem": breakdown.stem / 1e9,
        "blocks": [flops / 1e9 for flops in breakdown.blocks],
        "laterals": [flops / 1e9 for flops in breakdown.laterals],
        "outputs": {str(s): flops / 1e9 for s, flops in breakdown.outputs.items()},
        "rpn": [flops / 1e9 for flops in breakdown.rpn],
        "fpn_baseline_gflops": None if baseline is None else baseline / 1e9,
    }


def _print_flops(
    architecture: Architecture,
    cost: EncoderCost,
    breakdown: Breakdown,
    baseline: int | None,
    preset: str | None,
) -> None:
    height, width = cost.input_size
    table = Table(title=f"GFLOPs (1e9 multiply-adds) at {height}x{width}")
    for column in ("part", "stride", "absolute stride", "lateral", "GFLOPs"):
        table.add_column(column, justify="left" if column == "part" else "right")
    table.add_row("stem", "", "4", "", f"{breakdown.stem / 1e9:.4f}")
    for i, (block, lateral) in enumerate(zip(breakdown.blocks, breakdown.laterals, strict=True)):
        source = f"from block {architecture.laterals[i] + 1}" if lateral else ""
        table.add_row(
            f"block {i + 1}",
            f"{architecture.strides[i]:g}",
            str(architecture.absolute_strides[i]),
            source,
            f"{(block + lateral) / 1e9:.4f}",
        )
    for stride, output in breakdown.outputs.items():
        table.add_row("output convolution", "", str(stride), "", f"{output / 1e9:.4f}")
    for g, (stride, rpn) in enumerate(
        zip(architecture.feature_strides, breakdown.rpn, strict=True), start=1
    ):
        table.add_row(f"RPN head, group {g}", "", str(stride), "", f"{rpn / 1e9:.4f}")
    table.add_section()
    table.add_row("encoder + RPN head", "", "", "", f"{breakdown.total / 1e9:.4f}")
    if baseline is not None and preset is not None:
        table.add_row(f"{preset.upper()}-FPN baseline", "", "", "", f"{baseline / 1e9:.4f}")
    out.print(table)


def _anchors(setting: Setting, progress: Bars) -> AnchorReport | None:
    split = setting.splits(partial(progress, "data set"))["train"]
    # No image is read, so that a budget can be planned where the annotations alone are.
    return anchor_report(
        setting, CocoDetection(split.images, split.annotations, check_files=False)
    )


def _write_flops_figure(found: Feasibility, path: Path) -> None:
    from msnas_optuna.report.figures import write_figure  # plotly is slow
    from msnas_optuna.report.figures.space import plot_counted_space

    write_figure(plot_counted_space(found), path)


def _space_json(
    found: Feasibility, widths: tuple[WidthCount, ...], anchors: AnchorReport | None
) -> dict[str, Any]:
    bars, distribution = histogram(found.distribution, FINE_BINS), found.distribution
    baseline = found.fpn_baseline
    return {
        "valid": found.valid,
        "in_window": found.in_window,
        "share": found.share,
        "paths": found.paths,
        "n_blocks": found.space.n_blocks,
        "block": found.cost.block,
        "channels": found.cost.channels,
        "input_size": list(found.cost.input_size),
        "unit": "1e9 multiply-adds of encoder + RPN head",
        "target_gflops": found.target / 1e9,
        "tolerance": found.tolerance,
        "window_gflops": [end / 1e9 for end in found.window],
        "nearest_gflops": [None if flops is None else flops / 1e9 for flops in found.nearest],
        "range_gflops": [distribution.minimum / 1e9, distribution.maximum / 1e9],
        "quantiles_gflops": {f"{q:g}": distribution.quantile(q) / 1e9 for q in QUANTILES},
        "histogram": {
            "edges_gflops": [edge / 1e9 for edge in bars.edges],
            "counts": list(bars.counts),
        },
        "fpn_like_gflops": found.fpn_like / 1e9,
        "fpn_baseline_gflops": None if baseline is None else baseline / 1e9,
        "best_channels": best_width(widths, found.cost.channels).channels,
        "channels_scan": [dataclasses.asdict(width) for width in widths],
        "anchors": None if anchors is None else dataclasses.asdict(anchors),
    }


def _print_space(found: Feasibility, preset: str | None) -> None:
    (height, width), (low, high) = found.cost.input_size, found.window
    table = Table(
        title=f"{found.space.n_blocks} {found.cost.block} blocks, {found.cost.channels} channels",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_row("valid architectures", f"{found.valid:,}")
    table.add_row("valid stride paths", f"{found.paths:,}")
    table.add_row("in the window", f"{found.in_window:,}")
    table.add_row("share in the window", _share(found.share))
    table.add_section()
    table.add_row("GFLOPs counted at", f"{height}x{width}")
    table.add_row("target", f"{found.target / 1e9:.4f}")
    table.add_row("window", f"{low / 1e9:.4f} to {high / 1e9:.4f}")
    minimum, maximum = found.distribution.minimum, found.distribution.maximum
    table.add_row("reachable", f"{minimum / 1e9:.4f} to {maximum / 1e9:.4f}")
    table.add_row("FPN-like path", f"{found.fpn_like / 1e9:.4f}")
    if found.fpn_baseline is not None and preset is not None:
        table.add_row(f"{preset.upper()}-FPN baseline", f"{found.fpn_baseline / 1e9:.4f}")
    out.print(table)
    if not found.in_window:
        below, above = ("none" if f is None else f"{f / 1e9:.6f}" for f in found.nearest)
        out.print(
            f"The window holds no architecture. Nearest reachable targets in GFLOPs: "
            f"{below} below, {above} above. Set budget.target_gflops to one of them, widen "
            f"budget.tolerance, or change space.channels.",
            highlight=False,
        )


def _print_distribution(found: Feasibility) -> None:
    bars = histogram(found.distribution, COARSE_BINS)
    table = Table(title="FLOPs of all valid architectures")
    for column in ("GFLOPs", "count", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for (first, end), count in zip(pairwise(bars.edges), bars.counts, strict=True):
        bar = "█" * round(BAR_CELLS * count / max(bars.counts))
        table.add_row(
            f"{first / 1e9:.6g} to {end / 1e9:.6g}",
            f"{count:,}",
            f"{count / found.valid:.1%}",
            f"{bar} {_marks(found, first, end)}".rstrip(),
        )
    out.print(table)
    quantiles = (
        f"{q:.0%} {found.distribution.quantile(q) / 1e9:.4g}" for q in QUANTILES if 0 < q < 1
    )
    out.print(f"quantiles: {', '.join(quantiles)} GFLOPs", highlight=False)


def _marks(found: Feasibility, first: int, end: int) -> str:
    """What lies in first <= FLOPs < end."""
    low, high = found.window
    marks = ["window"] if low < end and high >= first else []
    if first <= found.fpn_like < end:
        marks.append("FPN-like")
    return f"<- {', '.join(marks)}" if marks else ""


def _print_widths(widths: tuple[WidthCount, ...], own: int) -> None:
    best = best_width(widths, own)
    at = widths.index(best)
    table = Table(title="In the window by channels")
    for column in ("channels", "architectures", ""):
        table.add_column(column, justify="right" if column else "left")
    for i, width in enumerate(widths):
        if abs(i - at) <= WIDTHS_BESIDE or width.channels == own:
            marks = ["most"] if width == best else []
            marks += ["now"] if width.channels == own else []
            table.add_row(str(width.channels), f"{width.in_window:,}", ", ".join(marks))
    out.print(table)


def _print_anchors(anchors: AnchorReport) -> None:
    sides = ", ".join(f"{q:.0%} {side:.1f}" for q, side in anchors.sides.items())
    routed = ", ".join(_share(share) for share in anchors.routed)
    table = Table(title="Best IoU of a training box with an anchor")
    for column in ("anchor_base", "mean IoU", "IoU >= 0.5", "IoU >= 0.7", ""):
        table.add_column(column, justify="right" if column else "left")
    for fitted, name in ((anchors.proposed, "proposed"), (anchors.configured, "now")):
        table.add_row(*_fit_cells(fitted), name)
    out.print(table)
    of = "" if anchors.judged == anchors.boxes else f", {anchors.judged:,} of them judged"
    out.print(
        f"{anchors.boxes:,} boxes{of}; side in pixels of the resized image: {sides}\n"
        f"boxes of object groups 1 to 5 (canonical_size {anchors.canonical_size:g}): {routed}",
        highlight=False,
    )


def _fit_cells(fitted: AnchorFit) -> list[str]:
    shares = (_share(fitted.at_half), _share(fitted.at_foreground))
    return [f"{fitted.base:g}", f"{fitted.mean_iou:.3f}", *shares]


def _share(share: float) -> str:
    return f"{share:.2%}"
