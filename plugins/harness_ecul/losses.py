"""ECUL's losses (ecul.md 3.4): DMIC's terms with weights of their own.

Stated by sources: contrast with clusters and with single images, within and across modalities. Reconstructed: the
terms' form (dmic.md 3.5) and the weights, from public code of the same group.
"""

from __future__ import annotations

from harness_dmic.losses import HybridLoss, HybridWeights
from harness_ecul.options import UnitedContrastOptions


class UnitedContrastLoss(HybridLoss):
    """DMIC's terms with ECUL's weights."""

    options: UnitedContrastOptions
    prefix = "united-contrast"

    @property
    def weights(self) -> HybridWeights:
        options = self.options
        return HybridWeights(
            cluster_intra=1.0,
            cluster_joint=options.w_joint,
            instance_intra=options.w_instance,
            instance_joint=options.w_joint * options.w_joint_instance,
        )
