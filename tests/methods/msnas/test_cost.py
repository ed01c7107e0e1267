from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.rpn import RPNHead

from msnas_optuna.methods.msnas.cost import EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.encoder import MSNASEncoder, ResidualBlock
from msnas_optuna.methods.msnas.heads import GroupRPNHead
from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.models.blocks import Stem


def counted(run) -> int:
    """Multiply-adds by PyTorch's own counter, which counts each as two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stride", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("index", [0, 1])
def test_every_block_type_and_stride_equals_the_counter(block, stride, index):
    cost = EncoderCost(block, 24, (128, 192), stem_channels=40)
    C_in = 40 if index == 0 else cost.out_channels

    def run():
        module = ResidualBlock(C_in, 24, stride=stride, block=block, norm="batch")
        module(torch.zeros(1, C_in, 128 // 16, 192 // 16))

    absolute = int(16 * stride)
    closed = cost.mixed_block(index, absolute_stride=absolute, stride=stride)
    assert closed == counted(run)


def test_a_basic_block_of_equal_channels_has_no_projection():
    cost = EncoderCost("basic", 64, (128, 128), stem_channels=64)
    assert cost.mixed_block(0, absolute_stride=4, stride=1.0) == 2 * 9 * 64 * 64 * 32 * 32


def test_the_stem_equals_the_counter():
    cost = EncoderCost("basic", 24, (128, 192), stem_channels=40)
    assert cost.base == counted(lambda: Stem(40, norm="batch")(torch.zeros(1, 3, 128, 192)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_equal_the_counter_and_the_published_target(name):
    preset = PRESETS[name.split("-")[0]]
    architecture = PUBLISHED[name].architecture
    cost = EncoderCost.from_preset(name.split("-")[0])

    def run():
        encoder = MSNASEncoder(
            preset.n_blocks, preset.block, channels=preset.channels, only=architecture
        ).eval()  # batch norm takes the counter longer in training
        GroupRPNHead(preset.channels)(encoder(torch.zeros(1, 3, *preset.input_size)))

    total = cost.total(architecture)
    assert total == counted(run)
    assert total / 1e9 == pytest.approx(preset.target_gflops, rel=0.021)  # all fifteen


@pytest.mark.parametrize(("name", "gflops"), [("r18", 145.31), ("r34", 184.57), ("r50", 199.70)])
def test_fpn_baselines_equal_the_counter(name, gflops):
    def run():
        backbone = resnet_fpn_backbone(
            backbone_name=f"resnet{name[1:]}", weights=None, norm_layer=nn.BatchNorm2d
        )
        RPNHead(256, 3)(list(backbone(torch.zeros(1, 3, 832, 1280)).values()))

    assert fpn_baseline(name) == counted(run)
    assert fpn_baseline(name) / 1e9 == pytest.approx(gflops, abs=0.005)


def test_the_parts_add_up():
    cost = EncoderCost("bottleneck", 16, (128, 128))
    architecture = MSNASSpace(9).fpn_like()
    parts = cost.breakdown(architecture)
    every = (parts.stem, *parts.blocks, *parts.laterals, *parts.outputs.values(), *parts.rpn)
    assert sum(every) == cost.total(architecture)
    assert [i for i, flops in enumerate(parts.laterals) if flops] == list(architecture.laterals)


def test_input_sizes_must_be_multiples_of_the_largest_stride():
    with pytest.raises(ValueError, match="multiples of 64"):
        EncoderCost("basic", 16, (800, 1333))
