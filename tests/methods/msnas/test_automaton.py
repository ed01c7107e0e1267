"""MSNAS as an automaton with a cost: counts and draws against brute force, golden counts."""

import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.space import (
    FEATURE_STRIDES,
    STRIDES,
    Architecture,
    MSNASSpace,
)
from msnas_optuna.spaces.base import EmptyWindowError
from msnas_optuna.spaces.distribution import CostDistribution
from msnas_optuna.spaces.lattice import Lattice

BASIC = EncoderCost("basic", 32, (128, 128), 32)
BOTTLENECK = EncoderCost("bottleneck", 24, (128, 192))
UTILIZATIONS = [  # of Eq. 7
    s
    for s in itertools.combinations_with_replacement(FEATURE_STRIDES, 5)
    if min(s) <= 8 <= max(s) and min(s) != max(s)
]
COSTS = {"basic": BASIC, "bottleneck": BOTTLENECK}


@cache
def all_valid(n_blocks):
    """Every valid architecture, by trying all stride vectors and all utilizations of Eq. 7."""
    space, vectors = MSNASSpace(n_blocks), UTILIZATIONS
    found = []
    for strides in itertools.product(STRIDES, repeat=n_blocks):
        path = Architecture(strides, vectors[0])
        if all(4 <= a <= 64 for a in path.absolute_strides):
            candidates = (Architecture(strides, s) for s in vectors)
            found += [a for a in candidates if space.violation(a) is None]
    return found


@cache
def all_totals(n_blocks, block):
    return np.array([COSTS[block].total(a) for a in all_valid(n_blocks)])


def inside(n_blocks, block, window):
    totals = all_totals(n_blocks, block)
    chosen = np.flatnonzero((totals >= window[0]) & (totals <= window[1]))
    return [all_valid(n_blocks)[i] for i in chosen]


