from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from msnas_optuna.methods import METHODS
from msnas_optuna.methods.msnas.cost import EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.spaces.distribution import CostDistribution, counts_inside
from msnas_optuna.spaces.lattice import EmptyWindowError, Lattice
from msnas_optuna.study.feasibility import (
    Feasibility,
    WidthCount,
    best_width,
    histogram,
    preset_feasibility,
    scan_widths,
    study_feasibility,
)
from msnas_optuna.study.setting import Setting

SMALL = EncoderCost("basic", 32, (128, 128), stem_channels=32)


def quickstart(**changes):
    """The shipped quickstart's space and window."""
    space = MSNASSpace(7)
    target = SMALL.total(space.fpn_like())
    changes = {"target": target, "tolerance": 0.01, **changes}
    return Feasibility(METHODS["msnas"], space, SMALL, **changes)


SECTION = METHODS["msnas"].section(n_blocks=7, channels=32, stem_channels=32)


def paths(found):
    return found.method.counts(found.space)["valid stride paths"]


@pytest.mark.parametrize(
    ("name", "valid", "in_window", "n_paths"),
    [
        ("r18", 13_003_499, 209_524, 293_867),
        ("r34", 57_229_409_266, 1_095_192_670, 912_137_899),
        ("r50", 57_229_409_266, 758_636_549, 912_137_899),
    ],
)
def test_published_settings_have_their_golden_counts(name, valid, in_window, n_paths):
    found = preset_feasibility(name)[0]  # golden: full enumeration (r18), benchmarks/lattice.py
    assert (found.valid, found.in_window, paths(found)) == (valid, in_window, n_paths)
    assert found.share == in_window / valid
    assert found.references == {f"{name.upper()}-FPN baseline": fpn_baseline(name)}


def test_quickstart_has_its_golden_counts():
    found = quickstart()
    assert (found.valid, found.in_window, paths(found)) == (16_363, 297, 707)
    assert not found.references
    assert found.nearest == (found.baseline, found.baseline)


def test_a_study_has_the_window_that_its_search_has(tiny):
    setting = Setting.load(tiny)
    found = study_feasibility(setting)
    assert found.window == setting.window
    assert found.in_window == setting.feasible.count()
    assert found.valid == setting.valid.count()


@pytest.mark.parametrize("name", ["r19", ""])
def test_an_unknown_preset_is_named(name):
    with pytest.raises(ValueError, match=rf"preset must be one of r18, r34, r50, got '{name}'"):
        preset_feasibility(name)


# ---------------------------------------------------------------------- empty windows


@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_a_window_beyond_reach_holds_nothing_and_has_one_neighbour(scale):
    found = quickstart(target=scale * SMALL.total(MSNASSpace(7).fpn_like()))
    distribution = found.distribution
    assert (found.in_window, found.share) == (0, 0.0)
    beyond = (None, distribution.minimum) if scale < 1 else (distribution.maximum, None)
    assert found.nearest == beyond


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_a_window_between_two_costs_names_both(fraction):
    totals = quickstart().distribution.totals
    gap = int(np.argmax(np.diff(totals)))
    below, above = int(totals[gap]), int(totals[gap + 1])
    found = quickstart(target=(below + above) // 2 + fraction, tolerance=0.0)
    assert found.in_window == 0
    assert found.nearest == (below, above)
    low, high = sorted(found.window)
    with pytest.raises(EmptyWindowError):
        Lattice(found.space, found.cost, window=(low, high))


# ---------------------------------------------------------------------- distribution


@pytest.mark.parametrize("bins", [1, 7, 24, 120])
def test_histogram_counts_every_architecture_once(bins):
    found = quickstart()
    bars = histogram(found.distribution, bins)
    assert sum(bars.counts) == found.valid
    assert 0.35 * bins <= len(bars.counts) <= bins + 1
    assert len(set(np.diff(bars.edges))) == 1
    expected = np.histogram(
        found.distribution.totals, bars.edges, weights=found.distribution.counts
    )[0]
    assert list(bars.counts) == expected.astype(int).tolist()
    assert bars.edges[0] <= found.distribution.minimum
    assert found.distribution.maximum < bars.edges[-1]


def test_histogram_of_one_cost_has_one_bin():
    one = CostDistribution(np.array([123_456]), np.array([9]))
    assert histogram(one, 24).counts == (9,)


# ---------------------------------------------------------------------- widths


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_counts_of_widths_are_those_of_lattices(block):
    space, cost = MSNASSpace(9), EncoderCost(block, 32, (128, 192))
    target = cost.total(space.fpn_like())
    window = (int(target * 0.97), int(target * 1.03))
    costs = [dataclasses.replace(cost, channels=C) for C in (16, 20, 28, 30, 32, 36, 500)]
    counts = counts_inside(space, costs, window=window)
    assert counts[-1] == 0
    for other, count in zip(costs, counts, strict=True):
        assert count == CostDistribution.of(space, other).count(*window)
        if count:
            assert count == Lattice(space, other, window=window).count()


def test_counts_under_costs_that_share_no_paths():
    space = MSNASSpace(6)
    costs = [
        EncoderCost("basic", 16, (128, 128)),
        EncoderCost("bottleneck", 16, (128, 128)),
        EncoderCost("basic", 16, (64, 128)),
        EncoderCost("basic", 24, (64, 128)),
    ]
    window = (30_000_000, 70_000_000)
    expected = [CostDistribution.of(space, cost).count(*window) for cost in costs]
    assert counts_inside(space, costs, window=window) == expected
    assert counts_inside(space, costs, window=window[::-1]) == [0] * 4


def test_scan_of_a_published_setting():
    found = preset_feasibility("r18")[0]
    scanned = scan_widths(found, METHODS["msnas"].presets["r18"].section)
    by_width = {one.width: one.in_window for one in scanned}
    assert by_width[180] == found.in_window
    assert all(C % 4 == 0 for C in by_width)
    best = best_width(scanned, 180)
    assert best.width == 160
    for C in (100, 160, 240):
        cost = dataclasses.replace(found.cost, channels=C)
        assert by_width[C] == Lattice(found.space, cost, window=found.window).count()


def test_scan_finds_the_width_of_a_far_target_and_keeps_the_own():
    found = quickstart(target=400 * SMALL.total(MSNASSpace(7).fpn_like()))
    scanned = scan_widths(found, SECTION)
    assert WidthCount(32, 0) in scanned
    best = best_width(scanned, 32)
    assert best.in_window > 200
    assert scanned[0].width < best.width < scanned[-1].width
    assert len(scanned) < 130


def test_of_equal_widths_the_nearest_is_best():
    scanned = tuple(WidthCount(C, n) for C, n in ((4, 7), (8, 3), (12, 7)))
    assert best_width(scanned, 10).width == 12
