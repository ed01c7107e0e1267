from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import roi_align

from msnas_optuna.methods.msnas.heads import GroupFeatures, GroupRoIPool, GroupRPNHead

STRIDES = (8, 8, 16, 16, 64)  # two pairs of groups read one feature, 32 is not read at all


def features(channels: int = 4, side: int = 128) -> GroupFeatures:
    torch.manual_seed(0)
    maps = {s: torch.randn(2, channels, side // s, side // s) for s in set(STRIDES)}
    return GroupFeatures([maps[s] for s in STRIDES], STRIDES)


def box(side: float) -> list[float]:
    return [3.0, 5.0, 3.0 + side, 5.0 + side]


@pytest.mark.parametrize(
    ("side", "group"),
    [(1, 0), (111, 0), (113, 1), (223, 1), (225, 2), (447, 2), (449, 3), (897, 4), (5000, 4)],
)
def test_rois_are_routed_by_fpn_s_rule(side, group):
    """k = floor(4 + log2(sqrt(w h) / 224)), groups 2 to 6 (Lin et al., 2017, Eq. 1)."""
    pool = GroupRoIPool(7, 224)
    assert pool.group_of(torch.tensor([box(side)])).item() == group
    k = math.floor(4 + math.log2(side / 224))
    assert group == min(max(k - 2, 0), 4)


def test_the_routing_constant_scales_with_the_input():
    assert GroupRoIPool(7, 22.4).group_of(torch.tensor([box(11.3)])).item() == 1


def test_every_roi_is_pooled_from_the_feature_of_its_group():
    pool, maps = GroupRoIPool(5, 32), features()
    sides = [4, 20, 40, 70, 120]
    proposals = [torch.tensor([box(s) for s in sides]), torch.tensor([box(50.0), box(10.0)])]
    pooled = pool(maps, proposals, [(128, 128)] * 2)
    assert pooled.shape == (7, 4, 5, 5)
    rois = [(b, roi) for b, boxes in enumerate(proposals) for roi in boxes]
    for row, (image, roi) in zip(pooled, rois, strict=True):
        g = pool.group_of(roi[None]).item()
        alone = roi_align(
            maps[str(g)],
            torch.cat([torch.tensor([float(image)]), roi])[None],
            5,
            spatial_scale=1 / STRIDES[g],
            sampling_ratio=2,
            aligned=True,
        )
        assert torch.allclose(row, alone[0], atol=1e-6)


def test_pooling_without_rois():
    pooled = GroupRoIPool(5, 32)(features(), [torch.zeros(0, 4)] * 2, [(128, 128)] * 2)
    assert pooled.shape == (0, 4, 5, 5)


def test_groups_that_read_one_feature_answer_differently():
    objectness, deltas = GroupRPNHead(4)(list(features().values()))
    assert not torch.equal(objectness[0], objectness[1])
    assert not torch.equal(deltas[2], deltas[3])
    assert [o.shape[1:] for o in objectness] == [(3, 128 // s, 128 // s) for s in STRIDES]


def test_sharing_the_convolution_keeps_the_outputs_apart():
    head = GroupRPNHead(4, share_convolution=True)
    objectness, _ = head(list(features().values()))
    assert len(head.convolutions) == 1
    assert not torch.equal(objectness[0], objectness[1])
