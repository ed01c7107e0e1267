"""A study whose objective costs nothing but sleep, and a worker of it as a program.

`python cheap.py URL WANTED SECONDS HOURS` evaluates trials until the study has WANTED of them;
each takes about SECONDS, and the clock of the process is wrong by HOURS.
"""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any


def shift_clock(hours: float) -> None:
    """Makes every clock that tells the time of day wrong in this process."""
    shift, seconds = datetime.timedelta(hours=hours), time.time

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return super().now(tz) + shift

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    datetime.datetime = Shifted  # type: ignore[misc]
    time.time = lambda: seconds() + 3600 * hours


if __name__ == "__main__" and float(sys.argv[4]):
    shift_clock(float(sys.argv[4]))  # before anybody imports `datetime` from its module

import optuna  # noqa: E402

from msnas_optuna.methods.msnas.cost import EncoderCost  # noqa: E402
from msnas_optuna.methods.msnas.space import MSNASSpace  # noqa: E402
from msnas_optuna.runtime.interrupts import insist_on_interrupts  # noqa: E402
from msnas_optuna.samplers import ArchitectureSampler  # noqa: E402
from msnas_optuna.samplers.proposals import Settings  # noqa: E402
from msnas_optuna.spaces.lattice import Lattice  # noqa: E402
from msnas_optuna.storage import open_storage, open_study  # noqa: E402
from msnas_optuna.study.workers import evaluate_trials  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = MSNASSpace(7)
COST = EncoderCost("basic", 32, (128, 128), 32)
TARGET = COST.total(SPACE.fpn_like())
LATTICE = Lattice(SPACE, COST, window=(int(0.97 * TARGET), int(1.03 * TARGET)))
SCHEDULE = Settings(10, 8, 2, 0, gene_probability=0.1, max_attempts=100)


def cheap_study(url: str) -> optuna.Study:
    """The study, created or resumed."""
    sampler = ArchitectureSampler(LATTICE, population_size=10, n_children=8, n_random=2, seed=0)
    return open_study(
        open_storage(url), name="s", directions=["maximize"], sampler=sampler, config={"seed": 0}
    )


def value_of(params: dict[str, Any]) -> float:
    """The objective's value of an architecture."""
    return float(sum((i + 1) * params[name] for i, name in enumerate(SPACE.distributions)))


def main() -> None:
    """A worker."""
    url, wanted, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

    def objective(trial: optuna.Trial) -> float:
        params = {name: trial._suggest(name, d) for name, d in SPACE.distributions.items()}
        time.sleep(seconds * (0.5 + trial.number % 3 / 2))
        return value_of(params)

    try:
        with insist_on_interrupts():
            print("ready", flush=True)
            evaluate_trials(cheap_study(url), objective, wanted=wanted)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
