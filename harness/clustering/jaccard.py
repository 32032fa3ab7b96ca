"""The k-reciprocal Jaccard distance, sparse from end to end.

Two images are near when the sets of their k-reciprocal neighbours overlap. Only pairs that share a neighbour
have a distance below 1; only those are ever formed. Source: Zhong et al., "Re-ranking person
re-identification with k-reciprocal encoding" (CVPR 2017), in the form that unsupervised re-identification
uses (baseline.md 4.1).

Everything after the search is three steps, which compiled kernels do for features on the CPU and tensor operations for
features elsewhere: encoding, expansion (by averages that the host makes) and distance.

Shape letters: N images, D feature size, K length of a rank list.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from harness.clustering import jaccard_compiled, jaccard_torch
from harness.clustering.checks import checked_features
from harness.clustering.coarse import numbers
from harness.clustering.compressed import CompressedRows
from harness.clustering.expansion import Expansion, plain
from harness.clustering.memory import clustering_bytes, require_memory
from harness.clustering.neighbours import Backend, nearest_neighbours
from harness.clustering.threads import part_of
from harness.errors import ContractError, HarnessError, SettingsError
from harness.progress import Progress, progress_of

_PASSES = 4
"""Passes over the rows, as progress counts them: neighbours, encoding, averages, distances."""

Steps = Literal["auto", "compiled", "torch"]


def k_reciprocal_jaccard(
    features_ND: Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    expansion: Expansion = plain,
    backend: Backend = "auto",
    steps: Steps = "auto",
    max_distance: float | None = None,
    ranking_NK: Tensor | None = None,
    progress: Progress | None = None,
) -> csr_matrix:
    """The k-reciprocal Jaccard distance of all pairs of rows.

    ``features_ND`` float [N, D], used as given: a row shorter than 1 changes the result. ``k1``: length of
    the rank lists, the row itself included; more than N is taken as N. ``k2``: rank-list entries whose
    encodings are averaged; 1 leaves them as they are. ``expansion``: how they are averaged. ``max_distance``:
    leave out pairs that are farther apart, which saves memory when the next step has a radius. ``ranking_NK``: rank
    lists int64 [N, K] found elsewhere (``approximate_neighbours``), in place of the exact ones; they may be longer than
    k1, for an expansion that looks farther. ``progress`` (default: whoever listens, see ``harness.progress``) is told
    the rows done in four passes, of 4N.

    ``steps``: what follows the search, by "compiled" kernels (features on the CPU) or by "torch" operations (any
    device); "auto": compiled for features on the CPU, else torch.

    Returns a symmetric CSR matrix [N, N], float32 (float64 for float64 features): distances in [0, 1). A pair
    that is not stored has distance 1 (or is beyond ``max_distance``); a stored zero is a distance of 0, the
    diagonal among them. The same bits for any backend and number of threads; torch steps differ from compiled ones by
    less than 1e-6 for features no longer than 1 (``jaccard_torch`` tells where).

    Raises ``TrainingError`` for features that are not finite, ``SettingsError`` for k1 or k2 below 1 or for more rows
    than fit in memory, ``ContractError`` for an expansion that does not average.

    >>> features_ND = torch.eye(2).repeat_interleave(3, dim=0)
    >>> distance_NN = k_reciprocal_jaccard(features_ND, k1=3, k2=1)
    >>> distance_NN.nnz, float(distance_NN.max())
    (18, 0.0)
    """
    if k1 < 1 or k2 < 1:
        raise SettingsError(f"k1 = {k1} and k2 = {k2} were given for the Jaccard distance; both must be at least 1.")
    chosen = _chosen(steps, features_ND.device)
    progress = progress or progress_of("clustering")
    features = checked_features(features_ND)
    total, size = features.shape
    if features.device.type == "cpu":
        require_memory(clustering_bytes(total, size, k1=k1, k2=k2), "The Jaccard distance", features.shape)
    if ranking_NK is None:
        part = part_of(progress, 0, _PASSES)
        ranking_NK = nearest_neighbours(features, k1, backend=backend, progress=part)
    ranking_NK = ranking_NK.long().to(features.device)
    encoding = _encoding(chosen, features, ranking_NK[:, :k1], progress=part_of(progress, 1, _PASSES))
    if k2 > 1:
        averages_NN = _checked_averages(expansion(numbers(ranking_NK), k2), total)
        averages = CompressedRows.of(averages_NN, device=features.device)
        encoding = chosen.expanded(encoding, averages, progress=part_of(progress, 2, _PASSES))
    return chosen.distance(encoding, max_distance=max_distance, progress=part_of(progress, 3, _PASSES)).matrix()


def k_reciprocal_encoding(
    features_ND: Tensor, ranking_NK: NDArray[np.int64], *, progress: Progress | None = None
) -> csr_matrix:
    """Each image as a distribution over its expanded k-reciprocal neighbours, k = K (baseline.md 4.1, steps 2 to 4).

    ``features_ND`` float [N, D]; ``ranking_NK`` int64 [N, K], nearest first, each row's own index normally
    first.

    Returns CSR [N, N] of the features' dtype. Rows sum to 1; the row of an image that is in nobody's list,
    itself included (possible only with K duplicates), is empty.

    Raises ``HarnessError`` for rank lists that do not belong to the features.
    """
    features = checked_features(features_ND)
    ranking = torch.tensor(np.asarray(ranking_NK, dtype=np.int64), device=features.device)
    return _encoding(_chosen("auto", features.device), features, ranking, progress=progress).matrix()


def expanded(encoding_NN: csr_matrix, averages_NN: csr_matrix, *, progress: Progress | None = None) -> csr_matrix:
    """The encoding with every row replaced by the average that its row of ``averages_NN`` describes."""
    encoding, averages = CompressedRows.of(encoding_NN), CompressedRows.of(averages_NN)
    return jaccard_compiled.expanded(encoding, averages, progress=progress).matrix()


def jaccard_distance(
    encoding_NN: csr_matrix, *, max_distance: float | None = None, progress: Progress | None = None
) -> csr_matrix:
    """1 − s / (2 − s) with s_ij = Σ_l min(V_il, V_jl), for rows that sum to 1 (baseline.md 4.1 step 6).

    ``encoding_NN`` CSR [N, L], non-negative, without duplicates. Returns CSR [N, N] as
    ``k_reciprocal_jaccard`` does.
    """
    encoding = CompressedRows.of(encoding_NN if encoding_NN.has_sorted_indices else encoding_NN.sorted_indices())
    return jaccard_compiled.distance(encoding, max_distance=max_distance, progress=progress).matrix()


class _Steps(Protocol):
    """What the two modules offer, on rows of their own device; the public functions of the same names tell the rest."""

    def encoding(
        self, features_ND: Tensor, ranking_NK: Tensor, *, half: int, progress: Progress | None = None
    ) -> CompressedRows:
        """``half``: entries of the shorter rank lists, by which a set is expanded."""
        ...

    def expanded(
        self, encoding: CompressedRows, averages: CompressedRows, *, progress: Progress | None = None
    ) -> CompressedRows: ...

    def distance(
        self, encoding: CompressedRows, *, max_distance: float | None = None, progress: Progress | None = None
    ) -> CompressedRows: ...


def _chosen(steps: Steps, device: torch.device) -> _Steps:
    if steps not in ("auto", "compiled", "torch"):
        raise SettingsError(f"Steps {steps!r} were asked for in the Jaccard distance; known: auto, compiled, torch.")
    if steps == "compiled" and device.type != "cpu":
        raise SettingsError(f'Steps "compiled" were asked for with features on {device}; use "torch" there.')
    compiled = steps == "compiled" or (steps == "auto" and device.type == "cpu")
    return jaccard_compiled if compiled else jaccard_torch


def _encoding(
    steps: _Steps, features: Tensor, ranking_NK: Tensor, *, progress: Progress | None = None
) -> CompressedRows:
    """The encoding by rank lists [N, k], which are checked."""
    total, k = ranking_NK.shape
    if total != features.shape[0] or (ranking_NK.numel() and not _within(ranking_NK, total)):
        raise HarnessError(
            f"Rank lists {tuple(ranking_NK.shape)} were given for {features.shape[0]} features; one list of row "
            "indices per feature was expected."
        )
    return steps.encoding(features, ranking_NK, half=min(round(k / 2) + 1, k), progress=progress)


def _within(ranking_NK: Tensor, total: int) -> bool:
    least, most = torch.stack(ranking_NK.aminmax()).tolist()
    return 0 <= least <= most < total


def _checked_averages(averages_NN: csr_matrix, total: int) -> csr_matrix:
    averages = csr_matrix(averages_NN)
    if averages.shape != (total, total):
        raise ContractError(
            f"The expansion returned a matrix {averages.shape}; an averaging matrix {(total, total)} was expected."
        )
    sums = np.asarray(averages.sum(axis=1)).ravel()
    wrong = np.flatnonzero(~(np.abs(sums - 1) < 1e-4))
    if wrong.size or (averages.nnz and not averages.data.min() >= 0):
        row = (
            int(wrong[0]) if wrong.size else int(np.searchsorted(averages.indptr, averages.data.argmin(), "right")) - 1
        )
        raise ContractError(
            f"The expansion returned weights that are no average: row {row} sums to {sums[row]:.6g}. Every row must be "
            "non-negative and sum to 1."
        )
    return averages
