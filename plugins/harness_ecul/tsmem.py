"""TSMem: two-step memory updating, and cross-modality instance selection (ECUL; ecul.md 3.2, 3.3, a reconstruction).

| | step 1 | step 2 |
| --- | --- | --- |
| start of an epoch | a random member of each cluster | the mean of each cluster |
| after a batch | a random query of each cluster replaces its prototype | momentum, queries in random order |
| when | intra-modality stages | stages with cross-modality evidence |

Banks of single images start from the features and take random queries in both steps. Our own addition: a recipe with
one stage has no phases; there, the first half of its epochs is step 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.contracts import EpochContext, Partition, PseudoLabels
from harness_dmic.memory import InstanceMemory, shuffled_update
from harness_ecul.options import TsmemOptions
from harness_ecul.selection import aggregated, bidirectional_means, matched


class TwoStepMemory(InstanceMemory):
    """A bank of every partition, under the rules of the step that the epoch is in."""

    options: TsmemOptions
    changing = (*InstanceMemory.changing, "_generator")

    def begin(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        self.step = step_of(epoch, self.options.switch)
        self._seed = int(epoch.rng.integers(2**62))
        self._generator = torch.Generator().manual_seed(self._seed)
        self.unit_rows = self.options.instance_selection != "cma" or self.options.cma_renorm

    def prototypes(self, features_ND: Tensor, partition: Partition) -> Tensor:
        init = self.options.step1_init if self.step == 1 else self.options.step2_init
        if init == "mean":
            return super().prototypes(features_ND, partition)
        # One seed for all embeddings: a prototype is the same image in each.
        members = random_members(partition, np.random.default_rng(self._seed))
        return features_ND[members]

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        super().build(epoch, labels)
        selection = self.options.instance_selection != "off" and epoch.cross
        if selection and {"visible", "infrared"} <= set(self.names):
            for embedding in self.setup.embedding_dims:
                self._select(epoch.features(embedding=embedding), labels, embedding)

    def _select(self, features_ND: Tensor, labels: PseudoLabels, embedding: str) -> None:
        options, train = self.options, labels.train
        features = features_ND[train.visible], features_ND[train.infrared]
        clusters = labels["visible"].labels[train.visible], labels["infrared"].labels[train.infrared]
        banks = self.vectors("visible", embedding), self.vectors("infrared", embedding)
        if options.instance_selection == "cma":
            pairs = matched(features, clusters, threshold=options.selection_threshold)
            banks = aggregated(*banks, pairs, keep=options.cma_keep, direction=options.cma_direction)
        else:
            banks = bidirectional_means(features, clusters, banks, threshold=options.selection_threshold)
        for name, bank in zip(("visible", "infrared"), banks, strict=True):
            self._banks[name, embedding] = normalize(bank, dim=1) if options.cma_renorm else bank

    def updated(self, vectors_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        momentum = 0.0 if self.step == 1 else self.options.step2_momentum
        return shuffled_update(vectors_KD, queries_BD, labels_B, momentum=momentum, generator=self._generator)


def step_of(epoch: EpochContext, switch: str | int) -> int:
    """1 or 2: the step that an epoch is in, see :class:`harness_ecul.options.TsmemOptions`."""
    if switch == "phase":
        late = epoch.cross if epoch.stages > 1 else 2 * epoch.epoch >= epoch.stage_epochs
    else:
        late = (epoch.cross or epoch.stages == 1) and epoch.epoch >= int(switch)
    return 2 if late else 1


def random_members(partition: Partition, rng: np.random.Generator) -> Tensor:
    """One image of each cluster, every member with the same chance: rows, int64 [K]."""
    order = torch.from_numpy(rng.permutation(partition.labels.numel())).to(partition.labels.device)
    shuffled = partition.labels[order]
    position = torch.full((partition.num_clusters,), len(order), dtype=torch.int64, device=order.device)
    chosen = torch.nonzero(shuffled >= 0).squeeze(1)
    position.scatter_reduce_(0, shuffled[chosen], chosen, reduce="amin")
    return order[position]
