"""EMCC: extended modality-camera clustering (ecul.md 3.1).

Stated by sources: two sizes k2 and k3, by which negatives are filtered and positives of other cameras and of the other
modality are taken in, in an extended encoding. Reconstructed: the rule ``cap``, from public code of the same first
author's later method; the rule ``two_tier``, another reading of the same statement; all values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.contracts import EpochContext
from harness_dmic.clusterer import InvariantClusterer, Search
from harness_dmic.expansion import InvariantExpansion
from harness_dmic.schedules import eps_at
from harness_ecul.options import EmccOptions


@dataclass(frozen=True, eq=False, kw_only=True)
class ExtendedExpansion(InvariantExpansion):
    """MIE's expansion over k3 neighbours, of which ``cap`` (k2) bounds those of one camera.

    ``rule`` as in :class:`harness_ecul.options.EmccOptions`. With cap ≥ k3 it is MIE of size k3.
    """

    cap: int
    rule: Literal["cap", "two_tier"] = "cap"

    def accepted(self, nearest_NK: NDArray[np.int64]) -> NDArray[np.bool_]:
        accepted_NK = np.zeros(nearest_NK.shape, dtype=bool)
        first_K = np.arange(nearest_NK.shape[1]) < self.cap
        for group in range(self.groups.modality_G.size):
            own_NK = (self.groups.group_N == group)[nearest_NK]
            if self.rule == "cap":
                accepted_NK |= own_NK & (own_NK.cumsum(axis=1, dtype=np.int32) <= self.cap)
            else:
                accepted_NK |= own_NK & (first_K | ~(own_NK & first_K).any(axis=1, keepdims=True))
        return accepted_NK


class EmccClusterer(InvariantClusterer):
    """Visible, infrared and, in stages with cross-modality evidence, joint clusters by the extended expansion."""

    options: EmccOptions

    def search(self, epoch: EpochContext, *, joint: bool) -> Search:
        options = self.options
        eps = options.eps
        if options.dnc:
            eps = eps_at(epoch.epoch, epoch.stage_epochs, cross=epoch.cross, schedule=options)
        if joint:
            return self._search(options.k1_joint, cap=options.k2_joint, width=options.width_joint, eps=eps)
        return self._search(options.k1_intra, cap=options.k2_intra, width=options.width_intra, eps=eps)

    def _search(self, k1: int, *, cap: int, width: int, eps: float) -> Search:
        expansion = partial(ExtendedExpansion, form=self.options.expansion, encoded=k1, cap=cap, rule=self.options.rule)
        return Search(k1, width, eps, expansion)
