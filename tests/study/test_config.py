from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
import typing
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from msnas_optuna.methods import METHODS
from msnas_optuna.samplers import ArchitectureSampler
from msnas_optuna.study.config import ConfigError, _config_type, load_config
from msnas_optuna.study.keys import toml, unpacked, values

MINIMAL = """
[study]
name = "mine"
[space]
n_blocks = 7
channels = 32
[data]
shapes = {}
[supernet]
steps = 10
[retrain]
steps = 10
"""

STUDIES = Path(__file__).parents[2] / "studies"


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def changed(old: str, new: str) -> str:
    assert old in MINIMAL
    return MINIMAL.replace(old, new)


def test_a_minimal_file_has_the_sampler_s_defaults(tmp_path):
    config = load_config(write(tmp_path, MINIMAL))
    sampler = inspect.signature(ArchitectureSampler).parameters
    for setting in dataclasses.fields(config.sampler):
        if setting.name != "seeds":
            assert getattr(config.sampler, setting.name) == sampler[setting.name].default
    assert config.study.run_dir == tmp_path / "run"


PAPER = {
    "space.stem_channels": (64, None),
    "budget.tolerance": (0.01, None),
    "data.image_size": ((800, 1333), None),
    "detector.anchor_base": (32, None),
    "supernet.batch_size": (32, "the paper: 32."),
    "supernet.learning_rate": (0.04, "the paper: 0.04."),
    "supernet.optimizer": ("sgd", '"sgd" (the paper\'s)'),
    "supernet.momentum": (0.9, "0.9 is the paper's."),
    "supernet.weight_decay": (1e-4, "The paper: 1e-4."),
    "supernet.schedule": ("step", '"step" (the paper\'s)'),
    "supernet.warmup": (1 / 50, "the paper: one epoch, 0.02."),
    "supernet.warmup_start": (0.00125 / 0.04, "1/32 is the paper's."),
    "supernet.clip_norm": (0, "The paper names none."),
    "supernet.ema": (0, None),
    "finetune.steps": (100, "100 is the paper's."),
    "finetune.batch_size": (32, "32 is the paper's."),
    "finetune.learning_rate": (0.004, "0.004 is the paper's."),
    "finetune.recalibration_batches": (0, None),
}
"""§4.1, and the words of the reference; without words the default is the paper's."""


@pytest.mark.parametrize("key", PAPER)
def test_a_default_is_the_paper_s_or_the_reference_names_the_paper_s(tmp_path, key):
    section, name = key.split(".")
    published, words = PAPER[key]
    default = getattr(getattr(load_config(write(tmp_path, MINIMAL)), section), name)
    page = (STUDIES.parent / "docs" / "study-file.md").read_text()
    _, _, text = page.partition(f"## [{section}]")
    (row,) = re.findall(rf"^\| `{name}` \|.*", text.partition("\n## ")[0], re.MULTILINE)
    assert words is None or words in row
    is_ours = words is not None and not words.endswith("is the paper's.")
    assert (default == published) == (not is_ours)


