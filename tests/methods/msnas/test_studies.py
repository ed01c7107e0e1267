"""The study files of the published settings: whole, as published, and built on the meta device."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from msnas_optuna.methods import METHODS
from msnas_optuna.methods.msnas.published import PUBLISHED
from msnas_optuna.study.setting import Setting

STUDIES = Path(__file__).parents[3] / "studies"
PRESETS = ("r18", "r34", "r50")

OPTIONAL = {"storage", "test_images", "test_annotations", "shapes", "tolerance"}
"""Of the user's own data, and of a supernet whose paths lie in a window."""


@pytest.fixture(params=PRESETS)
def preset(request):
    return request.param


def setting(preset):
    return Setting.load(STUDIES / f"msnas_{preset}.toml")


def test_every_key_is_spelled_out(preset):
    written = tomllib.loads((STUDIES / f"msnas_{preset}.toml").read_text())
    config = setting(preset).config
    for field in dataclasses.fields(config):
        keys = {own.name for own in dataclasses.fields(getattr(config, field.name))} - OPTIONAL
        assert set(written[field.name]) - OPTIONAL == keys, field.name


def test_the_settings_are_those_of_section_4_1(preset):
    found, published = setting(preset), METHODS["msnas"].presets[preset]
    config = found.config
    assert config.space == published.section
    assert (found.target, found.cost.input_size) == (published.target, published.input_size)
    for recipe in (config.supernet, config.retrain):
        epoch = 118_287 / 32
        assert recipe.rate(0) == pytest.approx(0.00125)
        assert recipe.rate(round(epoch) + 1) == pytest.approx(0.04)
        assert recipe.rate(round(41.9 * epoch)) == pytest.approx(0.04)
        assert recipe.rate(round(42.1 * epoch)) == pytest.approx(0.004)
        assert recipe.rate(round(47.1 * epoch)) == pytest.approx(0.0004)
        assert recipe.steps == round(50 * epoch)
        assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 1e-4)
        assert recipe.batch_size == 32
    tuned, sampler = config.finetune, config.sampler
    assert (tuned.steps, tuned.batch_size, tuned.rate(0)) == (100, 32, 0.004)
    assert (sampler.population_size, sampler.n_children, sampler.n_random) == (50, 50, 10)
    assert config.study.trials == 50 + 20 * (50 + 10)  # P, then T iterations


def test_the_supernet_on_the_meta_device_costs_what_is_counted_and_published(preset):
    found = setting(preset)
    section, method = found.config.space, found.method
    with torch.device("meta"):
        supernet = method.build_detector(
            section, found.config.detector, n_classes=80, image_size=(800, 1333), only=None
        ).eval()
        image = torch.zeros(1, 3, *found.cost.input_size)
    known = [p.architecture for p in PUBLISHED.values() if p.preset == preset]
    for architecture in (found.baseline, *known):
        with FlopCounterMode(display=False) as counter:
            supernet.rpn.head(supernet.encoder(image, architecture))
        assert counter.get_total_flops() // 2 == found.cost.total(architecture)
    targets = {"r18": (145.45, 2), "r34": (182.20, 3), "r50": (197.33, 4)}  # Table 1; nine of 15
    inside = [a for a in known if found.feasible.violation(a) is None]
    assert (found.target / 1e9, len(inside)) == targets[preset]
    low, high = found.window
    assert (low / found.target, high / found.target) == pytest.approx((0.99, 1.01))
