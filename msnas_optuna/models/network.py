"""The interface of the networks that are trained, evaluated and searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Generator, Tensor, nn

Targets = Sequence[dict[str, Tensor]]
Losses = dict[str, Tensor]


class DetectionNetwork(nn.Module):
    """A detector of one architecture, or a supernet that evaluates the one that it is given.

    The architecture is an argument of `forward`, so that a network holds no state of a search.
    """

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        *,
        targets: Targets | None = None,
        architecture: Any = None,
        generators: Sequence[Generator] | None = None,
    ) -> tuple[list[dict[str, Tensor]], Losses]:
        """Detections in evaluation, losses in training.

        Args:
            images: [B, 3, H, W] uint8, padded right and below.
            sizes: height and width of every image before padding.
            targets: for training: "boxes" [n, 4] (x1, y1, x2, y2 in pixels of `images`) and
                "labels" [n] from 1; n may be 0. A network with masks needs "masks" [n, h, w],
                uint8 of 0 and 1, of the image before padding, too.
            architecture: the one that a supernet evaluates; nobody else looks into it.
            generators: one for each image, on its device, of which everything random in the
                losses is drawn; None draws from the global one.

        Returns:
            Detections of every image ("boxes", "scores", "labels", in pixels of `images`, best
            first; none in training) and losses by name, each a mean (none in evaluation). A
            network with masks gives "masks" [n, m, m], too, probabilities over the boxes.
        """
        raise NotImplementedError

    @property
    def n_drawn(self) -> Mapping[str, int]:
        """The number of terms, of the last batch, that each loss is a mean over; may be 0."""
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
