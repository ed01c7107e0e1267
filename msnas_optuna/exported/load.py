"""Detects objects with the exported model; the package that trained it is not needed.

    python load.py IMAGE...           runs model.pt2 with torch and torchvision
    python load.py --onnx IMAGE...    runs model.onnx with onnxruntime

Both need numpy and pillow. Prints one JSON object for each image.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
MODEL = json.loads((HERE / "architecture.json").read_text())

Program = Callable[[Any, Any], list[Any]]
"""(image uint8 [1, 3, H, W], size int64 [2]) -> boxes [n, 4], scores [n], labels [n]."""


def torch_program() -> Program:
    """The program of torch.export."""
    import torch
    import torchvision  # noqa: F401  registers nms and roi_align

    model = torch.export.load(HERE / "model.pt2").module(check_guards=False)
    return lambda *inputs: [x.numpy() for x in model(*map(torch.from_numpy, inputs))]


def onnx_program() -> Program:
    """The ONNX program."""
    import onnxruntime

    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
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


def detect(program: Program, path: str) -> list[dict[str, Any]]:
    """Detections of an image file, best first; boxes are x1 y1 x2 y2 in its own pixels."""
    image, size, (x, y) = prepare(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    boxes, scores, labels = program(image, size)
    boxes = boxes / np.array([x, y, x, y])
    return [
        {"label": MODEL["classes"][label - 1]["name"], "score": score, "box": box}
        for box, score, label in zip(
            boxes.tolist(),
            scores.tolist(),
            labels.tolist(),
            strict=True,
        )
    ]


if __name__ == "__main__":
    images = [argument for argument in sys.argv[1:] if argument != "--onnx"]
    program = onnx_program() if "--onnx" in sys.argv else torch_program()
    for path in images:
        print(json.dumps({"image": path, "detections": detect(program, path)}))
