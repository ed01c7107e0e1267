"""The seam between methods and everything else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import msnas_optuna
from msnas_optuna.methods import METHODS

PACKAGE = Path(msnas_optuna.__file__).parent
OF_A_METHOD = re.compile(
    r"fpn|stride_\d|feature_?stride|n_blocks|RPN|^ \| $|MSNASSpace|EncoderCost", re.IGNORECASE
)
GENERIC = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "msnas" not in path.relative_to(PACKAGE).parts and path != PACKAGE / "__init__.py"
]


def words(tree: ast.AST) -> set[str]:
    """Names and texts of a module, without its docstrings."""
    found, docstrings = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as text):
                docstrings.add(text)
            case ast.Constant(value=str(text)) if node not in docstrings:
                found.add(text)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                found.add(name)
            case ast.keyword(arg=str(name)):
                found.add(name)
    return found


def test_generic_code_has_no_word_of_a_method():
    assert len(GENERIC) > 80
    found = {
        (str(path.relative_to(PACKAGE)), word)
        for path in GENERIC
        for word in words(ast.parse(path.read_text()))
        if OF_A_METHOD.search(word)
    }
    assert not found


def test_words_of_a_method_are_recognized():
    source = '"encoder"\ndef f(space):\n    "stride_01"\n    return space.fpn_like().split(" | ")'
    assert {word for word in words(ast.parse(source)) if OF_A_METHOD.search(word)} == {
        "fpn_like", " | "
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_is_described_without_torch(method):
    code = (
        "import sys; from msnas_optuna.methods import METHODS\n"
        f"method = METHODS[{method.name!r}]\n"
        "for preset in method.presets.values():\n"
        "    space = method.space(preset.section)\n"
        "    cost = method.cost(preset.section, input_size=preset.input_size)\n"
        "    baseline = method.baseline_architecture(space)\n"
        "    assert method.picture(baseline, name='baseline', cost=cost).panels\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_a_method_offers_fits_together(method):
    assert METHODS[method.name] is method
    assert "ap" in method.metrics
    for name, preset in method.presets.items():
        assert preset.section.method == method.name
        space = method.space(preset.section)
        cost = method.cost(preset.section, input_size=preset.input_size)
        baseline = method.baseline_architecture(space)
        known = [p.architecture for p in method.published.values() if p.preset == name]
        for architecture in (baseline, *known):
            assert space.violation(architecture) is None
            assert method.resolve(str(architecture), space) == architecture
            cells = {c.key: c.text(architecture) for c in method.columns}
            assert method.resolve(method.notation(cells), space) == architecture
            parts = method.cost_parts(architecture, cost)
            assert sum(part.amount for part in parts) == cost.total(architecture)
            for heatmap in method.heatmaps.values():
                assert set(heatmap.values(architecture)) <= set(heatmap.scale)
        assert method.resolve(method.baseline_stage, space) == baseline
    for name, one in method.published.items():
        space = method.space(method.presets[one.preset].section)
        assert method.resolve(name, space) == one.architecture
