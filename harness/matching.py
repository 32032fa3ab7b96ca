"""Association of visible clusters with infrared clusters.

Maps are int64 tensors: entry k is the partner of cluster k in the other modality, −1 = none. Shape letters: K
visible clusters, L infrared clusters, N visible and M infrared images, D feature size, B images of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from harness.errors import HarnessError, TrainingError

NO_PARTNER = -1


def progressive_graph_matching(visible_KD: Tensor, infrared_LD: Tensor) -> tuple[Tensor, Tensor]:
    """Partners by repeated minimum-cost assignment, cost exp(−cos).

    ``visible_KD`` and ``infrared_LD`` are cluster centroids, float, of any length.

    The first pass matches one to one and sets both maps. While clusters of the more numerous modality have no
    partner, a further pass assigns them to all clusters of the other modality, so that several may share one;
    further passes leave the other modality's map alone.

    Returns (visible to infrared [K], infrared to visible [L]) on the device of ``visible_KD``. All clusters
    of both modalities have a partner, unless one modality has no cluster at all.

    Source: PGM (CVPR 2023); baseline.md 5.2. Deviates from the released code where that fails: more than
    twice as many clusters in one modality than in the other (unmapped clusters), or fewer visible than
    infrared clusters (no map).

    Raises ``HarnessError`` for centroids that do not fit together or are not finite.

    >>> visible_KD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> infrared_LD = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    >>> [partners.tolist() for partners in progressive_graph_matching(visible_KD, infrared_LD)]
    [[0, 1, 1], [0, 1]]
    """
    similarity_KL = _cosines(visible_KD, infrared_LD).cpu().numpy()
    costs_KL = np.exp(-similarity_KL.astype(np.float64))
    if costs_KL.shape[0] >= costs_KL.shape[1]:
        from_many, from_few = _assign_all(costs_KL)
        maps = from_many, from_few
    else:
        from_many, from_few = _assign_all(costs_KL.T)
        maps = from_few, from_many
    device = visible_KD.device
    return torch.from_numpy(maps[0]).to(device), torch.from_numpy(maps[1]).to(device)


def _assign_all(costs_RC: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Partners of the R ≥ C rows and of the columns."""
    row_partner = np.full(costs_RC.shape[0], NO_PARTNER, dtype=np.int64)
    column_partner = np.full(costs_RC.shape[1], NO_PARTNER, dtype=np.int64)
    if column_partner.size == 0:
        return row_partner, column_partner
    # A rectangular assignment uses every column once, as does a square one padded with columns of equal cost.
    rows, columns = linear_sum_assignment(costs_RC)
    row_partner[rows], column_partner[columns] = columns, rows
    while (unmatched := np.flatnonzero(row_partner == NO_PARTNER)).size:
        rows, columns = linear_sum_assignment(costs_RC[unmatched])
        row_partner[unmatched[rows]] = columns
    return row_partner, column_partner


def mutual_nearest_clusters(visible_KD: Tensor, infrared_LD: Tensor) -> tuple[Tensor, Tensor]:
    """Partners that are each other's nearest cluster by cosine; ties go to the lower index.

    Returns (visible to infrared [K], infrared to visible [L]), −1 where the choice is not returned.
    Raises ``HarnessError`` for centroids that do not fit together or are not finite.

    >>> visible_KD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> infrared_LD = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    >>> [partners.tolist() for partners in mutual_nearest_clusters(visible_KD, infrared_LD)]
    [[0, 1, -1], [0, 1]]
    """
    similarity_KL = _cosines(visible_KD, infrared_LD)
    if similarity_KL.numel() == 0:
        rows, columns = (similarity_KL.new_full((n,), NO_PARTNER, dtype=torch.int64) for n in similarity_KL.shape)
        return rows, columns
    to_infrared_K, to_visible_L = similarity_KL.argmax(dim=1), similarity_KL.argmax(dim=0)
    return _returned(to_infrared_K, to_visible_L), _returned(to_visible_L, to_infrared_K)


def _returned(there: Tensor, back: Tensor) -> Tensor:
    own = torch.arange(there.numel(), device=there.device)
    return torch.where(back[there] == own, there, NO_PARTNER)


