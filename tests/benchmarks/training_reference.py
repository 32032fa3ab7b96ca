"""An epoch as the field writes it: files decoded by DataLoader workers and transformed image by image, three passes
through the network, a loop over the batch to update the memory, every term read at once, dense clustering.

It is the yardstick for speed. What it computes is what the harness's baseline computes, up to the draws.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from harness.data.augment import ERASE_FILL, IMAGENET_MEAN, IMAGENET_STD
from tests.benchmarks import clustering_reference as dense


class Erase:
    """One random rectangle of a normalised image, drawn by trial."""

    def __call__(self, image: Tensor) -> Tensor:
        if random.random() >= 0.5:
            return image
        _, height, width = image.shape
        for _ in range(100):
            area = random.uniform(0.02, 0.4) * height * width
            aspect = random.uniform(0.3, 1 / 0.3)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < width and h < height:
                top, left = random.randint(0, height - h), random.randint(0, width - w)
                for channel in range(3):
                    image[channel, top : top + h, left : left + w] = ERASE_FILL[channel]
                return image
        return image


class Exchange:
    """One random channel in all three."""

    def __call__(self, image: Tensor) -> Tensor:
        return image[random.randrange(3)].expand(3, -1, -1).clone()


class Gray:
    """One channel, the luminance, or nothing."""

    def __call__(self, image: Tensor) -> Tensor:
        choice = random.randrange(4)
        if choice < 3:
            return image[choice].expand(3, -1, -1).clone()
        if random.random() < 0.5:
            gray = 0.2989 * image[0] + 0.5870 * image[1] + 0.1140 * image[2]
            return gray.expand(3, -1, -1).clone()
        return image


def training_transform(size: tuple[int, int], *last: object) -> transforms.Compose:
    height, width = size
    return transforms.Compose(
        [
            transforms.Resize((height, width), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.Pad(10),
            transforms.RandomCrop((height, width)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            Erase(),
            *last,
        ]
    )


def test_transform(size: tuple[int, int]) -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


class Files(Dataset):
    """Images decoded whenever they are asked for, in as many views as there are transforms."""

    def __init__(self, paths: Sequence[Path], views: Sequence[transforms.Compose]) -> None:
        self.paths, self.views = list(paths), views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> list[Tensor]:
        with Image.open(self.paths[place]) as file:
            image = file.convert("RGB")
        return [view(image) for view in self.views]


def loader(
    paths: Sequence[Path], views: Sequence[transforms.Compose], *, batches: Sequence[Sequence[int]], workers: int
) -> DataLoader:
    return DataLoader(Files(paths, views), batch_sampler=batches, num_workers=workers)


def in_order(total: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, total))) for start in range(0, total, size)]


@torch.no_grad()
def features_of(
    encoder: nn.Module, paths: Sequence[Path], *, kind: int, size: tuple[int, int], batch: int, workers: int
) -> Tensor:
    """Features of files of one modality, image and mirror image averaged: decoded anew, every epoch."""
    encoder.eval()
    found = []
    for (images,) in loader(paths, [test_transform(size)], batches=in_order(len(paths), batch), workers=workers):
        kinds = torch.full((len(images),), kind)
        both = [F.normalize(encoder(x, kinds)["main"], dim=1) for x in (images, images.flip(3))]
        found.append(F.normalize(both[0] + both[1], dim=1))
    return torch.cat(found)


class Memory:
    """Cluster centroids, moved image by image."""

    def __init__(self, features: Tensor, labels: NDArray[np.int64], *, momentum: float = 0.1) -> None:
        rows = [features[torch.as_tensor(labels == label)].mean(dim=0) for label in range(int(labels.max()) + 1)]
        self.vectors, self.momentum = F.normalize(torch.stack(rows), dim=1), momentum

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(F.normalize(embeddings, dim=1) @ self.vectors.T / 0.05, labels)

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        for embedding, label in zip(F.normalize(embeddings, dim=1), labels, strict=True):
            self.vectors[label] = self.momentum * self.vectors[label] + (1 - self.momentum) * embedding
            self.vectors[label] /= self.vectors[label].norm()


def draw_batches(
    labels: NDArray[np.int64], *, iterations: int, clusters: int, instances: int, seed: int
) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(iterations):
        chosen = rng.choice(int(labels.max()) + 1, clusters, replace=clusters > labels.max())
        groups = [rng.choice(np.flatnonzero(labels == label), instances, replace=True) for label in chosen]
        batches.append(np.concatenate(groups).tolist())
    return batches


class PeerStep:
    """One step: three passes, sum of terms read one by one, optimiser, loops over the batch."""

    def __init__(self, encoder: nn.Module, memories: tuple[Memory, Memory], *, rate: float = 3.5e-4) -> None:
        self.encoder, self.memories = encoder, memories
        self.optimiser = torch.optim.Adam(encoder.parameters(), lr=rate, weight_decay=5e-4)
        self.logged: list[float] = []

    def __call__(self, views: Sequence[Tensor], visible: Tensor, infrared_images: Tensor, infrared: Tensor) -> None:
        self.encoder.train()
        first, second = (self.encoder(view, torch.zeros(len(view), dtype=torch.int64))["main"] for view in views)
        third = self.encoder(infrared_images, torch.ones(len(infrared_images), dtype=torch.int64))["main"]
        terms = [
            self.memories[0].loss(first, visible),
            self.memories[0].loss(second, visible),
            self.memories[1].loss(third, infrared),
        ]
        self.optimiser.zero_grad()
        sum(terms).backward()  # type: ignore[union-attr]
        self.optimiser.step()
        self.logged += [term.item() for term in terms]
        self.memories[0].update(first.detach(), visible)
        self.memories[0].update(second.detach(), visible)
        self.memories[1].update(third.detach(), infrared)


def cluster(features: Tensor, *, k1: int = 30, eps: float = 0.6) -> NDArray[np.int64]:
    return dense.dense_labels(dense.dense_jaccard(features.numpy(), k1=k1), eps=eps)
