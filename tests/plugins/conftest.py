"""A stand-in for the core: an epoch with given features, and batches made from labels."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.neighbours import nearest_neighbours
from harness.contracts import Batch, Draw, Embeddings, EpochContext, PseudoLabels, Setup, TrainIndex


class GivenEpoch(EpochContext):
    """An epoch whose features are given: one tensor per view, or one for all views."""

    def __init__(
        self,
        train: TrainIndex,
        features: Tensor | Mapping[str, Tensor],
        *,
        index: int = 0,
        epochs: int = 10,
        stage_number: int = 0,
        stages: int = 1,
        epoch: int | None = None,
        stage_epochs: int | None = None,
        cross: bool = True,
        seed: int = 0,
    ) -> None:
        self.train = train
        self.views = features if isinstance(features, Mapping) else {"plain": features}
        self.index, self.epochs = index, epochs
        self.stage, self.stage_number, self.stages = f"stage-{stage_number}", stage_number, stages
        self.epoch = index if epoch is None else epoch
        self.stage_epochs = epochs if stage_epochs is None else stage_epochs
        self.cross, self.dataset = cross, "test"
        self._seed = seed

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)

    def features(self, *, encoder: str = "online", embedding: str = "main", view: str = "plain") -> Tensor:
        return self.views.get(view, self.views["plain"])

    def neighbours(self, features_ND: Tensor, k: int) -> Tensor:
        return nearest_neighbours(features_ND, k)


def train_index(num_visible: int, num_infrared: int, camera: list[int] | None = None) -> TrainIndex:
    modality = torch.tensor([0] * num_visible + [1] * num_infrared)
    return TrainIndex(modality=modality, camera=modality * 2 + 1 if camera is None else torch.tensor(camera))


def setup_for(train: TrainIndex, size: int) -> Setup:
    return Setup(train=train, dataset="test", embedding_dims={"main": size})


def batch_of(labels: PseudoLabels, rows: Tensor | list[int], *, draw: Draw | None = None) -> Batch:
    """The batch of these global rows, labelled as the core labels it."""
    index = torch.as_tensor(rows)
    draw = draw or labels.draws[0]
    return Batch(
        index=index,
        modality=labels.train.modality[index],
        camera=labels.train.camera[index],
        view=torch.zeros_like(index),
        labels={name: partition.labels[index] for name, partition in labels.views(draw).items()},
        draw=draw,
        pseudo_labels=labels,
    )


def embeddings_of(rows_BD: Tensor) -> Embeddings:
    """With a teacher that sees what the encoder sees."""
    return Embeddings({"main": rows_BD}, teacher=lambda: {"main": rows_BD.detach()})


def at_degrees(*angles: float) -> Tensor:
    """Unit vectors in the plane, float32 [len(angles), 2]."""
    radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], dim=1).float()


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file, for tests that cannot import it."""
    return SimpleNamespace(
        Epoch=GivenEpoch,
        train_index=train_index,
        setup=setup_for,
        batch=batch_of,
        embeddings=embeddings_of,
        at_degrees=at_degrees,
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def people() -> tuple[TrainIndex, Tensor]:
    """Twelve well separated identities, eight visible and eight infrared images of each, a small modality offset."""
    generator = torch.Generator().manual_seed(3)
    centres = normalize(torch.randn(12, 24, generator=generator), dim=1)
    rows = []
    for offset in (0.1, -0.1):
        noise = 0.06 * torch.randn(96, 24, generator=generator)
        shift = torch.zeros(24)
        shift[0] = offset
        rows.append(centres.repeat_interleave(8, 0) + noise + shift)
    return train_index(96, 96), normalize(torch.cat(rows), dim=1)
