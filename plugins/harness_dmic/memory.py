"""HMCL's memories: banks of clusters, and beside each a bank of single images (dmic.md 3.4).

Stated by the paper: both kinds of bank, for either modality and for both; all start anew in every epoch; random
replacement. From public code of the same authors: the option to keep image banks for a whole stage.

Ours: an outlier in an image bank is a negative of every query, which is what a cluster of its own would be. Image banks
are of the main embedding only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.contracts import Bank, BankKind, Batch, Embeddings, EpochContext, Partition, PseudoLabels, Setup
from harness.errors import ContractError
from harness.memory_updates import momentum_update, random_replacement
from harness.providers import Options
from harness_baseline.memory import PrototypeMemory
from harness_dmic.options import HmclMemoryOptions


class InstanceMemory(PrototypeMemory):
    """Prototypes, and a bank with one unit row per image of each partition's scope.

    The scope of ``"visible"`` and ``"infrared"`` is that modality, of any other partition all images. After a batch,
    the row of every labelled image in it becomes one of the image's queries, each with the same chance.

    Subclass it and override what :class:`PrototypeMemory` says; set ``instance_momentum`` for rows that move more
    slowly.
    """

    changing = ("_banks", "_instances", "_instance_generator")
    instance_momentum = 0.0

    def __init__(self, options: Options, setup: Setup) -> None:
        super().__init__(options, setup)
        self._instances: dict[str, Bank] = {}
        self._num_visible = setup.train.num_visible

    def first_instances(self, name: str, features_MD: Tensor) -> Tensor:
        """The rows [M, D] with which a bank enters an epoch; ``features_MD`` are those of its images."""
        return normalize(features_MD, dim=1)

    @torch.no_grad()
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        super().build(epoch, labels)
        features_ND = epoch.features()
        self._instances = {name: self._instance_bank(name, features_ND, labels[name]) for name in self.names}
        self._instance_generator = torch.Generator().manual_seed(int(epoch.rng.integers(2**62, size=2)[1]))

    def _instance_bank(self, name: str, features_ND: Tensor, partition: Partition) -> Bank:
        rows = self._rows(name)
        cluster, modality = partition.labels[rows], self.setup.train.modality[rows]
        kind = torch.full_like(cluster, BankKind.INSTANCE)
        return Bank(self.first_instances(name, features_ND[rows]), cluster, modality, kind)

    def _rows(self, name: str) -> slice:
        """The global indices of a partition's scope."""
        first_infrared = self._num_visible
        return {"visible": slice(0, first_infrared), "infrared": slice(first_infrared, None)}.get(name, slice(0, None))

    def instances(self, name: str) -> Bank:
        """One row per image of a partition's scope; outliers are cluster −1. ContractError if there is no such bank."""
        if name not in self._instances:
            known = ", ".join(self._instances) or "none before build()"
            raise ContractError(f"this memory has no bank of images of {name!r}; it has: {known}.")
        return self._instances[name]

    @torch.no_grad()
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        super().update(batch, embeddings)
        for name, labels in batch.labels.items():
            chosen = labels >= 0
            if name in self._instances and bool(chosen.any()):
                self._write(name, batch.index[chosen], embeddings.unit()[chosen])

    def _write(self, name: str, index: Tensor, queries: Tensor) -> None:
        vectors_MD = self._instances[name].vectors
        # Only the rows of the batch are handed over: a copy of the whole bank per step would be most of the step.
        rows, slot = torch.unique(index - self._rows(name).start, return_inverse=True)
        vectors_MD[rows] = shuffled_update(
            vectors_MD[rows], queries, slot, momentum=self.instance_momentum, generator=self._instance_generator
        )


class HybridMemory(InstanceMemory):
    """HMCL: normalised cluster means and normalised features, each replaced by random queries."""

    options: HmclMemoryOptions
    changing = (*InstanceMemory.changing, "_generator")

    def __init__(self, options: HmclMemoryOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.instance_momentum = options.momentum
        self._stage = -1
        self._carried: dict[str, Tensor] = {}
        """Rows that outlive an epoch, by partition; the banks' own tensors, so that updates reach them."""

    def begin(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        kept = self.options.reinit_instance_bank == "phase" and self._stage == epoch.stage_number
        self._carried = self._carried if kept else {}
        self._stage = epoch.stage_number
        self._generator = torch.Generator().manual_seed(int(epoch.rng.integers(2**62)))

    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        super().build(epoch, labels)
        if self.options.reinit_instance_bank == "phase":
            self._carried = {name: self.instances(name).vectors for name in self.names}

    def prototypes(self, features_ND: Tensor, partition: Partition) -> Tensor:
        return super().prototypes(normalize(features_ND, dim=1), partition)

    def first_instances(self, name: str, features_MD: Tensor) -> Tensor:
        carried = self._carried.get(name)
        return super().first_instances(name, features_MD) if carried is None else carried.to(features_MD)

    def updated(self, vectors_KD: Tensor, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        return shuffled_update(
            vectors_KD, queries_BD, labels_B, momentum=self.options.momentum, generator=self._generator
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {"stage": torch.tensor(self._stage), **self._carried} if self._carried else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._carried = {name: rows for name, rows in state.items() if name != "stage"}
        self._stage = int(state.get("stage", -1))


def shuffled_update(
    bank_KD: Tensor, queries_BD: Tensor, labels_B: Tensor, *, momentum: float, generator: torch.Generator
) -> Tensor:
    """Every query in random order: its row ← unit( momentum · row + (1 − momentum) · query ). Returns the new bank.

    With momentum 0 each row becomes one of its queries, all with the same chance.
    """
    if momentum == 0:
        return random_replacement(bank_KD, queries_BD, labels_B, generator=generator)
    order = torch.randperm(labels_B.numel(), generator=generator).to(labels_B.device)
    return momentum_update(bank_KD, queries_BD[order], labels_B[order], momentum=momentum)
