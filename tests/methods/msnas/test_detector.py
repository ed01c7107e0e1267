from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.image_list import ImageList

from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.encoder import MSNASEncoder
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.models.torchvision_parts import (
    PIXEL_MEAN,
    PIXEL_STD,
    CenteredAnchorGenerator,
    ImageWiseSampler,
)
from msnas_optuna.spaces.lattice import Lattice

FPN_LIKE = MSNASSpace(7).fpn_like()


def detector(only=None, *, norm="batch", masks=False) -> Detector:
    torch.manual_seed(0)
    return Detector(
        MSNASEncoder(7, "basic", channels=8, stem_channels=8, norm=norm, only=only),
        3,
        channels=8,
        norm=norm,
        anchor_base=8,
        canonical_size=36,
        roi_batch=16,
        proposals_train=50,
        proposals_test=50,
        hidden=16,
        masks=masks,
        mask_pool_size=6,
        mask_channels=8,
        mask_convolutions=2,
    )


def images(n: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (n, 3, 128, 192), dtype=np.uint8))


def targets(n: int = 2) -> list[dict[str, torch.Tensor]]:
    boxes = torch.tensor([[10.0, 10, 60, 50], [100, 40, 160, 120]])
    return [{"boxes": boxes, "labels": torch.tensor([1, 3])} for _ in range(n)]


SIZES = [(128, 192), (100, 150)]


def with_masks() -> list[dict[str, torch.Tensor]]:
    """The targets, with the left half of each box as its mask."""
    found = targets()
    for target, size in zip(found, SIZES, strict=True):
        target["masks"] = torch.zeros((2, *size), dtype=torch.uint8)
        for mask, box in zip(target["masks"], target["boxes"].int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : (box[0] + box[2]) // 2] = 1
    return found


def test_losses_are_finite_on_any_path_and_reach_every_part():
    supernet = detector().train()
    paths, rng = Lattice(MSNASSpace(7)), np.random.default_rng(0)
    for _ in range(5):
        _, losses = supernet(images(), SIZES, targets=targets(), architecture=paths.sample(rng))
        assert set(losses) == {
            "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"
        }  # fmt: skip
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
    heads = (*supernet.rpn.parameters(), *supernet.roi_heads.parameters())
    assert all(p.grad is not None for p in heads)


def test_images_without_objects_train():
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    _, losses = detector(FPN_LIKE).train()(images(), SIZES, targets=empty)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_box_reg"] == 0


def test_alone_detects_what_the_supernet_detects():
    supernet, alone = detector().eval(), detector(FPN_LIKE).eval()
    weights = supernet.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    with torch.no_grad():
        ours, _ = alone(images(), SIZES)
        theirs, _ = supernet(images(), SIZES, architecture=FPN_LIKE)
    assert sum(len(d["scores"]) for d in ours) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("boxes", "scores", "labels"))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_alone_learns_what_the_supernet_learns(norm):
    """Equal weights and draws: each loss and each gradient, on several paths."""
    supernet = detector(norm=norm).train()
    for path in Lattice(MSNASSpace(7)).sample(np.random.default_rng(1), 3):
        alone = detector(path, norm=norm).train()
        weights = supernet.state_dict()
        alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
        found = []
        for model, given in ((supernet, path), (alone, None)):
            draws = [torch.Generator().manual_seed(i) for i in range(2)]
            model.zero_grad()
            _, losses = model(
                images(), SIZES, targets=targets(), architecture=given, generators=draws
            )
            sum(losses.values()).backward()
            found.append((losses, {n: p.grad for n, p in model.named_parameters()}))
        (theirs, their_gradients), (ours, gradients) = found
        assert theirs.keys() == ours.keys()
        assert all(loss > 0 for loss in ours.values())
        for name, loss in ours.items():
            assert torch.equal(loss, theirs[name]), name
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-4, atol=1e-6)
        unused = their_gradients.keys() - gradients.keys()
        assert all(their_gradients[name] is None for name in unused)


def test_detections_stay_inside_the_unpadded_image():
    with torch.no_grad():
        found, losses = detector(FPN_LIKE).eval()(images(), SIZES)
    assert losses == {}
    for detections, (height, width) in zip(found, SIZES, strict=True):
        x1, y1, x2, y2 = detections["boxes"].unbind(1)
        assert ((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)).all()


@pytest.mark.parametrize("training", [False, True])
def test_the_padding_that_the_encoder_gets_is_zero(training):
    model, seen = detector(FPN_LIKE).train(training), []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(images(), SIZES, targets=targets() if training else None)
    whole, padded = seen[0]
    assert (padded[:, 100:] == 0).all()
    assert (padded[:, :, 150:] == 0).all()
    black = -torch.tensor(PIXEL_MEAN) / torch.tensor(PIXEL_STD)
    expected = images().float() / 255 / torch.tensor(PIXEL_STD)[:, None, None]
    expected += black[:, None, None]
    torch.testing.assert_close(whole, expected[0])
    torch.testing.assert_close(padded[:, :100, :150], expected[1, :, :100, :150])


