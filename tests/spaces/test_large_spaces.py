"""Spaces that no list holds: other methods' counts, numbers beyond 64 bits, refused sizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from msnas_optuna.spaces.distribution import CostDistribution, counts_inside
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.spaces.window import below


@pytest.mark.parametrize(("n_blocks", "count"), [(8, 9), (16, 153), (33, 374)])
def test_stage_allocations_of_cr_nas(allocations, n_blocks, count):
    assert Lattice(allocations(n_blocks)).count() == count


def test_published_stage_allocations_lie_in_their_space(allocations):
    for genes in ((1, 1, 2, 4), (1, 3, 5, 7), (2, 2, 6, 6), (2, 3, 17, 11), (3, 4, 23, 3)):
        assert genes in set(Lattice(allocations(sum(genes))))
    assert "g2 must be one of" in allocations(33).violation((3, 4, 15, 11))  # CR-X101


def test_mobile_net_allocations_of_cr_nas(mobile_allocations):
    every = [*Lattice(mobile_allocations)]
    assert len(every) == 43
    assert {(2, 3, 4, 3, 3), (2, 2, 3, 4, 4)} <= set(every)


# --- DetNAS: 4^20 and 4^40 backbones under a cap ------------------------------------------------


@pytest.mark.parametrize(("op", "millions"), [*enumerate([262.7, 280.5, 307.2, 325.7])])
def test_homogeneous_backbones_of_detnas(detnas_small, op, millions):
    _, cost = detnas_small
    assert cost.total((op,) * 20) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("genes", "millions"),
    [
        ("21202112331300313132", 288.1),
        ("23113213311133203333", 291.2),
        ("21031303201133333331", 316.4),
        ("13002333233332202311", 327.5),
        ("10003032223302132221", 292.8),
    ],
)
def test_published_backbones_of_detnas(detnas_small, genes, millions):
    _, cost = detnas_small
    assert cost.total(tuple(map(int, genes))) / 1e6 == pytest.approx(millions, abs=0.05)


def by_convolution(cost, n):
    """The number of backbones of each cost in whole numbers of any size, gene by gene."""
    counts = {cost.base: 1}
    for position in range(n):
        steps = Counter(cost.step(position, 0, op, 0) for op in range(4))
        longer: dict[int, int] = {}
        for total, ways in counts.items():
            for step, times in steps.items():
                longer[total + step] = longer.get(total + step, 0) + ways * times
        counts = longer
    return counts


def test_the_small_space_of_detnas_under_its_cap(detnas_small):
    space, cost = detnas_small
    cap = 300_000_000
    lattice, counts = Lattice(space, cost, window=(None, cap)), by_convolution(cost, 20)
    expected = sum(ways for total, ways in counts.items() if total <= cap)
    assert lattice.count() == expected == 757_185_372_520
    assert Lattice(space).count() == sum(counts.values()) == 4**20
    distribution = CostDistribution.of(space, cost)
    pairs = zip(distribution.totals.tolist(), distribution.counts.tolist(), strict=True)
    assert dict(pairs) == counts
    # 69.4 % of a sample of uniform backbones were published as passing; exactly 68.9 % do.
    assert expected / 4**20 == pytest.approx(0.694, abs=0.01)
    drawn = lattice.sample(np.random.default_rng(0), 1000)
    assert not any(map(lattice.violation, drawn))


def test_the_large_space_of_detnas_under_a_cap(detnas_large):
    space, cost = detnas_large
    cap = 1_150_000_000
    lattice, counts = Lattice(space, cost, window=(None, cap)), by_convolution(cost, 40)
    expected = sum(ways for total, ways in counts.items() if total <= cap)
    assert 2**76 < lattice.count() == expected < 4**40
    assert Lattice(space).count() == 4**40
    distribution = CostDistribution.of(space, cost)
    assert distribution.count() == 4**40
    assert distribution.count(high=cap) == lattice.distribution().count() == expected
    assert sum(counts[t] for t in counts if t <= distribution.quantile(0.25)) >= 4**40 / 4
    rng = np.random.default_rng(0)
    drawn = [lattice.sample(rng) for _ in range(300)] + lattice.sample(rng, 300)
    assert not any(map(lattice.violation, drawn))
    last = {lattice.at(expected - 1 - i) for i in range(20)} | {lattice.at(i) for i in range(20)}
    assert len(last) == 40
    assert counts_inside(space, [cost], window=(0, cap)) == [expected]


def test_draws_beyond_64_bits_are_uniform(detnas_large):
    space, cost = detnas_large
    lattice = Lattice(space, cost, window=(None, 1_150_000_000))
    drawn = lattice.sample(np.random.default_rng(1), 4000)
    for position in (0, 39):
        found = Counter(genes[position] for genes in drawn)
        weights = [[dict.fromkeys(range(4), 1.0)] * 40 for _ in range(4)]
        for op, own in enumerate(weights):
            own[position] = {choice: float(choice == op) for choice in range(4)}
        share = [lattice.weighted(own).total / lattice.count() for own in weights]
        assert sum(share) == pytest.approx(1)
        assert chisquare([found[op] for op in range(4)], [4000 * s for s in share]).pvalue > 1e-4


def test_numbers_far_beyond_64_bits(block_choices):
    class Parity:
        """The number of blocks 1 and 3."""

        base = 0

        def step(self, position, before, gene, after):
            return gene % 2

        def total(self, genes):
            return sum(g % 2 for g in genes)

        def text(self, amount):
            return str(amount)

    # 2^100 ways to choose between the two blocks of each kind, and one way to be odd nowhere
    lattice = Lattice(block_choices(100), Parity(), window=(0, 0))
    assert lattice.count() == 2**100
    assert lattice.at(2**100 - 1) == (2,) * 100
    assert Lattice(block_choices(100)).count() == 4**100
    distribution = Lattice(block_choices(100), Parity()).distribution()
    assert distribution.counts[:2].tolist() == [2**100, 100 * 2**100]


@pytest.mark.parametrize("n", [1, 5, 2**63, 2**63 + 1, 3 * 2**70])
def test_large_numbers_are_drawn_uniformly(n):
    rng = np.random.default_rng(0)
    drawn = [below(n, rng) for _ in range(3000)]
    assert all(0 <= i < n for i in drawn)
    if n > 5:
        thirds = Counter(i * 3 // n for i in drawn)
        assert chisquare([thirds[i] for i in range(3)]).pvalue > 1e-4


class Priced:
    def __init__(self, *, base=0, each=1):
        self.base, self.each = base, each

    def step(self, position, before, gene, after):
        return self.each * gene ** (position + 1)

    def total(self, genes):
        return self.base + sum(self.step(i, 0, g, 0) for i, g in enumerate(genes))

    def text(self, amount):
        return str(amount)


def test_costs_on_too_fine_a_grid_are_refused(block_choices):
    space, cost = block_choices(20), Priced()
    with pytest.raises(ValueError, match=r"grid of 1, so fine .* round the costs"):
        Lattice(space, cost, window=(0, 2**40))
    with pytest.raises(ValueError, match=r"grid of 1, so fine .* round the costs"):
        CostDistribution.of(space, cost)


def test_a_low_cap_needs_short_tables_however_far_costs_reach(block_choices):
    lattice = Lattice(block_choices(20), Priced(), window=(None, 10))
    totals = [0]
    for i in range(1, 21):
        totals = [t + g**i for t in totals for g in range(4) if t + g**i <= 10]
    assert lattice.count() == len(totals) > 1000


def test_costs_beyond_64_bits_are_refused(block_choices):
    for cost in (Priced(base=2**62), Priced(each=2**60), Priced(each=2**80)):
        with pytest.raises(ValueError, match=r"within 2\^61 .* measure them in a larger unit"):
            Lattice(block_choices(3), cost, window=(0, 10))


def test_costs_that_are_no_whole_numbers_are_refused(block_choices):
    with pytest.raises(TypeError, match="integer"):
        Lattice(block_choices(3), Priced(each=0.5), window=(0, 10))
