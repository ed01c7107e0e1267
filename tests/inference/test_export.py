from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from msnas_optuna.cli import app
from msnas_optuna.data.transforms import collate
from msnas_optuna.inference import export
from msnas_optuna.methods.msnas.single import SingleImageDetector
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import select


def msnas(*arguments: str | Path, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def study(_retrained_once: Path) -> Path:
    return _retrained_once / "tiny.toml"


@pytest.fixture(scope="module")
def folder(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes, once."""
    folder = tmp_path_factory.mktemp("export") / "new"
    answer = json.loads(msnas("export", study, "-o", folder, "--json").stdout)
    assert answer["folder"] == str(folder)
    assert answer["files"] == {f.name: f.stat().st_size for f in folder.iterdir()}
    return folder


def best(study: Path):
    experiment = Experiment.load(study)
    selected = select(experiment.setting, "best")
    return experiment, selected, experiment.retrained(selected.architecture).cpu()


@torch.no_grad()
def expected_on(study: Path, path: Path) -> list[tuple[str, float, list[float]]]:
    """The detections of an image file, in 32 bits and original pixels."""
    from msnas_optuna.data.images import ImageSet, image_record
    from msnas_optuna.data.transforms import ResizedImages

    experiment, _, model = best(study)
    images = ImageSet([image_record(path, 0)], experiment.task.val.dataset.categories)
    batch = collate([ResizedImages(images, *experiment.task.val.image_size)[0]])
    (found,), _ = model(batch.images, batch.sizes)
    boxes = batch.to_original(0, found["boxes"]).tolist()
    names = [images.categories[int(label) - 1].name for label in found["labels"]]
    return list(zip(names, found["scores"].tolist(), boxes, strict=True))


WITHOUT_THE_PACKAGE = """
import runpy, sys
sys.modules["msnas_optuna"] = None  # to import it is an error
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_a_fresh_process_without_the_package_finds_the_same(folder, study, tmp_path, runtime):
    val = Experiment.load(study).task.val.dataset
    wide = tmp_path / "wide.png"
    Image.open(val.records[0].path).crop((0, 10, 128, 70)).resize((256, 120)).save(wide)
    paths = [*(r.path for r in val.records), wide]
    option = ["--onnx"] if runtime == "onnx" else []
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, folder / "load.py", *option, *paths],
        capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["image"] for answer in answers] == [str(path) for path in paths]
    assert sum(len(answer["detections"]) for answer in answers) > 20
    for answer, path in zip(answers, paths, strict=True):
        expected, found = expected_on(study, path), answer["detections"]
        assert len(found) == len(expected)
        for detection, (label, score, box) in zip(found, expected, strict=True):
            assert detection["label"] == label
            assert detection["score"] == pytest.approx(score, abs=1e-4)
            assert detection["box"] == pytest.approx(box, abs=0.01)


@pytest.mark.slow
def test_the_loader_has_help_and_names_what_it_cannot_read(folder, study, tmp_path):
    def load(*arguments):
        command = [sys.executable, folder / "load.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = load("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "runs model.onnx with onnxruntime" in shown.stdout
    good = Experiment.load(study).task.val.dataset.records[0].path
    bad, missing, eps = (tmp_path / name for name in ("bad.png", "missing.png", "eps.png"))
    bad.write_text("no image")
    Image.new("RGB", (8, 8)).save(eps, "EPS")
    done = load("--onnx", bad, missing, eps, good)
    assert done.returncode == 1
    assert [line.split(": an image must be readable")[0] for line in done.stderr.splitlines()] == [
        str(bad),
        str(missing),
        str(eps),
    ]
    assert json.loads(done.stdout)["image"] == str(good)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("model.pt2", []), ("model.onnx", ["--onnx"]), ("architecture.json", ["--onnx"])],
)
def test_the_loader_refuses_a_file_that_has_changed(folder, study, tmp_path, name, options):
    copy = shutil.copytree(folder, tmp_path / "copy")
    image = Experiment.load(study).task.val.dataset.records[0].path
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=copy)
    assert checked.returncode == 0
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    command = [sys.executable, copy / "load.py", *options, image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{copy / name} is damaged: SHA256SUMS has another digest; export it again\n"
    )


