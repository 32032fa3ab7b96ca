"""Contrast with dynamic prototypes (pclhd.md 3.4.3, 3.9).

They are kept here and not in the memory, so that they work beside any memory. Known deviation: with a single stage they
are in use from the first epoch, whether or not it has cross-modality evidence; the released code has them in its second
stage.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from harness.contracts import Batch, Embeddings, EpochContext, Loss, Memory, Partition, PseudoLabels
from harness_pclhd.options import DynamicContrastOptions


class DynamicContrastLoss(Loss):
    """Terms ``dynamic-contrast/visible`` and ``dynamic-contrast/infrared``; needs the teacher.

    Silent in stages without cross-modality evidence, if the recipe has more than one stage.
    """

    options: DynamicContrastOptions
    changing = ("_banks", "_generator")

    def begin(self, epoch: EpochContext, labels: PseudoLabels, memory: Memory) -> None:
        self._banks: dict[str, Tensor] = {}
        """Prototypes [S, K, D] by partition."""
        self._generator = torch.Generator()
        if not epoch.cross and epoch.stages > 1:
            return
        features_ND = normalize(epoch.features(encoder="teacher"), dim=1)
        rng = epoch.rng
        for name in ("visible", "infrared"):
            if name in labels and labels[name].num_clusters:
                self._banks[name] = features_ND[random_members(labels[name], self.options.samples, rng=rng)]
        self._generator.manual_seed(int(rng.integers(2**62)))
        self._note(epoch)

    def _note(self, epoch: EpochContext) -> None:
        if not self._banks:
            epoch.note("no term, because there are no visible or infrared clusters.")
        elif self.options.dpcl_query == "ema":
            epoch.note(
                "the terms are recorded and train nothing, because with dpcl_query=ema the queries are the teacher's; "
                "dpcl_query=online trains."
            )

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        terms = {}
        for name, bank_SKD in self._banks.items():
            chosen = self._chosen(batch, name)
            if chosen is not None:
                source = embeddings.teacher if self.options.dpcl_query == "ema" else embeddings
                value = dynamic_contrast(
                    bank_SKD,
                    source.unit()[chosen],
                    batch.labels[name][chosen],
                    temperature=self.options.temperature,
                )
                terms[f"dynamic-contrast/{name}"] = self.options.weight * value
        return terms

    @torch.no_grad()
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        """The teacher's embeddings of the batch take the place of the prototypes (dpcl_query = online)."""
        if self.options.dpcl_query == "ema":
            return
        for name, bank_SKD in self._banks.items():
            chosen = self._chosen(batch, name)
            if chosen is not None:
                queries, labels = embeddings.teacher.unit()[chosen], batch.labels[name][chosen]
                replace_members_(bank_SKD, queries, labels, generator=self._generator)

    def _chosen(self, batch: Batch, name: str) -> Tensor | None:
        """The queries with a label in one partition, a mask [B]; None if there are none."""
        if name not in batch.labels:
            return None
        chosen = batch.labels[name] >= 0
        return chosen if bool(chosen.any()) else None


def dynamic_contrast(bank_SKD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy in which a cluster counts by its hardest prototype: the least similar of the own cluster's S, the
    most similar of any other's.

    ``queries_BD`` unit rows, ``labels_B`` int64 [B], all valid. Returns a scalar. Source: pclhd.md 3.9.
    """
    samples, clusters, size = bank_SKD.shape
    similarity_BSK = (queries_BD @ bank_SKD.reshape(-1, size).T).unflatten(1, (samples, clusters))
    own_BK = torch.arange(clusters, device=labels_B.device) == labels_B[:, None]
    logits_BK = torch.where(own_BK, similarity_BSK.amin(dim=1), similarity_BSK.amax(dim=1)) / temperature
    return cross_entropy(logits_BK.float(), labels_B)


def random_members(partition: Partition, samples: int, *, rng: np.random.Generator) -> Tensor:
    """For each cluster ``samples`` of its images, drawn alike and with replacement: global indices, int64 [S, K]."""
    order_N = partition.labels.argsort(stable=True)
    sizes_K = partition.sizes
    starts_K = len(order_N) - sizes_K.sum() + sizes_K.cumsum(0) - sizes_K
    share_SK = torch.from_numpy(rng.random((samples, partition.num_clusters))).to(order_N.device)
    return order_N[starts_K + (share_SK * sizes_K).long()]


def replace_members_(bank_SKD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, generator: torch.Generator) -> None:
    """All prototypes of every cluster in the batch become queries of it, drawn at random, in place.

    Without replacement where the batch holds at least S queries of the cluster, else with. ``labels_B`` int64 [B], all
    valid; ``generator`` is the CPU's. Source: pclhd.md 3.9.
    """
    samples, device = len(bank_SKD), labels_B.device
    shuffled = torch.randperm(labels_B.numel(), generator=generator).to(device)
    ordered, order = labels_B[shuffled].sort(stable=True)
    clusters_R, sizes_R = ordered.unique_consecutive(return_counts=True)
    share_SR = torch.rand(samples, len(clusters_R), generator=generator, dtype=torch.float64).to(device)
    in_turn_S1 = torch.arange(samples, device=device)[:, None]
    place_SR = torch.where(sizes_R >= samples, in_turn_S1, (share_SR * sizes_R).long())
    bank_SKD[:, clusters_R] = queries_BD[shuffled[order[sizes_R.cumsum(0) - sizes_R + place_SR]]].to(bank_SKD.dtype)
