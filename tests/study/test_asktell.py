"""Searches that an external trainer drives: real files, real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.methods.msnas.space import Architecture
from msnas_optuna.samplers import sampler
from msnas_optuna.storage import (
    ERROR,
    PUBLISHED,
    Plan,
    StudyMismatchError,
    read_plan,
    recover_lost_trials,
)
from msnas_optuna.study.asktell import ask, tell
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def value_of(architecture: Architecture) -> float:
    return sum(i * s for i, s in enumerate(architecture.strides, start=1)) / 100


def stored(setting: Setting) -> optuna.Study:
    study = setting.stored_study()
    assert study is not None
    return study


def msnas(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_it_proposes_what_an_ordinary_search_proposes(tiny: Path) -> None:
    setting = Setting.load(tiny)
    while asked := ask(setting):
        tell(setting, asked[0].trial, [value_of(asked[0].architecture)])
    ours = [read_plan(trial) for trial in stored(setting).trials]
    assert len(ours) == setting.config.study.trials

    def objective(trial: optuna.Trial) -> float:
        values = [trial._suggest(n, d) for n, d in setting.space.distributions.items()]
        return value_of(Architecture(tuple(values[:5]), tuple(values[5:])))

    study = optuna.create_study(direction="maximize", sampler=setting.sampler())
    study.optimize(objective, n_trials=len(ours))
    theirs = [read_plan(trial) for trial in study.trials]
    known = {"worker": None, "study": ""}
    assert [replace(p, **known) for p in ours] == [replace(p, **known) for p in theirs]


def test_an_asked_trial_has_all_that_tables_and_figures_look_for(tiny: Path) -> None:
    setting = Setting.load(tiny)
    (asked,) = ask(setting)
    (trial,) = stored(setting).trials
    assert trial.params.keys() == setting.space.distributions.keys()
    assert setting.space.decode(asked.plan.params) == asked.architecture
    assert trial.user_attrs == {
        "arch": str(asked.architecture),
        "gflops": setting.cost.total(asked.architecture) / 1e9,
        "generation": 0,
        "origin": "random",
    }
    assert stored(setting).metric_names == ["AP"]


def test_a_trial_outlives_the_process_that_asked(tiny: Path) -> None:
    subprocess.run([sys.executable, "-m", "msnas_optuna", "ask", tiny], check=True)
    setting = Setting.load(tiny)
    assert recover_lost_trials(stored(setting)) == []
    tell(setting, 0, [0.4])
    assert stored(setting).best_value == 0.4


KILLED = """
import os, signal, sys
from msnas_optuna.study import asktell
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView
asktell.write_plan = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
asktell.ask(Setting.load(sys.argv[1]))
"""


def test_a_trial_that_was_never_printed_is_asked_again(tiny: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tiny])
    assert killed.returncode == -signal.SIGKILL
    setting = Setting.load(tiny)
    (again,) = ask(setting)
    trials = stored(setting).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "RUNNING"]
    assert again.trial == 1
    assert again.plan.params == trials[0].params


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("> /dev/full", "No space left on device"),
        (">&-", "standard output is closed"),
        ("| sleep 0", ""),
    ],
)
def test_a_proposal_that_cannot_be_printed_is_asked_again(
    tiny: Path, output: str, said: str
) -> None:
    setting = Setting.load(tiny)
    ask(setting)
    command = shlex.join([sys.executable, "-m", "msnas_optuna", "ask", str(tiny), "--n", "3"])
    shell = ["bash", "-o", "pipefail", "-c", f"{command} {output}"]
    printed = subprocess.run(shell, stderr=subprocess.PIPE, text=True)
    assert printed.returncode not in (0, 3)
    assert said in printed.stderr
    assert "Traceback" not in printed.stderr
    before = stored(setting).trials
    assert [t.state.name for t in before] == ["RUNNING", *["FAIL"] * (len(before) - 1)]
    again = ask(setting, 3)
    assert [one.plan.params for one in again][: len(before) - 1] == [t.params for t in before[1:]]
    plans = [read_plan(stored(setting).trials[one.trial]) for one in again]
    assert [plan.slot for plan in plans if plan] == [1, 2, 3]


INTERRUPTED = """
import os, signal, sys
from msnas_optuna.study.asktell import ask
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView
ask(Setting.load(sys.argv[1]), 2, show=lambda _: os.kill(os.getpid(), signal.SIGINT))
"""


def test_proposals_are_taken_back_where_showing_them_is_interrupted(tiny: Path) -> None:
    shown = subprocess.run([sys.executable, "-c", INTERRUPTED, tiny], stderr=subprocess.DEVNULL)
    assert shown.returncode == -signal.SIGINT
    assert [t.state.name for t in stored(Setting.load(tiny)).trials] == ["FAIL", "FAIL"]


def test_proposals_are_taken_back_where_the_next_cannot_be_planned(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, write = Setting.load(tiny), sampler.write_plan

    def fails(study: optuna.Study, trial: FrozenTrial, plan: Plan) -> None:
        if trial.number == 1:
            raise OSError("no entropy")
        write(study, trial, plan)

    monkeypatch.setattr(sampler, "write_plan", fails)
    with pytest.raises(OSError, match="no entropy"):
        ask(setting, 2)
    assert [t.state.name for t in stored(setting).trials] == ["FAIL", "FAIL"]
    assert [one.plan.slot for one in ask(setting, 2)] == [0, 1]


def test_telling_twice(tiny: Path) -> None:
    setting = Setting.load(tiny)
    ask(setting, 3)
    for _ in range(2):
        assert tell(setting, 0, [0.4]).values == [0.4]
        assert tell(setting, 1, None).state == TrialState.FAIL
        assert tell(setting, 2, None, repeat=True).state == TrialState.FAIL
    with pytest.raises(ValueError, match=r"trial 0 is complete with \[0\.4\]; to tell something"):
        tell(setting, 0, [0.5])
    with pytest.raises(ValueError, match="trial 0 is complete"):
        tell(setting, 0, None)
    with pytest.raises(ValueError, match="trial 1 has failed; "):
        tell(setting, 1, [0.5])
    with pytest.raises(ValueError, match="trial 1 has failed; "):
        tell(setting, 1, None, repeat=True)
    with pytest.raises(ValueError, match="trial 2 has failed and is handed out again"):
        tell(setting, 2, [0.5])
    assert [t.values for t in stored(setting).trials] == [[0.4], None, None]


def test_a_failure_that_is_to_be_repeated_is_asked_again_at_its_place(tiny: Path) -> None:
    setting = Setting.load(tiny)
    first, second = ask(setting, 2)
    tell(setting, first.trial, None, repeat=True)
    tell(setting, second.trial, None)
    again, after = ask(setting, 2)
    assert again.plan.params == first.plan.params
    assert after.architecture not in (first.architecture, second.architecture)
    plans = [read_plan(t) for t in stored(setting).trials]
    assert [plan.slot for plan in plans if plan] == [0, 1, 0, 2]
    assert all(plan.worker.is_external for plan in plans if plan)


@pytest.mark.parametrize(
    ("number", "values", "message"),
    [
        (0, [float("nan")], r"values must be finite, .* \[nan\]; .* by --state fail"),
        (0, [float("inf")], "values must be finite"),
        (
            0,
            [41.0],
            r"ap is a fraction, from 0 to 1; got 41\. Tell 41 % as 0\.41: a trial that is to",
        ),
        (0, [-0.1], "ap is a fraction, from 0 to 1; got -0.1"),
        (0, [0.4, 1.0], r"one value .* study\.objectives = \['ap'\], .* got \[0\.4, 1\.0\]"),
        (7, [0.4], "has 1 trials, numbered from 0; there is no trial 7"),
    ],
)
def test_values_that_are_refused(
    tiny: Path, number: int, values: list[float], message: str
) -> None:
    setting = Setting.load(tiny)
    ask(setting)
    with pytest.raises(ValueError, match=message):
        tell(setting, number, values)
    assert stored(setting).trials[0].state == TrialState.RUNNING


def test_nothing_can_be_told_before_anything_is_asked(tiny: Path) -> None:
    with pytest.raises(ValueError, match="has not begun, so there is no trial 0; run `msnas ask`"):
        tell(Setting.load(tiny), 0, [0.4])
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.toml"]


def test_several_objectives_in_the_order_of_the_study_file(tiny: Path) -> None:
    text = tiny.read_text().replace("trials = 7", 'trials = 7\nobjectives = ["ap", "latency"]')
    tiny.write_text(text)
    asked = json.loads(msnas("ask", tiny).stdout)
    assert asked["tell"][-2:] == ["--values", "AP,LATENCY"]
    told = json.loads(msnas("tell", tiny, "--trial", 0, "--values", "0.41,12.5").stdout)
    assert told == {"trial": 0, "state": "complete", "values": [0.41, 12.5]}
    assert stored(Setting.load(tiny)).metric_names == ["AP", "latency ms"]


def test_the_ap_of_masks_is_a_fraction_too(tiny: Path) -> None:
    text = tiny.read_text().replace("trials = 7", 'trials = 7\nobjectives = ["ap", "ap_mask"]')
    tiny.write_text(text.replace("[supernet]", "masks = true\n\n[supernet]"))
    setting = Setting.load(tiny)
    ask(setting)
    with pytest.raises(ValueError, match="ap_mask is a fraction, from 0 to 1; got 41"):
        tell(setting, 0, [0.41, 41])
    assert tell(setting, 0, [0.41, 0.37]).values == [0.41, 0.37]
    (best,) = StudyView.load(setting).best
    assert (best.mean("ap_mask"), best.mean("nothing")) == (0.37, None)


def test_seeds_come_first_and_what_is_not_feasible_fails(tiny: Path) -> None:
    text = tiny.read_text().replace("[sampler]", '[sampler]\nseeds = ["fpn-like"]')
    tiny.write_text(text)
    setting = Setting.load(tiny)
    (first,) = ask(setting)
    assert (first.architecture, first.plan.origin) == (setting.space.fpn_like(), "queued")
    outside = next(a for a in (setting.valid.at(i) for i in range(99)) if _violates(setting, a))
    stored(setting).enqueue_trial(setting.space.encode(outside))
    (second,) = ask(setting)
    assert second.architecture != outside
    failed = stored(setting).trials[1]
    assert failed.state == TrialState.FAIL
    assert "GFLOPs" in failed.user_attrs[ERROR]


def test_a_queued_value_that_is_no_choice_fails_its_trial_alone(tiny: Path) -> None:
    setting = Setting.load(tiny)
    ask(setting)
    stored(setting).enqueue_trial({"stride_01": 3})
    (asked,) = ask(setting)
    assert asked.trial == 2
    failed = stored(setting).trials[1]
    assert failed.state == TrialState.FAIL
    assert re.search("stride_01 .*'3' not in", failed.user_attrs[ERROR])


def _violates(setting: Setting, architecture: Architecture) -> bool:
    return setting.feasible.violation(architecture) is not None


def test_concurrent_asks_give_different_architectures(tiny: Path) -> None:
    command = [sys.executable, "-m", "msnas_optuna", "ask", str(tiny), "--n", "2"]
    shells = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    asked = [one for shell in shells for one in json.loads(shell.communicate()[0])]
    assert len({one["architecture"] for one in asked}) == 6
    assert sorted(one["trial"] for one in asked) == list(range(6))


# Values of the supernet and of another trainer


def test_search_refuses_a_study_of_an_external_trainer(tiny: Path) -> None:
    msnas("ask", tiny)
    message = msnas("search", tiny, code=1).stderr
    assert "takes its values from an external trainer (`msnas tell`)" in message
    assert "Continue it with `msnas ask`" in message


def test_ask_and_tell_refuse_a_study_of_the_supernet(tiny: Path) -> None:
    setting = Setting.load(tiny)
    setting.open_study(setting.config.identity() | {"supernet.sha256": "00"})
    with pytest.raises(StudyMismatchError, match="takes its values from the supernet"):
        ask(setting)
    with pytest.raises(StudyMismatchError, match="takes its values from the supernet"):
        tell(setting, 0, [0.4])


def test_results_and_retrain_go_on_from_told_values(tiny: Path) -> None:
    from msnas_optuna.study.experiment import Experiment

    setting = Setting.load(tiny)
    for asked in ask(setting, 3):
        tell(setting, asked.trial, [0.1 * asked.trial])
    best = json.loads(msnas("results", tiny, "--json").stdout)["best"]
    assert [result["trial"] for result in best] == [2, 1, 0]
    study = Experiment.load(tiny).retrain(top=1)
    assert study.trials[0].user_attrs["arch"] == stored(setting).best_trial.user_attrs["arch"]


def test_another_configuration_is_refused_and_named(tiny: Path) -> None:
    ask(Setting.load(tiny))
    tiny.write_text(tiny.read_text().replace("tolerance = 0.05", "tolerance = 0.06"))
    with pytest.raises(StudyMismatchError, match=r"budget.tolerance: 0.05 stored, 0.06 given"):
        ask(Setting.load(tiny))


# The commands


def test_ask_prints_one_object_or_a_list_and_ends_with_3(tiny: Path) -> None:
    one = json.loads(msnas("ask", tiny).stdout)
    assert one["trial"] == 0
    assert one["tell"][:5] == ["msnas", "tell", str(tiny), "--trial", "0"]
    assert Architecture(tuple(one["strides"]), tuple(one["feature_strides"])) == (
        Architecture.parse(one["architecture"])
    )
    rest = json.loads(msnas("ask", tiny, "--n", 50).stdout)
    assert [asked["trial"] for asked in rest] == list(range(1, 7))
    end = msnas("ask", tiny, code=3)
    assert end.stdout == ""
    assert "all 7 trials are told or handed out; raise study.trials" in end.stderr


@pytest.mark.parametrize(
    "options",
    [(), ("--values", "1", "--state", "fail"), ("--values", "1", "--repeat"), ("--repeat",)],
)
def test_tell_needs_values_or_a_failure(tiny: Path, options: tuple[str, ...]) -> None:
    message = msnas("tell", tiny, "--trial", 0, *options, code=1).stderr
    assert "give either --values, or --state fail" in message


@pytest.mark.parametrize("values", ["0.4;5", "0.4_1", "1_000", "٠.٤١"])
def test_values_are_numbers(tiny: Path, values: str) -> None:
    message = msnas("tell", tiny, "--trial", 0, "--values", values, code=1).stderr
    assert "--values are numbers joined by commas" in message


LOOP = """\
while msnas ask study.toml > proposal.json; do
  trial=$(python -c 'import json; print(json.load(open("proposal.json"))["trial"])')
  if ap=$(./train proposal.json); then
    msnas tell study.toml --trial "$trial" --values "$ap"
  else
    msnas tell study.toml --trial "$trial" --state fail
  fi