@pytest.mark.slow
def test_the_weights_are_those_of_the_detector(folder, study):
    experiment, selected, model = best(study)
    again = experiment.build_detector(selected.architecture)
    again.load_state_dict(load_file(folder / "model.safetensors"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


@pytest.mark.slow
def test_the_description_says_what_one_must_know(folder, study):
    _, selected, model = best(study)
    said = json.loads((folder / "architecture.json").read_text())
    assert tuple(said["strides"]) == selected.architecture.strides
    assert tuple(said["feature_strides"]) == selected.architecture.feature_strides
    assert tuple(said["absolute_strides"]) == selected.architecture.absolute_strides
    assert (said["ap"], said["gflops"]) == (selected.ap, selected.gflops)
    assert [c["name"] for c in said["classes"]] == ["circle", "square", "triangle"]
    assert said["image_size"] == [128, 128]
    assert said["anchor_sides"] == [8, 16, 32, 64, 128]
    assert said["parameters"] == model.n_parameters
    assert said["versions"]["torch"] == version("torch")
    for program in ("model.pt2", "model.onnx"):
        assert said["agreement_with_pytorch"][program]["unmatched"] <= 1
        assert said["agreement_with_pytorch"][program]["images"] == 5


@pytest.mark.slow
def test_the_onnx_program_is_valid_and_takes_any_size(folder):
    program = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(program)
    (image, size), outputs = program.graph.input, program.graph.output
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [
        1,
        3,
        "H",
        "W",
    ]
    assert [x.name for x in (image, size, *outputs)] == [
        "image",
        "size",
        "boxes",
        "scores",
        "labels",
    ]


@pytest.mark.slow
def test_the_readme_lists_the_files(folder):
    text = (folder / "README.md").read_text()
    for file in folder.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in text


@pytest.mark.slow
@pytest.mark.parametrize("masks", [False, True])
def test_a_coarse_feature_can_be_exported_at_any_size(random_detector, tmp_path, masks):
    coarse = "2 2 2 2 .5 .5 .5 | 8 8 16 32 64"
    model = random_detector(coarse, norm="group", masks=masks).requires_grad_(False)
    program = export.torch_program(SingleImageDetector(model))
    torch.export.save(program, tmp_path / "model.pt2")
    export.write_onnx(program, tmp_path / "model.onnx")
    cases = []
    for size in ((64, 64), (64, 192), (192, 320), (100, 65)):
        image = torch.zeros((1, 3, *(-(-s // 64) * 64 for s in size)), dtype=torch.uint8)
        image[:, :, : size[0], : size[1]].random_(0, 256)
        cases.append((image, torch.tensor(size)))
    for run in (
        export.load_torch(tmp_path / "model.pt2"),
        export.load_onnx(tmp_path / "model.onnx"),
    ):
        found = export.compare(model, run, cases)
        assert found.detections > 30
        assert found.unmatched <= found.detections // 50
        assert (found.mask is not None) == masks


@pytest.mark.slow
@pytest.mark.parametrize("masks", [False, True])
def test_images_with_one_detection_or_none(random_detector, tmp_path, masks):
    model = random_detector("2 1 2 .5 .5 2 2 | 4 4 8 16 16", masks=masks).requires_grad_(False)
    single = SingleImageDetector(model)
    images = torch.randint(0, 256, (4, 1, 3, 128, 192), dtype=torch.uint8)
    cases = [(image, torch.tensor((128, 192))) for image in images]
    scores = torch.cat([single(*case)[1] for case in cases]).sort(descending=True).values
    model.roi_heads.score_thresh = float(scores[:2].mean())  # between the best and the next
    program = export.torch_program(SingleImageDetector(model))
    torch.export.save(program, tmp_path / "model.pt2")
    export.write_onnx(program, tmp_path / "model.onnx")
    for run in (
        export.load_torch(tmp_path / "model.pt2"),
        export.load_onnx(tmp_path / "model.onnx"),
    ):
        assert sorted(len(run(*case)[1]) for case in cases) == [0, 0, 0, 1]
        assert export.compare(model, run, cases).unmatched == 0


@pytest.mark.slow
def test_a_program_that_differs_is_an_error_and_leaves_nothing(study, tmp_path, monkeypatch):
    load = export.load_onnx

    def shifted(path: Path):
        run = load(path)
        return lambda image, size: (run(image, size)[0] + 1, *run(image, size)[1:])

    monkeypatch.setattr(export, "load_onnx", shifted)
    refused = msnas("export", study, "-o", tmp_path / "bad", code=1)
    assert "model.onnx must find what PyTorch finds" in refused.stderr
    assert list((tmp_path / "bad").iterdir()) == []


def test_a_wrong_program_is_told_from_a_right_one(study):
    experiment, _, model = best(study)
    cases = export.sample_inputs(experiment)
    assert len({image.shape for image, _ in cases}) == 2
    right = SingleImageDetector(model)
    found = export.compare(model, right, cases)
    export.require_agreement("right", found)
    assert found.detections > 20

    def other_class(image, size):
        boxes, scores, labels = right(image, size)
        return boxes, scores, labels % 3 + 1

    def incomplete(image, size):
        return tuple(x[::2] for x in right(image, size))

    def beside(image, size):
        boxes, scores, labels = right(image, size)
        return boxes + 1, scores, labels

    for wrong in (other_class, incomplete, beside):
        with pytest.raises(export.ExportError, match="detections on 5 images differ"):
            export.require_agreement("wrong", export.compare(model, wrong, cases))


def test_a_program_with_other_masks_is_told_from_a_right_one(random_detector):
    model = random_detector("2 1 2 .5 .5 2 2 | 4 4 8 16 16", masks=True)
    right = SingleImageDetector(model)
    image = torch.randint(0, 256, (1, 3, 128, 192), dtype=torch.uint8)
    cases = [(image, torch.tensor((128, 192)))]
    found = export.compare(model, right, cases)
    assert (found.unmatched, found.mask) == (0, pytest.approx(0, abs=1e-3))
    wrong = export.compare(model, lambda *given: (*right(*given)[:3], 1 - right(*given)[3]), cases)
    with pytest.raises(export.ExportError, match=r"masks within 0\.02; \d+ of \d+ detections"):
        export.require_agreement("wrong", wrong)


def test_without_the_extra_the_command_says_what_to_install(study, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxscript" else find(name, *a),
    )
    refused = msnas("export", study, "-o", tmp_path / "none", code=1)
    assert (
        "onnxscript cannot be imported: run `pip install 'msnas-optuna[export]'`" in refused.stderr
    )
    assert not (tmp_path / "none").exists()
