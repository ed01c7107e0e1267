"""Counts against brute force, draws against the uniform distribution, windows and their errors."""

import itertools
import pickle
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msnas_optuna.spaces.graph import require_exact
from scipy.stats import chisquare

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.space import (
    FEATURE_STRIDES,
    STRIDES,
    Architecture,
    MSNASSpace,
    feature_stride_vectors,
)
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.distribution import FlopsDistribution
from msnas_optuna.spaces.lattice import EmptyWindowError, Lattice
from msnas_optuna.spaces.tables import Weights

BASIC = EncoderCost("basic", 32, (128, 128), 32)
BOTTLENECK = EncoderCost("bottleneck", 24, (128, 192))
COSTS = {"basic": BASIC, "bottleneck": BOTTLENECK}


@cache
def all_valid(n_blocks):
    """Every valid architecture, by trying all stride vectors and all utilisations of Eq. 7."""
    space, vectors = MSNASSpace(n_blocks), feature_stride_vectors()
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


@pytest.mark.parametrize(
    ("n_blocks", "paths"),
    [(4, 35), (7, 707), (8, 1931), (9, 5275), (13, 293_867), (21, 912_137_899)],
)
def test_paths_that_feed_4_and_8_match_the_golden_counts(n_blocks, paths):
    # Only paths that visit 4 and 8 may feed (4, 4, 4, 4, 8): the paths in 4..64 less those
    # that never leave 4 or never visit it. The latter two are counted by hand below.
    lattice = Lattice(MSNASSpace(n_blocks))
    feeding = lattice.count_completions([None] * n_blocks, (4, 4, 4, 4, 8))
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
def test_counts_equal_brute_force(n_blocks, block):
    totals = all_totals(n_blocks, block)
    distribution = FlopsDistribution.of(MSNASSpace(n_blocks), COSTS[block])
    for low, high in windows(totals):
        expected = int(((totals >= low) & (totals <= high)).sum())
        lattice = Lattice(MSNASSpace(n_blocks), COSTS[block], window=(low, high))
        assert lattice.count() == distribution.count(low, high) == expected > 0
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
    totals = np.full(len(paths), cost.stem())
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
    distribution = FlopsDistribution.of(lattice.space, cost)
    seen = Counter()
    for s in feature_stride_vectors():
        fed = visited[:, [FEATURE_STRIDES.index(a) for a in s]].all(axis=1)
        totals = paths[fed] + cost.heads(s)
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


# --- numbering and draws ------------------------------------------------------------------------


@pytest.mark.parametrize("block", COSTS)
@pytest.mark.parametrize("n_blocks", [3, 5, 6])
def test_numbers_name_every_feasible_architecture_once(n_blocks, block):
    for window in windows(all_totals(n_blocks, block)):
        lattice = Lattice(MSNASSpace(n_blocks), COSTS[block], window=window)
        named = [lattice.at(i) for i in range(lattice.count())]
        assert len(set(named)) == len(named)
        assert set(named) == set(inside(n_blocks, block, window))


def test_numbers_without_a_window_name_every_valid_architecture():
    lattice = Lattice(MSNASSpace(6))
    assert {lattice.at(i) for i in range(lattice.count())} == set(all_valid(6))


@pytest.mark.parametrize("index", [-1, 16_363])
def test_numbers_end_at_the_count(index):
    with pytest.raises(IndexError, match=r"0\.\.16362, got"):
        Lattice(MSNASSpace(7)).at(index)


