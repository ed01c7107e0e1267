"""Exports a detector: weights, a description, and programs that run without this package.

The programs are checked against PyTorch on validation images before anything is left behind.
Symbols: n detections of an image, H x W pixels of the padded image.
"""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from msnas_optuna.data.transforms import SIZE_MULTIPLE, collate
from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.single import SingleImageDetector
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import Selected

WEIGHTS, DESCRIPTION = "model.safetensors", "architecture.json"
TORCH_PROGRAM, ONNX_PROGRAM = "model.pt2", "model.onnx"
BESIDE: Final = Path(__file__).parent / "exported"
COPIED: Final = ("README.md", "load.py")
"""Files that are copied as they are, and from where."""

NEEDED: Final = ("onnx", "onnxruntime", "onnxscript", "safetensors")
OUTPUTS: Final = ("boxes", "scores", "labels")
LARGEST_SIDE: Final = 16_384
"""Pixels of the padded image that the programs are made for."""

IMAGES: Final = 8
"""Validation images that the programs are checked on, beside a cropped one."""

BOX_TOLERANCE, SCORE_TOLERANCE = 0.05, 1e-3
"""Pixels and score that a detection may differ by between two programs."""

BORDERLINE: Final = 100
"""One detection in so many may be missing: rounding decides at the thresholds of score and IoU."""

Outputs = tuple[Tensor, Tensor, Tensor]
Program = Callable[[Tensor, Tensor], Outputs]


class ExportError(RuntimeError):
    """An exported program does not compute what PyTorch computes."""


@dataclass(frozen=True)
class Agreement:
    """How well a program agrees with PyTorch.

    Attributes:
        images: how many were compared.
        detections: that PyTorch finds in them.
        unmatched: of either side, without one of the same class and nearly the same place and
            score on the other.
        box: largest difference of a matched box, pixels.
        score: largest difference of a matched score.
    """

    images: int
    detections: int
    unmatched: int
    box: float
    score: float


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        files: names and sizes in bytes.
        agreement: of each program with PyTorch.
    """

    folder: Path
    files: dict[str, int]
    agreement: dict[str, Agreement]


def require_exporters() -> None:
    """Checks the optional dependencies.

    Raises:
        ImportError: one is not installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"msnas export needs {', '.join(NEEDED)}; {', '.join(missing)} cannot be imported: "
            f"run `pip install 'msnas-optuna[export]'`"
        )


def export_detector(
    experiment: Experiment, model: Detector, selected: Selected, *, folder: Path
) -> Exported:
    """Writes a detector to a folder; on an error the folder is left as it was.

    Args:
        experiment: the study of the detector.
        model: the detector of one architecture.
        selected: what it is.
        folder: made if need be; files of the same names are replaced.

    Raises:
        ImportError: an optional dependency is not installed.
        ExportError: a program does not agree with PyTorch.
        OSError: the folder cannot be written.
    """
    require_exporters()
    model = model.cpu().eval().requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary, _quiet():
        new = Path(temporary)
        agreement = _write_programs(experiment, model, new)
        _write_weights(model, selected, new / WEIGHTS)
        described = describe(experiment, model, selected) | {
            "agreement_with_pytorch": {file: asdict(a) for file, a in agreement.items()}
        }
        (new / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")
        for name in COPIED:
            shutil.copyfile(BESIDE / name, new / name)
        files = {file.name: file.stat().st_size for file in sorted(new.iterdir())}
        for name in files:
            (new / name).replace(folder / name)
    return Exported(folder, files, agreement)


# ---------------------------------------------------------------------- writing


def _write_programs(experiment: Experiment, model: Detector, folder: Path) -> dict[str, Agreement]:
    """Writes both programs, reads them back and compares them with the detector."""
    report = partial(experiment.report, "export", total=3)
    report(done=0, note=TORCH_PROGRAM)
    program = torch_program(model)
    torch.export.save(program, folder / TORCH_PROGRAM)
    report(done=1, note=ONNX_PROGRAM)
    write_onnx(program, folder / ONNX_PROGRAM)
    report(done=2, note="comparison with PyTorch")
    cases = sample_inputs(experiment)
    agreement = {
        TORCH_PROGRAM: compared(model, load_torch(folder / TORCH_PROGRAM), cases),
        ONNX_PROGRAM: compared(model, load_onnx(folder / ONNX_PROGRAM), cases),
    }
    for file, found in agreement.items():
        require_agreement(file, found)
    report(done=3)
    return agreement


def torch_program(model: Detector) -> torch.export.ExportedProgram:
    """The detector from the pixels of one padded image to its detections.

    Both sides of the image may be any multiple of 64 up to `LARGEST_SIDE`.
    """
    largest = LARGEST_SIDE // SIZE_MULTIPLE
    sides = {
        axis: SIZE_MULTIPLE * torch.export.Dim(name, min=1, max=largest)
        for axis, name in ((2, "rows"), (3, "columns"))
    }
    example = torch.zeros((1, 3, 3 * SIZE_MULTIPLE, 4 * SIZE_MULTIPLE), dtype=torch.uint8)
    size = torch.tensor(example.shape[2:])
    single = SingleImageDetector(model)
    with torch.no_grad():
        return torch.export.export(single, (example, size), dynamic_shapes=(sides, None))


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """The same in ONNX, weights inside, with the inputs image and size."""
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image", "size"],
        output_names=list(OUTPUTS),
        verbose=False,
    )
    assert onnx_program is not None
    shape = onnx_program.model.graph.inputs[0].shape
    assert shape is not None
    onnx_program.rename_axes({str(shape[2]): "H", str(shape[3]): "W"})
    onnx_program.save(path, external_data=False)


