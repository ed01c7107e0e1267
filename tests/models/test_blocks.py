from __future__ import annotations

import pytest
import torch
from torch import nn

from msnas_optuna.methods.msnas.published import PRESETS
from msnas_optuna.models.blocks import conv_norm


def norm_of(C: int) -> nn.GroupNorm:
    _, norm = conv_norm(3, C, kernel=3, norm="group")
    assert isinstance(norm, nn.GroupNorm)
    return norm


@pytest.mark.parametrize(
    ("C", "size"),
    [
        (8, 8), (64, 8), (144, 8), (160, 8), (1024, 8),
        (180, 9),  # 9 is nearer to 8 than 6
        (20, 10),
        (36, 9),
        (100, 10),
        (12, 6),
        (42, 7),
        (70, 7),
        (4, 4), (5, 5), (13, 13), (34, 2),
    ],
)  # fmt: skip
def test_groups_have_eight_channels_or_the_nearest_divisor(C, size):
    assert norm_of(C).num_groups == C // size


def test_of_two_divisors_that_are_equally_near_it_is_the_smaller():
    assert norm_of(30).num_groups == 5  # of 6 channels; 10 divides 30 as well


def test_every_number_of_channels_has_the_nearest_group():
    for C in range(4, 1025):
        size, rest = divmod(C, norm_of(C).num_groups)
        assert rest == 0
        nearer = range(9 - abs(size - 8), 8 + abs(size - 8))
        assert all(C % d for d in nearer if d >= 2), C
        assert size > 1


@pytest.mark.parametrize("name", PRESETS)
def test_groups_of_the_published_settings(name):
    C = PRESETS[name].channels
    assert {C // norm_of(C).num_groups} <= {8, 9}


def test_a_feature_of_one_cell_keeps_its_values():
    torch.manual_seed(0)
    for C in (17, 22, 180):
        assert norm_of(C)(torch.randn(1, C, 1, 1)).abs().max() > 0.5
