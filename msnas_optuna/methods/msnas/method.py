"""MSNAS as the rest of the package sees it: one object."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from msnas_optuna.methods.base import (
    AnchorLayout,
    BaselineDetector,
    Column,
    Heatmap,
    Method,
    Part,
    Preset,
)
from msnas_optuna.methods.msnas.cost import (
    RESNET_WIDTHS,
    EncoderCost,
    box_head,
    fpn_baseline,
    mask_head,
    scaled_widths,
)
from msnas_optuna.methods.msnas.picture import LEGEND, draw
from msnas_optuna.methods.msnas.published import PRESETS, PUBLISHED
from msnas_optuna.methods.msnas.sections import DetectorSection, SpaceSection, canonical_size
from msnas_optuna.methods.msnas.space import (
    FEATURE_STRIDES,
    N_GROUPS,
    Architecture,
    MSNASSpace,
    count_paths,
)
from msnas_optuna.methods.picture import Picture
from msnas_optuna.spaces.base import InvalidArchitectureError
from msnas_optuna.training.metrics import MASK_METRICS, METRICS

if TYPE_CHECKING:
    from msnas_optuna.methods.msnas.baselines import ResNetFPN
    from msnas_optuna.methods.msnas.detector import Detector
    from msnas_optuna.methods.msnas.encoder import MSNASEncoder
    from msnas_optuna.methods.msnas.single import SingleImageDetector


SCALED: Final = "-scaled"  # ends the name of a baseline of the study's FLOPs


class MSNASMethod(Method[Architecture]):
    """Multi-scale network architecture search: strides of blocks, and features of heads."""

    name = "msnas"
    title = "Multi-scale network architecture search"
    baseline = "FPN-like path"
    baseline_stage = "fpn-like"
    section = SpaceSection
    detector_section = DetectorSection
    baselines = tuple(f"ResNet-{n}-FPN{s}" for s in (SCALED, "") for n in (18, 34, 50))
    evaluation_keys = frozenset({"max_detections", "proposals_test", "score_threshold"})
    later_keys = {  # noqa: RUF012  # read alone
        "space.feature_strides": "searched",
        "space.constraints": True,
        "space.unread_blocks": True,
        "detector.masks": False,
        "detector.mask_pool_size": 14,
        "detector.mask_channels": 256,
        "detector.mask_convolutions": 4,
    }
    size_multiple = FEATURE_STRIDES[-1]
    columns = (
        Column("strides", "strides", lambda a: list(a.strides), Architecture.strides_text),
        Column(
            "feature_strides",
            "reading",
            lambda a: list(a.feature_strides),
            Architecture.feature_strides_text,
        ),
    )
    legend = LEGEND
    columns_note = "Strides and feature strides are written as in the paper's Tables 7-9."
    metrics = {**METRICS, **MASK_METRICS}  # noqa: RUF012
    mixed = "encoder"
    width = "channels"
    published = PUBLISHED
    presets = {  # noqa: RUF012  # read alone
        name: Preset(
            section=SpaceSection(
                n_blocks=preset.n_blocks, block=preset.block, channels=preset.channels
            ),
            input_size=preset.input_size,
            target=preset.target_gflops * 1e9,
            tolerance=0.01,  # §4.1
            references={f"{name.upper()}-FPN baseline": fpn_baseline(name, preset.input_size)},
        )
        for name, preset in PRESETS.items()
    }
    heatmaps = {  # noqa: RUF012
        "block-strides": Heatmap(
            title="Resolution of the population's blocks",
            rows="block",
            unit="mean absolute stride, in pixels",
            values=lambda a: tuple(int(stride) for stride in a.absolute_strides),
            scale=FEATURE_STRIDES,
        ),
        "feature-strides": Heatmap(
            title="Features that the population's heads read",
            rows="head",
            unit="mean absolute stride, in pixels",
            values=lambda a: a.feature_strides,
            scale=FEATURE_STRIDES,
        ),
    }

    def rules(self, config: Any) -> Iterator[str]:
        """Batch norm needs two values of a channel; the AP of masks needs masks."""
        if "ap_mask" in config.study.objectives and not config.detector.masks:
            yield (
                f"study.objectives: 'ap_mask' needs masks, got {list(config.study.objectives)}; "
                f"remove it or set detector.masks = true"
            )
        shorter, coarsest = config.data.image_size[0], FEATURE_STRIDES[-1]
        cells = math.ceil(shorter / coarsest) ** 2  # of the coarsest feature, at least
        for name in ("supernet", "finetune", "retrain"):
            batch_size = getattr(config, name).batch_size
            if config.space.norm == "batch" and cells * batch_size < 2:
                yield (
                    f"{name}.batch_size: batch norm needs two values of a channel, and the "
                    f"coarsest feature of an image of {shorter} pixels has one, got {batch_size}; "
                    f"raise it or set space.norm = 'group'"
                )

    def describe(self, section: SpaceSection) -> str:
        encoder = (
            f"the stride of each of {section.n_blocks} {section.block} blocks with "
            f"{section.channels} channels"
        )
        if section.feature_strides == "fpn":
            return f"{encoder}; the {N_GROUPS} detection heads read FPN's features, 4 to 64"
        free = "" if section.constraints else ", without the constraints of Eq. 7"
        read = "" if section.unread_blocks else "; one of them reads the last block"
        heads = f"the feature that each of the {N_GROUPS} detection heads reads"
        return f"{encoder}, and {heads}{free}{read}"

    def space(self, section: SpaceSection) -> MSNASSpace:
        return section.space()

    def cost(self, section: SpaceSection, *, input_size: tuple[int, int]) -> EncoderCost:
        return EncoderCost(section.block, section.channels, input_size, section.stem_channels)

    def baseline_architecture(self, space: MSNASSpace) -> Architecture:
        return space.fpn_like()

    def parse(self, text: str) -> Architecture:
        return Architecture.parse(text)

    def notation(self, cells: Mapping[str, str]) -> str:
        return f"{cells['strides']} | {cells['feature_strides']}"

    def counts(self, space: MSNASSpace) -> Mapping[str, int]:
        return {"valid stride paths": count_paths(space.n_blocks)}

    def cost_parts(self, architecture: Architecture, cost: EncoderCost) -> list[Part]:
        found, absolute = cost.breakdown(architecture), architecture.absolute_strides
        n, laterals = len(absolute), architecture.laterals
        parts = [Part("stem", found.stem, "stem", {"stride": "", "absolute stride": "4"})]
        for i, (amount, lateral) in enumerate(zip(found.blocks, found.laterals, strict=True)):
            at = {"stride": f"{architecture.strides[i]:g}", "absolute stride": f"{absolute[i]:g}"}
            parts.append(Part(f"block {i + 1}", amount, f"{n} blocks", at))
            if lateral:
                name = f"lateral, block {laterals[i] + 1} to {i + 1}"
                parts.append(Part(name, lateral, "lateral connections", at | {"stride": ""}))
        for s, amount in found.outputs.items():
            at = {"absolute stride": str(s)}
            parts.append(Part("output convolution", amount, "output convolutions", at))
        for g, (s, amount) in enumerate(
            zip(architecture.feature_strides, found.rpn, strict=True), start=1
        ):
            at = {"absolute stride": str(s)}
            group = f"RPN heads of {N_GROUPS} groups"
            parts.append(Part(f"RPN head, group {g}", amount, group, at))
        return parts

    def further_parts(
        self, section: SpaceSection, detector: DetectorSection, *, n_classes: int
    ) -> list[Part]:
        """The RoI heads (Table 6), at the most RoIs that they see in evaluation."""
        C, proposals, found = section.channels, detector.proposals_test, detector.max_detections
        boxes = box_head(detector, C, n_classes) * proposals
        parts = [Part(f"box head, {proposals} proposals", boxes, "RoI heads", {})]
        if detector.masks:
            masks = mask_head(detector, C, n_classes) * found
            parts.append(Part(f"mask head, {found} detections", masks, "RoI heads", {}))
        return parts

    def masks(self, detector: DetectorSection) -> bool:
        return detector.masks

    def build_detector(
        self,
        section: SpaceSection,
        detector: DetectorSection,
        *,
        n_classes: int,
        image_size: tuple[int, int],
        only: Architecture | None,
    ) -> Detector:
        from msnas_optuna.methods.msnas.encoder import MSNASEncoder

        encoder = MSNASEncoder(
            section.n_blocks,
            section.block,
            channels=section.channels,
            stem_channels=section.stem_channels,
            norm=section.norm,
            only=only,
        )
        return _around(encoder, section, detector, n_classes=n_classes, image_size=image_size)

    def baseline_detector(
        self, name: str, section: SpaceSection, cost: EncoderCost, *, target: float
    ) -> BaselineDetector:
        body, full = f"r{name.split('-')[1]}", not name.endswith(SCALED)
        size, channels = cost.input_size, section.channels
        if section.norm != "batch":
            raise InvalidArchitectureError(
                f"the bodies of ResNets have batch norm here, space.norm is {section.norm!r}; "
                f"compare in a study with space.norm = 'batch'"
            )
        widths: tuple[int, ...] = RESNET_WIDTHS
        if not full:
            widths = scaled_widths(body, target, input_size=size, channels=channels)

        def build(
            section: SpaceSection, detector: DetectorSection, **about_images: Any
        ) -> Detector:
            from msnas_optuna.methods.msnas.baselines import ResNetFPN

            encoder = ResNetFPN(body, widths, channels=section.channels)
            return _around(encoder, section, detector, **about_images)

        amount = fpn_baseline(body, size, widths=widths, channels=channels)
        return BaselineDetector(amount, scaled=not full, build=build)

    def exportable(self, network: Detector) -> SingleImageDetector:
        from msnas_optuna.methods.msnas.single import SingleImageDetector

        return SingleImageDetector(network)

    def facts(
        self, section: SpaceSection, detector: DetectorSection, network: Detector
    ) -> dict[str, Any]:
        from msnas_optuna.methods.msnas.detector import ASPECT_RATIOS
        from msnas_optuna.methods.msnas.encoder import MSNASEncoder
        from msnas_optuna.models.torchvision_parts import PIXEL_MEAN, PIXEL_STD

        heads, rpn, encoder = network.roi_heads, network.rpn, network.encoder
        assert isinstance(encoder, MSNASEncoder)
        path = encoder.only
        assert path is not None
        return {
            "strides": list(path.strides),
            "feature_strides": list(path.feature_strides),
            "absolute_strides": list(path.absolute_strides),
            "block": section.block,
            "channels": section.channels,
            "stem_channels": section.stem_channels,
            "norm": section.norm,
            "pixel_mean": list(PIXEL_MEAN),
            "pixel_std": list(PIXEL_STD),
            "anchor_sides": [side for (side,) in rpn.anchor_generator.sizes],
            "anchor_aspect_ratios": list(ASPECT_RATIOS),
            "canonical_size": heads.box_roi_pool.canonical_size,
            "pool_size": detector.pool_size,
            "score_threshold": heads.score_thresh,
            "nms_iou": heads.nms_thresh,
            "max_detections": heads.detections_per_img,
            "proposals": detector.proposals_test,
            "proposal_nms_iou": rpn.nms_thresh,
            "masks": detector.masks,
        }

    def anchors(
        self, section: SpaceSection, detector: DetectorSection, *, image_size: tuple[int, int]
    ) -> AnchorLayout:
        return AnchorLayout(
            strides=self.space(section).fpn_like().feature_strides,
            base=detector.anchor_base,
            canonical_size=canonical_size(detector, image_size),
        )

    def picture(
        self, architecture: Architecture, *, name: str, cost: EncoderCost | None = None
    ) -> Picture:
        return draw(architecture, name=name, cost=cost)


def _around(
    encoder: MSNASEncoder | ResNetFPN,
    section: SpaceSection,
    detector: DetectorSection,
    *,
    n_classes: int,
    image_size: tuple[int, int],
) -> Detector:
    """The detector around an encoder."""
    from msnas_optuna.methods.msnas.detector import Detector

    settings = dataclasses.asdict(detector)
    settings["canonical_size"] = canonical_size(detector, image_size)
    return Detector(encoder, n_classes, channels=section.channels, norm=section.norm, **settings)


MSNAS = MSNASMethod()
