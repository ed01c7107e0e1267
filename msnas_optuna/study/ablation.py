"""An ablation of the paper (Tables 2-5): two arms that differ in a few keys of a study file.

Each arm has a study of its own for every seed, which the other verbs read as any other. Arms with
equal supernets share it, and so do their trainings of one architecture. Needs no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from msnas_optuna.runtime.files import atomic_write
from msnas_optuna.study.config import DATA_PATHS, TEST_PATHS, StudyConfig
from msnas_optuna.study.keys import toml
from msnas_optuna.study.setting import Setting

BASE: Final = "base"  # the study file beside the ablations, whose keys the arms change

_OF_SUPERNET: Final = ("space", "detector", "data", "supernet")


@dataclass(frozen=True)
class Arm:
    """One of the two settings that are compared."""

    title: str
    paper: Mapping[str, float]  # MSNAS-R18's: mean, variance, max in percent; tau
    changes: Mapping[str, Mapping[str, Any]]  # section -> key -> value


@dataclass(frozen=True)
class Ablation:
    """Two arms by name, the plainer one first."""

    name: str
    title: str
    arms: Mapping[str, Arm]

    @classmethod
    def load(cls, path: Path) -> Ablation:
        """Reads an ablation that comes with the package."""
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        arms = {
            name: Arm(arm["title"], arm["paper"], arm.get("changes", {}))
            for name, arm in content["arms"].items()
        }
        return cls(path.stem, content["title"], arms)

    def write_studies(
        self, base: Setting, folder: Path, *, seed: int, trials: int | None = None
    ) -> dict[str, Path]:
        """Writes the study file of each arm for a seed, with the budget of the base for both.

        Args:
            base: the setting that the arms change.
            folder: of the ablation; a seed has a folder in it.
            seed: of supernet, search and retraining.
            trials: of each search, by default those of the base.

        Raises:
            OSError: a file cannot be written.
        """
        trees = {name: _tree(base, arm) for name, arm in self.arms.items()}
        first, *others = ([tree[section] for section in _OF_SUPERNET] for tree in trees.values())
        shared = all(other == first for other in others)
        files = {}
        for name, tree in trees.items():
            tree["study"] |= {
                "name": f"{self.name}-{name}-seed-{seed}",
                "run_dir": "run" if shared else name,
                "seed": seed,
                "trials": trials or base.config.study.trials,
            }
            files[name] = folder / f"seed-{seed}" / f"{name}.toml"
            title = f"# {self.title}: {self.arms[name].title}.\n# Written by `msnas ablation`, anew each time.\n"
            with atomic_write(files[name]) as file:
                file.write((title + _text(tree)).encode())
        return files


def _tree(base: Setting, arm: Arm) -> dict[str, dict[str, Any]]:
    """The sections of an arm's study file, without what differs from seed to seed."""
    tree: dict[str, dict[str, Any]] = TypeAdapter(StudyConfig).dump_python(
        base.config, mode="json", exclude_none=True
    )
    tree["study"].pop("storage", None)  # OPTUNA_STORAGE may name one
    tree["budget"]["target_gflops"] = base.target / 1e9  # the baselines of the arms may differ
    for name in {*DATA_PATHS, *TEST_PATHS} & tree["data"].keys():
        tree["data"][name] = str(Path(tree["data"][name]).absolute())
    for section, changes in arm.changes.items():
        tree[section] |= changes
    return tree


def _text(tree: Mapping[str, Mapping[str, Any]]) -> str:
    """A study file."""
    return "".join(
        f"\n[{section}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
        for section, keys in tree.items()
    )
