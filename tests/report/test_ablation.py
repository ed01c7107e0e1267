"""Numbers of an ablation: means, standard errors, and paired intervals, against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import sem, ttest_rel

from msnas_optuna.report.ablation import comparison, comparison_rows
from msnas_optuna.study.ablation import BASE, Ablation, Arm

ABLATION = Ablation(
    "table0",
    "Nothing against something",
    {
        "none": Arm("nothing", {"mean": 30.0, "tau": 0.1}, {}),
        BASE: Arm("something", {"mean": 31.5}, {}),
    },
)
NONE, SOME = [40.0, 42.0, 41.0], [43.0, 43.5, 44.0]


def numbers(mean, tau=0.4):
    return {"mean": mean, "variance": 0.1, "max": mean + 1, "tau": tau}


def compared(none, some):
    outcomes = {"none": dict(enumerate(none)), BASE: dict(enumerate(some))}
    return comparison(ABLATION, outcomes, top=5)


def test_means_errors_and_intervals_are_scipy_s():
    found = compared([numbers(m) for m in NONE], [numbers(m) for m in SOME])
    first, second = (arm["ours"]["mean"] for arm in found["arms"])
    assert (first["mean"], first["standard_error"]) == pytest.approx((41, sem(NONE)))
    assert (second["n"], second["standard_error"]) == (3, pytest.approx(sem(SOME)))
    difference = found["difference"]["mean"]
    assert difference["paper"] == 1.5
    assert found["difference"]["tau"]["paper"] is None  # the paper has it of one arm
    ours, expected = difference["ours"], ttest_rel(SOME, NONE).confidence_interval(0.95)
    assert ours["mean"] == pytest.approx(np.subtract(SOME, NONE).mean())
    ends = (ours["mean"] - ours["interval"], ours["mean"] + ours["interval"])
    assert ends == pytest.approx((expected.low, expected.high))


def test_only_seeds_that_both_arms_have_finished_are_paired():
    found = compared([numbers(40), None, numbers(41)], [numbers(43), numbers(44), None])
    assert [arm["ours"]["mean"]["n"] for arm in found["arms"]] == [2, 2]
    assert found["difference"]["mean"]["ours"]["n"] == 1
    assert found["difference"]["mean"]["ours"]["mean"] == 3
    assert [*found["arms"][0]["seeds"]] == ["0", "2"]


def test_a_tau_of_ties_is_left_out():
    found = compared([numbers(40, None), numbers(41)], [numbers(42), numbers(43)])
    assert found["arms"][0]["ours"]["tau"]["n"] == 1
    assert found["difference"]["tau"]["ours"]["n"] == 1


def test_the_table_has_the_paper_s_row_beside_ours():
    rows = comparison_rows(compared([numbers(m) for m in NONE], [numbers(m) for m in SOME]))
    error = f"{sem(NONE):.2f}"
    assert rows[1] == ["nothing", "paper", "30.00", "-", "-", "0.100"]
    assert rows[2][:3] == ["", "ours, 3 seeds", f"41.00 ± {error}"]
    assert rows[5] == ["difference", "paper", "+1.50", "-", "-", "-"]
    low, high = ttest_rel(SOME, NONE).confidence_interval(0.95)
    assert rows[6][:3] == ["", "ours, 3 pairs", f"+2.50 ({low:+.2f} to {high:+.2f})"]


def test_what_has_not_begun_and_one_seed_have_no_intervals():
    nothing = comparison_rows(compared([None], [None]))
    assert nothing[2] == ["", "ours, 0 seeds", "-", "-", "-", "-"]
    one = comparison_rows(compared([numbers(40)], [numbers(42)]))
    assert one[2][:3] == ["", "ours, 1 seed", "40.00"]
    assert one[6][:3] == ["", "ours, 1 pair", "+2.00"]


def test_the_paper_s_taus_are_those_of_ten_architectures():
    """Tau-b of n things without ties is a multiple of 2 / (n (n - 1)); those of the paper are not.

    With one tie among ten they are multiples of 1 / sqrt(45 * 44).
    """
    for tau in (-0.2247, 0.4495, -0.0899):
        multiple = tau * math.sqrt(45 * 44)
        assert multiple == pytest.approx(round(multiple), abs=0.005)
        assert tau * 10 != pytest.approx(round(tau * 10), abs=0.05)  # not five without ties
