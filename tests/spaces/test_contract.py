"""Every exact tool on every space of the registry, against brute force."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from scipy.stats import chisquare

from msnas_optuna.spaces.base import EmptyWindowError, InvalidArchitectureError
from msnas_optuna.spaces.enumeration import Enumeration
from msnas_optuna.spaces.lattice import Lattice

KINDS = {"counted": Lattice, "listed": Enumeration}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def middle(case, kind):
    """A set in a window, and its architectures by brute force."""
    return kind(case.space, case.cost, window=case.middle), case.inside(case.middle)


def rng():
    return np.random.default_rng(0)


def random_weights(space, seed, zeros=0.0):
    """A weight for each choice of each gene, some of them 0."""
    source = np.random.default_rng(seed)
    return [
        {c: float(source.random() * (source.random() >= zeros)) for c in distribution.choices}
        for distribution in space.distributions.values()
    ]


def weight(space, weights, architecture):
    return prod(w[g] for w, g in zip(weights, space.genes(architecture), strict=True))


def fits(drawn, expected):
    """Whether draws have the expected chances; rare architectures are taken together."""
    counts = Counter(drawn)
    assert set(counts) <= {a for a, chance in expected.items() if chance > 0}
    wanted = np.array([*expected.values()]) / sum(expected.values()) * len(drawn)
    found = np.array([counts[a] for a in expected])
    likely = wanted >= 5
    wanted = np.append(wanted[likely], wanted[~likely].sum())
    found = np.append(found[likely], found[~likely].sum())
    if wanted[-1] < 5:  # into the rarest of the others
        wanted, found = (np.append(x[:-2], x[-2:].sum()) for x in (wanted, found))
    return len(wanted) == 1 or chisquare(found, wanted).pvalue > 1e-4


def draws_for(n):
    return [*range(min(n, 200) * 20)]


# --- counts and numbers -------------------------------------------------------------------------


def test_counts_and_numbers_are_those_of_brute_force(case, kind):
    for window in case.windows:
        expected = case.inside(window)
        feasible = kind(case.space, case.cost, window=window)
        assert feasible.count() == len(expected) > 0
        numbered = [feasible.at(i) for i in range(feasible.count())]
        assert numbered == [*feasible]
        assert len(set(numbered)) == len(numbered)
        assert set(numbered) == set(expected)
        for index in (-1, feasible.count()):
            with pytest.raises(IndexError, match=rf"0\.\.{len(expected) - 1}, got {index}"):
                feasible.at(index)


def test_without_a_cost_every_valid_architecture_counts(case, kind):
    assert set(kind(case.space)) == set(case.valid)


def test_a_window_without_architectures_names_the_nearest_costs(case, kind):
    totals = sorted(set(case.totals))
    beyond = totals[-1] + 1
    with pytest.raises(EmptyWindowError, match="nothing above the window: move or widen") as error:
        kind(case.space, case.cost, window=(beyond, None))
    for amount in (beyond, totals[0], totals[-1]):
        assert case.cost.text(amount) in str(error.value)
    with pytest.raises(EmptyWindowError, match="nothing below"):
        kind(case.space, case.cost, window=(None, totals[0] - 1))
    gaps = [(a, b) for a, b in pairwise(totals) if b > a + 1]
    for low, high in gaps[:3]:
        with pytest.raises(EmptyWindowError) as error:
            kind(case.space, case.cost, window=(low + 1, high - 1))
        assert f"nearest {case.cost.text(low)} below" in str(error.value)
        assert f"{case.cost.text(high)} above" in str(error.value)


@pytest.mark.parametrize("window", [(2, 1), (0.5, 10**9), (0, float("nan")), (1,), "ab", 7])
def test_a_window_that_is_not_two_whole_numbers_in_order_is_refused(case, kind, window):
    with pytest.raises(ValueError, match=r"window must be \(low, high\), whole numbers"):
        kind(case.space, case.cost, window=window)


def test_a_window_needs_a_cost(case, kind):
    with pytest.raises(ValueError, match="needs the cost that it limits"):
        kind(case.space, window=(0, 1))
    with pytest.raises(ValueError, match="needs a cost"):
        kind(case.space).distribution()


def test_distribution_is_that_of_brute_force(case, kind):
    for window in case.windows:
        inside = case.inside(window)
        every = np.array([case.cost.total(a) for a in inside])
        distribution = kind(case.space, case.cost, window=window).distribution()
        totals, counts = np.unique(every, return_counts=True)
        np.testing.assert_array_equal(distribution.totals, totals)
        np.testing.assert_array_equal(distribution.counts, counts)
        assert (distribution.minimum, distribution.maximum) == (every.min(), every.max())
        middle = int(np.median(totals))
        assert distribution.count() == len(every)
        assert distribution.count(low=middle) + distribution.count(high=middle - 1) == len(every)
        assert distribution.at_most(middle) == max(totals[totals <= middle])
        assert distribution.at_least(middle) == min(totals[totals >= middle])
        for q in (0, 0.01, 0.3, 0.5, 0.9, 1):
            assert distribution.quantile(q) == np.quantile(every, q, method="inverted_cdf")


# --- draws --------------------------------------------------------------------------------------


def test_uniform_draws(middle):
    feasible, members = middle
    expected, source = dict.fromkeys(members, 1.0), rng()
    assert fits([feasible.sample(source) for _ in draws_for(len(members))], expected)
    assert fits(feasible.sample(source, 20 * min(len(members), 200)), expected)


@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_weighted_draws_have_exact_chances(case, middle, zeros):
    (feasible, members), source = middle, rng()
    for seed in range(3):
        weights = random_weights(case.space, seed, zeros)
        expected = {a: weight(case.space, weights, a) for a in members}
        draw = feasible.weighted(weights)
        largest = prod(max(w.values()) or 1 for w in weights)
        assert draw.total * largest == pytest.approx(sum(expected.values()))
        if not sum(expected.values()):
            assert draw.sample(source) is None
        else:
            assert fits([draw.sample(source) for _ in draws_for(len(members))], expected)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_only_ratios_of_weights_count(case, middle, scale):
    (feasible, members), source = middle, rng()
    weights = [dict.fromkeys(d.choices, scale) for d in case.space.distributions.values()]
    draw = feasible.weighted(weights)
    assert draw.total == pytest.approx(len(members))
    drawn = [draw.sample(source) for _ in draws_for(len(members))]
    assert fits(drawn, dict.fromkeys(members, 1.0))


def test_weights_out_of_range_or_missing_are_refused(case, middle):
    feasible, _ = middle
    good = random_weights(case.space, 0)
    name, choices = next(iter(case.space.distributions)), [*good[0]]
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"of {name} must have .* at least 0, got"):
            feasible.weighted([{**good[0], choices[0]: bad}, *good[1:]])
    with pytest.raises(ValueError, match=rf"each of .* of {name} must have a finite value"):
        feasible.weighted([{choices[0]: 1.0}, *good[1:]])
    with pytest.raises(InvalidArchitectureError, match=f"has {len(good)} genes, got"):
        feasible.weighted(good[1:])


def test_scores_that_are_not_finite_or_missing_are_refused(case, middle):
    (feasible, _), good = middle, random_weights(case.space, 0)
    choice = next(iter(good[0]))
    for bad in ({**good[0], choice: float("-inf")}, {**good[0], choice: float("nan")}, {}):
        with pytest.raises(ValueError, match="must have a finite value, got"):
            feasible.best([bad, *good[1:]])


def test_completions_are_uniform_over_what_agrees(case, middle):
    (feasible, members), source = middle, rng()
    n = len(case.space.distributions)
    for attempt in range(12):
        model = case.space.genes(members[attempt * len(members) // 12])
        kept = source.random(n) < attempt / 11  # from nothing fixed to everything
        fixed = [g if k else None for g, k in zip(model, kept, strict=True)]
        agreeing = [
            a
            for a in members
            if all(f in (None, g) for f, g in zip(fixed, case.space.genes(a), strict=True))
        ]
        drawn = [feasible.complete(source, fixed) for _ in draws_for(len(agreeing))]
        assert fits(drawn, dict.fromkeys(agreeing, 1.0))


def test_nothing_completes_what_is_not_feasible(case, middle):
    (feasible, members), source = middle, rng()
    outside = [a for a in case.valid if a not in set(members)]
    for architecture in outside[:5]:
        assert feasible.complete(source, case.space.genes(architecture)) is None
    n = len(case.space.distributions)
    assert feasible.complete(source, [*[None] * (n - 1), "no such gene"]) is None
    with pytest.raises(InvalidArchitectureError, match=f"has {n} genes, got {n - 1}"):
        feasible.complete(source, [None] * (n - 1))


def test_equal_seeds_draw_equally(case, kind):
    def drawn():
        source, feasible = rng(), kind(case.space, case.cost, window=case.middle)
        weighted = feasible.weighted(random_weights(case.space, 1))
        free = [None] * len(case.space.distributions)
        return [
            *feasible.sample(source, 5),
            *(weighted.sample(source) for _ in range(5)),
            *(feasible.complete(source, free) for _ in range(5)),
        ]

    assert drawn() == drawn()


def test_the_best_is_that_of_brute_force(case, kind):
    for seed, window in enumerate(case.windows):
        feasible = kind(case.space, case.cost, window=window)
        source = np.random.default_rng(seed)
        scores = [
            {c: float(source.normal()) for c in distribution.choices}
            for distribution in case.space.distributions.values()
        ]

        def score(architecture, scores=scores):
            genes = case.space.genes(architecture)
            return sum(s[g] for s, g in zip(scores, genes, strict=True))

        best = feasible.best(scores)
        assert best in set(feasible)
        assert score(best) == pytest.approx(max(map(score, case.inside(window))))
        with pytest.raises(InvalidArchitectureError, match="genes, got"):
            feasible.best(scores[1:])


# --- what a space says of itself ----------------------------------------------------------------


def test_parameters_and_genes_are_read_back(case):
    space = case.space
    for architecture in case.valid[:: max(len(case.valid) // 200, 1)]:
        params = space.encode(architecture)
        assert [*params] == [*space.distributions]
        assert all(v in space.distributions[k].choices for k, v in params.items())
        assert space.decode(params) == architecture
        assert space.architecture(space.genes(architecture)) == architecture


def test_parameters_that_are_missing_or_no_choice_are_refused(case):
    params = case.space.encode(case.valid[0])
    name = [*params][-1]
    with pytest.raises(InvalidArchitectureError, match=f"{name} must be one of .* got 'x'"):
        case.space.decode({**params, name: "x"})
    del params[name]
    with pytest.raises(InvalidArchitectureError, match=f"{name} must be one of .* got nothing"):
        case.space.decode(params)


def test_an_architecture_of_another_length_is_not_encoded(case):
    short = case.space.architecture(case.space.genes(case.valid[0])[:-1])
    with pytest.raises(InvalidArchitectureError, match=r"the space has|there are 5"):
        case.space.encode(short)


def test_parts_cover_every_gene_once(case):
    genes = range(len(case.space.distributions))
    assert [g for part in case.space.parts.values() for g in genes[part]] == [*genes]


def test_violations_are_said_in_words(case, middle):
    (feasible, members), source = middle, rng()
    choices = [d.choices for d in case.space.distributions.values()]
    valid, inside = set(case.valid), set(members)
    for _ in range(300):
        genes = tuple(c[int(source.integers(len(c)))] for c in choices)
        architecture = case.space.architecture(genes)
        said = feasible.violation(architecture)
        assert (said is None) == (architecture in inside)
        if architecture not in valid:
            assert said == case.space.violation(architecture)
    for architecture in (valid - inside) if case.middle else ():
        said = feasible.violation(architecture)
        low, high = map(case.cost.text, case.middle)
        assert said.startswith(case.cost.text(case.cost.total(architecture)))
        assert said.endswith(f"lie outside the window {low} to {high}")


@pytest.mark.parametrize("end", [0, 1])
def test_an_open_end_is_said_in_words(case, kind, end):
    if len(set(case.totals)) == 1:
        return
    limit = (max if end == 0 else min)(case.totals)
    window = (limit, None) if end == 0 else (None, limit)
    feasible = kind(case.space, case.cost, window=window)
    missed = next(a for a, t in zip(case.valid, case.totals, strict=True) if t != limit)
    words = (f"from {case.cost.text(limit)} on", f"up to {case.cost.text(limit)}")[end]
    assert feasible.violation(missed).endswith(f"lie outside the window {words}")


def test_a_set_survives_pickling(case, middle):
    feasible, _ = middle
    copy = pickle.loads(pickle.dumps(feasible))
    assert (copy.window, [*copy]) == (feasible.window, [*feasible])


def test_what_is_contained_is_what_breaks_no_rule(case, middle):
    feasible, _ = middle
    choices = [d.choices for d in case.space.distributions.values()]
    chosen = rng().integers([len(c) for c in choices], size=(2000, len(choices)))
    members = [[c.index(g) for c, g in zip(choices, case.space.genes(a), strict=True)]
               for a in feasible]  # fmt: skip
    chosen = np.concatenate([chosen, members])
    every = [
        case.space.architecture(tuple(c[i] for c, i in zip(choices, row, strict=True)))
        for row in chosen.tolist()
    ]
    broken = [feasible.violation(a) is not None for a in every]
    assert any(broken)
    assert feasible.contains(chosen).tolist() == np.logical_not(broken).tolist()
    assert feasible.contains(chosen[:0]).shape == (0,)
