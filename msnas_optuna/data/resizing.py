"""The size that an image is resized to: its shorter side to a goal, its aspect kept.

The detection convention (Lin et al., "Feature Pyramid Networks", CVPR 2017). Needs no torch.
"""

from __future__ import annotations


def resized_size(size: tuple[int, int], shorter: int, longer: int) -> tuple[int, int]:
    """The (h, w) that an image of (h, w) is resized to, pixels, at least 1.

    The shorter side becomes `shorter`, or less where the longer one would exceed `longer`.
    """
    scale = min(shorter / min(size), longer / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
