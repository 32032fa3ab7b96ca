"""Multi-centre contrastive learning: distances to the several prototypes of clusters (hil.md 3.6 b).

From the released code: the form of the loss, the nearest cluster as the positive one, the agreement of both embeddings,
the weights. Ours: clamped distances, and zero where the released code has NaN (no query agrees; a query equals a
prototype; there is one cluster). The terms across modalities, which the shared memory of the released code makes equal
to those within, are counted by a factor of two; where visible and infrared clusters have banks of their own, they are
terms of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.contracts import Bank, BankKind, Batch, Embeddings, EpochContext, Loss, Memory, PseudoLabels
from harness_hil.options import MultiCentreContrastOptions
from harness_hil.phases import reached, warming_up
from harness_hil.prototypes import MODALITIES, OTHER, branch_weight, branches, centres, contrasted, partition_for

SMALLEST = 1e-6
"""Least distance between a query and a prototype."""
FLOOR = 1e-8

SINGLE = (
    "every cluster counts as having one centre only: the memory of this run keeps no sub-centres; that of mccl does."
)
NOWHERE = "it has no terms: batches are labelled by neither joint clusters nor those of the modalities."


class MultiCentreContrastLoss(Loss):
    """Terms ``mccl/<modality>/<embedding>``, and ``mccl/<modality>-<other>/<embedding>`` where there is no joint bank.

    Silent in a warm-up.
    """

    options: MultiCentreContrastOptions

    def begin(self, epoch: EpochContext, labels: PseudoLabels, memory: Memory) -> None:
        if warming_up(epoch):
            return
        names = [name for name in contrasted(labels) if name in ("joint", "visible", "infrared")]
        if not set(names) & set(memory.names):
            epoch.note(NOWHERE)
        elif not any(_has_sub_centres(memory.bank(name, embedding=self._first)) for name in names):
            epoch.note(SINGLE)

    @property
    def _first(self) -> str:
        return branches(self.setup.embedding_dims)[0]

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        if warming_up(epoch):
            return {}
        options, terms = self.options, {}
        weight = options.late_weight if reached(epoch, options.late_from) else options.early_weight
        for modality, partition, factor in self._pairs(batch, memory, epoch):
            rows_B, labels_B = self._queries(batch, modality, partition)
            if not bool(rows_B.any()):
                continue
            queries = {branch: embeddings.unit(branch)[rows_B] for branch in branches(embeddings)}
            banks = {branch: centres(memory.bank(partition, embedding=branch)) for branch in queries}
            if not all(len(bank.vectors) for bank in banks.values()):
                continue  # every image of that modality is an outlier
            name = modality if partition in ("joint", modality) else f"{modality}-{partition}"
            for branch, value in agreeing_contrast(queries, banks, labels_B).items():
                share = branch_weight(branch, shallow_weight=options.shallow_weight)
                terms[f"mccl/{name}/{branch}"] = factor * weight * share * value
        return terms

    def _pairs(self, batch: Batch, memory: Memory, epoch: EpochContext) -> Iterator[tuple[str, str, float]]:
        """Modality of the queries, partition of the prototypes, and how often the term counts."""
        labelled = set(batch.labels) & set(memory.names)
        for modality, _ in MODALITIES:
            own, other = partition_for(modality, labelled), OTHER[modality]
            if own is not None:
                yield modality, own, 2.0 if own == "joint" else 1.0
            if own == modality and epoch.cross and other in memory.names:
                yield modality, other, 1.0

    def _queries(self, batch: Batch, modality: str, partition: str) -> tuple[Tensor, Tensor | None]:
        """Which images of the batch are queries, bool [B], and their positive clusters; None: the nearest ones."""
        rows_B = batch.modality == dict(MODALITIES)[modality]
        if self.options.positive == "nearest":
            return rows_B, None
        own = partition in ("joint", modality)
        labels_B = batch.labels[partition] if own else batch.linked(modality, partition)
        if labels_B is None:
            return torch.zeros_like(rows_B), None
        rows_B = rows_B & (labels_B >= 0)
        return rows_B, labels_B[rows_B]


def agreeing_contrast(
    queries: dict[str, Tensor], banks: dict[str, Bank], labels_B: Tensor | None = None
) -> dict[str, Tensor]:
    """The mean of :func:`multi_centre_contrast` over the queries whose embeddings all have the same nearest cluster.

    ``queries``: unit rows [B, D] by embedding; ``banks``: one each, of the same partition; ``labels_B``: positive
    clusters, else the nearest. A scalar by embedding; zero, with zero gradient, if no query agrees.
    """
    distances = {name: distances_to(bank, queries[name]) for name, bank in banks.items()}
    nearest = [bank.cluster[distances[name].argmin(dim=1)] for name, bank in banks.items()]
    agree_B = torch.stack([row == nearest[0] for row in nearest]).all(dim=0)
    means = {}
    for name, bank in banks.items():
        values_B = multi_centre_contrast(distances[name], bank, nearest[0] if labels_B is None else labels_B)
        means[name] = torch.where(agree_B, values_B, 0).sum() / agree_B.sum().clamp(min=1)
    return means


def distances_to(bank: Bank, queries_BD: Tensor) -> Tensor:
    """Euclidean distances [B, M] of unit queries to the bank's rows, 1e-6 at least."""
    vectors_MD = bank.vectors.to(queries_BD.dtype)
    squares_BM = 1 + vectors_MD.square().sum(dim=1) - 2 * queries_BD @ vectors_MD.T
    return squares_BM.clamp(min=SMALLEST**2).sqrt()


def multi_centre_contrast(distances_BM: Tensor, bank: Bank, positive_B: Tensor) -> Tensor:
    """−log( p / (p + n + 1e-8) ) of every query, [B]; zero if the bank has one cluster.

    p: mean of 1 / distance over the prototypes of the query's cluster ``positive_B``; n: mean, over the other clusters,
    of 1 / distance to their nearest prototype. Source: hil.md 3.6 b.
    """
    clusters = bank.num_clusters
    if clusters < 2:
        return 0 * distances_BM.sum(dim=1)
    own_BM = bank.cluster == positive_B[:, None]
    positive = torch.where(own_BM, 1 / distances_BM, 0).sum(dim=1) / own_BM.sum(dim=1)
    least_BK = distances_BM.new_full((len(distances_BM), clusters), torch.inf).scatter_reduce(
        1, bank.cluster.expand_as(distances_BM), distances_BM, "amin", include_self=False
    )
    own_BK = torch.arange(clusters, device=positive_B.device) == positive_B[:, None]
    negative = torch.where(own_BK, 0, 1 / least_BK).sum(dim=1) / (clusters - 1)
    return -(positive / (positive + negative + FLOOR)).log()


def _has_sub_centres(bank: Bank) -> bool:
    return bank.kind is not None and bool((bank.kind == BankKind.SUB_CENTRE).any())
