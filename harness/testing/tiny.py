"""A tiny rendered training set in memory, and epochs of one iteration on it with any parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.contracts import Setup, TrainIndex
from harness.data.manifest import Manifest
from harness.data.rendered import render_image
from harness.engine.compute import make_fabric
from harness.engine.cost import Clock
from harness.engine.extraction import ImageTransform, pixel_statistics
from harness.engine.input import ImageSource
from harness.engine.objective import Working
from harness.engine.train import EpochReport, Parts, Trainer
from harness.plugins import Chosen
from harness.recipe import Recipe, Stage
from harness.settings import ClusteringSettings, ComputeSettings, FeatureSettings
from harness.testing.cases import DATASET
from harness.testing.plain import PlainClusterer

PEOPLE, EACH = 6, 8
CAMERAS = ((1, 2, 4, 5), (3, 6))
SIZE = (32, 16)
RECIPE = Recipe(
    stages=(Stage(name="intra", epochs=1, iterations=1, cross=False), Stage(name="cross", epochs=1, iterations=1)),
    visible_clusters=3,
    infrared_clusters=3,
    instances=4,
    visible_views=("rendered-visible",),
    infrared_views=("rendered-infrared",),
    learning_rate=0.001,
    schedule="constant",
)


class TinyEncoder(nn.Module):
    """Mean colours of horizontal strips, less their mean, mixed by one layer."""

    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)
    input_size = SIZE

    def __init__(self, *, strips: int = 8, size: int = 16) -> None:
        super().__init__()
        self.embedding_dims = {"main": size}
        self.pool = nn.AdaptiveAvgPool2d((strips, 1))
        self.layer = nn.Linear(3 * strips, size)
        self.norm = nn.BatchNorm1d(size)
        with torch.no_grad():
            draw = torch.randn(self.layer.weight.shape, generator=torch.Generator().manual_seed(0))
            self.layer.weight.copy_(draw / self.layer.in_features**0.5)
            self.layer.bias.zero_()

    def forward(self, images_B3HW: Tensor, modality_B: Tensor) -> dict[str, Tensor]:
        """``{"main": [B, size]}`` of float [B, 3, H, W]."""
        colours_BS = self.pool(images_B3HW).flatten(1)
        return {"main": self.norm(self.layer(colours_BS - colours_BS.mean(dim=1, keepdim=True)))}


@dataclass(frozen=True)
class Tiny:
    """N rendered images, uint8 [N, 3, H, W], as a dataset lists them."""

    pixels: Tensor
    train: TrainIndex
    manifest: Manifest


@cache
def tiny_rendered() -> Tiny:
    """Six people, eight images of each per modality, rendered in memory.

    The identities of its manifest are decoys: drawn at random, so that nobody can find them in the images.
    """
    rng = np.random.default_rng(9)
    images, modality, camera = [], [], []
    for kind, cameras in enumerate(CAMERAS):
        places = [(person, number) for person in range(1, PEOPLE + 1) for number in range(EACH)]
        for place in rng.permutation(len(places)):
            person, number = places[place]
            images.append(
                render_image(0, identity=person, camera=cameras[number % len(cameras)], number=number + 1, size=SIZE)
            )
            modality.append(kind)
            camera.append(cameras[number % len(cameras)])
    manifest = Manifest(
        root=Path("decoy"),
        paths=tuple(f"cam{c}/{n:04d}/0001.jpg" for n, c in enumerate(camera)),
        modality=np.asarray(modality, dtype=np.int64),
        camera=np.asarray(camera, dtype=np.int64),
        identity=rng.integers(0, PEOPLE, len(images)).astype(np.int64),
    )
    train = TrainIndex(torch.as_tensor(manifest.modality), torch.as_tensor(manifest.camera))
    return Tiny(torch.as_tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous(), train, manifest)


def train_tiny(
    *,
    clusterer: Chosen,
    refiners: Sequence[Chosen] = (),
    memory: Chosen,
    losses: Sequence[Chosen],
    transforms: Sequence[ImageTransform] = (),
) -> tuple[Parts, list[EpochReport]]:
    """Train two epochs, without and with cross-modality evidence, of one iteration each.

    An epoch for which the clusterer finds no cluster is gone through again with a plain clusterer in its place, so that
    the other parts get to work. Raises what the engine raises, naming the part at fault.
    """
    tiny, encoder = tiny_rendered(), TinyEncoder()
    fabric = make_fabric(ComputeSettings(device="cpu", precision="fp32", threads=torch.get_num_threads()))
    setup = Setup(train=tiny.train, dataset=DATASET, embedding_dims=dict(encoder.embedding_dims))

    def made(chosen: Chosen) -> Working[Any]:
        return Working(chosen, chosen.make(setup))

    parts = Parts(made(clusterer), tuple(map(made, refiners)), made(memory), tuple(map(made, losses)))
    trainer = Trainer(
        fabric=fabric,
        encoder=encoder,
        parts=parts,
        recipe=RECIPE,
        source=ImageSource(
            lambda index: tiny.pixels[index], list(transforms), tiny.train, fabric.device, *pixel_statistics(encoder)
        ),
        dataset=DATASET,
        embedding_dims=setup.embedding_dims,
        seed=0,
        features=FeatureSettings(),
        clustering=ClusteringSettings(),
        clock=Clock(),
    )
    trainer.prepare(needs_teacher=any("teacher" in part.chosen.provider.needs for part in parts))
    return parts, [_epoch(trainer, index) for index in range(RECIPE.epochs)]


def _epoch(trainer: Trainer, index: int) -> EpochReport:
    report = trainer.run_epoch(index)
    if not report.skipped:
        return report
    found = trainer.parts.clusterer
    plain = PlainClusterer(None, Setup(trainer.train, DATASET, trainer.embedding_dims))
    trainer.parts.clusterer = Working(found.chosen, plain)
    try:
        return trainer.run_epoch(index)
    finally:
        trainer.parts.clusterer = found
