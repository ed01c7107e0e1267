"""An ablation of the paper (Tables 2-5): a study file, and the same with a few keys changed.

Each arm has a study of its own for every seed, which the other verbs read as any other. All
ablations of a folder share the unchanged arm; arms with equal supernets train it once, and an
architecture that both have found, too. Needs no torch.
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

BASE: Final = "base"  # the arm without changes, and the file of its setting

_OF_SUPERNET: Final = ("space", "detector", "data", "supernet")


@dataclass(frozen=True)
class Arm:
    """One of the two settings that are compared."""

    title: str
    paper: Mapping[str, float]  # of MSNAS-R18: mean, variance and max in percent; tau
    changes: Mapping[str, Mapping[str, Any]]  # section -> key -> value; none for the base


@dataclass(frozen=True)
class Ablation:
    """Two arms by name, the changed one first; the other one is `BASE`."""

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
        """Writes the study file of each arm for a seed, with the window of the base for both.

        Args:
            base: the setting that one arm changes.
            folder: of the ablations; a seed has a folder in it.
            seed: of supernet, search and retraining.
            trials: of each search, by default those of the base.

        Raises:
            ValueError: the base has what the arm changes, so that there is nothing to compare.
            OSError: a file cannot be written.
        """
        trees = {name: _tree(base, arm) for name, arm in self.arms.items()}
        files = {}
        for name, tree in trees.items():
            if name != BASE and tree == trees[BASE]:
                changes = self.arms[name].changes
                keys = [f"{section}.{key}" for section, own in changes.items() for key in own]
                raise ValueError(
                    f"both arms of {self.name} are equal: {base.study_file} has the value of "
                    f"{', '.join(keys)} that the arm {name!r} sets; change it there"
                )
            shares = all(tree[section] == trees[BASE][section] for section in _OF_SUPERNET)
            study = tree["study"] | {
                "name": f"{name}-seed-{seed}",
                "run_dir": BASE if shares else name,
                "trials": trials or base.config.study.trials,
                "seed": seed,
            }
            text = f"# {self.arms[name].title}; `msnas ablation` writes this file anew.\n"
            for section, keys_of in (tree | {"study": study}).items():
                text += f"\n[{section}]\n"
                text += "".join(f"{key} = {toml(value)}\n" for key, value in keys_of.items())
            files[name] = folder / f"seed-{seed}" / f"{name}.toml"
            with atomic_write(files[name]) as file:
                file.write(text.encode())
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
