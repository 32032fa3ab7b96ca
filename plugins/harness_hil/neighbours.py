"""Neighbour losses on memories of single images (hil.md 3.6 c, 3.7; from SDCL).

The rows of the images are kept here and not in the memory, so that the loss works beside any memory. Known deviation
with ``memory_grad = "clean"``: rows change after the optimiser step, not before the backward pass.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.contracts import Batch, Embeddings, EpochContext, Loss, Memory, PseudoLabels
from harness.memory_updates import ReleasedSimilarity, momentum_update_
from harness_hil.options import NeighbourContrastOptions
from harness_hil.phases import reached, warming_up
from harness_hil.prototypes import MODALITIES, branch_weight, branches

LOG_FLOOR = math.log(1e-8)
"""Log of the least share that counts."""

NO_STAGE = "no terms across modalities: the recipe has no stage with cross-modality evidence."


class NeighbourContrastLoss(Loss):
    """Terms ``neighbour-contrast/<modality>/<embedding>``, and ``.../<modality>-<other>/...`` across modalities.

    Across modalities, queries are visible in even epochs of a stage, infrared in odd ones. Labels have no part in it:
    neighbours are found among all images of a modality.
    """

    options: NeighbourContrastOptions
    changing = ("_rows",)

    def begin(self, epoch: EpochContext, labels: PseudoLabels, memory: Memory) -> None:
        if not epoch.cross and epoch.stages == 1:
            epoch.note(NO_STAGE)
        self._directions = directions(epoch, self.options)
        self._rows: dict[tuple[str, str], Tensor] = {}
        if self._directions:
            count = self.setup.train.num_visible
            for branch in branches(self.setup.embedding_dims):
                unit_ND = normalize(epoch.features(embedding=branch), dim=1)
                self._rows["visible", branch], self._rows["infrared", branch] = unit_ND[:count], unit_ND[count:]

    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        terms = {}
        for source, target, weight in self._directions:
            chosen_B, slots = self._slots(batch, source)
            if not len(slots):
                continue
            names = branches(embeddings)
            neighbours_BN = shared_neighbours(
                [self._rows[source, branch][slots] for branch in names],
                [self._rows[target, branch] for branch in names],
                threshold=self.options.threshold,
            )
            label = source if source == target else f"{source}-{target}"
            for branch in names:
                similarity_BN = self._similarity(embeddings.unit(branch)[chosen_B], target, branch)
                value = neighbour_contrast(similarity_BN, neighbours_BN, temperature=self.options.temperature)
                share = branch_weight(branch, shallow_weight=self.options.shallow_weight)
                terms[f"neighbour-contrast/{label}/{branch}"] = weight * share * value
        if self.options.memory_grad == "released":
            self._move(batch, embeddings.detach())
        return terms

    def _similarity(self, queries_BD: Tensor, target: str, branch: str) -> Tensor:
        rows_ND = self._rows[target, branch]
        if self.options.memory_grad == "clean":
            return queries_BD @ rows_ND.to(queries_BD.dtype).T
        # Its gradient is formed with the rows as they are then, which is after this batch has moved them.
        return ReleasedSimilarity(rows_ND, update=lambda rows, queries, labels: rows)(queries_BD, queries_BD)

    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        if self.options.memory_grad == "clean":
            self._move(batch, embeddings)

    @torch.no_grad()
    def _move(self, batch: Batch, embeddings: Embeddings) -> None:
        for (modality, branch), rows_ND in self._rows.items():
            chosen_B, slots = self._slots(batch, modality)
            queries_BD = embeddings[branch] if self.options.update_with == "raw" else embeddings.unit(branch)
            momentum_update_(rows_ND, queries_BD[chosen_B], slots, momentum=self.options.momentum)

    def _slots(self, batch: Batch, modality: str) -> tuple[Tensor, Tensor]:
        """The batch's images of a modality [B], and their rows in its memories."""
        chosen_B = batch.modality == dict(MODALITIES)[modality]
        first = 0 if modality == "visible" else self.setup.train.num_visible
        return chosen_B, batch.index[chosen_B] - first


def directions(epoch: EpochContext, options: NeighbourContrastOptions) -> tuple[tuple[str, str, float], ...]:
    """(modality of the queries, modality of the neighbours, weight) of the terms of an epoch; weights are positive."""
    if warming_up(epoch):
        own = options.warm_up_weight if reached(epoch, options.warm_up_from) else 0.0
        cross = options.warm_up_cross_weight if reached(epoch, options.warm_up_cross_from) else 0.0
    else:
        own, cross = options.weight, options.cross_weight if epoch.cross else 0.0
    across = (
        ("infrared", "visible", cross) if epoch.epoch % 2 else ("visible", "infrared", cross * options.visible_factor)
    )
    wanted = (("infrared", "infrared", own), ("visible", "visible", own), across)
    return tuple(direction for direction in wanted if direction[2] > 0)


@torch.no_grad()
def shared_neighbours(own: list[Tensor], others: list[Tensor], *, threshold: float) -> Tensor:
    """Which of N images are neighbours of each of B in every embedding, bool [B, N].

    ``own`` unit rows [B, D], ``others`` unit rows [N, D], one pair per embedding. Neighbours are more than
    ``threshold`` times as similar as the most similar image. Source: hil.md 3.6 c.
    """
    similar = [rows_BD @ rows_ND.T for rows_BD, rows_ND in zip(own, others, strict=True)]
    near = [rows_BN > threshold * rows_BN.amax(dim=1, keepdim=True) for rows_BN in similar]
    return torch.stack(near).all(dim=0)


def neighbour_contrast(similarity_BN: Tensor, neighbours_BN: Tensor, *, temperature: float) -> Tensor:
    """Mean over queries of −Σ log max(share, 1e-8) / (n + 1), over their n neighbours.

    Shares are by softmax over all images. ``similarity_BN`` float, ``neighbours_BN`` bool. Returns a scalar. Source:
    hil.md 3.6 c.
    """
    log_share_BN = (similarity_BN.float() / temperature).log_softmax(dim=1).clamp(min=LOG_FLOOR)
    total_B = torch.where(neighbours_BN, log_share_BN, 0).sum(dim=1)
    return -(total_B / (neighbours_BN.sum(dim=1) + 1)).mean()