def test_a_key_that_is_left_out_of_finetune_has_the_default_of_a_section_that_is(tmp_path):
    whole = load_config(write(tmp_path, MINIMAL)).finetune
    part = load_config(write(tmp_path, MINIMAL + "[finetune]\nclip_norm = 1.0")).finetune
    assert part == dataclasses.replace(whole, clip_norm=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            changed("n_blocks = 7", "n_block = 7"),
            r"space\.n_block: unknown key, did you mean n_blo",
        ),
        (
            changed("n_blocks = 7", "n_blocks = 7\nmethod = 'x'"),
            r'space\.method: expected "msnas", got "x"; .*leave it out for the default "msnas"',
        ),
        (
            changed("n_blocks = 7", "n_blocks = 7\nmethod = 3"),
            r'space\.method: expected "msnas", got 3',
        ),
        (MINIMAL.replace("[space]", "[spce]"), r"space: this key is required; add it"),
        (MINIMAL + "[detector]\nhiden = 3", r"detector\.hiden: .*did you mean hidden\?"),
        (MINIMAL + "[detector]\nhidden = 0", r"detector\.hidden: .*for the default 1024"),
        (
            MINIMAL + "[sampler]\nrecombination_probability = 1.0",
            r'sampler\.recombination_probability: this key is gone; .*proposer = "recombination"',
        ),
        (
            MINIMAL + "[sampler]\nwindow = 4",
            r"sampler\.window: this key is gone; remove it: the operators",
        ),
        (MINIMAL + "[samplr]\nx = 1", r"samplr: unknown key, did you mean sampler\?"),
        (changed("shapes = {}", "shapes = {trian = 5}"), r"data\.shapes\.trian: unknown key, did"),
        (changed("n_blocks = 7", ""), r"space\.n_blocks: this key is required; add it"),
        (
            changed("n_blocks = 7", "n_blocks = '7'"),
            r'space\.n_blocks: expected whole number from 3 to 32, got "7"',
        ),
        (changed("n_blocks = 7", "n_blocks = 2"), r"space\.n_blocks: .* from 3 to 32, got 2"),
        (
            changed("channels = 32", "channels = 32.5"),
            r"space\.channels: .*whole number.*, got 32\.5",
        ),
        (
            changed("channels = 32", "channels = 32\nblock = 'wide'"),
            r'space\.block: expected "basic" or',
        ),
        (
            changed("n_blocks = 7", "n_blocks = 4\nfeature_strides = 'fpn'"),
            r"space: n_blocks must be a whole number in 5\.\.32 with FPN-style .*, got 4; change",
        ),
        (changed('"mine"', '"../x"'), r'study\.name: .*letters.*, got "\.\./x"'),
        (changed('"mine"', '"mine-fpn-like"'), r"study\.name: a name ending in -fpn-like"),
        (changed('"mine"', '"mine-retrain"'), r"study\.name: a name ending in -retrain"),
        (changed('"mine"', '"mine-rank-20"'), r"study\.name: a name ending in -rank-20"),
        (changed("shapes = {}", ""), r"data\.train_images, .*required unless \[data\.shapes\]"),
        (changed("shapes = {}", "shapes={}\ntrain_images='x'"), r"either \[data\.shapes\] or"),
        (
            changed("shapes = {}", "shapes={}\nimage_size=[9]"),
            r"data\.image_size: expected array of 2: .*, got \[9\]",
        ),
        (changed("shapes = {}", "shapes={}\nimage_size=[640, 480]"), r"write \[480, 640\]"),
        (changed("shapes = {}", "shapes={}\nsize_bounds=[9, 9]"), r"size_bounds: the bounds must"),
        (MINIMAL + "[budget]\ninput_size = [800, 1333]", r"write \[832, 1344\]"),
        (MINIMAL + "[budget]\ntolerance = 1.5", r"budget\.tolerance: .*< 1, got 1\.5"),
        (MINIMAL + "[budget]\ntarget_gflops = 0", r"budget\.target_gflops: .*> 0, got 0"),
        (MINIMAL + "[runtime]\ndevice = 'tpu'", r'runtime\.device: expected "auto"'),
        (MINIMAL.replace("steps = 10", "steps = 0", 1), r"supernet\.steps: .*greater than 0"),
        (
            changed('"mine"', '"mine"\nobjectives=["gflops", "ap"]'),
            r"objectives: 'ap' comes first",
        ),
        (changed('"mine"', '"mine"\nobjectives=["ap", "ap"]'), r"objectives: .*none comes twice"),
        (
            changed('"mine"', '"mine"\nobjectives=["ap", "mb"]'),
            r"objectives: .*'ap_mask'\], got 'mb'",
        ),
        (MINIMAL + "[sampler]\nseeds = ['r18-5']", r"seeds: 'r18-5' .* has 7 blocks, .* 13"),
        (
            MINIMAL + "[sampler]\nseeds = ['fpn']",
            r"sampler\.seeds: no architecture is called 'fpn'",
        ),
        (
            MINIMAL + "[sampler]\nn_reevaluated = -1",
            r"n_reevaluated: .*from 0 to 2,147,483,647, got -1",
        ),
        ("[study", "is no TOML file"),
        (MINIMAL + "[budget]\ntarget_gflops = inf", r"budget\.target_gflops: "),
        (MINIMAL.replace('"mine"', '"mine"\nstorage = "nonsense"'), r"study\.storage: a storage"),
        (MINIMAL + "[budget]\ntolerance = 'x'", r"leave it out for the default 0\.01"),
        (
            changed("shapes = {}", "shapes = {}\nimage_size = [64, 64]").replace(
                "steps = 10", "steps = 10\nbatch_size = 1", 1
            ),
            r"supernet\.batch_size: batch norm needs two values .*norm = 'group'",
        ),
        (MINIMAL + "[budget]\ntolerance = 1979-05-27", r"budget\.tolerance: .*number"),
    ],
)
def test_errors_name_file_key_rule_and_value(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(write(tmp_path, text))
    assert "study.toml" in str(error.value)


def keys(kind: Any, *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All keys and tables of a study file, with what they may be."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        yield (*above, name), hint
        if dataclasses.is_dataclass(inner := unpacked(hint)[0]):
            yield from keys(inner, *above, name)


KEYS = {".".join(key): (key, hint) for key, hint in keys(_config_type(METHODS["msnas"]))}


WRONG = {
    "text": "x y",
    "whole number": 10**23,
    "number": -1.5,
    "boolean": True,
    "date": date(1979, 5, 27),
    "array": [1, "x", 2.5],
    "nested array": [[1, 2]],
    "table": {"x": 1},
    "array of tables": [{"x": 1}],
}
"""Values in none of the ranges, one of each kind that TOML has."""


FOREIGN = {
    "Input", "JSON", "json", "valid", "dictionary", "integer", "tuple", "string", "str",
    "None", "True", "False", "pattern", "datetime",
}  # fmt: skip
"""Words of Python and pydantic."""


@pytest.mark.parametrize("name", KEYS)
def test_a_wrong_type_is_told_in_the_words_of_toml(tmp_path, name):
    key, hint = KEYS[name]
    for kind, value in WRONG.items():
        tree = tomllib.loads(MINIMAL) | {"finetune": {"steps": 1}}
        inner = tree
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = value
        text = "\n".join(f"{part} = {toml(given)}" for part, given in tree.items())
        try:
            load_config(write(tmp_path, text))
        except ConfigError as error:
            message = str(error)
        else:
            wanted = values(hint)
            assert (kind, wanted) in {("text", "path"), ("boolean", "true or false")} or (
                kind == "whole number" and re.fullmatch("number >=? 0", wanted)
            )
            continue
        assert ".".join(key) in message or f"{'.'.join(key[:-1])}: " in message
        for line in message.splitlines():
            words = re.sub(r'"[^"]*"', "", line)  # values that a key may have are no words
            assert not set(re.findall(r"\w+", words)) & FOREIGN, line
            if "expected " in line:
                assert line.startswith(f"{tmp_path / 'study.toml'}: {'.'.join(key)}: expected ")
                assert f", got {toml(value):.80}; " in line
                assert line.endswith(("change it", "its keys")) or "for the default" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "x = " + "[" * 3000 + "]" * 3000,
            "study.toml: tables and arrays lie at most 10 deep",
        ),
        (
            MINIMAL + "x = " + "[" * 150 + "]" * 150,
            "study.toml: tables and arrays lie at most 10 deep",
        ),
        (MINIMAL + f"[{'a.' * 500}a]", "study.toml: tables and arrays lie at most 10 deep"),
        (MINIMAL + f"x = {'9' * 5000}", "and numbers have at most 4,300 digits"),
        (MINIMAL + f"x = 0x{'f' * 5000}", "and numbers have at most 4,300 digits"),
        (MINIMAL + f"[budget]\ntolerance = {'9' * 4000}", "budget.tolerance: expected number"),
        (MINIMAL + f"[budget]\ntolerance = 1e{'9' * 5000}", "budget.tolerance: expected number"),
    ],
    ids=["brackets", "fewer brackets", "dots", "digits", "hexadecimal", "long", "exponent"],
)
def test_an_endless_value_ends_in_a_sentence(tmp_path, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_config(write(tmp_path, text))
    assert len(str(error.value)) < 500


def test_every_broken_rule_is_told_at_once(tmp_path):
    text = changed("n_blocks = 7", "n_blocks = 99").replace("channels = 32", "channel = 32")
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, text))
    lines = str(error.value).splitlines()
    assert len(lines) == 3  # n_blocks too large, channel unknown, channels missing


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the study file .*absent\.toml: No such"):
        load_config(tmp_path / "absent.toml")


