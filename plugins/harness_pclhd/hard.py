"""Contrast with centroid and hard prototypes (pclhd.md 3.5, 3.8, 3.10).

Known deviation: after a joint clusterer the cross-modality term contrasts with the restrictions of the joint clusters,
which the released code knows nothing of.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.contracts import (
    OUTLIER,
    Bank,
    BankKind,
    Batch,
    Embeddings,
    EpochContext,
    Loss,
    Memory,
    Modality,
    PseudoLabels,
)
from harness.contrast import contrast
from harness_baseline.cross import cross_directions
from harness_pclhd.options import HardContrastOptions

NAMES = {Modality.INFRARED: "infrared", Modality.VISIBLE: "visible"}


class HardContrastLoss(Loss):
    """Terms ``hard-contrast/<partition>``, ``hard-contrast/joint-<modality>`` and ``hard-contrast/<from>-to-<to>``.

    Over a memory without hard prototypes each term is the contrast with the prototypes there are, without the margin.
    """

    options: HardContrastOptions

    def begin(self, epoch: EpochContext, labels: PseudoLabels, memory: Memory) -> None:
        directions = cross_directions(epoch, self.options.direction)
        if directions and not any(labels.link(*pair) is not None for pair in directions):
            epoch.note(
                "no cross-modality term, because visible and infrared clusters are not linked; a part that links them "
                "is pgm (--plugins pgm,...)."
            )
        if epoch.cross and not any(_has_hard(memory.bank(name)) for name in memory.names):
            epoch.note(
                "contrast with the memory's prototypes only, because it keeps no hard ones; a memory that does is "
                "hard-memory (--memory hard-memory)."
            )

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        """In the order in which the released code makes them, which is the reverse of its memory updates."""
        queries_BD, terms = embeddings.unit(), {}
        for term, name, labels, weight in self._contrasts(batch, epoch):
            if name in memory.names:
                value = hybrid_contrast(memory.bank(name), queries_BD, labels, options=self.options)
                if value is not None:
                    terms[f"hard-contrast/{term}"] = weight * value
        return terms

    def _contrasts(self, batch: Batch, epoch: EpochContext) -> Iterator[tuple[str, str, Tensor, float]]:
        """(term, bank, labels [B] of the queries in it, weight)."""
        for modality, own in NAMES.items():
            for name in batch.draw.partitions:
                if name not in NAMES.values():
                    labels = torch.where(batch.modality == modality, batch.labels[name], OUTLIER)
                    yield f"{name}-{own}", name, labels, self.options.joint_weight
                elif name == own:
                    yield name, name, batch.labels[name], 1.0
        for source, target in cross_directions(epoch, self.options.direction):
            linked = batch.linked(source, target)
            if linked is not None:
                yield f"{source}-to-{target}", target, linked, self.options.cross_weight


def hybrid_contrast(bank: Bank, queries_BD: Tensor, labels_B: Tensor, *, options: HardContrastOptions) -> Tensor | None:
    """hard_weight · contrast with hard rows + centroid_weight · max(0, contrast with centroids − margin).

    ``queries_BD`` unit rows, ``labels_B`` int64, −1 = leave out. Both contrasts are means over the batch, so the margin
    is of the batch too: below it no query draws on a centroid. Without hard rows: the plain contrast. None when no
    query has a label.
    """
    chosen = labels_B >= 0
    if not bool(chosen.any()):
        return None
    queries, labels = queries_BD[chosen], labels_B[chosen]
    if not _has_hard(bank):
        return contrast(bank, queries, labels, temperature=options.temperature)
    # Asked for once: a memory that changes inside the backward pass does so once per call.
    similarity = bank.similarities(queries, labels)
    hard, centroid = (
        contrast(_rows_of(bank, kind, similarity), queries, labels, temperature=options.temperature)
        for kind in (BankKind.HARD, BankKind.CENTROID)
    )
    return options.hard_weight * hard + options.centroid_weight * (centroid - options.margin).relu()


def _has_hard(bank: Bank) -> bool:
    return bank.kind is not None and bool((bank.kind == BankKind.HARD).any())


def _rows_of(bank: Bank, kind: BankKind, similarity_BM: Tensor) -> Bank:
    """The rows of one kind as a bank of their own, whose similarities are those given."""
    rows = torch.nonzero(bank.kind == kind).squeeze(1)
    return Bank(bank.vectors[rows], bank.cluster[rows], similarity=lambda queries, labels: similarity_BM[:, rows])
