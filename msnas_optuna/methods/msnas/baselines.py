"""ResNets with a feature pyramid, in the place of the encoder: the hand-made detectors.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Lin et al., "Feature
Pyramid Networks for Object Detection", CVPR 2017. Their parts are torchvision's. Trained from
scratch, with the recipe of the study, as all detectors here are. C channels of the pyramid.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from msnas_optuna.methods.msnas.cost import RESNETS
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES, Architecture
from msnas_optuna.models.blocks import Stem, initialize

_BLOCKS: Final = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNetFPN(nn.Module):
    """An encoder whose object groups read P2 to P6.

    `widths` are the channels of the blocks of the four stages, those of the stem are the first.
    """

    def __init__(self, name: str, widths: tuple[int, ...], *, channels: int) -> None:
        super().__init__()
        block, depths = _BLOCKS[RESNETS[name][0]], RESNETS[name][1]
        self.stem = Stem(widths[0], norm="batch")
        self.stages = nn.ModuleList()
        C_in = widths[0]
        pyramid: list[int] = []
        for width, depth in zip(widths, depths, strict=True):
            C_out, stride, blocks = width * block.expansion, 2 if pyramid else 1, []
            for i in range(depth):
                step = stride if i == 0 else 1
                project = (
                    nn.Sequential(
                        nn.Conv2d(C_in, C_out, 1, step, bias=False), nn.BatchNorm2d(C_out)
                    )
                    if step != 1 or C_in != C_out
                    else None
                )
                blocks.append(block(C_in, width, step, project, norm_layer=nn.BatchNorm2d))
                C_in = C_out
            self.stages.append(nn.Sequential(*blocks))
            pyramid.append(C_out)
        initialize(self)
        self.pyramid = FeaturePyramidNetwork(pyramid, channels, extra_blocks=LastLevelMaxPool())

    def feature_strides(self, architecture: Architecture | None = None) -> tuple[int, ...]:
        """Pixels, of the features that `forward` gives."""
        return FEATURE_STRIDES

    def forward(self, images: Tensor, architecture: Architecture | None = None) -> list[Tensor]:
        """P2 to P6, [B, C, H/4, W/4] to [B, C, H/64, W/64], of images [B, 3, H, W]."""
        x, found = self.stem(images), OrderedDict[str, Tensor]()
        for i, stage in enumerate(self.stages):
            x = found[str(i)] = stage(x)
        return [feature.float() for feature in self.pyramid(found).values()]