def windows(totals):
    """Two-sided, one-sided, single-value and almost empty windows."""
    low, middle, high = (int(np.quantile(totals, q, method="lower")) for q in (0.1, 0.5, 0.8))
    least, most = int(totals.min()), int(totals.max())
    return [
        (low, high),
        (middle * 99 // 100, middle * 101 // 100),
        (middle, middle),
        (middle - 1, middle + 1),
        (0, low),
        (-5, least),
        (most, 2**80),
        (high, 10**15),
        (0, 10**30),
    ]


def preset_lattice(name):
    preset = PRESETS[name]
    target = round(preset.target_gflops * 1e9)
    window = (target * 99 // 100, target * 101 // 100)
    cost = EncoderCost.from_preset(name)
    return Lattice(MSNASSpace(preset.n_blocks), cost, window=window)


def count_completions(lattice, strides, feature_strides):
    """How many feasible architectures have the genes that are not None."""
    choices = (d.choices for d in lattice.space.distributions.values())
    fixed = zip([*strides, *feature_strides], choices, strict=True)
    return lattice.weighted([{c: float(g in (None, c)) for c in own} for g, own in fixed]).total


def is_uniform(draws, support):
    """Whether draws look uniform over the support; everything must be drawable."""
    counts = Counter(draws)
    assert set(counts) <= set(support)
    return chisquare([counts[a] for a in support]).pvalue > 1e-3


# --- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_blocks", "valid"), [(7, 16_363), (13, 13_003_499)])
def test_counts_the_valid_architectures(n_blocks, valid):
    # 16 363: reported for the reference setting of N = 7; 13 003 499: the enumeration below.
    assert Lattice(MSNASSpace(n_blocks)).count() == valid


@pytest.mark.parametrize(("n_blocks", "valid"), [(5, 1), (6, 7), (7, 33), (8, 132), (9, 482)])
def test_fpn_style_counts_the_paths_that_visit_4_to_64(n_blocks, valid):
    paths = (
        Architecture(strides, FEATURE_STRIDES)
        for strides in itertools.product(STRIDES, repeat=n_blocks)
    )
    visiting = [a for a in paths if set(a.absolute_strides) == set(FEATURE_STRIDES)]
    lattice = Lattice(MSNASSpace(n_blocks, "fpn"))
    assert lattice.count() == len(visiting) == valid
    assert {*lattice} == {*visiting}


@pytest.mark.parametrize("n_blocks", [4, 5, 6])
def test_without_eq_7_a_path_of_k_features_has_k_to_the_5_utilizations(n_blocks):
    every = itertools.product(STRIDES, repeat=n_blocks)
    paths = [Architecture(strides, FEATURE_STRIDES).absolute_strides for strides in every]
    visited = Counter(len(set(path)) for path in paths if all(4 <= a <= 64 for a in path))
    space = MSNASSpace(n_blocks, constraints=False)
    assert Lattice(space).count() == sum(n * k**5 for k, n in visited.items())


@pytest.mark.parametrize(
    ("name", "searched", "fpn", "free"),
    [
        ("r18", 209_524, 1_894, 5_974_814),
        ("r34", 1_095_192_670, 7_944_105, 29_849_109_715),
        ("r50", 758_636_549, 6_583_068, 21_922_119_625),
    ],
)
def test_windows_of_the_ablations_at_the_published_settings(name, searched, fpn, free):
    # As counted here; by construction each narrower space is part of the wider one.
    lattice = preset_lattice(name)
    n, cost, window = lattice.space.n_blocks, lattice.cost, lattice.window
    assert lattice.count() == searched
    assert Lattice(MSNASSpace(n, "fpn"), cost, window=window).count() == fpn
    wide = Lattice(MSNASSpace(n, constraints=False), cost, window=window)
    assert wide.count() == free
    drawn = wide.sample(np.random.default_rng(0), 200)
    assert {wide.violation(a) for a in drawn} == {None}
    broken = [a for a in drawn if lattice.violation(a) is not None]
    assert all("Eq. 7" in lattice.violation(a) for a in broken)


@pytest.mark.parametrize(
    ("n_blocks", "paths"),
    [(4, 35), (7, 707), (8, 1931), (9, 5275), (13, 293_867), (21, 912_137_899)],
)
def test_paths_that_feed_4_and_8_match_the_golden_counts(n_blocks, paths):
    # Only paths that visit 4 and 8 may feed (4, 4, 4, 4, 8): the paths in 4..64 less those
    # that never leave 4 or never visit it. The latter two are counted by hand below.
    lattice = Lattice(MSNASSpace(n_blocks))
    feeding = count_completions(lattice, [None] * n_blocks, (4, 4, 4, 4, 8))
    assert feeding == paths - 1 - paths_without_stride_4(n_blocks)


def paths_without_stride_4(n_blocks):
    walkers = np.array([1, 0, 0, 0])  # the first block goes to 8
    for _ in range(n_blocks - 1):
        padded = np.pad(walkers, 1)
        walkers = padded[:-2] + padded[1:-1] + padded[2:]
    return int(walkers.sum())


def test_counts_one_percent_around_the_hand_made_path():
    space = MSNASSpace(7)
    target = BASIC.total(space.fpn_like())
    window = (-(-target * 99 // 100), target * 101 // 100)
    assert target == 98_079_744
    assert Lattice(space, BASIC, window=window).count() == 297


@pytest.mark.parametrize("block", COSTS)
@pytest.mark.parametrize("n_blocks", [3, 4, 5, 6, 7, pytest.param(8, marks=pytest.mark.slow)])
def test_counts_and_numbers_equal_brute_force(n_blocks, block):
    totals = all_totals(n_blocks, block)
    distribution = CostDistribution.of(MSNASSpace(n_blocks), COSTS[block])
    for window in windows(totals):
        expected = inside(n_blocks, block, window)
        lattice = Lattice(MSNASSpace(n_blocks), COSTS[block], window=window)
        assert lattice.count() == distribution.count(*window) == len(expected) > 0
        if n_blocks <= 6:
            assert len({*lattice}) == len(expected)
            assert {*lattice} == {*expected}
    assert Lattice(MSNASSpace(n_blocks)).count() == len(totals)


def enumerated_totals(n_blocks, cost):
    """Costs of all paths without heads, and which absolute strides they visit, as arrays."""
    paths = np.zeros((1, 0), np.int8)
    level = np.zeros(1, np.int8)
    for _ in range(n_blocks):
        paths = np.concatenate([np.c_[paths, np.full(len(paths), d, np.int8)] for d in (-1, 0, 1)])
        level = np.concatenate([level + d for d in (-1, 0, 1)])
        paths, level = (x[(level >= 0) & (level <= 4)] for x in (paths, level))
    levels = np.cumsum(paths, axis=1)
    totals = np.full(len(paths), cost.base)
    for i in range(n_blocks):
        prices = np.array(
            [
                [cost.mixed_block(i, absolute_stride=a, stride=2.0**d) for a in FEATURE_STRIDES]
                for d in (-1, 0, 1)
            ]
        )
        totals += prices[paths[:, i] + 1, levels[:, i]]
    ends = np.c_[paths[:, 1:] != 0, np.ones(len(paths), bool)]
    visited = np.zeros((len(paths), 5), bool)
    for level, a in enumerate(FEATURE_STRIDES):
        stages = (ends & (levels == level)).sum(axis=1)
        totals += cost.lateral(a) * np.maximum(stages - 1, 0)  # all but the first receive one
        visited[:, level] = stages > 0
    return totals, visited


def test_counts_equal_the_enumeration_of_the_published_r18_space():
    cost = EncoderCost.from_preset("r18")
    paths, visited = enumerated_totals(13, cost)
    assert len(paths) == 293_867
    lattice, valid, within = preset_lattice("r18"), 0, 0
    distribution = CostDistribution.of(lattice.space, cost)
    seen = Counter()
    for s in UTILIZATIONS:
        fed = visited[:, [FEATURE_STRIDES.index(a) for a in s]].all(axis=1)
        totals = paths[fed] + sum(map(cost.output, set(s))) + sum(map(cost.rpn, s))
        valid += len(totals)
        within += int(((totals >= lattice.window[0]) & (totals <= lattice.window[1])).sum())
        values, counts = np.unique(totals, return_counts=True)
        seen.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    assert lattice.count() == within
    assert Lattice(lattice.space).count() == distribution.count() == valid
    pairs = zip(distribution.totals.tolist(), distribution.counts.tolist(), strict=True)
    assert dict(pairs) == seen


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 6),
    st.sampled_from(sorted(COSTS)),
    st.floats(0, 1.05),
    st.floats(0, 0.3),
)
def test_random_windows_count_as_brute_force_does(n_blocks, block, start, width):
    most = int(all_totals(n_blocks, block).max())
    window = (int(start * most), int((start + width) * most))
    expected = inside(n_blocks, block, window)
    if not expected:
        with pytest.raises(EmptyWindowError):
            Lattice(MSNASSpace(n_blocks), COSTS[block], window=window)
    else:
        assert Lattice(MSNASSpace(n_blocks), COSTS[block], window=window).count() == len(expected)


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_draws_are_valid_and_their_costs_follow_the_distribution(name):
    lattice = preset_lattice(name)
    low, high = lattice.window
    distribution = lattice.distribution()
    assert distribution.count() == lattice.count()
    edges = [low + (high + 1 - low) * i // 8 for i in range(9)]
    expected = np.array([distribution.count(a, b - 1) for a, b in itertools.pairwise(edges)])
    drawn = lattice.sample(np.random.default_rng(3), 4000)
    totals = [lattice.cost.total(a) for a in drawn]
    observed, _ = np.histogram(totals, edges)
    assert low <= min(totals) <= max(totals) <= high
    assert chisquare(observed, expected / expected.sum() * len(drawn)).pvalue > 1e-3
    assert not any(map(lattice.space.violation, drawn[:1000]))


# --- conditional draws --------------------------------------------------------------------------


def agrees(architecture, strides, feature_strides):
    genes = (*architecture.strides, *architecture.feature_strides)
    fixed = (*strides, *feature_strides)
    return all(f is None or f == g for g, f in zip(genes, fixed, strict=True))


_ = None
FREE_HEADS = (_,) * 5
PATTERNS = {
    "everything free": ([_] * 7, FREE_HEADS),
    "prefix fixed": ([1, 2, 1, _, _, _, _], FREE_HEADS),
    "suffix fixed": ([_, _, _, _, 2, 1, 1], FREE_HEADS),
    "suffix and features fixed": ([_, _, _, _, 0.5, 1, 2], (4, 8, 8, 16, 16)),
    "window free": ([1, 2, _, _, _, _, 0.5], (4, 8, 16, 32, 32)),
    "two windows free": ([_, _, 2, 2, _, _, 0.5], (4, 8, 16, 32, 32)),
    "first block free": ([_, 2, 2, 0.5, 0.5, 2, 2], (8, _, _, _, 16)),
    "features free": ([1, 2, 2, 2, 0.5, 0.5, 0.5], FREE_HEADS),
    "some features free": ([1, 2, 2, 2, 0.5, 0.5, 0.5], (_, 8, _, 16, _)),
    "encoder free": ([_] * 7, (4, 8, 16, 32, 32)),
    "encoder and some features free": ([_] * 7, (_, 8, _, _, 32)),
    "alternating": ([_, 2, _, 1, _, 0.5, _], (8, _, _, _, _)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_conditional_draws_are_uniform_over_the_completions(pattern):
    strides, feature_strides = PATTERNS[pattern]
    window = (BASIC.total(MSNASSpace(7).fpn_like()) * 3 // 4, 110_000_000)
    lattice, rng = Lattice(MSNASSpace(7), BASIC, window=window), np.random.default_rng(4)
    support = [a for a in inside(7, "basic", window) if agrees(a, strides, feature_strides)]
    assert count_completions(lattice, strides, feature_strides) == len(support) > 0
    n = 12 * len(support)
    draws = [lattice.complete(rng, [*strides, *feature_strides]) for _ in range(n)]
    assert len(support) == 1 or is_uniform(draws, support)
    assert set(draws) <= set(support)


@pytest.mark.parametrize("name", PRESETS)
def test_short_windows_of_long_encoders_redraw_inside(name):
    lattice, rng = preset_lattice(name), np.random.default_rng(5)
    n = lattice.space.n_blocks
    for parent in lattice.sample(rng, 10):
        start = int(rng.integers(n - 3))
        strides = [None if start <= i < start + 4 else s for i, s in enumerate(parent.strides)]
        child = lattice.complete(rng, [*strides, *parent.feature_strides])
        assert lattice.violation(child) is None
        assert agrees(child, strides, parent.feature_strides)


@pytest.mark.parametrize("name", PRESETS)
def test_completions_of_a_fixed_utilization_add_up(name):
    lattice = preset_lattice(name)
    free = [None] * lattice.space.n_blocks
    for s in UTILIZATIONS[::25]:
        by_first = (count_completions(lattice, [f, *free[1:]], s) for f in STRIDES)
        assert count_completions(lattice, free, s) == sum(by_first)
    child = lattice.complete(np.random.default_rng(6), [*free, 8, 8, 16, 16, 32])
    assert lattice.violation(child) is None
    assert child.feature_strides == (8, 8, 16, 16, 32)


def test_completions_over_all_utilizations_add_up_to_the_count():
    lattice = preset_lattice("r18")
    free = [None] * 13
    assert lattice.count() == sum(count_completions(lattice, free, s) for s in UTILIZATIONS)


@pytest.mark.parametrize(
    ("strides", "feature_strides"),
    [
        ([0.5, _, _, _, _, _, _], FREE_HEADS),  # V1
        ([_, 3, _, _, _, _, _], FREE_HEADS),  # not a stride
        ([1, 1, 1, 1, 1, 1, 1], FREE_HEADS),  # only one feature (Eq. 7)
        ([1, 2, 1, 1, 1, 1, 1], (4, 8, 8, 8, 16)),  # V3
        ([_] * 7, (16, _, _, _, _)),  # Eq. 7
        ([_] * 7, (_, _, _, _, 5)),  # not an absolute stride
    ],
)
def test_nothing_completes_a_broken_beginning(strides, feature_strides):
    lattice = Lattice(MSNASSpace(7))
    assert count_completions(lattice, strides, feature_strides) == 0
    assert lattice.complete(np.random.default_rng(0), [*strides, *feature_strides]) is None


# --- errors, sizes, distribution -----------------------------------------------------------------


def test_violation_names_the_space_first_and_then_the_window():
    lattice = Lattice(MSNASSpace(7), BASIC, window=(90_000_000, 98_000_000))
    hand_made = MSNASSpace(7).fpn_like()
    assert lattice.violation(lattice.at(0)) is None
    assert lattice.violation(hand_made) == (
        "0.098079744 GFLOPs lie outside the window 0.09 GFLOPs to 0.098 GFLOPs"
    )
    broken = Architecture(hand_made.strides, (8, 4, 8, 8, 8))
    assert "Eq. 7" in lattice.violation(broken)


def test_the_largest_space_counts_within_64_bits():
    lattice = Lattice(MSNASSpace(32))
    assert 2**50 < lattice.count() < 2**63
    assert lattice.violation(lattice.at(lattice.count() - 1)) is None


@pytest.mark.parametrize("preset", PRESETS)
def test_published_architectures_cost_something_reachable(preset):
    cost = EncoderCost.from_preset(preset)
    distribution = CostDistribution.of(MSNASSpace(PRESETS[preset].n_blocks), cost)
    known = [p.architecture for p in PUBLISHED.values() if p.preset == preset]
    assert len(known) == 5
    for total in map(cost.total, known):
        assert distribution.at_most(total) == distribution.at_least(total) == total
