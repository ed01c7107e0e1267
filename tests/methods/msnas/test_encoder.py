from __future__ import annotations

import numpy as np
import pytest
import torch

from msnas_optuna.methods.msnas.encoder import CANDIDATES, MSNASEncoder, ResidualBlock
from msnas_optuna.methods.msnas.space import Architecture, MSNASSpace
from msnas_optuna.spaces.lattice import Lattice


def encoder(block="basic", *, only=None, n=7, norm="batch"):
    torch.manual_seed(0)
    return MSNASEncoder(n, block, channels=8, stem_channels=12, norm=norm, only=only).eval()


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_path_alone_equals_the_supernet_on_it(block, norm):
    supernet, images = encoder(block, norm=norm), torch.randn(2, 3, 128, 192)
    paths = Lattice(MSNASSpace(7))
    rng = np.random.default_rng(0)
    for path in paths.sample(rng, 6):
        alone = encoder(block, only=path, norm=norm)
        weights = supernet.state_dict()
        alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
        with torch.no_grad():
            ours, theirs = alone(images), supernet(images, path)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_features_have_the_strides_that_the_groups_read():
    path = Architecture((1, 2, 2, 2, 0.5, 0.5, 0.5), (4, 8, 8, 32, 32))
    features = encoder()(torch.randn(2, 3, 128, 192), path)
    assert [f.shape for f in features] == [
        (2, 8, 128 // s, 192 // s) for s in path.feature_strides
    ]
    assert features[1] is features[2]  # one output convolution for one feature


def test_laterals_add_the_latest_stage_end_of_equal_resolution():
    """Eq. 4-6, written out for 4 8 4 8 and compared with the encoder."""
    path = Architecture((1, 2, 0.5, 2), (4, 8, 8, 8, 8))
    net = encoder(only=path, n=4)
    images = torch.randn(1, 3, 128, 128)
    mb = [block[CANDIDATES[s]] for block, s in zip(net.blocks, path.strides, strict=True)]
    with torch.no_grad():
        x1 = mb[0](net.stem(images))
        x2 = mb[1](x1)
        x3 = mb[2](x2) + net.laterals["0"](x1)
        x4 = mb[3](x3) + net.laterals["1"](x2)
        expected = [net.outputs["4"](x3), *[net.outputs["8"](x4)] * 4]
        assert all(torch.equal(a, b) for a, b in zip(net(images), expected, strict=True))


def test_only_the_path_gets_gradients():
    path = Architecture((1, 2, 2, 2, 0.5, 0.5, 0.5), (4, 8, 16, 32, 32))
    net = encoder().train()
    sum(f.sum() for f in net(torch.randn(2, 3, 128, 128), path)).backward()
    used = {name for name, p in net.named_parameters() if p.grad is not None}
    assert used == {name for name, _ in encoder(only=path).named_parameters()}


def test_a_supernet_must_be_told_its_path():
    with pytest.raises(ValueError, match="needs the path"):
        encoder()(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(("stride", "side"), [(0.5, 32), (1.0, 16), (2.0, 8)])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_blocks_double_keep_or_halve(stride, side, block):
    module = ResidualBlock(8, 8, stride=stride, block=block, norm="group")
    channels = 32 if block == "bottleneck" else 8
    assert module(torch.zeros(2, 8, 16, 16)).shape == (2, channels, side, side)
