"""Exports a detector: weights, a description, and programs that run without this package.

The programs are checked against PyTorch on validation images before anything is left behind.
Symbols: n detections of an image, H x W pixels of the padded image, m x m cells of a mask.
"""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from msnas_optuna.data.transforms import SIZE_MULTIPLE, collate
from msnas_optuna.models.network import DetectionNetwork
from msnas_optuna.runtime.files import sha256
from msnas_optuna.study.experiment import Experiment
from msnas_optuna.study.selection import Selection

WEIGHTS, DESCRIPTION = "model.safetensors", "architecture.json"
TORCH_PROGRAM, ONNX_PROGRAM = "model.pt2", "model.onnx"
DIGESTS: Final = "SHA256SUMS"  # as `sha256sum --check` reads it
BESIDE: Final = Path(__file__).parent / "exported"
COPIED: Final = ("README.md", "load.py")  # as they are, from `BESIDE`
NEEDED: Final = ("onnx", "onnxruntime", "onnxscript", "safetensors")
OUTPUTS: Final = ("boxes", "scores", "labels", "masks")  # the last one of detectors with masks
LARGEST_SIDE: Final = 16_384  # pixels of the padded image

IMAGES: Final = 8  # of the validation set, that the programs are checked on beside a cropped one
BOX_TOLERANCE, SCORE_TOLERANCE = 0.05, 1e-3  # pixels and score that two programs may differ by
MASK_TOLERANCE: Final = 0.02  # of a cell's probability
BORDERLINE: Final = 100
"""One detection in so many may be missing: rounding decides at the thresholds of score and IoU."""

Outputs = tuple[Tensor, ...]
Program = Callable[[Tensor, Tensor], Outputs]


class ExportError(RuntimeError):
    """An exported program does not compute what PyTorch computes."""


@dataclass(frozen=True)
class Agreement:
    """The differences between a program and PyTorch."""

    images: int  # that were compared
    detections: int  # of PyTorch
    unmatched: int  # on either side: none of the same class, and nearly equal, on the other
    box: float  # largest difference of a matched box, pixels
    score: float
    mask: float | None  # of a cell's probability; None where there are no masks


@dataclass(frozen=True)
class ExportResult:
    """The files that were written."""

    folder: Path
    files: dict[str, int]  # sizes in bytes
    agreement: dict[str, Agreement]  # of each program with PyTorch


def require_exporters() -> None:
    """Raises ImportError where an optional dependency is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"msnas export needs {', '.join(NEEDED)}; {', '.join(missing)} cannot be imported: "
            f"run `pip install 'msnas-optuna[export]'`"
        )


def export_detector(
    experiment: Experiment, model: DetectionNetwork, selected: Selection, *, folder: Path
) -> ExportResult:
    """Writes a detector to a folder; on an error the folder is left as it was.

    Raises:
        ImportError: an optional dependency is not installed.
        ExportError: a program does not agree with PyTorch.
        OSError: the folder cannot be written.
    """
    require_exporters()
    from safetensors.torch import save_file

    model = model.cpu().eval().requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        new = Path(temporary)
        with warnings.catch_warnings(action="ignore"):  # the exporters warn of their own workings
            agreement = _write_programs(experiment, model, new)
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, new / WEIGHTS, metadata={"architecture": str(selected.architecture)})
        described = describe(experiment, model, selected) | {
            "agreement_with_pytorch": {file: asdict(a) for file, a in agreement.items()}
        }
        (new / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")
        for name in COPIED:
            shutil.copyfile(BESIDE / name, new / name)
        digests = [f"{sha256(file)}  {file.name}\n" for file in sorted(new.iterdir())]
        (new / DIGESTS).write_text("".join(digests))
        files = {file.name: file.stat().st_size for file in sorted(new.iterdir())}
        for name in files:
            (new / name).replace(folder / name)
    return ExportResult(folder, files, agreement)


# ---------------------------------------------------------------------- writing


def _write_programs(
    experiment: Experiment, model: DetectionNetwork, folder: Path
) -> dict[str, Agreement]:
    """Writes both programs, reads them back and compares them with the detector."""
    report = partial(experiment.report, "export", total=3)
    report(done=0, note=TORCH_PROGRAM)
    program = torch_program(experiment.setting.method.exportable(model))
    torch.export.save(program, folder / TORCH_PROGRAM)
    report(done=1, note=ONNX_PROGRAM)
    write_onnx(program, folder / ONNX_PROGRAM)
    report(done=2, note="comparison with PyTorch")
    cases = sample_inputs(experiment)
    agreement = {
        TORCH_PROGRAM: compare(model, load_torch(folder / TORCH_PROGRAM), cases),
        ONNX_PROGRAM: compare(model, load_onnx(folder / ONNX_PROGRAM), cases),
    }
    for file, found in agreement.items():
        require_agreement(file, found)
    report(done=3)
    return agreement


def torch_program(single: nn.Module) -> torch.export.ExportedProgram:
    """A program of one image, whose padded sides are any multiples of 64 up to `LARGEST_SIDE`."""
    largest = LARGEST_SIDE // SIZE_MULTIPLE
    sides = {
        axis: SIZE_MULTIPLE * torch.export.Dim(name, min=1, max=largest)
        for axis, name in ((2, "rows"), (3, "columns"))
    }
    example = torch.zeros((1, 3, 3 * SIZE_MULTIPLE, 4 * SIZE_MULTIPLE), dtype=torch.uint8)
    size = torch.tensor(example.shape[2:])
    with torch.no_grad():
        return torch.export.export(single, (example, size), dynamic_shapes=(sides, None))


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """The same in ONNX, weights inside, with the inputs image and size."""
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image", "size"],
        output_names=list(OUTPUTS[: len(program.graph_signature.user_outputs)]),
        verbose=False,
    )
    assert onnx_program is not None
    shape = onnx_program.model.graph.inputs[0].shape
    assert shape is not None
    onnx_program.rename_axes({str(shape[2]): "H", str(shape[3]): "W"})
    onnx_program.save(path, external_data=False)


# ---------------------------------------------------------------------- checking


def load_torch(path: Path) -> Program:
    """The program of a `model.pt2`, without its guards.

    Where an architecture has the absolute stride 64 they refuse a side of 64, wrongly.
    """
    module = torch.export.load(path).module(check_guards=False)
    return lambda image, size: tuple(module(image, size))


def load_onnx(path: Path) -> Program:
    """The program of a `model.onnx`, on onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image: Tensor, size: Tensor) -> Outputs:
        found = session.run(None, {"image": image.numpy(), "size": size.numpy()})
        return tuple(map(torch.from_numpy, found))

    return run


