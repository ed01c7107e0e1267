"""The `msnas` command: one function for each verb, and the only place that prints."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import optuna
import typer
from optuna.exceptions import OptunaError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from msnas_optuna.anchors import AnchorFit, AnchorReport, anchor_report
from msnas_optuna.cost import Breakdown, EncoderCost, fpn_baseline
from msnas_optuna.data.coco import CocoDetection
from msnas_optuna.feasibility import (
    QUANTILES,
    Feasibility,
    WidthCount,
    best_width,
    histogram,
    preset_feasibility,
    scan_widths,
    study_feasibility,
)
from msnas_optuna.results import Result, best_results, summarise
from msnas_optuna.setting import Setting
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.msnas import Architecture, MSNASSpace
from msnas_optuna.spaces.published import PRESETS, PUBLISHED

if TYPE_CHECKING:  # it imports torch, which other verbs can do without
    from msnas_optuna.study import Experiment

app = typer.Typer(
    name="msnas",
    help="Multi-scale network architecture search for object detection, as an Optuna study.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
EXPECTED = (
    ValueError, RuntimeError, OSError, ImportError, OptunaError, SQLAlchemyError, sqlite3.Error
)  # fmt: skip
"""Errors whose message is enough."""

LINE_SECONDS = 60
"""Least time between two lines about one step where there is no terminal."""

FINE_BINS, COARSE_BINS = 120, 24
"""Bins, about, of a distribution in JSON and as text."""

BAR_CELLS = 16
"""Characters of the longest bar of a distribution."""

WIDTHS_BESIDE = 4
"""Widths that are printed on either side of the best."""

_out = Console()
_err = Console(stderr=True)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Top = Annotated[int, typer.Option(min=1, help="Number of architectures, best first.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msnas-optuna {version('msnas-optuna')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


# ---------------------------------------------------------------------- verbs


@app.command()
def quickstart(
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder for the study file and all that it makes.")
    ] = Path("msnas-quickstart"),
    as_json: AsJson = False,
) -> None:
    """Run the whole job on generated data: train, search, retrain, in about ten minutes."""
    with _session() as progress:
        experiment = _experiment(_quickstart_study(folder), progress)
        experiment.train_supernet()
        experiment.evaluate_fpn_like()
        experiment.search()
        experiment.retrain(top=1)
        progress.stop()
        _print_results(experiment.setting, top=5, as_json=as_json)
        if not as_json:
            _print_next_steps(experiment.setting)


@app.command()
def train(study_file: StudyFile, as_json: AsJson = False) -> None:
    """Train the supernet, from its last checkpoint where there is one."""
    with _session() as progress:
        experiment = _experiment(study_file, progress)
        losses = experiment.train_supernet()
        progress.stop()
        recent = losses[-100:]
        summary = {
            "checkpoint": str(experiment.supernet_path),
            "steps": len(losses),
            "loss": sum(recent) / len(recent),
        }
        if as_json:
            _print_json(summary)
        else:
            _out.print(
                f"supernet: {summary['steps']} steps, loss {summary['loss']:.3f} "
                f"(mean of the last {len(recent)}), saved in {summary['checkpoint']}"
            )


@app.command()
def search(
    study_file: StudyFile,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of the study, over all runs.")
    ] = None,
    top: Top = 5,
    as_json: AsJson = False,
) -> None:
    """Search architectures with the trained supernet until the study has its trials."""
    with _session() as progress:
        experiment = _experiment(study_file, progress)
        experiment.evaluate_fpn_like()
        experiment.search(trials)
        progress.stop()
        _print_results(experiment.setting, top=top, as_json=as_json)


@app.command()
def retrain(study_file: StudyFile, top: Top = 5, as_json: AsJson = False) -> None:
    """Train the best architectures, and the FPN-like path, alone and from scratch."""
    with _session() as progress:
        experiment = _experiment(study_file, progress)
        experiment.retrain(top)
        progress.stop()
        _print_results(experiment.setting, top=top, as_json=as_json)


@app.command()
def results(study_file: StudyFile, top: Top = 5, as_json: AsJson = False) -> None:
    """Print the best architectures found so far."""
    with _session():
        _print_results(Setting.load(study_file), top=top, as_json=as_json)


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
    with _session():
        preset = preset or (published.split("-")[0] if published and not study_file else None)
        space, cost = _space_and_cost(preset, study_file)
        architecture = _architecture(strides, feature_strides, published)
        if (violation := space.violation(architecture)) is not None:
            raise InvalidArchitectureError(f"{architecture}: {violation}")
        breakdown = cost.breakdown(architecture)
        baseline = fpn_baseline(preset, cost.input_size) if preset else None  # type: ignore[arg-type]
        if as_json:
            _print_json(_flops_json(architecture, cost, breakdown, baseline))
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
    with _session() as progress:
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
            _print_json(_space_json(found, widths, anchors))
        else:
            _print_space(found, preset)
            _print_distribution(found)
            _print_widths(widths, found.cost.channels)
            if anchors is not None:
                _print_anchors(anchors)


# ---------------------------------------------------------------------- parts of verbs


def _experiment(study_file: Path, progress: _Bars) -> Experiment:
    from msnas_optuna.study import Experiment

    return Experiment.load(study_file, report=progress)


def shipped_study(name: str) -> Path:
    """The file of a study that comes with the package."""
    installed = Path(__file__).parent / "studies" / name
    return installed if installed.exists() else Path(__file__).parents[1] / "studies" / name


def _quickstart_study(folder: Path) -> Path:
    study_file = folder / "quickstart.toml"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--dir must be a folder, {folder} is a file; give another name")
    if not study_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        copy = study_file.with_suffix(".tmp")
        shutil.copyfile(shipped_study("quickstart.toml"), copy)
        copy.replace(study_file)  # at once: half a file would be taken for an edited one
    return study_file


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
    _out.print(table)


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "trial": result.trial,
        "strides": list(result.architecture.strides),
        "feature_strides": list(result.architecture.feature_strides),
        "gflops": result.gflops,
        "latency_ms": result.latency_ms,
        "one_shot_ap": result.one_shot_ap,
        "measurements": list(result.measurements),
        "standalone_ap": result.standalone_ap,
    }


def _pareto_json(setting: Setting) -> list[dict[str, Any]]:
    return [_result_json(result) for result in best_results(setting, None)[0]]


def _print_results(setting: Setting, *, top: int, as_json: bool) -> None:
    several = len(setting.metrics) > 1  # then all of the Pareto front
    best, by_hand = best_results(setting, None if several and not as_json else top)
    summary = summarise(setting)
    if as_json:
        _print_json(
            dataclasses.asdict(summary)
            | {
                "study": setting.study_name(),
                "storage": setting.storage_url,
                "objectives": list(setting.config.study.objectives),
                "best": [_result_json(result) for result in best],
                "pareto_front": _pareto_json(setting) if several else None,
                "fpn_like": _result_json(by_hand),
            }
        )
        return
    low, high = setting.window
    again = summary.completed - summary.architectures
    _out.print(
        f"{summary.completed} trials finished{f' ({again} repeated)' if again else ''}, "
        f"{summary.failed} failed; window "
        f"{low / 1e9:.4f} to {high / 1e9:.4f} GFLOPs; one-shot mAP over "
        f"{'trials' if again == 0 else 'architectures'}: "
        f"mean {_percent(summary.one_shot_mean)}, least {_percent(summary.one_shot_min)}, "
        f"best {_percent(summary.one_shot_max)}"
    )
    if summary.completed + summary.failed >= setting.feasible.count():
        _out.print("Every architecture inside the window has been evaluated.")
    _out.print(_results_table(setting, best, by_hand))
    if summary.retrained > 1:
        _out.print(
            f"retrained, best {summary.retrained}: mean {_percent(summary.standalone_mean)}, "
            f"variance {1e4 * (summary.standalone_variance or 0):.4f}, "
            f"max {_percent(summary.standalone_max)} mAP"
        )


def _results_table(setting: Setting, best: list[Result], by_hand: Result) -> Table:
    latency = "latency" in setting.config.study.objectives
    table = Table(
        title="Pareto front, by AP" if len(setting.metrics) > 1 else "Best architectures"
    )
    table.add_column("", no_wrap=True)
    for column in ("strides", "reading"):
        table.add_column(column)
    costs = ("GFLOPs", "latency\nms") if latency else ("GFLOPs",)
    for column in (*costs, "one-shot\nmAP", "retrained\nmAP"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in best:
        table.add_row(f"trial {result.trial}", *_cells(result, latency=latency))
    table.add_section()
    table.add_row("FPN-like", *_cells(by_hand, latency=latency))
    return table


def _cells(result: Result, *, latency: bool) -> list[str]:
    strides, features = str(result.architecture).split(" | ")
    milliseconds = "-" if result.latency_ms is None else f"{result.latency_ms:.2f}"
    return [
        strides,
        features,
        f"{result.gflops:.4f}",
        *([milliseconds] if latency else []),
        _percent(result.one_shot_ap),
        _percent(result.standalone_ap),
    ]


def _percent(ap: float | None) -> str:
    return "-" if ap is None else f"{100 * ap:.1f}"


def _print_next_steps(setting: Setting) -> None:
    url, name = shlex.quote(setting.storage_url), shlex.quote(setting.study_name())
    best = "best-trial" if len(setting.metrics) == 1 else "best-trials"
    _out.print("\nLook further:")
    for command in (
        f"optuna trials --storage {url} --study-name {name}",
        f"optuna {best} --storage {url} --study-name {name}",
        f"optuna-dashboard {url}",
    ):
        _out.print(f"  {command}", soft_wrap=True, highlight=False)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


# ---------------------------------------------------------------------- parts of `space`


def _anchors(setting: Setting, progress: _Bars) -> AnchorReport | None:
    split = setting.splits(partial(progress, "data set"))["train"]
    # No image is read, so that a budget can be planned where the annotations alone are.
    return anchor_report(
        setting, CocoDetection(split.images, split.annotations, check_files=False)
    )


def _write_flops_figure(found: Feasibility, path: Path) -> None:
    from msnas_optuna.figures import plot_flops_distribution, write_figure  # plotly is slow

    write_figure(plot_flops_distribution(found), path)


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
    _out.print(table)
    if not found.in_window:
        below, above = ("none" if f is None else f"{f / 1e9:.6f}" for f in found.nearest)
        _out.print(
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
    _out.print(table)
    quantiles = (
        f"{q:.0%} {found.distribution.quantile(q) / 1e9:.4g}" for q in QUANTILES if 0 < q < 1
    )
    _out.print(f"quantiles: {', '.join(quantiles)} GFLOPs", highlight=False)


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
    _out.print(table)


def _print_anchors(anchors: AnchorReport) -> None:
    sides = ", ".join(f"{q:.0%} {side:.1f}" for q, side in anchors.sides.items())
    routed = ", ".join(_share(share) for share in anchors.routed)
    table = Table(title="Best IoU of a training box with an anchor")
    for column in ("anchor_base", "mean IoU", "IoU >= 0.5", "IoU >= 0.7", ""):
        table.add_column(column, justify="right" if column else "left")
    for fitted, name in ((anchors.proposed, "proposed"), (anchors.configured, "now")):
        table.add_row(*_fit_cells(fitted), name)
    _out.print(table)
    of = "" if anchors.judged == anchors.boxes else f", {anchors.judged:,} of them judged"
    _out.print(
        f"{anchors.boxes:,} boxes{of}; side in pixels of the resized image: {sides}\n"
        f"boxes of object groups 1 to 5 (canonical_size {anchors.canonical_size:g}): {routed}",
        highlight=False,
    )


def _fit_cells(fitted: AnchorFit) -> list[str]:
    shares = (_share(fitted.at_half), _share(fitted.at_foreground))
    return [f"{fitted.base:g}", f"{fitted.mean_iou:.3f}", *shares]


def _share(share: float) -> str:
    return f"{share:.2%}"


# ---------------------------------------------------------------------- sessions


class _Bars:
    """Progress bars on a terminal; elsewhere a line a minute and one when a step ends."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._printed = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=_err,
            disable=not _err.is_terminal,
        )

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` units of `step` are finished."""
        if step not in self._tasks:
            self._progress.start()
            self._tasks[step] = self._progress.add_task(step, total=total, note=note)
            self._started[step] = time.monotonic()
        self._progress.update(self._tasks[step], completed=done, note=note)
        now = time.monotonic()
        if not _err.is_terminal and (done >= total or now - self._printed > LINE_SECONDS):
            seconds = now - self._started[step]
            _err.print(f"{step}: {done}/{total} in {seconds:.0f} s {note}".rstrip())
            self._printed = now

    def stop(self) -> None:
        """Leaves the bars as they are and gives the terminal back."""
        self._progress.stop()


@contextmanager
def _session() -> Iterator[_Bars]:
    """Progress bars, signals and errors of one command."""
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.showwarning = _show_warning
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bars = _Bars()
    try:
        yield bars
    except KeyboardInterrupt:
        bars.stop()
        _err.print("interrupted; the same command continues where this one stopped")
        raise typer.Exit(130) from None
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get("MSNAS_DEBUG"):
            raise
        bars.stop()
        message = f"error: {error}"
        if not isinstance(error, EXPECTED):
            message = f"error: {type(error).__name__}: {error} (MSNAS_DEBUG=1 shows where)"
        _err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    finally:
        bars.stop()


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _err.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the `msnas` command."""
    app()


if __name__ == "__main__":
    main()
