"""Networks: blocks, the MSNAS encoder, detection heads and the detector."""

from msnas_optuna.models.detector import Detector
from msnas_optuna.models.msnas import MSNASEncoder, subset_state

__all__ = ["Detector", "MSNASEncoder", "subset_state"]
