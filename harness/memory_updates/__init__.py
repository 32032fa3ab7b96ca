"""How memories change after a step.

Shape letters: K rows of the bank, B queries of the batch, D feature size. Banks and queries have unit rows;
labels are int64, −1 = write nothing. No gradient flows. As in torch, a name that ends in an underscore writes into the
bank it is given, and the same name without it leaves the bank alone and copies it, which costs more than the update.

There is no Python loop over a batch, and on a GPU nothing waits for the device: there, labels are checked by its own
indexing. Updates that follow queries one by one go over the CPU on devices of other kinds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from harness.errors import HarnessError


@torch.no_grad()
def momentum_update_(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """Every query in batch order, in place: its cluster's row ← unit( momentum · row + (1 − momentum) · query ).

    The order matters: with a small momentum the last query of a cluster dominates. With a row per image, and images'
    rows as labels, this is the update of an instance memory. Queries of any length are taken as they are. Returns the
    bank. Source: Cluster-Contrast's mean mode (baseline.md 4.3); hil.md 3.7. Raises ``HarnessError`` for inputs that do
    not fit together.
    """
    multi_centre_update_(bank_KD[:, None], queries_BD, labels_B, momentum=momentum)
    return bank_KD


@torch.no_grad()
def multi_centre_update_(bank_KJD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """Every query in batch order, in place, moves the centre of its cluster that is most similar to it at that moment.

    ``bank_KJD`` holds J centres of each cluster (ties: the first). The centre moves as in :func:`momentum_update_`,
    which is the case J = 1. Returns the bank. Raises ``HarnessError`` for inputs that do not fit together.
    """
    queries, labels = _fitting(bank_KJD, queries_BD, labels_B)
    if not labels.numel() or not bank_KJD.numel():
        return bank_KJD
    if _on_cpu(bank_KJD):
        _kernels().follow_queries(*_arrays(bank_KJD, queries, labels), *_shares(bank_KJD, momentum))
    elif bank_KJD.device.type == "cuda":
        _kernels("harness.memory_updates.cuda_kernel").follow_queries(bank_KJD, queries, labels, momentum)
    else:
        bank_KJD.copy_(multi_centre_update_(bank_KJD.cpu(), queries.cpu(), labels.cpu(), momentum=momentum))
    return bank_KJD


@torch.no_grad()
def hard_update_(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """One momentum step per cluster, in place, with its query least similar to the row (ties: the first in the batch).

    Returns the bank. Source: Cluster-Contrast's hard mode (baseline.md 4.3). Raises ``HarnessError`` for inputs that do
    not fit together.
    """
    queries, labels = _fitting(bank_KD, queries_BD, labels_B)
    if not labels.numel() or not bank_KD.numel():
        return bank_KD
    if _on_cpu(bank_KD):
        _kernels().move_to_farthest(*_arrays(bank_KD, queries, labels), *_shares(bank_KD, momentum))
    else:
        groups = _Groups(labels)
        groups.move(bank_KD, groups.farthest_means(queries, bank_KD, count=1), momentum=momentum)
    return bank_KD


@torch.no_grad()
def hybrid_update_(
    centroid_bank_KD: Tensor,
    hard_bank_KD: Tensor,
    queries_BD: Tensor,
    labels_B: Tensor,
    *,
    momentum: float,
    hardest: int = 1,
) -> None:
    """One momentum step per cluster, in place: the centroid row with the mean query, the hard row with the hardest one.

    The hardest is the query least similar to the centroid row as it was before (ties: the first in the batch); neither
    mean is normalised. ``hardest``: how many such queries the hard row moves to the mean of, or all if there are fewer.
    Source: PCLHD (NeurIPS 2024), released code; pclhd.md 3.5. Raises ``HarnessError`` for inputs that do not fit
    together.
    """
    queries, labels = _fitting(centroid_bank_KD, queries_BD, labels_B)
    if hard_bank_KD.shape != centroid_bank_KD.shape:
        raise HarnessError(
            f"A hard bank {tuple(hard_bank_KD.shape)} was given with a centroid bank {tuple(centroid_bank_KD.shape)}; "
            "equal shapes were expected."
        )
    if not labels.numel() or not centroid_bank_KD.numel():
        return
    if _on_cpu(centroid_bank_KD):
        _kernels().move_to_mean_and_farthest(
            *_arrays(centroid_bank_KD, hard_bank_KD, queries, labels), *_shares(centroid_bank_KD, momentum), hardest
        )
    else:
        groups = _Groups(labels)
        farthest_BD = groups.farthest_means(queries, centroid_bank_KD, count=hardest)
        groups.move(hard_bank_KD, farthest_BD, momentum=momentum)
        groups.move(centroid_bank_KD, groups.means(queries), momentum=momentum)


def momentum_update(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """Every query in batch order: its cluster's row ← unit( momentum · row + (1 − momentum) · query ).

    ``bank_KD`` float [K, D], unit rows; ``queries_BD`` float [B, D]; ``labels_B`` int64 [B], −1 = write nothing.
    Returns a new bank; ``momentum_update_`` of this module writes in place. Raises ``HarnessError`` for inputs that do
    not fit together.

    >>> bank_KD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> momentum_update(bank_KD, torch.tensor([[0.0, 1.0]]), torch.tensor([0]), momentum=0).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    return momentum_update_(bank_KD.clone(), queries_BD, labels_B, momentum=momentum)


