"""HMCL's losses: contrast with clusters and with single images, per modality and over both (dmic.md 3.5).

Stated by the paper: the terms and their weights 0.1 and 1. From public code of the same authors: that the image term
sums over all images of the own cluster; that terms are means over the batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.contracts import OUTLIER, Bank, Batch, Embeddings, EpochContext, Loss, Memory, Modality, PseudoLabels
from harness.contrast import contrast
from harness_dmic.options import HybridContrastOptions

LOG_FLOOR = math.log(1e-6)
"""Log of the constant that the released code adds to the sum and to the share."""

NO_IMAGES = (
    "its terms of single images are left out: the memory of this run keeps none. Memories that do are those of the "
    "plugins hmcl and tsmem."
)


@dataclass(frozen=True, slots=True)
class HybridWeights:
    """Weights of the terms: of clusters and of images (instances), within a modality and over both."""

    cluster_intra: float
    cluster_joint: float
    instance_intra: float
    instance_joint: float


class HybridLoss(Loss):
    """Terms ``<prefix>/cluster/<partition>`` and ``<prefix>/instance/<partition>``, weighted.

    There is one of each for every partition that labels the batch and has a bank; partitions other than ``"visible"``
    and ``"infrared"`` count as joint. Terms of weight 0 are left out, and, noted in the record, those of images if the
    memory keeps none. Subclass it, set ``prefix`` and override :attr:`weights`; options name ``temperature`` and
    ``inter_instance_reduction``.
    """

    prefix: str

    @property
    @abstractmethod
    def weights(self) -> HybridWeights:
        """The weights of the terms."""

    def begin(self, epoch: EpochContext, labels: PseudoLabels, memory: Memory) -> None:
        wanted = self.weights.instance_intra or self.weights.instance_joint
        if wanted and any(memory.instances(name) is None for name in memory.names):
            epoch.note(NO_IMAGES)

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        terms: dict[str, Tensor | None] = {}
        for name in (name for name in batch.labels if name in memory.names):
            joint = name not in ("visible", "infrared")
            cluster = self.weights.cluster_joint if joint else self.weights.cluster_intra
            instance = self.weights.instance_joint if joint else self.weights.instance_intra
            images = memory.instances(name) if instance else None
            if cluster:
                value = contrast(
                    memory.bank(name), embeddings.unit(), batch.labels[name], temperature=self.options.temperature
                )
                terms[f"{self.prefix}/cluster/{name}"] = _times(cluster, value)
            if images is not None:
                value = self._image_term(images, batch, embeddings, name=name, joint=joint)
                terms[f"{self.prefix}/instance/{name}"] = _times(instance, value)
        return {name: term for name, term in terms.items() if term is not None}

    def _image_term(
        self, images: Bank, batch: Batch, embeddings: Embeddings, *, name: str, joint: bool
    ) -> Tensor | None:
        apart = joint and self.options.inter_instance_reduction == "per_modality"
        return instance_contrast(
            images,
            embeddings.unit(),
            batch.labels[name],
            temperature=self.options.temperature,
            modality_B=batch.modality if apart else None,
        )


class HybridContrastLoss(HybridLoss):
    """HMCL's terms with DMIC's weights."""

    options: HybridContrastOptions
    prefix = "hybrid-contrast"

    @property
    def weights(self) -> HybridWeights:
        options = self.options
        return HybridWeights(options.phi2_intra, options.phi2_inter, options.phi1_intra, options.phi1_inter)


def instance_contrast(
    bank: Bank, queries_BD: Tensor, labels_B: Tensor, *, temperature: float, modality_B: Tensor | None = None
) -> Tensor | None:
    """Mean of −log(P + c), P = Σ_own exp(q·v/τ) / (Σ_all exp(q·v/τ) + c), c = 1e-6, over the labelled queries.

    ``queries_BD`` unit rows [B, D]; ``labels_B`` int64 [B], −1 = leave out. With ``modality_B`` int64 [B], the sum of
    the modalities' means. Computed from logarithms, so that no temperature overflows. None when no query is labelled.
    """
    if modality_B is not None:
        parts = [torch.where(modality_B == modality, labels_B, OUTLIER) for modality in Modality]
        values = [instance_contrast(bank, queries_BD, labels, temperature=temperature) for labels in parts]
        given = [value for value in values if value is not None]
        return torch.stack(given).sum() if given else None
    chosen = labels_B >= 0
    if not bool(chosen.any()):
        return None
    labels = labels_B[chosen]
    logits_BM = bank.similarities(queries_BD[chosen], labels).float() / temperature
    own_BM = bank.cluster[None, :] == labels[:, None]
    floor = logits_BM.new_tensor(LOG_FLOOR)
    own_B = torch.where(own_BM, logits_BM, -torch.inf).logsumexp(dim=1)
    log_share_B = own_B - torch.logaddexp(logits_BM.logsumexp(dim=1), floor)
    return -torch.logaddexp(log_share_B, floor).mean()


def _times(weight: float, value: Tensor | None) -> Tensor | None:
    return None if value is None else weight * value
