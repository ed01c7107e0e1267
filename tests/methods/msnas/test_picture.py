from __future__ import annotations

from math import log2

import pytest

from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.picture import draw
from msnas_optuna.methods.msnas.published import PUBLISHED
from msnas_optuna.methods.picture import Bar, Line, Marker


@pytest.mark.parametrize("name", ["r18-1", "r34-4", "r50-5"])
def test_the_picture_is_the_architecture(name):
    architecture, cost = PUBLISHED[name].architecture, EncoderCost.from_preset(name[:3])
    path, costs = draw(architecture, name=name, cost=cost).panels
    lines = [mark for mark in path.marks if isinstance(mark, Line)]
    signs = [mark for mark in path.marks if isinstance(mark, Marker)]
    (way,) = (line for line in lines if not line.name)
    absolute = (4, *architecture.absolute_strides)
    assert way.points == tuple((i, -log2(a)) for i, a in enumerate(absolute))
    ends = {line.points[-1][0]: line.points[0][0] for line in lines if line.curved}
    assert ends == {i + 1: r + 1 for i, r in architecture.laterals.items()}
    blocks = [mark for mark in signs if mark.name.startswith("stride")]
    assert [mark.name for mark in blocks] == [f"stride {s:g}" for s in architecture.strides]
    heads = [mark for mark in signs if mark.name == "detection head"]
    assert [2**-mark.y for mark in heads] == list(architecture.feature_strides)
    readings = [line for line in lines if line.name == "head reads"]
    assert {line.points[0] for line in readings} <= set(way.points)
    assert {2 ** -line.points[0][1] for line in readings} == set(architecture.feature_strides)
    assert all(isinstance(mark, Bar) for mark in costs.marks)
    total = sum(mark.height for mark in costs.marks)
    assert total == pytest.approx(cost.total(architecture) / 1e9)


def test_without_a_cost_there_are_no_bars():
    (path,) = draw(PUBLISHED["r18-1"].architecture, name="r18-1").panels
    assert not any(isinstance(mark, Bar) for mark in path.marks)
