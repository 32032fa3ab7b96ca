"""Make the weights that a small encoder starts from: visible images of other rendered people, never infrared.

    python scripts/pretrain_small.py harness/models/weights/small_mild100.safetensors
    python scripts/pretrain_small.py harness/models/weights/small_vit_mild1000.safetensors --backbone small-vit

On real data encoders start from ImageNet weights, which were never shown infrared images of people but carry
some similarity across modalities. These weights stand in for them: a supervised net, with a classifier on each
embedding, over 300 people of a dataset seed that no rendered dataset uses, each image from one of 40 visible cameras of
still other seeds, stopped early. The augmentation is mild: some images are grey or have their channels shuffled, none
is inverted, so infrared stays new to the net.

The result is the same on every run of the same machine and libraries (one thread, CPU).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.builtin import SmallVitOptions
from harness.data.rendered import render_person
from harness.data.rendered.cameras import VISIBLE_CAMERAS
from harness.data.rendered.image import camera_of, person_of
from harness.engine.extraction import pixel_statistics
from harness.models.small import INPUT_SIZE, SmallTwoStream, pack_small_weights
from harness.models.vit import pack_vit_weights, small_from_options

PEOPLE_SEED = 7000
CAMERA_SEEDS = range(7001, 7011)
IDENTITIES, IMAGES_EACH = 300, 12
BATCH_IDENTITIES, BATCH_IMAGES = 12, 8
WARM_UP, TEMPERATURE = 20, 0.1
GREY = 0.3  # share of images whose channels are mixed into one
MARGIN = 4  # pixels by which a crop may move


@dataclass(frozen=True)
class Training:
    """How one encoder is made: its first state, what is kept of the last, how long and how fast it learns.

    The first ``iterations`` of a cosine ``schedule`` are run. The ViT runs all of a shorter one: at the full rate the
    running statistics of its necks lag behind by far.
    """

    start: Callable[[torch.Generator], nn.Module]
    pack: Callable[[Any], dict[str, Tensor]]
    iterations: int
    schedule: int
    learning_rate: float
    weight_decay: float


TRAININGS = {
    "small": Training(
        lambda generator: SmallTwoStream(generator=generator),
        pack_small_weights,
        iterations=100,
        schedule=1000,
        learning_rate=4e-3,
        weight_decay=5e-4,
    ),
    "small-vit": Training(
        lambda _: small_from_options(SmallVitOptions(pretrained=False), PEOPLE_SEED),
        pack_vit_weights,
        iterations=1000,
        schedule=1000,
        learning_rate=2e-3,
        weight_decay=0.0,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--backbone", choices=TRAININGS, default="small")
    parser.add_argument("--iterations", type=int, help="instead of the encoder's own number")
    options = parser.parse_args()
    training = TRAININGS[options.backbone]
    training = replace(training, iterations=options.iterations or training.iterations)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images = render_people()
    print(f"rendered {images.shape[0]} people x {images.shape[1]} images")
    model = pretrain(images, training)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(training.pack(model), options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


def render_people() -> Tensor:
    """Visible images, uint8 [identities, images, 3, H, W]."""
    rng = np.random.default_rng(PEOPLE_SEED)
    images = np.empty((IDENTITIES, IMAGES_EACH, *INPUT_SIZE, 3), dtype=np.uint8)
    for identity in range(IDENTITIES):
        person = person_of(PEOPLE_SEED, identity + 1)
        for number in range(IMAGES_EACH):
            camera = camera_of(int(rng.choice(CAMERA_SEEDS)), int(rng.choice(VISIBLE_CAMERAS)))
            images[identity, number] = render_person(person, camera, rng, size=INPUT_SIZE)
    return torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous()


def pretrain(images_IN3HW: Tensor, training: Training) -> nn.Module:
    """Train a classifier over the identities on every embedding and return their encoder."""
    generator = torch.Generator().manual_seed(PEOPLE_SEED)
    model = training.start(generator)
    mean_311, std_311 = (torch.tensor(values)[:, None, None] for values in pixel_statistics(model))
    # About unit length, so that one step of Adam can turn them.
    prototypes = nn.ParameterDict(
        {
            name: torch.randn((len(images_IN3HW), width), generator=generator) / width**0.5
            for name, width in _trained_embeddings(model).items()
        }
    )
    # Every image is visible, so the infrared stem gets no gradient; the file holds one stem for both.
    trained = [p for name, p in model.named_parameters() if p.requires_grad and "infrared" not in name]
    optimiser = torch.optim.Adam(
        [*trained, *prototypes.parameters()], lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_learning_rate_factor, training.schedule))
    model.train()
    for iteration in range(1, training.iterations + 1):
        batch, labels = _draw_batch(images_IN3HW, generator)
        pixels = (augment(batch, generator) - mean_311) / std_311
        embeddings = model(pixels, torch.zeros(len(batch), dtype=torch.int64))
        loss = sum(_classification(embeddings[name], rows, labels) for name, rows in prototypes.items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if iteration % 50 == 0:
            print(f"iteration {iteration}: loss {loss.item():.3f}")
    return model.eval()


def _trained_embeddings(model: nn.Module) -> dict[str, int]:
    """Widths by name: those that "main" is put together from, or it alone."""
    widths = dict(model.embedding_dims)
    parts = {name: width for name, width in widths.items() if name != "main"}
    return parts or widths


def _classification(embeddings_BD: Tensor, prototypes_ID: Tensor, labels_B: Tensor) -> Tensor:
    similarities_BI = nn.functional.normalize(embeddings_BD) @ nn.functional.normalize(prototypes_ID).T
    return nn.functional.cross_entropy(similarities_BI / TEMPERATURE, labels_B)


def _learning_rate_factor(schedule: int, step: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP)
    return float(warm * 0.5 * (1.0 + np.cos(np.pi * step / schedule)))


def _draw_batch(images_IN3HW: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images float [B, 3, H, W] in [0, 1] and their identities, int64 [B]."""
    identities = torch.randperm(len(images_IN3HW), generator=generator)[:BATCH_IDENTITIES]
    shape = (BATCH_IDENTITIES, images_IN3HW.shape[1])
    numbers = torch.rand(shape, generator=generator).argsort(dim=1)[:, :BATCH_IMAGES]
    batch = images_IN3HW[identities[:, None], numbers].flatten(0, 1)
    return batch.float() / 255.0, identities.repeat_interleave(BATCH_IMAGES)


