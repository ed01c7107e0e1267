from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.cli.search import shipped_study
from msnas_optuna.methods.msnas.cost import EncoderCost, fpn_baseline
from msnas_optuna.methods.msnas.published import PUBLISHED
from msnas_optuna.study.experiment import Experiment


def msnas(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def as_json(*arguments: str | Path):
    return json.loads(msnas(*arguments, "--json").stdout)


R18_5 = ("--strides", "1,2,.5,2,1,2,1,2,1,.5,1,.5,2", "--feature-strides", "8,8,16,16,32")


def test_flops_prints_the_unrounded_total_of_a_published_setting():
    counted = as_json("flops", "--preset", "r18", *R18_5)
    expected = EncoderCost.from_preset("r18").total(PUBLISHED["r18-5"].architecture) / 1e9
    assert counted["gflops"] == expected
    assert counted["input_size"] == [832, 1280]
    assert counted["unit"] == "1e9 multiply-adds of encoder + RPN head"
    assert counted["feature_strides"] == [8, 8, 16, 16, 32]
    parts = {part["part"]: part for part in counted["parts"]}
    assert parts["block 3"] | {"gflops": 0} == {
        "part": "block 3", "stride": "0.5", "absolute stride": "4", "gflops": 0
    }  # fmt: skip
    assert sum(part["gflops"] for part in counted["parts"]) == pytest.approx(expected)
    assert counted["reference_gflops"] == {"R18-FPN baseline": fpn_baseline("r18") / 1e9}
    assert as_json("flops", "--published", "r18-5") == counted
    text = "1 2 .5 2 1 2 1 2 1 .5 1 .5 2 | 8 8 16 16 32"
    assert as_json("flops", "--preset", "r18", "--architecture", text) == counted


@pytest.mark.parametrize("preset", ["r18", "r34", "r50"])
def test_flops_table_shows_every_block_and_the_baseline(preset):
    table = msnas("flops", "--published", f"{preset}-1").stdout
    n = len(PUBLISHED[f"{preset}-1"].architecture.strides)
    assert f"block {n} " in table
    assert f"{fpn_baseline(preset) / 1e9:.4f}" in table


def test_flops_of_a_study(tiny):
    counted = as_json(
        "flops", "--study", tiny, "--strides", "1,2,2,.5,.5", "--feature-strides", "4,8,16,16,16"
    )
    assert counted["input_size"] == [128, 128]
    assert counted["reference_gflops"] == {}
    assert as_json("flops", "--study", tiny, "--architecture", "fpn-like")["gflops"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flops", "--preset", "r19", *R18_5), "--preset must be one of r18, r34, r50"),
        (("flops", *R18_5), "give one of --preset"),
        (("flops", "--preset", "r18"), "give either --strides and --feature-strides"),
        (("flops", "--preset", "r34", *R18_5), "21 blocks, the architecture 13 strides"),
        (("flops", "--published", "r18-9"), "--published must be one of"),
        (
            ("flops", "--published", "r18-1", *R18_5),
            "give either --strides and --feature-",
        ),
        (
            ("flops", "--published", "r18-1", "--strides", "1,2"),
            "give either --strides and --feature-",
        ),
        (
            ("flops", "--published", "r18-1", "--architecture", "r18-2"),
            "or --architecture, or --published",
        ),
        (("flops", "--preset", "r18", "--stride", "1"), "there is no option --stride; see"),
        (("flops", "--preset", "r18", "--strides", "a", "--feature-strides", "8"), "reads '1 2"),
        (("space",), "give either STUDY.toml or --preset"),
        (("space", "absent.toml", "--preset", "r18"), "give either STUDY.toml or --preset"),
        (("space", "absent.toml"), "cannot read the study file absent.toml"),
        (("space", "--preset", "r19"), "preset must be one of r18, r34, r50, got 'r19'"),
        (("space", "--preset", "r18", "--figure", "x.pdf"), "a .html or .json file, got x.pdf"),
        (("train", "absent.toml"), "cannot read the study file absent.toml"),
    ],
)
def test_mistakes_end_with_one_clear_line(arguments, message):
    result = msnas(*arguments, code=1)
    assert message in result.stderr
    assert result.stdout == ""