def multi_centre_update(bank_KJD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """Every query in batch order moves the centre of its cluster that is most similar to it at that moment.

    ``bank_KJD`` holds J centres of each cluster (ties: the first). Otherwise as :func:`momentum_update`, which is the
    case J = 1; ``multi_centre_update_`` of this module writes in place. Returns a new bank [K, J, D].

    >>> bank_KJD = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> multi_centre_update(bank_KJD, torch.tensor([[0.0, -1.0]]), torch.tensor([0]), momentum=0).tolist()
    [[[0.0, -1.0], [0.0, 1.0]]]
    """
    return multi_centre_update_(bank_KJD.clone(), queries_BD, labels_B, momentum=momentum)


def hard_update(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float) -> Tensor:
    """One momentum step per cluster, with its query least similar to the row (ties: the first). Returns a new bank.

    Arguments as of :func:`momentum_update`; ``hard_update_`` of this module writes in place.

    >>> bank_KD = torch.tensor([[1.0, 0.0]])
    >>> queries_BD = torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    >>> hard_update(bank_KD, queries_BD, torch.tensor([0, 0]), momentum=0).tolist()
    [[0.0, 1.0]]
    """
    return hard_update_(bank_KD.clone(), queries_BD, labels_B, momentum=momentum)


def hybrid_update(
    centroid_bank_KD: Tensor,
    hard_bank_KD: Tensor,
    queries_BD: Tensor,
    labels_B: Tensor,
    *,
    momentum: float,
    hardest: int = 1,
) -> tuple[Tensor, Tensor]:
    """One momentum step per cluster: the centroid row with the mean query, the hard row with the hardest ones' mean.

    ``hardest``: how many queries, those least similar to the centroid row as it was before. Otherwise as
    :func:`momentum_update`; ``hybrid_update_`` of this module writes in place. Returns the new (centroid bank, hard
    bank).

    >>> centroid_KD = hard_KD = torch.tensor([[1.0, 0.0]])
    >>> queries_BD, labels_B = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0])
    >>> centroid_KD, hard_KD = hybrid_update(centroid_KD, hard_KD, queries_BD, labels_B, momentum=0)
    >>> [round(value, 4) for value in centroid_KD[0].tolist()], hard_KD.tolist()
    ([0.7071, 0.7071], [[0.0, 1.0]])
    """
    banks = centroid_bank_KD.clone(), hard_bank_KD.clone()
    hybrid_update_(*banks, queries_BD, labels_B, momentum=momentum, hardest=hardest)
    return banks


@torch.no_grad()
def random_replacement(bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, generator: torch.Generator) -> Tensor:
    """Every row whose cluster is in the batch becomes one of the cluster's queries, each with the same chance.

    Returns the new bank [K, D], unit rows. ``generator`` may live on another device than the bank.
    Source: DMIC (dmic.md 3.4). Raises ``HarnessError`` for inputs that do not fit together.

    >>> bank_KD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> generator = torch.Generator().manual_seed(0)
    >>> random_replacement(bank_KD, -bank_KD, torch.tensor([0, -1]), generator=generator).tolist()
    [[-1.0, 0.0], [0.0, 1.0]]
    """
    queries, labels = _fitting(bank_KD, queries_BD, labels_B)
    order = torch.randperm(labels.numel(), generator=generator, device=generator.device)
    order = order.to(labels.device, non_blocking=True)
    # Without momentum the last query of a cluster is what stays, and in a random order that may be any of them.
    return momentum_update(bank_KD, queries[order], labels[order], momentum=0)


BankUpdate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(bank [K, D], queries [B, D], labels [B]) → new bank [K, D]."""


class ReleasedSimilarity:
    """Similarities to a bank that changes during the backward pass, as released cluster memories do.

    The forward pass gives queries · bankᵀ. The backward pass forms the gradient with the bank *as it is at
    that moment* and then writes ``update(bank, queries, labels)`` into it. Where two loss terms share a bank,
    autograd runs the later-created term first, so the earlier one's gradient is formed with a bank that its
    forward pass did not see. For gradients with a constant bank use ``queries @ bank.T`` and apply the update
    after the step.

    ``bank`` is modified in place, once per call whose result takes part in a backward pass and whose queries
    need a gradient. Source: baseline.md 4.3, pclhd.md 3.6.

        similarity = ReleasedSimilarity(bank, update=partial(momentum_update, momentum=0.2))
        loss = cross_entropy(similarity(queries, labels) / temperature, labels)
    """

    def __init__(self, bank: Tensor, *, update: BankUpdate) -> None:
        self.bank = bank
        self.update = update

    def __call__(self, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Similarities [B, K]; ``labels_B`` tells the update which rows to change, −1 = none."""
        return _UpdatedInBackward.apply(queries_BD, labels_B, self.bank, self.update)


class _UpdatedInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries_BD: Tensor, labels_B: Tensor, bank_KD: Tensor, update: BankUpdate) -> Tensor:
        ctx.save_for_backward(queries_BD, labels_B)
        # Not a saved tensor: autograd would refuse it once another term has changed it, and that change is the point.
        ctx.bank, ctx.update = bank_KD, update
        return queries_BD @ bank_KD.to(queries_BD.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BK: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        queries_BD, labels_B = ctx.saved_tensors
        gradient_BD = gradient_BK @ ctx.bank.to(gradient_BK.dtype)
        ctx.bank.copy_(ctx.update(ctx.bank, queries_BD, labels_B))
        return gradient_BD, None, None, None


class _Groups:
    """The queries of a batch by cluster, for devices where their number cannot be known without waiting.

    Every query stands for its cluster, and what is written is written by all of them alike. A query without a label
    stands for the first labelled one; if there is none, nothing is ``present``.
    """

    def __init__(self, labels_B: Tensor) -> None:
        self.keys_B = torch.where(labels_B >= 0, labels_B, _LAST)
        ordered_B, self.order_B = self.keys_B.sort(stable=True)
        stands_for_B = torch.where(labels_B >= 0, labels_B, ordered_B[:1])
        self.present_B = stands_for_B != _LAST
        self.start_B = torch.searchsorted(ordered_B, stands_for_B)
        self.size_B = torch.searchsorted(ordered_B, stands_for_B, right=True) - self.start_B
        self.rows_B = torch.where(self.present_B, stands_for_B, 0)

    def means(self, queries_BD: Tensor) -> Tensor:
        """The mean query of each cluster [B, D]."""
        member_BB = (self.keys_B[None, :] == self.rows_B[:, None]).to(queries_BD.dtype)
        return member_BB @ queries_BD / self.size_B[:, None]

    def farthest_means(self, queries_BD: Tensor, bank_KD: Tensor, *, count: int) -> Tensor:
        """The mean [B, D] of the ``count`` queries of each cluster least similar to its row, or of all."""
        similarity_B = torch.linalg.vecdot(queries_BD, bank_KD[self.rows_B])
        by_similarity_B = similarity_B.sort(stable=True).indices
        by_cluster_B = by_similarity_B[self.keys_B[by_similarity_B].sort(stable=True).indices]
        total_BD = torch.zeros_like(queries_BD)
        for place in range(min(count, len(queries_BD))):
            chosen_B = by_cluster_B[(self.start_B + place).clamp(max=len(by_cluster_B) - 1)]
            total_BD += (place < self.size_B)[:, None] * queries_BD[chosen_B]
        return total_BD / self.size_B.clamp(max=count)[:, None]

    def move(self, bank_KD: Tensor, towards_BD: Tensor, *, momentum: float) -> None:
        """Every row ← unit( momentum · row + (1 − momentum) · towards ), in place."""
        rows_BD = bank_KD[self.rows_B]
        moved_BD = normalize(momentum * rows_BD + (1 - momentum) * towards_BD, dim=1)
        bank_KD.index_copy_(0, self.rows_B, torch.where(self.present_B[:, None], moved_BD, rows_BD))


_LAST = torch.iinfo(torch.int64).max
"""Sorts queries without a label behind all others."""


def _kernels(module: str = "harness.memory_updates.kernels") -> Any:
    """Imported where they are used: compilers are slow to load, and not every machine has the accelerator's."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HarnessError(
            f"The memory updates of {module} cannot be loaded ({error}). Install what is missing, or use the CPU "
            "(--set compute.device=cpu)."
        ) from error


def _on_cpu(bank: Tensor) -> bool:
    return bank.device.type == "cpu"


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


def _shares(bank: Tensor, momentum: float) -> tuple[Any, Any]:
    """``momentum`` and 1 − ``momentum`` as scalars of the bank's dtype, so that kernels compute in it."""
    scalar = bank.numpy().dtype.type
    return scalar(momentum), scalar(1 - momentum)


def _fitting(bank: Tensor, queries_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Queries in the bank's dtype, and labels, contiguous; checked as far as that needs no waiting for the device."""
    if queries_BD.ndim != 2 or queries_BD.shape[1] != bank.shape[-1] or labels_B.shape != queries_BD.shape[:1]:
        raise HarnessError(
            f"Queries {tuple(queries_BD.shape)} with labels {tuple(labels_B.shape)} were given to a bank "
            f"{tuple(bank.shape)}; [B, D], [B] and [K, D] were expected."
        )
    if bank.dtype not in (torch.float32, torch.float64):
        raise HarnessError(f"A bank of {bank.dtype} was given; float32 or float64 was expected.")
    if not bank.is_contiguous():
        raise HarnessError("A bank that is not contiguous was given; call .contiguous() on it, and keep the result.")
    if labels_B.device.type == "cpu" and labels_B.numel() and int(labels_B.max()) >= bank.shape[0]:
        raise HarnessError(
            f"Label {int(labels_B.max())} was given to a bank of {bank.shape[0]} rows; labels index the rows of the "
            "bank. Build the bank from the labels that the batches are drawn with."
        )
    return queries_BD.detach().to(bank.dtype).contiguous(), labels_B.long().contiguous()
