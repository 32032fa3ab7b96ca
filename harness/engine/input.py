"""From pseudo-labels to batches: which images, in which order, under which augmentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.contracts import Batch, Draw, Modality, PseudoLabels, TrainIndex
from harness.data.augment import Augmentation, apply_view, draw_view
from harness.data.presets import PRESETS
from harness.data.sampler import CrossCameraSampler
from harness.engine.extraction import Gather, ImageTransform, Triple, moved
from harness.engine.processes import Processes
from harness.engine.randomness import numpy_stream, torch_stream
from harness.errors import SettingsError, suggest
from harness.recipe import Recipe, Stage


@dataclass(frozen=True)
class ImageSource:
    """Training pixels and what happens to them before the encoder; knows no path and no identity."""

    gather: Gather
    transforms: Sequence[ImageTransform]
    train: TrainIndex
    device: torch.device
    pixel_mean: Triple
    pixel_std: Triple
    processes: Processes = field(default_factory=Processes)

    def view(self, preset: str) -> Augmentation:
        """The augmentation of that name, normalising as the encoder expects. Raises SettingsError if there is none."""
        if preset not in PRESETS:
            raise SettingsError(f"There is no augmented view {preset!r}. {suggest(preset, PRESETS)}")
        return PRESETS[preset].model_copy(update={"mean": self.pixel_mean, "std": self.pixel_std})


@dataclass(frozen=True, slots=True, eq=False)
class DrawnBatch(Batch):
    """A batch as the engine has it: ``modality_on_host`` spares an encoder that can use it to wait for a GPU."""

    modality_on_host: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Those on the device of the run."""
        return self.index, self.modality, self.camera, self.view, *self.labels.values()


class DrawStream:
    """The batches of one draw for one epoch; a function of (seed, epoch, draw)."""

    def __init__(
        self,
        source: ImageSource,
        labels: PseudoLabels,
        *,
        draw: Draw,
        recipe: Recipe,
        stage: Stage | None = None,
        seed: int,
        epoch: int,
    ) -> None:
        self.source, self.labels, self.draw, self.recipe = source, labels, draw, recipe
        self.views = {name: partition.labels.cpu() for name, partition in labels.views(draw).items()}
        self.generator = torch_stream(seed, "augment", epoch, *draw.partitions)
        self.modality, self.camera = source.train.modality.cpu(), source.train.camera.cpu()
        self.augmentations = {
            Modality.VISIBLE: [source.view(name) for name in recipe.visible_views],
            Modality.INFRARED: [source.view(name) for name in recipe.infrared_views],
        }
        self.samplers: dict[Modality, CrossCameraSampler] = {}
        for kind, clusters in (
            (Modality.VISIBLE, (stage and stage.visible_clusters) or recipe.visible_clusters),
            (Modality.INFRARED, recipe.infrared_clusters),
        ):
            sampler = self._sampler(kind, clusters, numpy_stream(seed, "sampler", epoch, *draw.partitions, int(kind)))
            if sampler is not None:
                self.samplers[kind] = sampler

    def _sampler(self, kind: Modality, clusters: int, generator: np.random.Generator) -> CrossCameraSampler | None:
        rows = torch.nonzero(self.modality == kind).squeeze(1)
        for name in self.draw.partitions:
            labels = self.views[name][rows]
            if bool((labels >= 0).any()):
                return CrossCameraSampler(
                    labels.numpy(),
                    self.camera[rows].numpy(),
                    index=rows.numpy(),
                    instances=self.recipe.instances,
                    clusters=clusters,
                    generator=generator,
                    prefer_other_cameras=self.recipe.prefer_other_cameras,
                )
        return None

    def __bool__(self) -> bool:
        return bool(self.samplers)

    def next(self) -> tuple[DrawnBatch, Tensor]:
        """The next batch, and the pixels of this process's share of it, float [b, 3, H, W], on the device of the run.

        Every process draws for all images alike, so the streams of randomness go on as one process's would.
        """
        index, views, pixels, before = [], [], [], 0
        for kind, sampler in self.samplers.items():
            drawn = torch.as_tensor(next(sampler.batches(1)))
            images: dict[int, Tensor] = {}
            for number, augmentation in enumerate(self.augmentations[kind]):
                own = self.source.processes.share(len(drawn), begin=before)
                if own.start not in images:
                    images[own.start] = self._images(drawn[own])
                pixels.append(self._view(images[own.start], augmentation, own, count=len(drawn)))
                index.append(drawn)
                views.append(torch.full_like(drawn, number))
                before += len(drawn)
        return self._batch(torch.cat(index), torch.cat(views)), torch.cat(pixels)

    def _view(self, images: Tensor, augmentation: Augmentation, own: slice, *, count: int) -> Tensor:
        height, width = images.shape[2:]
        drawn = draw_view(count, augmentation, size=(height, width), generator=self.generator)
        return apply_view(images, augmentation, drawn if self.source.processes.alone else drawn.rows(own))

    def state(self) -> dict[str, Any]:
        """What the next batch depends on, as plain values."""
        samplers = {int(kind): json.dumps(sampler.state_dict()) for kind, sampler in self.samplers.items()}
        return {"augment": self.generator.get_state(), "samplers": samplers}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.generator.set_state(state["augment"])
        for kind, sampler in self.samplers.items():
            sampler.load_state_dict(json.loads(state["samplers"][int(kind)]))

    def _images(self, drawn: Tensor) -> Tensor:
        images = moved(self.source.gather(drawn), self.source.device)
        kinds = self.modality[drawn].to(self.source.device)
        for transform in self.source.transforms:
            images = transform(images, kinds)
        return images

    def _batch(self, index: Tensor, view: Tensor) -> DrawnBatch:
        device, modality = self.source.device, self.modality[index]
        return DrawnBatch(
            index=moved(index, device),
            modality=moved(modality, device),
            camera=moved(self.camera[index], device),
            view=moved(view, device),
            labels={name: moved(labels[index], device) for name, labels in self.views.items()},
            draw=self.draw,
            pseudo_labels=self.labels,
            modality_on_host=modality,
        )