def _write_weights(model: Detector, selected: Selected, path: Path) -> None:
    from safetensors.torch import save

    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    path.write_bytes(save(weights, metadata={"architecture": str(selected.architecture)}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings about their own workings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---------------------------------------------------------------------- checking


def load_torch(path: Path) -> Program:
    """The program of a `model.pt2`.

    Its guards are left out: where an architecture has the absolute stride 64, they refuse images
    with a side of 64, whose coarsest feature is one cell wide, though the program is right there.
    """
    module = torch.export.load(path).module(check_guards=False)
    return lambda image, size: tuple(module(image, size))


def load_onnx(path: Path) -> Program:
    """The program of a `model.onnx`, on onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image: Tensor, size: Tensor) -> Outputs:
        found = session.run(list(OUTPUTS), {"image": image.numpy(), "size": size.numpy()})
        boxes, scores, labels = map(torch.from_numpy, found)
        return boxes, scores, labels

    return run


def sample_inputs(experiment: Experiment) -> list[tuple[Tensor, Tensor]]:
    """Validation images, spread evenly, and the first one cropped to another size."""
    val = experiment.bench.val
    step = max(1, len(val) // IMAGES)
    batches = [collate([val[i]]) for i in range(0, len(val), step)][:IMAGES]
    cases = [(batch.images, torch.tensor(batch.sizes[0])) for batch in batches]
    image, (h, w) = val[0].image, val.sizes[0]
    h, w = math.ceil(h / 2), math.ceil(w * 2 / 3)
    padded = torch.zeros((1, 3, *(-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (h, w))))
    padded[0, :, :h, :w] = image[:, :h, :w]
    return [*cases, (padded.to(torch.uint8), torch.tensor((h, w)))]


@torch.no_grad()
def compared(model: Detector, program: Program, cases: list[tuple[Tensor, Tensor]]) -> Agreement:
    """How well a program agrees with the detector it was made from."""
    detections = unmatched = 0
    box = score = 0.0
    for image, size in cases:
        (expected,), _ = model(image, [(int(size[0]), int(size[1]))])
        reference = expected["boxes"], expected["scores"], expected["labels"]
        found = program(image, size)
        near = _near(reference, found)  # [n, m]
        detections += len(expected["boxes"])
        unmatched += int((~near.any(dim=1)).sum() + (~near.any(dim=0)).sum())
        boxes, scores = _differences(reference, found)
        closest = torch.where(near, boxes, math.inf)
        pairs = [(i, int(closest[i].argmin())) for i in range(len(near)) if near[i].any()]
        box = max([box, *(float(boxes[pair]) for pair in pairs)])
        score = max([score, *(float(scores[pair]) for pair in pairs)])
    return Agreement(len(cases), detections, unmatched, box, score)


def _differences(a: Outputs, b: Outputs) -> tuple[Tensor, Tensor]:
    """Largest difference of a coordinate, and that of the scores, of each pair, [n, m]."""
    if len(a[0]) == 0 or len(b[0]) == 0:
        empty = torch.zeros(len(a[0]), len(b[0]))
        return empty, empty
    return (a[0][:, None] - b[0]).abs().amax(dim=2), (a[1][:, None] - b[1]).abs()


def _near(a: Outputs, b: Outputs) -> Tensor:  # bool [n, m]
    boxes, scores = _differences(a, b)
    same_class = a[2][:, None] == b[2]
    return (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE) & same_class


def require_agreement(file: str, found: Agreement) -> None:
    """Checks a comparison.

    Raises:
        ExportError: too many detections differ.
    """
    allowed = max(1, found.detections // BORDERLINE) if found.detections else 0
    if found.unmatched > allowed:
        raise ExportError(
            f"{file} must find what PyTorch finds, boxes within {BOX_TOLERANCE} pixels and scores "
            f"within {SCORE_TOLERANCE}; {found.unmatched} of {found.detections} detections on "
            f"{found.images} images differ, nothing was written. Try other versions of torch, "
            f"onnxscript and onnxruntime, and report it with these: {json.dumps(_versions())}"
        )


# ---------------------------------------------------------------------- describing


def describe(experiment: Experiment, model: Detector, selected: Selected) -> dict[str, Any]:
    """What one must know to use the weights or the programs, in JSON types."""
    setting, config = experiment.setting, experiment.config
    return {
        "study": setting.study_name(),
        "trial": selected.trial,
        "weights": "one-shot" if selected.one_shot else "retrained",
        "ap": selected.ap,
        "ap_precision": config.runtime.precision,
        **setting.method.facts(config.space, config.detector, model),
        "gflops": selected.gflops,
        "gflops_scope": setting.cost.scope,
        "gflops_input_size": list(setting.cost.input_size),
        "parameters": sum(p.numel() for p in model.parameters()),
        "classes": [asdict(c) for c in experiment.bench.val.dataset.categories],
        "image_size": list(config.data.image_size),
        "size_multiple": SIZE_MULTIPLE,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    names = ("msnas-optuna", "torch", "torchvision", *NEEDED)
    return {"python": platform.python_version()} | {name: version(name) for name in names}
