from __future__ import annotations

import re
from itertools import combinations_with_replacement, product

import pytest
from hypothesis import given, strategies as st

from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.space import (
    FEATURE_STRIDES,
    STRIDES,
    Architecture,
    MSNASSpace,
    count_paths,
)
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.spaces.lattice import Lattice

READABLE = (4, 8, 8, 8, 8)
UTILIZATIONS = [  # of Eq. 7
    s
    for s in combinations_with_replacement(FEATURE_STRIDES, 5)
    if min(s) <= 8 <= max(s) and min(s) != max(s)
]


def test_eq_7_leaves_103_of_the_3125_utilizations():
    vectors = set(UTILIZATIONS)
    assert len(vectors) == 103  # golden count of the design
    space = MSNASSpace(9)  # 4 8 16 32 64 and back: every feature stride is produced
    strides = (1, 2, 2, 2, 2, 0.5, 0.5, 0.5, 0.5)
    for s in product(FEATURE_STRIDES, repeat=5):
        assert (space.violation(Architecture(strides, s)) is None) == (s in vectors)


@pytest.mark.parametrize(("n", "count"), [(4, 35), (7, 707), (8, 1931), (9, 5275)])
def test_number_of_valid_stride_paths(n, count):
    def inside(strides):
        return all(4 <= a <= 64 for a in Architecture(strides, READABLE).absolute_strides)

    assert sum(inside(strides) for strides in product(STRIDES, repeat=n)) == count
    assert count_paths(n) == count


def test_violations_name_the_rule_and_the_value():
    space = MSNASSpace(4)
    for strides, s, message in [
        ((1, 2, 1), READABLE, "the space has 4 blocks, the architecture 3 strides"),
        ((1, 2, 1, 1), (4, 8), "5 object groups, the architecture has 2"),
        ((1, 3, 1, 1), READABLE, "stride_02 must be 0.5, 1 or 2, got 3"),
        ((0.5, 2, 2, 1), READABLE, "block 1 has absolute stride 2"),
        ((2, 2, 2, 2), (8, 8, 16, 16, 64), None),
        ((1, 2, 1, 1), (4, 8, 4, 8, 8), "must not decrease"),
        ((2, 2, 1, 1), (16, 16, 16, 16, 8), "must not decrease"),
        ((2, 2, 2, 1), (16, 16, 16, 16, 32), "min <= 8 <= max"),
        ((1, 2, 1, 1), (8, 8, 8, 8, 8), "must not all be equal"),
        ((1, 2, 1, 1), (4, 8, 8, 8, 12), "feature_stride_5 must be one of"),
        ((1, 2, 1, 1), (4, 8, 8, 8, 16), "feature_stride_5 is 16, but no block"),
    ]:
        violation = space.violation(Architecture(strides, s))
        assert violation is None if message is None else message in violation


