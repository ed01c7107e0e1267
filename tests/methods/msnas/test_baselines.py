from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18, resnet34, resnet50

from msnas_optuna.methods.base import BaselineDetector
from msnas_optuna.methods.msnas.baselines import ResNetFPN
from msnas_optuna.methods.msnas.cost import RESNET_WIDTHS, EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.method import MSNAS
from msnas_optuna.methods.msnas.sections import DetectorSection, SpaceSection
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.study.config import load_config
from msnas_optuna.study.setting import Setting

STUDIES = Path(__file__).parents[3] / "studies"
SETTINGS = ["quickstart", "custom", *MSNAS.presets]


def offered(name: str, setting: str) -> tuple[BaselineDetector, SpaceSection, EncoderCost, float]:
    if setting in MSNAS.presets:
        preset = MSNAS.presets[setting]
        section, target = preset.section, preset.target
        cost = MSNAS.cost(section, input_size=preset.input_size)
    else:
        study = Setting(load_config(STUDIES / f"{setting}.toml"))
        section, cost, target = study.config.space, study.cost, study.target
    return MSNAS.baseline_detector(name, section, cost, target=target), section, cost, target


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MSNAS.baselines)
def test_scaled_ones_cost_what_the_study_may(name, setting):
    found, _, _, target = offered(name, setting)
    assert found.scaled == name.endswith("-scaled")
    if found.scaled:
        assert found.cost == pytest.approx(target, rel=0.02)


@pytest.mark.parametrize("name", MSNAS.baselines)
def test_the_stated_cost_is_that_of_the_network(name):
    found, section, cost, _ = offered(name, "quickstart")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        size = cost.input_size
        model = found.build(section, DetectorSection(), n_classes=3, image_size=size).eval()
        model.rpn.head(model.encoder(torch.zeros(1, 3, *size)))
    assert found.cost == counter.get_total_flops() // 2


@pytest.mark.parametrize("body", ["r18", "r34", "r50"])
def test_the_full_size_is_the_known_closed_form(body):
    section = SpaceSection(n_blocks=13, channels=256)
    cost = EncoderCost("basic", 256, (832, 1280))
    found = MSNAS.baseline_detector(f"ResNet-{body[1:]}-FPN", section, cost, target=1e9)
    assert found.cost == fpn_baseline(body, (832, 1280))


@pytest.mark.parametrize(
    ("body", "make"), [("r18", resnet18), ("r34", resnet34), ("r50", resnet50)]
)
def test_the_full_size_body_is_torchvisions(body, make):
    with torch.device("meta"):
        theirs = make(weights=None).state_dict()
        ours = ResNetFPN(body, RESNET_WIDTHS, channels=256).state_dict()
    renamed = {
        name.replace("stem.convolution.0", "conv1")
        .replace("stem.convolution.1", "bn1")
        .replace("stages.0", "layer1")
        .replace("stages.1", "layer2")
        .replace("stages.2", "layer3")
        .replace("stages.3", "layer4"): tensor.shape
        for name, tensor in ours.items()
        if not name.startswith("pyramid")
    }
    assert renamed == {n: t.shape for n, t in theirs.items() if not n.startswith("fc")}


def test_the_groups_read_p2_to_p6_of_the_same_values_as_torchvision():
    torch.manual_seed(0)
    encoder, theirs = ResNetFPN("r18", RESNET_WIDTHS, channels=16).eval(), resnet18().eval()
    images = torch.randn(1, 3, 128, 192)
    theirs.load_state_dict(
        dict(
            zip(
                [n for n in theirs.state_dict() if not n.startswith("fc")],
                [t for n, t in encoder.state_dict().items() if not n.startswith("pyramid")],
                strict=True,
            )
        ),
        strict=False,
    )
    with torch.no_grad():
        features = encoder(images)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        for i in range(4):
            x = getattr(theirs, f"layer{i + 1}")(x)
        top = encoder.pyramid.layer_blocks[3](encoder.pyramid.inner_blocks[3](x))
    assert torch.allclose(features[3], top, atol=1e-5)
    shapes = [tuple(feature.shape) for feature in features]
    assert shapes == [(1, 16, 128 // s, 192 // s) for s in encoder.feature_strides()]


def test_what_cannot_be_scaled_is_refused_with_the_repair():
    section = SpaceSection(n_blocks=7, channels=32)
    cost = EncoderCost("basic", 32, (128, 128), 32)
    with pytest.raises(InvalidArchitectureError, match=r"ResNet-50.* 2% .* raise the budget"):
        MSNAS.baseline_detector("ResNet-50-FPN-scaled", section, cost, target=2e7)
    grouped = SpaceSection(n_blocks=7, channels=32, norm="group")
    with pytest.raises(InvalidArchitectureError, match=r"space\.norm = 'batch'"):
        MSNAS.baseline_detector("ResNet-18-FPN", grouped, cost, target=1e8)