def sample_inputs(experiment: Experiment) -> list[tuple[Tensor, Tensor]]:
    """Validation images, spread evenly, and the first one cropped to another size."""
    val = experiment.task.val
    step = max(1, len(val) // IMAGES)
    batches = [collate([val[i]]) for i in range(0, len(val), step)][:IMAGES]
    _, h, w = val[0].image.shape
    h, w = math.ceil(h / 2), math.ceil(w * 2 / 3)
    batches.append(collate([replace(val[0], image=val[0].image[:, :h, :w])]))
    return [(batch.images, torch.tensor(batch.sizes[0])) for batch in batches]


@torch.no_grad()
def compare(
    model: DetectionNetwork, program: Program, cases: list[tuple[Tensor, Tensor]]
) -> Agreement:
    """The differences between a program and the detector it was made from."""
    detections = unmatched = 0
    box = score = 0.0
    mask: float | None = None
    for image, size in cases:
        (expected,), _ = model(image, [(int(size[0]), int(size[1]))])
        outputs = [expected[name][:, None] for name in OUTPUTS if name in expected]
        pairs = zip(outputs, program(image, size), strict=True)
        boxes, scores, labels, *masks = ((a - b).abs() for a, b in pairs)  # [n, found, ..]
        boxes = boxes.amax(dim=2)
        near = (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE) & (labels == 0)
        if masks:
            cells = masks[0].flatten(2).amax(dim=2)
            near &= cells <= MASK_TOLERANCE
            mask = mask or 0.0
        detections += len(near)
        unmatched += int((~near.any(dim=1)).sum() + (~near.any(dim=0)).sum())
        closest = torch.where(near, boxes, math.inf)
        for i in near.any(dim=1).nonzero().flatten().tolist():
            j = int(closest[i].argmin())
            box, score = max(box, float(boxes[i, j])), max(score, float(scores[i, j]))
            mask = None if mask is None else max(mask, float(cells[i, j]))
    return Agreement(len(cases), detections, unmatched, box, score, mask)


def require_agreement(file: str, found: Agreement) -> None:
    """Raises ExportError where too many detections differ."""
    allowed = max(1, found.detections // BORDERLINE) if found.detections else 0
    masks = "" if found.mask is None else f", masks within {MASK_TOLERANCE}"
    if found.unmatched > allowed:
        raise ExportError(
            f"{file} must find what PyTorch finds, boxes within {BOX_TOLERANCE} pixels and scores "
            f"within {SCORE_TOLERANCE}{masks}; {found.unmatched} of {found.detections} detections "
            f"on {found.images} images differ, nothing was written. Try other versions of torch, "
            f"onnxscript and onnxruntime, and report it with these: {json.dumps(_versions())}"
        )


# ---------------------------------------------------------------------- describing


def describe(
    experiment: Experiment, model: DetectionNetwork, selected: Selection
) -> dict[str, Any]:
    """The facts that one needs to use the weights or the programs, in JSON types."""
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
        "classes": [asdict(c) for c in experiment.task.val.dataset.categories],
        "image_size": list(config.data.image_size),
        "size_multiple": SIZE_MULTIPLE,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    names = ("msnas-optuna", "torch", "torchvision", *NEEDED)
    return {"python": platform.python_version()} | {name: version(name) for name in names}