WITHOUT_TORCH = """
import sys
from msnas_optuna.cli import app
for command in (
    ["flops", "--published", "r18-1"],
    ["ask", "tiny.toml"],
    ["tell", "tiny.toml", "--trial", "0", "--values", "1"],
    ["doctor", "tiny.toml"],
    ["space", "--preset", "r18", "--figure", "r18.html"],
    ["space", "tiny.toml", "--json"],
):
    try:
        app(command)
    except SystemExit as end:
        assert not end.code, command
    assert "torch" not in sys.modules, command
    assert command[0] == "space" or "plotly" not in sys.modules, command
"""


def test_commands_that_train_nothing_need_no_torch_and_no_plots(tiny):
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, cwd=tiny.parent)


def test_space_of_a_published_setting():
    found = as_json("space", "--preset", "r18")
    assert (found["valid"], found["in_window"]) == (13_003_499, 209_524)
    assert found["counts"] == {"valid stride paths": 293_867}
    assert found["target_gflops"] == 145.45
    assert found["reference_gflops"] == {"R18-FPN baseline": fpn_baseline("r18") / 1e9}
    assert sum(found["histogram"]["counts"]) == found["valid"]
    assert len(found["histogram"]["edges_gflops"]) == len(found["histogram"]["counts"]) + 1
    low, high = found["range_gflops"]
    assert [found["quantiles_gflops"][q] for q in ("0", "1")] == [low, high]
    assert found["best_channels"] == 160
    assert {"channels": 180, "in_window": 209_524} in found["channels_scan"]
    assert found["anchors"] is None


def test_space_of_the_quickstart(tmp_path):
    text = shipped_study("quickstart.toml").read_text()
    few = text.replace("train = 3000, val = 150", "train = 20, val = 1")
    (tmp_path / "quickstart.toml").write_text(few)
    found = as_json("space", tmp_path / "quickstart.toml")
    assert (found["valid"], found["in_window"]) == (16_363, 297)
    assert found["baseline_gflops"] == found["target_gflops"]
    assert found["reference_gflops"] == {}
    assert found["anchors"]["configured"]["base"] == 8


def test_space_prints_what_the_json_says(tiny):
    found, text = as_json("space", tiny), msnas("space", tiny).stdout
    assert f"{found['valid']:,}" in text
    assert f"{found['in_window']:,}" in text
    assert "<- window, FPN-like" in text
    assert f"{found['anchors']['boxes']} boxes" in text
    for name in ("proposed", "configured"):
        assert f"{found['anchors'][name]['mean_iou']:.3f}" in text
    baseline = msnas("space", "--preset", "r50").stdout
    assert f"{fpn_baseline('r50') / 1e9:.4f}" in baseline
    assert "Best IoU" not in baseline


def test_space_of_an_empty_window_helps_to_choose_a_target(tiny):
    tiny.write_text(tiny.read_text().replace("[budget]", "[budget]\ntarget_gflops = 1e-6"))
    found, text = as_json("space", tiny), " ".join(msnas("space", tiny).stdout.split())
    assert found["in_window"] == 0
    assert found["nearest_gflops"] == [None, found["range_gflops"][0]]
    assert "The window holds no architecture" in text
    assert "none below" in text


def test_space_reads_annotations_and_no_image(tmp_path, tiny):
    as_json("space", tiny)  # generates the shapes
    paths = "\n".join(
        f'{split}_images = "nowhere"\n'
        f'{split}_annotations = "data/annotations/instances_{split}.json"'
        for split in ("train", "val")
    )
    lines = [paths if x.startswith("shapes =") else x for x in tiny.read_text().splitlines()]
    (tiny.parent / "own.toml").write_text("\n".join(lines))
    assert as_json("space", tiny.parent / "own.toml") == as_json("space", tiny)
    (tiny.parent / "data/annotations/instances_train.json").unlink()
    message = msnas("space", tiny.parent / "own.toml", code=1).stderr
    assert "the annotation file must be readable" in message


def test_space_writes_its_figure(tmp_path):
    msnas("space", "--preset", "r18", "--figure", tmp_path / "r18.json")
    assert len(json.loads((tmp_path / "r18.json").read_text())["data"]) == 4