def test_parameters_have_the_paper_s_names_and_real_values():
    space = MSNASSpace(13)
    names = [f"stride_{i:02d}" for i in range(1, 14)]
    names += [f"feature_stride_{g}" for g in range(1, 6)]
    assert list(space.distributions) == names
    assert space.distributions["stride_07"].choices == (0.5, 1.0, 2.0)
    assert space.distributions["feature_stride_3"].choices == (4, 8, 16, 32, 64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_are_valid_and_survive_encoding_and_notation(name):
    architecture = PUBLISHED[name].architecture
    space = MSNASSpace(PRESETS[name.split("-")[0]].n_blocks)
    assert space.violation(architecture) is None
    params = space.encode(architecture)
    assert space.decode(params) == architecture
    assert {type(v) for k, v in params.items() if k.startswith("stride")} == {float}
    assert {type(v) for k, v in params.items() if k.startswith("feature")} == {int}
    assert Architecture.parse(str(architecture)) == architecture


def test_fifteen_architectures_are_published():
    assert len(PUBLISHED) == 15
    assert PUBLISHED["r18-5"].coco_map == 37.2  # Table 7, last row


@pytest.mark.parametrize("text", ["1 2 2", "1 2 x | 4 8 8 8 8", "", "1 | 2 | 3"])
def test_parse_refuses_other_notations(text):
    with pytest.raises(InvalidArchitectureError, match="an architecture reads"):
        Architecture.parse(text)


def test_stages_laterals_and_outputs():
    #                     4 8 16 16 8 16 8 4
    architecture = Architecture((1, 2, 2, 1, 0.5, 2, 0.5, 0.5), (4, 8, 8, 16, 16))
    assert architecture.absolute_strides == (4, 8, 16, 16, 8, 16, 8, 4)
    assert architecture.stage_ends == (0, 1, 3, 4, 5, 6, 7)
    # every stage end is joined with the latest earlier one of its resolution (Eq. 4-6)
    assert architecture.laterals == {4: 1, 5: 3, 6: 4, 7: 0}
    assert architecture.outputs == {4: 7, 8: 6, 16: 5}


def test_the_hand_made_path():
    assert str(MSNASSpace(7).fpn_like()) == "1 2 2 2 .5 .5 .5 | 4 8 16 32 32"


def test_every_space_has_a_valid_hand_made_path():
    for space in map(MSNASSpace, range(3, 33)):
        assert space.violation(space.fpn_like()) is None


def test_fpn_style_paths_reach_64_and_need_five_blocks():
    assert str(MSNASSpace(9, "fpn").fpn_like()) == "1 2 2 2 2 .5 .5 .5 .5 | 4 8 16 32 64"
    for n in range(5, 33):
        space = MSNASSpace(n, "fpn")
        assert space.violation(space.fpn_like()) is None
    with pytest.raises(ValueError, match=r"in 5\.\.32 with FPN-style feature strides, got 4"):
        MSNASSpace(4, "fpn")
    other = Architecture((1, 2, 2, 2, 2), (4, 8, 16, 32, 32))
    assert "feature_stride_5 must be one of [64]" in MSNASSpace(5, "fpn").violation(other)


def test_without_constraints_heads_read_whatever_the_encoder_has():
    space = MSNASSpace(9, constraints=False)
    strides = (1, 2, 2, 2, 2, 0.5, 0.5, 0.5, 0.5)
    for s in product(FEATURE_STRIDES, repeat=5):
        assert space.violation(Architecture(strides, s)) is None
    assert "no block" in space.violation(Architecture((1,) * 9, (8, 4, 4, 4, 4)))  # V3 stays


def test_without_unread_blocks_a_head_reads_the_last_block():
    space, wide = MSNASSpace(7, unread_blocks=False), Lattice(MSNASSpace(7))
    read = {a for a in wide if a.absolute_strides[-1] in a.feature_strides}
    assert {*Lattice(space)} == read
    assert (len(read), wide.count()) == (10_995, 16_363)
    unread = Architecture((1, 2, 2, 1, 1, 1, 2), (4, 4, 8, 8, 16))
    message = "a head must read the last block .* absolute stride 32; the heads read .4, 8, 16."
    assert re.match(message, space.violation(unread))
    for n in range(3, 33):
        assert MSNASSpace(n, unread_blocks=False).violation(MSNASSpace(n).fpn_like()) is None


@pytest.mark.parametrize("n", [-1, 2, 33, 7.0, "7", None])
def test_unreasonable_numbers_of_blocks_are_refused(n):
    with pytest.raises(ValueError, match=r"n_blocks must be a whole number in 3\.\.32"):
        MSNASSpace(n)


@given(st.lists(st.sampled_from(STRIDES), min_size=3, max_size=12), st.data())
def test_encoding_is_the_inverse_of_decoding(strides, data):
    s = data.draw(st.sampled_from(UTILIZATIONS))
    space, architecture = MSNASSpace(len(strides)), Architecture(tuple(strides), s)
    assert space.decode(space.encode(architecture)) == architecture
    assert Architecture.parse(str(architecture)) == architecture
