"""A detector of one image as a program of tensors alone, which can be exported.

The weights and the numbers are those of `Detector`; torchvision's inference asks for sizes of
intermediate results in Python and walks over lists of images, which no exporter can follow.

Shapes: H x W pixels of the padded image, G groups, A anchors of a cell, R proposals, K classes,
n detections with masks of m x m cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from msnas_optuna.methods.msnas.detector import Detector
from msnas_optuna.methods.msnas.encoder import MSNASEncoder
from msnas_optuna.methods.msnas.heads import GroupRoIPool, GroupRPNHead
from msnas_optuna.models.torchvision_parts import CenteredAnchorGenerator, normalized

PROPOSAL_SIDE, DETECTION_SIDE = 1e-3, 1e-2  # pixels; torchvision drops shorter ones


class SingleImageDetector(nn.Module):
    """Evaluates as a stand-alone detector, whose parts it shares; ValueError for a supernet."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        encoder = detector.encoder
        if isinstance(encoder, MSNASEncoder) and encoder.only is None:
            raise ValueError(
                "only the detector of one architecture can be exported, got a supernet"
            )
        self.strides, self.encoder = encoder.feature_strides(), encoder
        self.rpn, self.roi_heads = detector.rpn, detector.roi_heads
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        # The names of operations, mean and std, would clash with theirs in ONNX.
        self.register_buffer("pixel_mean", detector.mean)
        self.register_buffer("pixel_std", detector.std)
        anchors: CenteredAnchorGenerator = self.rpn.anchor_generator
        self.cells: list[Tensor] = [cell.cpu() for cell in anchors.cell_anchors]  # G x [A, 4]
        self.eval()

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Detections of one image, best first.

        Args:
            image: uint8 [1, 3, H, W], RGB; H and W multiples of 64, padded right and below.
            size: int64 [2], height and width before padding.

        Returns:
            boxes [n, 4] (x1, y1, x2, y2 in pixels of `image`), scores [n] and labels [n] (1..K);
            of a detector with masks these, too: probabilities [n, m, m] over the boxes.
        """
        bounds = size.flip(0).repeat(2).float()  # w h w h
        x = normalized(image, size[None], mean=self.pixel_mean, std=self.pixel_std)
        features: list[Tensor] = self.encoder(x)
        proposals = self._proposals(features, bounds)
        boxes, scores, labels = self._detections(features, proposals, bounds)
        if not self.roi_heads.has_mask():
            return boxes, scores, labels
        return boxes, scores, labels, self._masks(features, boxes, labels, bounds)

    def _proposals(self, features: list[Tensor], bounds: Tensor) -> Tensor:  # -> [R, 4]
        head: GroupRPNHead = self.rpn.head
        outputs = enumerate(zip(*head(features), strict=True))
        groups = [self._group_proposals(g, *output, bounds=bounds) for g, output in outputs]
        boxes, scores = (torch.cat(parts) for parts in zip(*groups, strict=True))
        return boxes[scores.sort(descending=True).indices[: self.rpn.post_nms_top_n()]]

    def _group_proposals(
        self, g: int, objectness: Tensor, deltas: Tensor, *, bounds: Tensor
    ) -> tuple[Tensor, Tensor]:  # [1, A, h, w], [1, 4A, h, w] -> [r, 4], [r]
        h, w = objectness.shape[-2:]
        flat = objectness[0].permute(1, 2, 0).reshape(-1)  # [h * w * A]
        codes = deltas[0].view(-1, 4, h, w).permute(2, 3, 0, 1).reshape(-1, 4)
        kept = torch.sym_min(flat.shape[0], self.rpn.pre_nms_top_n())
        scores, best = flat.topk(kept)
        anchors = self._anchors(g, h, w)[best]
        boxes = _clipped(self.rpn.box_coder.decode_single(codes[best], anchors), bounds)
        (large,) = torch.where(_shorter_side(boxes) >= PROPOSAL_SIDE)
        boxes, scores = boxes[large], scores[large].sigmoid()
        chosen = _suppressed(boxes, scores, self.rpn.nms_thresh)
        return boxes[chosen], scores[chosen]

    def _anchors(self, g: int, h: int, w: int) -> Tensor:  # [h * w * A, 4]
        stride, cell = self.strides[g], self.cells[g]
        x = (torch.arange(w, dtype=torch.float32) * stride)[None].expand(h, w)
        y = (torch.arange(h, dtype=torch.float32) * stride)[:, None].expand(h, w)
        corners = torch.stack((x, y, x, y), dim=2)  # [h, w, 4]
        return (corners[:, :, None] + cell + stride / 2).reshape(-1, 4)

    def _detections(
        self, features: list[Tensor], proposals: Tensor, bounds: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.roi_heads
        pooled = self._pooled(heads.box_roi_pool, features, proposals, bounds)
        outputs = heads.box_predictor(heads.box_head(pooled))
        logits, codes = (output[:-1] for output in outputs)
        decoded = heads.box_coder.decode_single(codes, proposals)  # [R, 4(K+1)]
        boxes = _clipped(decoded.view(-1, logits.shape[1], 4)[:, 1:].reshape(-1, 4), bounds)
        probabilities = logits.softmax(dim=1)[:, 1:]  # [R, K]
        classes = torch.arange(1, logits.shape[1]).expand_as(probabilities).reshape(-1)
        scores = probabilities.reshape(-1)
        (kept,) = torch.where(
            (scores > heads.score_thresh) & (_shorter_side(boxes) >= DETECTION_SIDE)
        )
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
        apart = classes[:, None] * (bounds.max() + 1)  # boxes of two classes never overlap
        chosen = _suppressed(boxes + apart, scores, heads.nms_thresh)[: heads.detections_per_img]
        return boxes[chosen], scores[chosen], classes[chosen]

    def _masks(
        self, features: list[Tensor], boxes: Tensor, labels: Tensor, bounds: Tensor
    ) -> Tensor:  # [n, 4], [n] -> [n, m, m]
        heads = self.roi_heads
        pooled = self._pooled(heads.mask_roi_pool, features, boxes, bounds)
        logits: Tensor = heads.mask_predictor(heads.mask_head(pooled))[:-1]  # [n, K+1, m, m]
        m = logits.shape[-1]
        return logits.gather(1, labels.view(-1, 1, 1, 1).expand(-1, 1, m, m))[:, 0].sigmoid()

    def _pooled(
        self, pool: GroupRoIPool, features: list[Tensor], boxes: Tensor, bounds: Tensor
    ) -> Tensor:  # [R, 4] -> [R + 1, C, p, p]
        # One more RoI, dropped again: exporters must see that no layer gets an empty batch.
        rois = torch.cat((boxes, (bounds * bounds.new_tensor((0, 0, 1, 1)))[None]))
        numbered = torch.cat((torch.zeros_like(rois[:, :1]), rois), dim=1)
        return pool.pool(features, self.strides, numbered)


def _suppressed(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:  # [n, 4], [n] -> [m]
    """Which boxes non-maximum suppression keeps, best first; none of them is negative."""
    # Exporters take it for granted that at least two are kept, and check that in the program. Two
    # more boxes make it true: they are apart from all others, come last and are dropped again.
    more = boxes.new_tensor([[-3.0, -3.0, -2.0, -2.0], [-6.0, -6.0, -5.0, -5.0]])
    kept: Tensor = nms(
        torch.cat((boxes, more)), torch.cat((scores, scores.new_tensor([-1.0, -2.0]))), threshold
    )
    return kept[:-2]


def _clipped(boxes: Tensor, bounds: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), bounds)


def _shorter_side(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)