def test_the_whole_job_step_by_step(tiny):
    trained = as_json("train", tiny)
    assert (trained["steps"], Path(trained["checkpoint"]).exists()) == (4, True)
    searched = as_json("search", tiny, "--trials", "5")
    assert searched["completed"] == 5
    assert len(searched["best"]) == 5
    assert searched["baseline"]["one_shot_ap"] is not None
    retrained = as_json("retrain", tiny, "--top", "2")
    assert retrained["retrained"] == 2
    assert retrained["standalone_max"] >= retrained["standalone_mean"]
    assert retrained["baseline"]["standalone_ap"] is not None
    table = msnas("results", tiny).stdout
    assert "FPN-like" in table
    assert "retrained, best 2, on the test images: mean" in table
    assert as_json("results", tiny, "--top", "2") == retrained


def test_two_objectives_print_the_front(trained):
    text = trained.read_text().replace("trials = 7", 'trials = 6\nobjectives = ["ap", "latency"]')
    trained.write_text(text.replace("tolerance = 0.05", "tolerance = 0.3"))
    found = as_json("search", trained, "--top", "1")
    assert found["objectives"] == ["ap", "latency"]
    assert found["best"] == found["pareto_front"][:1]
    milliseconds = [result["latency_ms"] for result in found["pareto_front"]]
    assert milliseconds == sorted(milliseconds, reverse=True)
    table = msnas("results", trained, "--top", "1").stdout
    assert "Pareto front" in table
    assert "latency" in table
    for result in found["pareto_front"]:
        assert f"trial {result['trial']}" in table


def test_results_name_repeated_measurements(trained):
    trained.write_text(trained.read_text().replace("[sampler]", "[sampler]\nn_reevaluated = 1"))
    found = as_json("search", trained, "--top", "7")
    assert found["completed"] == 7
    assert sum(len(result["measurements"]) for result in found["best"]) == 7
    assert "7 trials finished (1 repeated), 0 failed" in msnas("results", trained).stdout


def test_results_of_a_study_that_has_not_begun(tiny):
    assert as_json("results", tiny)["completed"] == 0
    assert "0 trials finished" in msnas("results", tiny).stdout
    assert "0 trials finished" in msnas("results", tiny, "-q").stdout


def test_quickstart_runs_the_shipped_study(tmp_path, monkeypatch, tiny):
    """The verb itself, on the tiny study: the shipped one takes minutes."""
    monkeypatch.setattr("msnas_optuna.cli.search.shipped_study", lambda name: tiny)
    output = msnas("quickstart", "--dir", tmp_path / "quick").stdout
    assert (tmp_path / "quick" / "quickstart.toml").read_text() == tiny.read_text()
    url = f"sqlite:///{tmp_path / 'quick' / 'study.db'}"
    assert f"optuna trials --storage {url} --study-name tiny" in output
    assert f"optuna best-trial --storage {url} --study-name tiny" in output
    assert "msnas dashboard " in output


def test_the_package_finds_its_studies():
    assert 'name = "quickstart"' in shipped_study("quickstart.toml").read_text()


def test_a_database_that_is_none_ends_with_one_line(trained):
    (trained.parent / "study.db").write_bytes(b"garbage" * 1000)
    result = msnas("search", trained, code=1)
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.stderr


def test_results_write_nothing(tiny):
    msnas("results", tiny)
    assert [p.name for p in tiny.parent.iterdir()] == ["tiny.toml"]


def test_a_file_is_no_folder(tiny):
    assert "--dir must be a folder" in msnas("quickstart", "--dir", tiny, code=1).stderr


def test_an_error_in_a_loader_process_is_one_line(tiny):
    text = tiny.read_text().replace("[data]", "[data]\nworkers = 1\ncache_gb = 0")
    tiny.write_text(text)
    Experiment.load(tiny).setting.splits()
    for image in (tiny.parent / "data" / "train").iterdir():
        image.write_bytes(b"no picture")
    result = msnas("train", tiny, code=1)
    assert "Traceback" not in result.stderr
    assert image.suffix in result.stderr


def test_version():
    assert msnas("--version").stdout.startswith("msnas-optuna 0.")