def augment(images_B3HW: Tensor, generator: torch.Generator) -> Tensor:
    """Crop, flip, channel mix to grey, shuffle, brightness, gamma, noise, erasing."""
    images = _crop(images_B3HW, generator)
    images = torch.where(_chance(images, 0.5, generator), images.flip(3), images)
    images = torch.where(_chance(images, GREY, generator), _mix_channels(images, generator), images)
    images = torch.where(_chance(images, 0.25, generator), _shuffle_channels(images, generator), images)
    brightness = 1.0 + 0.3 * (2.0 * _uniform(images, generator) - 1.0)
    gamma = torch.exp(0.3 * (2.0 * _uniform(images, generator) - 1.0))
    images = (images * brightness).clamp(1e-4, 1.0) ** gamma
    images = images + 0.02 * torch.randn(images.shape, generator=generator)
    return _erase(images, generator)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    """One number in 0..1 per image, [B, 1, 1, 1]."""
    return torch.rand((len(images), 1, 1, 1), generator=generator)


def _chance(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    return _uniform(images, generator) < probability


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to ``MARGIN`` pixels; edges repeat."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (MARGIN,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * MARGIN + 1, (2, count, 1), generator=generator)
    rows = (top + torch.arange(height))[:, :, None]
    columns = (left + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def _mix_channels(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random mean of the channels, in all three."""
    weights = -torch.log(torch.rand((len(images), 3, 1, 1), generator=generator) + 1e-6)
    return ((images * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)).expand_as(images)


def _shuffle_channels(images: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.rand((len(images), 3), generator=generator).argsort(dim=1)
    return images[torch.arange(len(images))[:, None], order]


def _erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images lose a rectangle, which becomes their mean grey."""
    height, width = images.shape[2:]
    half_height = height * (0.08 + 0.12 * _uniform(images, generator))
    half_width = width * (0.1 + 0.2 * _uniform(images, generator))
    row_distance = (torch.arange(height)[None, None, :, None] - height * _uniform(images, generator)).abs()
    column_distance = (torch.arange(width)[None, None, None, :] - width * _uniform(images, generator)).abs()
    inside = (row_distance < half_height) & (column_distance < half_width)
    erased = inside & _chance(images, 0.5, generator)
    return torch.where(erased, images.mean(dim=(1, 2, 3), keepdim=True), images)


if __name__ == "__main__":
    main()
