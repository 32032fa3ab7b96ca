"""What HIL's losses take from a batch and a bank, whatever clusterer, memory and encoder there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor

from harness.contracts import Bank, BankKind, Modality, PseudoLabels

DEEP, SHALLOW = "deep", "shallow"
MODALITIES = (("visible", Modality.VISIBLE), ("infrared", Modality.INFRARED))
OTHER = {"visible": "infrared", "infrared": "visible"}


def branches(embeddings: Iterable[str]) -> tuple[str, ...]:
    """The embeddings that are trained: deep and shallow if the encoder has them, else the main one (hil.md 3.9)."""
    return (DEEP, SHALLOW) if {DEEP, SHALLOW} <= set(embeddings) else ("main",)


def branch_weight(branch: str, *, shallow_weight: float) -> float:
    """The factor of a term of this embedding."""
    return shallow_weight if branch == SHALLOW else 1.0


def contrasted(labels: PseudoLabels) -> tuple[str, ...]:
    """Partitions whose prototypes batches are held against: of each draw the joint one, or those that it has."""
    views = [labels.views(draw) for draw in labels.draws]
    return tuple(dict.fromkeys(name for view in views for name in (("joint",) if "joint" in view else view)))


def partition_for(modality: str, labelled: Collection[str]) -> str | None:
    """The partition that says the clusters of this modality's queries: the joint one, else its own, else none."""
    return next((name for name in ("joint", modality) if name in labelled), None)


def centroids(bank: Bank) -> Bank:
    """The bank's centroid rows; all of it, if it does not tell kinds apart or has none of them."""
    return _only(bank, bank.kind == BankKind.CENTROID) if bank.kind is not None else bank


def centres(bank: Bank) -> Bank:
    """The rows that show a cluster's variety: sub-centres, or whatever rows its clusters have if there are none."""
    own = bank.cluster >= 0
    if bank.kind is not None and bool((bank.kind == BankKind.SUB_CENTRE).any()):
        own = bank.kind == BankKind.SUB_CENTRE
    return _only(bank, own)


def _only(bank: Bank, rows_M: Tensor) -> Bank:
    if bool(rows_M.all()) or not bool(rows_M.any()):
        return bank
    whole = bank.similarity
    return Bank(
        bank.vectors[rows_M],
        bank.cluster[rows_M],
        similarity=None if whole is None else lambda queries, labels: whole(queries, labels)[:, rows_M],
    )