def test_anchors_sit_in_the_middle_of_their_cells():
    generator = CenteredAnchorGenerator(((8,), (16,)), ((1.0,), (1.0,)))
    maps = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]), maps)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centers[0].tolist() == [4, 4]  # stride 8
    assert centers[64].tolist() == [8, 8]  # stride 16
    assert (anchors[:64, 2] - anchors[:64, 0] == 8).all()


def test_a_group_s_anchors_double_those_of_the_one_before():
    sizes = detector().rpn.anchor_generator.sizes
    assert sizes == ((8,), (16,), (32,), (64,), (128,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_boxes_are_decoded_in_full_precision(dtype):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found, _ = detector(FPN_LIKE).eval()(images(), SIZES)
    assert {d["boxes"].dtype for d in found} == {torch.float32}


def matches(n_images: int) -> list[torch.Tensor]:
    """Many candidates, few, and no positive ones; -1 is neither."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(-1, 3, n) for n in (200, 9, 50)]
    drawn[2] = drawn[2].clip(-1, 0)
    return [torch.from_numpy(drawn[i % 3]) for i in range(n_images)]


def masks(sampler, generators, given):
    sampler.generators = generators
    return [torch.stack(pair) for pair in zip(*sampler(given), strict=True)]


def test_the_global_generator_is_used_as_torchvision_does():
    torch.manual_seed(0)
    expected = masks(BalancedPositiveNegativeSampler(16, 0.25), None, matches(3))
    torch.manual_seed(0)
    found = masks(ImageWiseSampler(16, 0.25), None, matches(3))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_what_is_drawn_for_an_image_does_not_depend_on_its_batch():
    def generators():
        return [torch.Generator().manual_seed(i) for i in range(6)]

    sampler = ImageWiseSampler(16, 0.25)
    whole = masks(sampler, generators(), matches(6))
    assert sampler.n_drawn == sum(int(m.sum()) for m in whole)
    assert sampler.n_positive == sum(int(positive.sum()) for positive, _ in whole)
    halves = masks(sampler, generators()[:3], matches(3))
    halves += masks(sampler, generators()[3:], matches(6)[3:])
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
    assert not torch.equal(whole[0], whole[3])  # equal candidates, other draws


# ---------------------------------------------------------------- masks


def test_masks_add_a_loss_that_reaches_their_head():
    supernet, rng = detector(masks=True).train(), np.random.default_rng(0)
    path = Lattice(MSNASSpace(7)).sample(rng)
    _, losses = supernet(images(), SIZES, targets=with_masks(), architecture=path)
    assert set(losses) == set(supernet.n_drawn) > {"loss_mask"}
    sum(losses.values()).backward()
    heads = (*supernet.rpn.parameters(), *supernet.roi_heads.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads)
    # Positive RoIs: at most a quarter of 16 in each image, at least the true boxes.
    assert 4 <= supernet.n_drawn["loss_mask"] <= 8 < supernet.n_drawn["loss_box_reg"]


def test_without_masks_nothing_is_added():
    plain, masked = detector(FPN_LIKE), detector(FPN_LIKE, masks=True)
    assert "loss_mask" not in plain.n_drawn
    weights = masked.state_dict()
    assert {k for k in weights if "mask" not in k} == plain.state_dict().keys() < weights.keys()
    assert all(torch.equal(weights[k], value) for k, value in plain.state_dict().items())


def test_the_mask_loss_of_images_without_objects_is_zero():
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros((0, 128, 192), dtype=torch.uint8),
    }
    model = detector(FPN_LIKE, masks=True).train()
    _, losses = model(images(), SIZES, targets=[empty, empty])
    assert losses["loss_mask"] == 0
    assert model.n_drawn["loss_mask"] == 0
    sum(losses.values()).backward()


def test_the_mask_head_learns_the_half_of_the_box():
    torch.manual_seed(0)
    model = detector(FPN_LIKE, norm="group", masks=True).train()
    own = [p for name, p in model.named_parameters() if "mask" in name]  # on features as they are
    optimizer = torch.optim.AdamW(own, lr=1e-2)
    course = []
    for _ in range(18):
        _, losses = model(images(), SIZES, targets=with_masks())
        optimizer.zero_grad()
        losses["loss_mask"].backward()
        optimizer.step()
        course.append(float(losses["loss_mask"].detach()))
    assert course == sorted(course, reverse=True)
    assert course[-1] < 0.45 < 0.69 < course[0]  # log 2 is chance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_detection_has_a_mask_alone_as_in_the_supernet(dtype):
    supernet, alone = detector(masks=True).eval(), detector(FPN_LIKE, masks=True).eval()
    weights = supernet.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours, _ = alone(images(), SIZES)
        theirs, _ = supernet(images(), SIZES, architecture=FPN_LIKE)
    for a, b in zip(ours, theirs, strict=True):
        assert a["masks"].shape == (len(a["boxes"]), 12, 12)
        assert a["masks"].dtype == torch.float32
        assert ((a["masks"] >= 0) & (a["masks"] <= 1)).all()
        assert torch.equal(a["masks"], b["masks"])


def test_no_detections_have_no_masks():
    model = detector(FPN_LIKE, masks=True).eval()
    model.roi_heads.score_thresh = 1.0
    with torch.no_grad():
        found, _ = model(images(), SIZES)
    assert [d["masks"].shape for d in found] == [(0, 12, 12)] * 2
