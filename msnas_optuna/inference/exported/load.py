"""Detects objects with the exported model; the package that trained it is not needed.

    python load.py IMAGE...           runs model.pt2 with torch and torchvision
    python load.py --onnx IMAGE...    runs model.onnx with onnxruntime

Both need numpy and pillow. Prints one JSON object for each image. Images that cannot be read are
named, the others done, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent


def intact(name: str) -> Path:
    """A file of the export, which ends the program where it is not as it was written."""
    digest = hashlib.sha256((HERE / name).read_bytes()).hexdigest()
    if f"{digest}  {name}" not in (HERE / "SHA256SUMS").read_text().splitlines():
        sys.exit(f"{HERE / name} is damaged: SHA256SUMS has another digest; export it again")
    return HERE / name


MODEL = json.loads(intact("architecture.json").read_text())

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")  # pillow gives some to other programs
UNREADABLE = (  # what pillow raises for files that are no images, or damaged ones
    OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError
)  # fmt: skip

Program = Callable[[Any, Any], list[Any]]
"""(image uint8 [1, 3, H, W], size int64 [2]) -> boxes [n, 4], scores [n], labels [n].

With masks these follow, [n, m, m]: probabilities over the boxes.
"""


def torch_program() -> Program:
    """The program of torch.export."""
    import torch
    import torchvision  # noqa: F401  registers nms and roi_align

    model = torch.export.load(intact("model.pt2")).module(check_guards=False)
    return lambda *inputs: [x.numpy() for x in model(*map(torch.from_numpy, inputs))]


def onnx_program() -> Program:
    """The ONNX program."""
    import onnxruntime

    path = intact("model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image, size: session.run(None, {"image": image, "size": size})


def prepare(image: Image.Image) -> tuple[Any, Any, tuple[float, float]]:
    """The padded image, its height and width before padding, and resized / original (x, y)."""
    shorter, longer = MODEL["image_size"]
    scale = min(shorter / min(image.size), longer / max(image.size))
    w, h = (max(1, round(side * scale)) for side in image.size)
    resized = image.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=3.0)
    multiple = MODEL["size_multiple"]
    H, W = (-(-side // multiple) * multiple for side in (h, w))
    padded = np.zeros((1, 3, H, W), np.uint8)
    padded[0, :, :h, :w] = np.asarray(resized).transpose(2, 0, 1)
    return padded, np.array([h, w], np.int64), (w / image.width, h / image.height)


def read(path: str) -> Image.Image | None:
    """The upright image of a file; of one that cannot be read it says so and is None."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UNREADABLE as error:
        rule = f"an image must be readable as {', '.join(FORMATS)}"
        print(f"{path}: {rule}, got {error}; left out", file=sys.stderr)
        return None


def paste(mask: Any, box: list[float], size: tuple[int, int]) -> Any:
    """The pixels of an image (w, h), bool [h, w], that a mask [m, m] over a box covers.

    The probability at the middle of a pixel is interpolated; from a half on it belongs to it.
    """
    m, parts = len(mask), []
    for low, high, pixels in ((box[1], box[3], size[1]), (box[0], box[2], size[0])):
        middle = np.arange(pixels) + 0.5
        place = ((middle - low) * m / max(high - low, 1e-6) - 0.5).clip(0, m - 1)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(m)))
        parts.append(weights * ((low <= middle) & (middle < high))[:, None])
    rows, columns = parts
    return rows @ mask.astype(np.float64) @ columns.T >= 0.5


def run_lengths(pixels: Any) -> dict[str, Any]:
    """COCO's run-length encoding of a mask [h, w]: column by column, zeros first."""
    flat = pixels.T.ravel()
    ends = [*(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    starts = [0, *ends[:-1]]
    counts = [end - start for start, end in zip(starts, ends, strict=True)]
    return {"size": list(pixels.shape), "counts": [0, *counts] if flat[0] else counts}


def detect(program: Program, picture: Image.Image) -> list[dict[str, Any]]:
    """Detections of an image, best first; boxes are x1 y1 x2 y2 in its own pixels."""
    image, size, (x, y) = prepare(picture)
    boxes, scores, labels, *masks = program(image, size)
    boxes = boxes / np.array([x, y, x, y])
    found: list[dict[str, Any]] = [
        {"label": MODEL["classes"][label - 1]["name"], "score": score, "box": box}
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]
    if masks:
        for detection, mask in zip(found, masks[0], strict=True):
            pasted = paste(mask, detection["box"], picture.size)
            detection["segmentation"] = run_lengths(pasted)
    return found


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--onnx", action="store_true", help="run model.onnx instead of model.pt2")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    arguments = parser.parse_args()
    program = onnx_program() if arguments.onnx else torch_program()
    status = 0
    for path in arguments.images:
        picture = read(path)
        if picture is None:
            status = 1
        else:
            print(json.dumps({"image": path, "detections": detect(program, picture)}))
    return status


if __name__ == "__main__":
    sys.exit(main())
