from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """A benchmark as a module; its processes must find it by name, too."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def search() -> ModuleType:
    return loaded("search")


@pytest.fixture(scope="session")
def population() -> ModuleType:
    return loaded("population")


@pytest.fixture(scope="session")
def large_study() -> ModuleType:
    return loaded("large_study")


@pytest.fixture(scope="session")
def validation_noise() -> ModuleType:
    return loaded("validation_noise")
