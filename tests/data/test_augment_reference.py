"""Whole views of the batched augmentation against the per-image pipeline of the field: equal in distribution.

One photograph is transformed many times by either; random sums of its pixels must follow one law. Seeds are fixed, so
the outcome is too.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from harness.data.augment import (
    Augmentation,
    apply_view,
    augment,
    draw_view,
    infrared,
    visible_exchange,
    visible_plain,
)
from harness.data.presets import PRESETS
from tests.benchmarks import training_reference as peer

SIZE, TIMES, SUMS = (24, 12), 800, 24
VIEWS = {
    "plain": (visible_plain, ()),
    "exchange": (visible_exchange, (peer.Exchange(),)),
    "infrared": (infrared, (peer.Gray(),)),
}


def photograph() -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    channels = [7 * rows + 5 * columns, 9 * columns + 20, 200 - 6 * rows + 3 * columns]
    noise = np.random.default_rng(5).integers(0, 40, (*SIZE, 3))
    return np.clip(np.stack(channels, axis=2) + noise, 0, 255).astype(np.uint8)


def ours(view) -> torch.Tensor:
    images = torch.from_numpy(photograph()).permute(2, 0, 1).expand(TIMES, -1, -1, -1)
    return augment(images, view(), generator=torch.Generator().manual_seed(11))


def theirs(last) -> torch.Tensor:
    random.seed(12)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(12)
        transform, image = peer.training_transform(SIZE, *last), Image.fromarray(photograph())
        return torch.stack([transform(image) for _ in range(TIMES)])


@pytest.mark.parametrize("name", VIEWS)
def test_random_sums_of_pixels_follow_one_law(name: str) -> None:
    view, last = VIEWS[name]
    found, expected = ours(view).flatten(1).double(), theirs(last).flatten(1).double()
    weights = torch.randn(found.shape[1], SUMS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lowest = min(
        stats.ks_2samp((found @ column).numpy(), (expected @ column).numpy()).pvalue for column in weights.T
    )  # fmt: skip
    assert lowest > 1e-3 / SUMS


@pytest.mark.parametrize("name", VIEWS)
def test_single_pixels_have_one_mean_and_spread(name: str) -> None:
    view, last = VIEWS[name]
    found, expected = ours(view).flatten(1).double(), theirs(last).flatten(1).double()
    spread = (found.var(dim=0) + expected.var(dim=0)).div(TIMES).sqrt()
    assert float(((found.mean(dim=0) - expected.mean(dim=0)) / spread).abs().max()) < 5
    ratio = found.std(dim=0) / expected.std(dim=0)
    assert float((ratio - 1).abs().max()) < 0.2


def test_another_law_is_noticed() -> None:
    found = ours(lambda: visible_plain().model_copy(update={"pad": 7})).flatten(1).double()
    expected = theirs(()).flatten(1).double()
    spread = (found.var(dim=0) + expected.var(dim=0)).div(TIMES).sqrt()
    assert float(((found.mean(dim=0) - expected.mean(dim=0)) / spread).abs().max()) > 5


@pytest.mark.parametrize("name", [*PRESETS, "everything"])
def test_the_view_of_some_images_is_that_part_of_the_view_of_all(name: str) -> None:
    everything = Augmentation(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, brightness_gamma=0.3, channel="mix"
    )  # fmt: skip
    steps = PRESETS.get(name, everything)
    images = torch.randint(0, 256, (11, 3, *SIZE), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    drawn = draw_view(len(images), steps, size=SIZE, generator=torch.Generator().manual_seed(3))
    whole = apply_view(images, steps, drawn)
    assert whole.equal(augment(images, steps, generator=torch.Generator().manual_seed(3)))
    for rows in (slice(0, 11, 1), slice(1, 11, 3), slice(0, 4, 1)):
        assert apply_view(images[rows], steps, drawn.rows(rows)).equal(whole[rows])