done
"""

TRAINER = """\
#!{python}
import json, sys
proposal = json.load(open(sys.argv[1]))
if proposal["trial"] == 1:
    sys.exit("diverged")
print(sum(proposal["strides"]) / 100)
"""


@pytest.mark.slow
def test_a_shell_loop_drives_a_whole_search(tiny: Path) -> None:
    tiny.rename(tiny.with_name("study.toml"))
    trainer = tiny.with_name("train")
    trainer.write_text(TRAINER.format(python=sys.executable))
    trainer.chmod(0o755)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", LOOP], cwd=tiny.parent, env={**os.environ, "PATH": path}, check=False
    )
    trials = stored(Setting.load(tiny.with_name("study.toml"))).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", *["COMPLETE"] * 5]


def test_the_dashboard_is_refreshed_once_a_generation_and_at_the_end(tiny: Path) -> None:
    setting = Setting.load(tiny)  # population 3, then 3 trials a generation, 7 in all
    shown = []
    for _ in range(7):
        asked = json.loads(msnas("ask", tiny).stdout)
        msnas("tell", tiny, "--trial", asked["trial"], "--values", 0.1)
        study = stored(setting)
        attributes = study._storage.get_study_system_attrs(study._study_id)
        shown.append(attributes.get(PUBLISHED))
    assert shown == [None, None, 3, 3, 3, 6, 7]
    note = get_note(stored(setting))
    assert f"msnas ask {tiny}" in note
    assert "msnas search" not in note


def test_the_dashboard_is_refreshed_when_the_window_is_exhausted(tiny: Path) -> None:
    text = tiny.read_text().replace("tolerance = 0.05", "tolerance = 0.001")
    tiny.write_text(text)
    setting = Setting.load(tiny)
    n = setting.feasible.count()
    assert 3 < n < setting.config.study.trials
    for _ in range(n):
        asked = json.loads(msnas("ask", tiny).stdout)
        msnas("tell", tiny, "--trial", asked["trial"], "--values", 0.1)
    assert f"{n} of {n} trials finished" in get_note(stored(setting))