def test_sample_is_uniform():
    space = MSNASSpace(7)
    target = BASIC.total(space.fpn_like())
    window = (target * 99 // 100, target * 101 // 100)
    lattice, rng = Lattice(space, BASIC, window=window), np.random.default_rng(0)
    support = inside(7, "basic", window)
    assert is_uniform([lattice.sample(rng) for _ in range(20 * len(support))], support)
    assert is_uniform(lattice.sample(rng, 20 * len(support)), support)


def test_sample_without_a_window_is_uniform_over_paths_and_features():
    lattice, rng = Lattice(MSNASSpace(4)), np.random.default_rng(1)
    assert is_uniform([lattice.sample(rng) for _ in range(20 * 300)], all_valid(4))


def test_sample_repeats_with_the_seed():
    lattice = preset_lattice("r18")
    first, again = (lattice.sample(np.random.default_rng(7), 20) for _ in range(2))
    assert first == again
    assert len(set(first)) == 20


@pytest.mark.parametrize("name", PRESETS)
def test_samples_of_the_published_settings_are_valid_and_inside(name):
    lattice = preset_lattice(name)
    rng = np.random.default_rng(2)
    for architecture in lattice.sample(rng, 1000):
        assert lattice.space.violation(architecture) is None
        assert lattice.window[0] <= lattice.cost.total(architecture) <= lattice.window[1]


@pytest.mark.parametrize("name", PRESETS)
def test_drawn_costs_follow_the_distribution(name):
    lattice = preset_lattice(name)
    distribution = FlopsDistribution.of(lattice.space, lattice.cost)
    assert distribution.count(*lattice.window) == lattice.count()
    edges = [
        lattice.window[0] + (lattice.window[1] - lattice.window[0]) * i // 8 for i in range(9)
    ]
    bins = [(a, b - 1) for a, b in itertools.pairwise(edges[:-1])] + [(edges[-2], edges[-1])]
    expected = np.array([distribution.count(*b) for b in bins])
    drawn = lattice.sample(np.random.default_rng(3), 4000)
    totals = np.array([lattice.cost.total(a) for a in drawn])
    observed = [int(((totals >= a) & (totals <= b)).sum()) for a, b in bins]
    assert chisquare(observed, expected / expected.sum() * len(drawn)).pvalue > 1e-3


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


@pytest.mark.parametrize("max_leaves", [3**8, 0], ids=["listed", "tables"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_conditional_draws_are_uniform_over_the_completions(pattern, max_leaves, monkeypatch):
    monkeypatch.setattr("msnas_optuna.spaces.lattice._MAX_LEAVES", max_leaves)
    strides, feature_strides = PATTERNS[pattern]
    window = (BASIC.total(MSNASSpace(7).fpn_like()) * 3 // 4, 110_000_000)
    lattice, rng = Lattice(MSNASSpace(7), BASIC, window=window), np.random.default_rng(4)
    support = [a for a in inside(7, "basic", window) if agrees(a, strides, feature_strides)]
    assert lattice.count_completions(strides, feature_strides) == len(support) > 0
    n = 12 * len(support)
    draws = [lattice.complete(rng, strides, feature_strides) for _ in range(n)]
    assert len(support) == 1 or is_uniform(draws, support)
    assert set(draws) <= set(support)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_completions_are_those_of_brute_force(data):
    block = data.draw(st.sampled_from(sorted(COSTS)))
    model = data.draw(st.sampled_from(all_valid(5)))
    keep = data.draw(st.lists(st.booleans(), min_size=10, max_size=10))
    strides = [g if k else None for g, k in zip(model.strides, keep[:5], strict=True)]
    feature_strides = [
        g if k else None for g, k in zip(model.feature_strides, keep[5:], strict=True)
    ]
    total = COSTS[block].total(model)
    window = (total * 9 // 10, total * 11 // 10)
    lattice = Lattice(MSNASSpace(5), COSTS[block], window=window)
    support = [a for a in inside(5, block, window) if agrees(a, strides, feature_strides)]
    assert lattice.count_completions(strides, feature_strides) == len(support)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    assert lattice.complete(rng, strides, feature_strides) in support


@pytest.mark.parametrize("name", PRESETS)
def test_short_windows_of_long_encoders_redraw_inside(name):
    lattice, rng = preset_lattice(name), np.random.default_rng(5)
    n = lattice.space.n_blocks
    for parent in lattice.sample(rng, 100):
        start = int(rng.integers(n - 3))
        strides = [None if start <= i < start + 4 else s for i, s in enumerate(parent.strides)]
        child = lattice.complete(rng, strides, parent.feature_strides)
        assert lattice.violation(child) is None
        assert agrees(child, strides, parent.feature_strides)


@pytest.mark.parametrize("name", PRESETS)
def test_completions_of_a_fixed_utilisation_add_up(name):
    lattice = preset_lattice(name)
    free = [None] * lattice.space.n_blocks
    by_features = [lattice.count_completions(free, s) for s in feature_stride_vectors()[::10]]
    by_first = [
        sum(lattice.count_completions([f, *free[1:]], s) for f in STRIDES)
        for s in feature_stride_vectors()[::10]
    ]
    assert by_features == by_first
    child = lattice.complete(np.random.default_rng(6), free, (8, 8, 16, 16, 32))
    assert lattice.violation(child) is None
    assert child.feature_strides == (8, 8, 16, 16, 32)


def test_completions_over_all_utilisations_add_up_to_the_count():
    lattice = preset_lattice("r18")
    free = [None] * 13
    assert lattice.count() == sum(
        lattice.count_completions(free, s) for s in feature_stride_vectors()
    )


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
    assert lattice.count_completions(strides, feature_strides) == 0
    assert lattice.complete(np.random.default_rng(0), strides, feature_strides) is None


def test_nothing_completes_genes_that_miss_the_window():
    architecture = MSNASSpace(7).fpn_like()
    total = BASIC.total(architecture)
    lattice = Lattice(MSNASSpace(7), BASIC, window=(total + 1, 2 * total))
    rng = np.random.default_rng(0)
    assert lattice.complete(rng, architecture.strides, architecture.feature_strides) is None


def test_the_wrong_number_of_genes_is_an_error():
    with pytest.raises(InvalidArchitectureError, match="7 strides and 5 feature strides"):
        Lattice(MSNASSpace(7)).count_completions([None] * 6, FREE_HEADS)


# --- windows and errors -------------------------------------------------------------------------


def test_a_window_holds_both_of_its_ends():
    totals = np.unique(all_totals(6, "basic"))
    low, high = int(totals[40]), int(totals[60])
    count = Lattice(MSNASSpace(6), BASIC, window=(low, high)).count()
    assert count == len(inside(6, "basic", (low, high)))
    inner = Lattice(MSNASSpace(6), BASIC, window=(low + 1, high - 1)).count()
    ends = [Lattice(MSNASSpace(6), BASIC, window=(t, t)).count() for t in (low, high)]
    assert count == inner + sum(ends)


def test_an_empty_window_names_the_nearest_costs():
    total = BASIC.total(MSNASSpace(7).fpn_like())
    totals = np.unique(all_totals(7, "basic"))
    above = int(totals[totals > total + 2].min())
    with pytest.raises(EmptyWindowError) as error:
        Lattice(MSNASSpace(7), BASIC, window=(total + 1, total + 2))
    for flops in (total + 1, total + 2, total, above, totals.min(), totals.max()):
        assert f"{flops / 1e9:.9g}" in str(error.value)
    assert "widen the window" in str(error.value)


@pytest.mark.parametrize(
    ("window", "nearest"),
    [((0, 1000), "nothing below"), ((10**12, 10**12), "nothing above"), ((-9, -3), "nothing bel")],
)
def test_a_window_out_of_reach_says_so(window, nearest):
    with pytest.raises(EmptyWindowError, match=nearest):
        Lattice(MSNASSpace(7), BASIC, window=window)


def test_a_window_needs_a_cost_and_an_order():
    with pytest.raises(ValueError, match="needs the cost"):
        Lattice(MSNASSpace(7), window=(0, 1))
    with pytest.raises(ValueError, match=r"low <= high, got \(2, 1\)"):
        Lattice(MSNASSpace(7), BASIC, window=(2, 1))


def test_violation_names_the_space_first_and_then_the_window():
    lattice = Lattice(MSNASSpace(7), BASIC, window=(90_000_000, 98_000_000))
    hand_made = MSNASSpace(7).fpn_like()
    assert lattice.violation(lattice.at(0)) is None
    assert lattice.violation(hand_made) == (
        "0.098079744 GFLOPs lie outside the window 0.09..0.098 GFLOPs"
    )
    broken = Architecture(hand_made.strides, (8, 4, 8, 8, 8))
    assert "Eq. 7" in lattice.violation(broken)


def test_violation_without_a_window_ignores_the_cost():
    assert Lattice(MSNASSpace(7), BASIC).violation(MSNASSpace(7).fpn_like()) is None


def test_a_lattice_survives_pickling():
    lattice = Lattice(MSNASSpace(6), BASIC, window=(50_000_000, 60_000_000))
    copy = pickle.loads(pickle.dumps(lattice))
    assert copy.window == lattice.window
    assert [copy.at(i) for i in range(50)] == [lattice.at(i) for i in range(50)]


def test_the_largest_space_counts_within_64_bits():
    lattice = Lattice(MSNASSpace(32))
    assert 2**50 < lattice.count() < 2**63
    assert lattice.violation(lattice.at(lattice.count() - 1)) is None


def test_counts_beyond_64_bits_are_refused():
    with pytest.raises(ValueError, match="at most 35 blocks"):
        require_exact(36)
    require_exact(35)


# --- distribution -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", COSTS)
def test_distribution_equals_brute_force(block):
    totals, counts = np.unique(all_totals(6, block), return_counts=True)
    distribution = FlopsDistribution.of(MSNASSpace(6), COSTS[block])
    np.testing.assert_array_equal(distribution.totals, totals)
    np.testing.assert_array_equal(distribution.counts, counts)


def test_distribution_answers_about_windows_and_targets():
    every = np.sort(all_totals(6, "basic"))
    distribution = FlopsDistribution.of(MSNASSpace(6), BASIC)
    assert (distribution.minimum, distribution.maximum) == (every[0], every[-1])
    assert distribution.count() == len(every)
    middle = int(every[len(every) // 2])
    assert distribution.count(low=middle) + distribution.count(high=middle - 1) == len(every)
    assert distribution.at_most(middle) == distribution.at_least(middle) == middle
    assert distribution.at_most(middle - 1) == every[every < middle].max()
    assert distribution.at_least(middle + 1) == every[every > middle].min()
    assert distribution.at_most(distribution.minimum - 1) is None
    assert distribution.at_least(distribution.maximum + 1) is None
    assert distribution.count(10, 5) == 0


@pytest.mark.parametrize("q", [0, 0.001, 0.1, 0.25, 0.5, 0.9, 1])
def test_quantiles_equal_those_of_all_architectures(q):
    distribution = FlopsDistribution.of(MSNASSpace(6), BASIC)
    expected = np.quantile(all_totals(6, "basic"), q, method="inverted_cdf")
    assert distribution.quantile(q) == expected


def test_quantiles_need_a_share():
    with pytest.raises(ValueError, match=r"0\.\.1, got 50"):
        FlopsDistribution.of(MSNASSpace(3), BASIC).quantile(50)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_cost_something_reachable(name):
    preset = name.split("-")[0]
    total = EncoderCost.from_preset(preset).total(PUBLISHED[name].architecture)
    distribution = published_distribution(preset)
    assert distribution.at_most(total) == distribution.at_least(total) == total


@cache
def published_distribution(preset):
    space = MSNASSpace(PRESETS[preset].n_blocks)
    return FlopsDistribution.of(space, EncoderCost.from_preset(preset))


@pytest.mark.parametrize("window", [(float("nan"), 10**9), (0, float("nan")), (1,), "ab"])
def test_a_window_that_is_not_two_whole_numbers_is_refused(window):
    with pytest.raises(ValueError, match=r"window must be .low, high. in whole multiply-adds"):
        Lattice(MSNASSpace(7), BASIC, window=window)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_only_ratios_of_weights_count(scale):
    lattice = Lattice(MSNASSpace(5), BASIC)
    encoder = [dict.fromkeys(STRIDES, scale) for _ in range(5)]
    heads = [dict.fromkeys(FEATURE_STRIDES, scale) for _ in range(5)]
    draw, rng = lattice.weighted(Weights(encoder, heads)), np.random.default_rng(0)
    drawn = Counter(draw.sample(rng) for _ in range(8000))
    expected = 8000 / lattice.count()
    counts = [drawn[lattice.at(i)] for i in range(lattice.count())]
    assert expected > 5
    assert sum(counts) == 8000
    assert chisquare(counts).pvalue > 1e-4
