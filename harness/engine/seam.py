"""What parts hand over is checked once, where it is handed over. ``objective.blame`` adds who was at fault.

Shape letters: N training images, B images of a batch, D embedding size, K clusters of a partition, M rows of a bank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.contracts import OUTLIER, Bank, Memory, PseudoLabels, TrainIndex
from harness.errors import ContractError, TrainingError

_LENGTH_TOLERANCE = 1e-3
"""By how much the length of a row may differ from 1: far above rounding, far below what changes a contrast."""


def checked_labels(labels: object, train: TrainIndex) -> PseudoLabels:
    """The labels that ``cluster`` or ``refine`` returned. Ids, lengths and links were checked when they were made."""
    if not isinstance(labels, PseudoLabels):
        raise ContractError(f"expected harness.PseudoLabels; got {type(labels).__name__}.")
    for name in labels.given:
        found = labels[name].labels
        if len(found) != len(train):
            raise ContractError(f"partition {name!r} labels {len(found)} images; the training set has {len(train)}.")
        if found.device != train.modality.device:
            raise ContractError(
                f"partition {name!r} is on {found.device}; labels must be on the run's device, {train.modality.device}."
            )
    return labels


def check_memory(memory: Memory, labels: PseudoLabels, embedding_dims: Mapping[str, int]) -> None:
    """Every bank that a memory offers: after ``build``, and after the epoch's last ``update``."""
    names = memory.names
    if not isinstance(names, tuple) or not all(isinstance(name, str) and name in labels for name in names):
        raise ContractError(
            f"names must be a tuple of partitions that the labels have ({', '.join(labels.available)}); got {names!r}."
        )
    for name in names:
        for embedding, size in embedding_dims.items():
            where = f"bank {name!r}" + ("" if embedding == "main" else f" of embedding {embedding!r}")
            _check_bank(memory.bank(name, embedding=embedding), where, clusters=labels[name].num_clusters, size=size)


def _check_bank(bank: object, where: str, *, clusters: int, size: int) -> None:
    if not isinstance(bank, Bank):
        raise ContractError(f"{where}: expected a harness.Bank; got {type(bank).__name__}.")
    vectors, cluster = bank.vectors, bank.cluster
    if not isinstance(vectors, Tensor) or vectors.dtype != torch.float32 or vectors.shape[1:] != (size,):
        raise ContractError(f"{where}: vectors must be a float32 tensor [M, {size}]; got {_seen(vectors)}.")
    rows = len(vectors)
    for name, column in (("cluster", cluster), ("modality", bank.modality), ("kind", bank.kind)):
        optional = column is None and name != "cluster"
        if not optional and (not isinstance(column, Tensor) or column.dtype != torch.int64 or column.shape != (rows,)):
            raise ContractError(f"{where}: {name} must be an int64 tensor [{rows}]; got {_seen(column)}.")
    if vectors.requires_grad:
        raise ContractError(f"{where}: vectors must carry no gradient; detach them or work under torch.no_grad().")
    held = torch.bincount(cluster.clamp(min=OUTLIER) + 1, minlength=clusters + 1)
    if rows and (int(cluster.min()) < OUTLIER or len(held) != clusters + 1 or not bool(held[1:].all())):
        raise ContractError(
            f"{where}: each of the {clusters} clusters needs a row, and no other cluster may have one (-1: a negative "
            f"of all); got ids {int(cluster.min())} to {int(cluster.max())}."
        )
    if clusters and not rows:
        raise ContractError(f"{where}: it has no row for the {clusters} clusters of the partition.")
    _check_rows(vectors, where, unit=bank.unit)


def _check_rows(vectors_MD: Tensor, where: str, *, unit: bool) -> None:
    lengths_M = vectors_MD.norm(dim=1)
    wrong = ~torch.isfinite(lengths_M)
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise ContractError(f"{where}: {int(wrong.sum())} rows hold NaN or infinite values, the first is row {row}.")
    wrong = (lengths_M - 1).abs() > _LENGTH_TOLERANCE
    if unit and bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise ContractError(
            f"{where}: rows must have length 1; row {row} has length {float(lengths_M[row]):.4g} ({int(wrong.sum())} "
            f"of {len(vectors_MD)} rows differ). Normalise them, or say Bank(..., unit=False) if that is meant."
        )


def check_terms(terms: object) -> Mapping[str, Tensor]:
    """The terms that a loss returned: scalars by name. TrainingError, for NaN and infinite ones, is the caller's."""
    if not isinstance(terms, Mapping):
        raise ContractError(f"terms must be a mapping of names to scalars; got {type(terms).__name__}.")
    for name, term in terms.items():
        if not isinstance(name, str):
            raise ContractError(f"terms must have names of type str; got {name!r}.")
        if not isinstance(term, Tensor) or term.ndim != 0 or not term.is_floating_point():
            raise ContractError(f"the term {name!r} must be a scalar float tensor; got {_seen(term)}.")
    return terms


def check_state(state: object) -> None:
    """What a part's ``state_dict`` returned: tensors by name, so that reading a checkpoint runs no code."""
    if not isinstance(state, Mapping):
        raise ContractError(f"state_dict must return tensors by name; got {type(state).__name__}.")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ContractError(f"state_dict must return tensors by name; {name!r} is a {type(value).__name__}.")


def check_embeddings(embeddings: object, expected: Mapping[str, int], *, rows: int) -> None:
    """What an encoder returned for a batch: float [rows, D] by name, with the sizes that it declares."""
    if not isinstance(embeddings, Mapping) or set(embeddings) != set(expected):
        got = ", ".join(map(str, embeddings)) if isinstance(embeddings, Mapping) else type(embeddings).__name__
        raise ContractError(f"The encoder must return the embeddings {', '.join(expected)}; got {got}.")
    for name, size in expected.items():
        found = embeddings[name]
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != (rows, size):
            raise ContractError(
                f"The encoder must return the embedding {name!r} as float [{rows}, {size}]; got {_seen(found)}."
            )


def check_features(features: Mapping[str, Tensor], *, encoder: str, view: str) -> None:
    """Features of all images, finite. Raises TrainingError with the number of images that are not."""
    for name, features_ND in features.items():
        # A sum carries NaN and infinity on, at a small part of the cost; it may overflow, so suspects are looked at.
        suspects_ND = features_ND[~torch.isfinite(features_ND.sum(dim=1))]
        wrong = int((~torch.isfinite(suspects_ND)).any(dim=1).sum())
        if wrong:
            raise TrainingError(
                f"The {encoder} encoder's features ({name}, {view} view) are NaN or infinite for {wrong} of "
                f"{len(features_ND)} images. Training stopped; the last checkpoint is kept. A lower learning rate "
                "(--set recipe.learning_rate=...) often helps."
            )


def _seen(value: object) -> str:
    return f"{value.dtype} of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
