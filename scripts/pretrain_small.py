"""Make the weights that the small encoder starts from: visible images of other rendered people, never infrared.

    python scripts/pretrain_small.py harness/models/weights/small_mild100.safetensors

On real data encoders start from ImageNet weights, which were never shown infrared images of people but carry
some similarity across modalities. These weights stand in for them: a supervised net over 300 people of a dataset
seed that no rendered dataset uses, each image from one of 40 visible cameras of still other seeds, stopped early
on a longer schedule. The augmentation is mild: some images are grey or have their channels shuffled, none
is inverted, so infrared stays new to the net.

The result is the same on every run of the same machine and libraries (one thread, CPU).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.data.rendered import render_person
from harness.data.rendered.cameras import VISIBLE_CAMERAS
from harness.data.rendered.image import camera_of, person_of
from harness.models.small import INPUT_SIZE, SmallTwoStream, pack_small_weights

PEOPLE_SEED = 7000
CAMERA_SEEDS = range(7001, 7011)
IDENTITIES, IMAGES_EACH = 300, 12
BATCH_IDENTITIES, BATCH_IMAGES = 12, 8
ITERATIONS, SCHEDULE = 100, 1000
LEARNING_RATE, WEIGHT_DECAY, WARM_UP, TEMPERATURE = 4e-3, 5e-4, 20, 0.1
GREY = 0.3  # share of images whose channels are mixed into one
MARGIN = 4  # pixels by which a crop may move


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images = render_people()
    print(f"rendered {images.shape[0]} people x {images.shape[1]} images")
    model = pretrain(images, iterations=options.iterations)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(pack_small_weights(model), options.output)
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


def pretrain(images_IN3HW: Tensor, *, iterations: int) -> SmallTwoStream:
    """Train a classifier over the identities and return its encoder."""
    generator = torch.Generator().manual_seed(PEOPLE_SEED)
    model = SmallTwoStream(generator=generator)
    shape = (len(images_IN3HW), model.embedding_dims["main"])
    # About unit length, so that one step of Adam can turn them.
    prototypes = nn.Parameter(torch.randn(shape, generator=generator) / shape[1] ** 0.5)
    # Every image is visible, so the infrared stem gets no gradient; it is copied in the end.
    trained = [p for name, p in model.named_parameters() if p.requires_grad and "infrared" not in name]
    optimiser = torch.optim.Adam([*trained, prototypes], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _learning_rate_factor)
    model.train()
    for iteration in range(1, iterations + 1):
        batch, labels = _draw_batch(images_IN3HW, generator)
        embeddings = model(augment(batch, generator), torch.zeros(len(batch), dtype=torch.int64))["main"]
        similarities = nn.functional.normalize(embeddings) @ nn.functional.normalize(prototypes).T
        loss = nn.functional.cross_entropy(similarities / TEMPERATURE, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if iteration % 50 == 0:
            print(f"iteration {iteration}: loss {loss.item():.3f}")
    model.stem_infrared.load_state_dict(model.stem_visible.state_dict())
    return model.eval()


def _learning_rate_factor(step: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP)
    return float(warm * 0.5 * (1.0 + np.cos(np.pi * step / SCHEDULE)))


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