def greedy_vote_matching(
    visible_ND: Tensor,
    infrared_MD: Tensor,
    *,
    visible_labels_N: Tensor,
    infrared_labels_M: Tensor,
    threshold: float = 0.5,
    block: int = 1024,
) -> list[tuple[int, int]]:
    """One-to-one partners by votes of similar image pairs.

    ``visible_ND``, ``infrared_MD`` float features; ``visible_labels_N``, ``infrared_labels_M`` int64, −1 =
    outlier (no vote). Every pair with an inner product of at least ``threshold`` votes for its pair of
    clusters. Cluster pairs are walked by votes, most first (ties: the larger best similarity, then the lower
    labels), and accepted if both are still free. ``block``: visible images whose similarities to all infrared
    images are held at once.

    Returns the accepted (visible cluster, infrared cluster), in the order of acceptance.
    Source: ADCA's cross-modality memory aggregation (ACM MM 2022); baseline.md 5.1.

    Raises ``HarnessError`` for inputs that do not fit together or are not finite.

    >>> visible_ND, infrared_MD = torch.eye(3), torch.eye(3)[[2, 0, 0]]
    >>> greedy_vote_matching(
    ...     visible_ND,
    ...     infrared_MD,
    ...     visible_labels_N=torch.tensor([0, 1, 1]),
    ...     infrared_labels_M=torch.tensor([0, 1, 1]),
    ... )
    [(0, 1), (1, 0)]
    """
    _check_pair(visible_ND, infrared_MD)
    if visible_labels_N.shape != visible_ND.shape[:1] or infrared_labels_M.shape != infrared_MD.shape[:1]:
        raise HarnessError(
            f"Labels {tuple(visible_labels_N.shape)} and {tuple(infrared_labels_M.shape)} were given for features "
            f"{tuple(visible_ND.shape)} and {tuple(infrared_MD.shape)}; one label per feature row was expected."
        )
    visible, visible_labels = _labelled(visible_ND, visible_labels_N)
    infrared, infrared_labels = _labelled(infrared_MD, infrared_labels_M)
    if visible_labels.numel() == 0 or infrared_labels.numel() == 0:
        return []
    votes_KL, best_KL = _votes(visible, visible_labels, infrared, infrared_labels, threshold=threshold, block=block)
    return _accept(votes_KL.cpu().numpy(), best_KL.cpu().numpy())


def _votes(
    visible_ND: Tensor,
    visible_labels_N: Tensor,
    infrared_MD: Tensor,
    infrared_labels_M: Tensor,
    *,
    threshold: float,
    block: int,
) -> tuple[Tensor, Tensor]:
    """Votes, int64, and largest similarity of every pair of clusters [K, L]."""
    shape = int(visible_labels_N.max()) + 1, int(infrared_labels_M.max()) + 1
    votes = torch.zeros(shape[0] * shape[1], dtype=torch.int64, device=visible_ND.device)
    best = torch.full_like(votes, -torch.inf, dtype=visible_ND.dtype)
    for rows_BD, labels_B in zip(visible_ND.split(block), visible_labels_N.split(block), strict=True):
        similarity_BM = rows_BD @ infrared_MD.T
        row, column = (similarity_BM >= threshold).nonzero(as_tuple=True)
        cell = labels_B[row] * shape[1] + infrared_labels_M[column]
        votes += torch.bincount(cell, minlength=votes.numel())
        best.scatter_reduce_(0, cell, similarity_BM[row, column], reduce="amax")
    return votes.view(shape), best.view(shape)


def _accept(votes_KL: NDArray[np.int64], best_KL: NDArray[np.floating]) -> list[tuple[int, int]]:
    visible, infrared = np.nonzero(votes_KL)
    order = np.lexsort((infrared, visible, -best_KL[visible, infrared], -votes_KL[visible, infrared]))
    free_visible = np.ones(votes_KL.shape[0], dtype=bool)
    free_infrared = np.ones(votes_KL.shape[1], dtype=bool)
    accepted = []
    for k, l in zip(visible[order].tolist(), infrared[order].tolist(), strict=True):
        if free_visible[k] and free_infrared[l]:
            free_visible[k] = free_infrared[l] = False
            accepted.append((k, l))
    return accepted


def _labelled(features_ND: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Features and labels without outliers."""
    chosen = labels_N >= 0
    return features_ND[chosen], labels_N[chosen].long()


def _cosines(visible_KD: Tensor, infrared_LD: Tensor) -> Tensor:
    _check_pair(visible_KD, infrared_LD)
    return normalize(visible_KD.detach().double(), dim=1) @ normalize(infrared_LD.detach().double(), dim=1).T


def _check_pair(visible: Tensor, infrared: Tensor) -> None:
    if visible.ndim != 2 or infrared.ndim != 2 or visible.shape[1] != infrared.shape[1]:
        raise HarnessError(
            f"Visible rows {tuple(visible.shape)} and infrared rows {tuple(infrared.shape)} were given to be "
            "matched; two matrices of equal width were expected."
        )
    for name, rows in (("visible", visible), ("infrared", infrared)):
        finite = rows.isfinite().all(dim=1)
        if not bool(finite.all()):
            raise TrainingError(
                f"The {name} rows to be matched are not finite, first at row {int((~finite).nonzero()[0])}. Look for a "
                "diverged training (lower the learning rate) or a cluster without images."
            )
