from __future__ import annotations

import pytest
import torch

from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.encoder import MSNASEncoder
from msnas_optuna.methods.msnas.single import SingleImageDetector

ARCHITECTURES = {
    "fpn-like": "1 2 2 2 .5 .5 .5 | 4 8 16 32 32",
    "one feature read twice": "2 1 2 .5 .5 2 2 | 4 4 8 16 16",
    "coarsest stride": "2 2 2 2 .5 .5 .5 | 8 8 16 32 64",
}


@torch.no_grad()
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("text", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("size", [(128, 192), (101, 130), (64, 64), (40, 33)])
def test_the_detections_are_those_of_the_detector(random_detector, text, size, masks):
    model = random_detector(text, masks=masks)
    image = torch.zeros((1, 3, *(-(-s // 64) * 64 for s in size)), dtype=torch.uint8)
    image[:, :, : size[0], : size[1]].random_(0, 256, generator=torch.Generator().manual_seed(0))
    (expected,), _ = model(image, [size])
    boxes, scores, labels, *rest = SingleImageDetector(model)(image, torch.tensor(size))
    assert len(rest) == ("masks" in expected) == masks
    for found in rest:
        torch.testing.assert_close(found, expected["masks"], rtol=0, atol=2e-3)
    assert labels.tolist() == expected["labels"].tolist()
    torch.testing.assert_close(scores, expected["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(boxes, expected["boxes"], rtol=0, atol=2e-3)


@torch.no_grad()
def test_pixels_outside_the_image_are_not_seen(random_detector):
    """Zero after normalization, whatever they hold."""
    model = random_detector(ARCHITECTURES["fpn-like"])
    single, size = SingleImageDetector(model), (100, 150)
    image = torch.randint(0, 256, (1, 3, 128, 192), dtype=torch.uint8)
    expected = single(image, torch.tensor(size))
    assert len(expected[0]) > 10
    image[:, :, 100:], image[:, :, :, 150:] = 0, 255
    assert all(map(torch.equal, single(image, torch.tensor(size)), expected))
    (found,), _ = model(image, [size])
    torch.testing.assert_close(found["boxes"], expected[0], rtol=0, atol=2e-3)


def test_the_cases_have_detections(random_detector):
    image = torch.randint(0, 256, (1, 3, 128, 192), dtype=torch.uint8)
    with torch.no_grad():
        boxes, _, labels = SingleImageDetector(random_detector(ARCHITECTURES["fpn-like"]))(
            image, torch.tensor((128, 192))
        )
    assert len(boxes) > 10
    assert len(set(labels.tolist())) > 1


def test_nothing_above_the_threshold_gives_no_detections(random_detector):
    model = random_detector(ARCHITECTURES["fpn-like"], masks=True)
    model.roi_heads.score_thresh = 1.0
    with torch.no_grad():
        found = SingleImageDetector(model)(
            torch.zeros((1, 3, 64, 64), dtype=torch.uint8), torch.tensor((64, 64))
        )
    assert [list(x.shape) for x in found] == [[0, 4], [0], [0], [0, 12, 12]]


def test_a_supernet_is_refused():
    encoder = MSNASEncoder(5, "basic", channels=8, stem_channels=8)
    supernet = Detector(encoder, 3, channels=8, norm="batch", anchor_base=8, canonical_size=40)
    with pytest.raises(ValueError, match="only the detector of one architecture"):
        SingleImageDetector(supernet)