def test_what_a_study_is_leaves_out_where_it_runs(tmp_path):
    first = load_config(write(tmp_path, MINIMAL)).identity()
    moved = MINIMAL.replace('"mine"', '"mine"\ntrials = 7\nrun_dir = "elsewhere"')
    moved += "[runtime]\nthreads = 3"
    assert load_config(write(tmp_path, moved)).identity() == first
    assert "space.method" not in first  # as in what earlier versions have stored
    named = changed("n_blocks = 7", "n_blocks = 7\nmethod = 'msnas'")
    assert load_config(write(tmp_path, named)).identity() == first
    other = load_config(write(tmp_path, changed("channels = 32", "channels = 48"))).identity()
    assert {k for k in first if first[k] != other[k]} == {"space.channels"}
    for line in ('feature_strides = "searched"', "constraints = true"):  # came with Tables 2 and 3
        assert f"space.{line.split()[0]}" not in first
        same = changed("n_blocks = 7", f"n_blocks = 7\n{line}")
        assert load_config(write(tmp_path, same)).identity() == first
    free = changed("n_blocks = 7", "n_blocks = 7\nconstraints = false")
    assert load_config(write(tmp_path, free)).identity() == first | {"space.constraints": False}


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(STUDIES.rglob("*.toml")) if "study" in tomllib.loads(p.read_text())],
    ids=lambda p: p.stem,
)
def test_shipped_study_files_are_correct(path):
    load_config(path)
