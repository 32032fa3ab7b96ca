"""The laws of the batched augmentation, against per-image references and the numbers of baseline.md section 2."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torchvision.transforms.v2 import functional as reference

from harness.data import augment as module
from harness.data.augment import (
    ERASE_FILL,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    augment,
    infrared,
    normalise_only,
    visible_exchange,
    visible_plain,
)
from harness.errors import ContractError

OFF = {"pad": 0, "flip": 0.0, "erase": 0.0, "mean": (0, 0, 0), "std": (1, 1, 1)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(**steps):
    return Augmentation(**(OFF | steps))


def photographs(count=4, height=12, width=8, seed=1):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator(seed))


def close_to(share, probability, count):
    return abs(share - probability) < 4.5 * math.sqrt(probability * (1 - probability) / count)


def test_the_test_transform_scales_and_normalises():
    images = photographs()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(normalise_only(images), (images / 255 - mean) / std)


def test_with_every_step_off_augmentation_is_the_test_transform():
    images = photographs()
    steps = only(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert torch.equal(augment(images, steps, generator=generator()), normalise_only(images))


@pytest.mark.parametrize("preset", [visible_plain, visible_exchange, infrared])
def test_a_seed_decides_the_view_and_the_input_is_left_alone(preset):
    images = photographs()
    before = images.clone()
    first = augment(images, preset(), generator=generator(3))
    assert torch.equal(images, before)
    assert first.dtype == torch.float32
    assert first.shape == images.shape
    assert torch.equal(first, augment(images, preset(), generator=generator(3)))
    assert not torch.equal(first, augment(images, preset(), generator=generator(4)))


def test_the_presets_are_those_of_the_published_pipelines():
    plain = {"pad": 10, "flip": 0.5, "brightness": 0.0, "erase": 0.5, "channel": "none"}
    assert visible_plain().model_dump() | plain == visible_plain().model_dump()
    assert visible_exchange() == visible_plain().model_copy(update={"channel": "exchange"})
    assert infrared() == visible_plain().model_copy(update={"channel": "adaptive_gray"})
    assert visible_plain().erase_fill == (0.4914, 0.4822, 0.4465)


def test_unknown_or_impossible_settings_are_refused():
    for wrong in ({"flip": 1.5}, {"pad": -1}, {"channel": "swap"}, {"colour": 1}):
        with pytest.raises(ValidationError):
            Augmentation(**wrong)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4).byte()]
)
def test_anything_but_decoded_images_is_refused(images):
    with pytest.raises(ContractError, match="uint8"):
        augment(images, visible_plain(), generator=generator())
    with pytest.raises(ContractError, match="uint8"):
        normalise_only(images)


# Crop and flip ------------------------------------------------------------------------------------------------


def crop_offsets(count, pad):
    """Where each crop began, found back from an image whose pixels tell their place."""
    height = width = 2 * pad + 1
    place = torch.arange(1, height * width + 1, dtype=torch.uint8).view(1, 1, height, width)
    out = augment(place.expand(count, 3, -1, -1), only(pad=pad), generator=generator())
    centre = (out[:, 0, pad, pad] * 255).round().long() - 1
    return centre // width, centre % width


def test_crop_offsets_are_uniform_and_independent():
    count, pad = 8100, 2
    rows, columns = crop_offsets(count, pad)
    counts = torch.bincount(rows * 5 + columns, minlength=25)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_crop_is_a_window_of_the_zero_padded_image():
    images = photographs(6, 9, 7)
    out = (augment(images, only(pad=3), generator=generator()) * 255).round().to(torch.uint8)
    padded = torch.nn.functional.pad(images, [3] * 4)
    for image, source in zip(out, padded, strict=True):
        windows = source.unfold(1, 9, 1).unfold(2, 7, 1)
        assert (windows == image[:, None, None]).all(dim=(0, 3, 4)).sum() == 1


def test_padding_is_black_before_normalisation():
    images = torch.full((50, 3, 4, 4), 255, dtype=torch.uint8)
    out = augment(images, only(pad=3, mean=IMAGENET_MEAN, std=IMAGENET_STD), generator=generator())
    black = normalise_only(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).flatten()
    white = normalise_only(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    for channel in range(3):
        values = out[:, channel].unique()
        torch.testing.assert_close(values, torch.stack([black[channel], white[channel]]))


def test_half_of_the_images_are_mirrored_and_nothing_else_happens_to_them():
    images = photographs(1).expand(4000, -1, -1, -1)
    out = augment(images, only(flip=0.5), generator=generator())
    straight = images[0] / 255
    is_straight = (out == straight).all(dim=(1, 2, 3))
    is_mirrored = (out == straight.flip(-1)).all(dim=(1, 2, 3))
    assert (is_straight ^ is_mirrored).all()
    assert close_to(is_mirrored.double().mean(), 0.5, 4000)


# Colour -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (module._adjust_brightness, reference.adjust_brightness, (0.5, 1.0, 1.4)),
        (module._adjust_contrast, reference.adjust_contrast, (0.5, 1.0, 1.4)),
        (module._adjust_saturation, reference.adjust_saturation, (0.0, 1.0, 1.4)),
        (module._adjust_hue, reference.adjust_hue, (-0.5, -0.1, 0.0, 0.3, 0.5)),
    ],
)
def test_each_colour_operation_equals_torchvisions(ours, theirs, factors):
    images = photographs(len(factors)) / 255
    images[0, :, :3] = 0.25  # gray pixels have no hue
    expected = torch.stack([theirs(image, factor) for image, factor in zip(images, factors, strict=True)])
    adjusted = ours(images.clone(), torch.tensor(factors, dtype=torch.float64))
    torch.testing.assert_close(adjusted, expected, atol=2e-4, rtol=0)


def test_brightness_jitter_factors_are_uniform():
    images = torch.full((3000, 3, 1, 1), 100, dtype=torch.uint8)
    factors = augment(images, only(brightness=0.5), generator=generator())[:, 0, 0, 0] * 255 / 100
    assert stats.kstest(factors.numpy(), stats.uniform(0.5, 1.0).cdf).pvalue > 1e-3


def test_jitter_applies_the_four_operations_in_a_random_order_per_image():
    # A saturated red under a strong brightness and contrast change depends on which of them came first.
    images = photographs(1).expand(400, -1, -1, -1)
    steps = only(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
    out = augment(images, steps, generator=generator())
    assert out.min() >= 0
    assert out.max() <= 1
    assert len(out.flatten(1).unique(dim=0)) == 400

    draw = generator()
    torch.randint(0, 1, (2, 400), generator=draw)  # crop
    torch.rand(400, generator=draw)  # flip
    factors = [0.5 + torch.rand(400, generator=draw, dtype=torch.float64) for _ in range(3)]
    factors.append(-0.5 + torch.rand(400, generator=draw, dtype=torch.float64))
    order = torch.rand(400, 4, generator=draw).argsort(dim=1)
    assert len({tuple(row) for row in order.tolist()}) == 24
    operations = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    for row in range(30):
        expected = images[row] / 255
        for number in order[row].tolist():
            expected = operations[number](expected, float(factors[number][row]))
        torch.testing.assert_close(out[row], expected, atol=1e-3, rtol=0)


def test_gain_and_gamma_stay_within_their_limits():
    images = torch.tensor([51, 204, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2000, -1, -1, -1)
    dark, bright, white = augment(images, only(brightness_gamma=0.3), generator=generator())[:, :, 0, 0].T
    gain = white[white < 1]
    assert stats.kstest(gain.numpy(), stats.uniform(0.7, 0.3).cdf).pvalue > 1e-3
    usable = bright < 1
    gamma = torch.log(bright[usable] / dark[usable]) / math.log(4)
    assert gamma.min() >= 0.7 - 1e-3
    assert gamma.max() <= 1.3 + 1e-3


# Erasing ------------------------------------------------------------------------------------------------------


def erased_boxes(height, width, count, seed=0):
    """Top, left, height, width of every rectangle that was erased."""
    images = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    out = augment(images, only(erase=0.5), generator=generator(seed))
    boxes = []
    for image in out:
        rows, columns = torch.nonzero(image[0], as_tuple=True)
        if len(rows):
            top, left = int(rows.min()), int(columns.min())
            box = (top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
            assert len(rows) == box[2] * box[3]
            torch.testing.assert_close(image[:, top, left], torch.tensor(ERASE_FILL))
            boxes.append(box)
    return np.array(boxes)


def reference_boxes(height, width, count, seed=0):
    """One image at a time, as the specification says it."""
    draw = random.Random(seed)
    boxes = []
    while len(boxes) < count:
        for _ in range(100):
            area = draw.uniform(0.02, 0.4) * height * width
            aspect = draw.uniform(0.3, 1 / 0.3)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < width and h < height:
                boxes.append((draw.randint(0, height - h), draw.randint(0, width - w), h, w))
                break
    return np.array(boxes)


@pytest.mark.parametrize(("height", "width"), [(48, 24), (24, 24)])
def test_erased_rectangles_follow_the_law_of_the_per_image_loop(height, width):
    ours = erased_boxes(height, width, 4000)
    theirs = reference_boxes(height, width, 4000)
    assert close_to(len(ours) / 4000, 0.5, 4000)
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 0] + box[:, 2],
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3


def test_a_rectangle_that_cannot_fit_is_not_erased():
    images = torch.zeros(50, 3, 6, 6, dtype=torch.uint8)
    steps = only(erase=1.0, erase_area=(1.0, 1.0), erase_aspect=(1.0, 1.0))
    assert not augment(images, steps, generator=generator()).any()


def test_the_fill_is_in_normalised_units():
    images = photographs(200, 24, 24)
    steps = Augmentation(erase=1.0)
    out = augment(images, steps, generator=generator())
    filled = (out == torch.tensor(ERASE_FILL).view(1, 3, 1, 1)).all(dim=1)
    assert filled.any(dim=(1, 2)).all()


# Channels -----------------------------------------------------------------------------------------------------

PIXEL = torch.tensor([40, 90, 200], dtype=torch.uint8).view(1, 3, 1, 1)
GRAY = (0.2989 * 40 + 0.5870 * 90 + 0.1140 * 200) / 255


def outcome_shares(operation, count=8000):
    """How often each outcome came: the three channels replicated, luminance, unchanged."""
    pixels = PIXEL.expand(count, -1, 2, 2)
    out = augment(pixels, only(channel=operation), generator=generator())
    source = PIXEL.flatten() / 255
    constant = (out == out[:, :1]).all(dim=(1, 2, 3))
    first = out[:, 0, 0, 0]
    shares = [((first == value) & constant).double().mean() for value in source]
    shares.append(((first - GRAY).abs().lt(1e-6) & constant).double().mean())
    shares.append((out == pixels / 255).all(dim=(1, 2, 3)).double().mean())
    return [float(share) for share in shares]


@pytest.mark.parametrize(
    ("operation", "law"),
    [
        ("none", (0, 0, 0, 0, 1)),
        ("exchange", (1 / 3, 1 / 3, 1 / 3, 0, 0)),
        ("exchange_or_gray", (1 / 4, 1 / 4, 1 / 4, 1 / 4, 0)),
        ("adaptive_gray", (1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8)),
    ],
)
def test_channel_operations_have_the_published_frequencies(operation, law):
    shares = outcome_shares(operation)
    assert sum(shares) == pytest.approx(1)
    for share, probability in zip(shares, law, strict=True):
        assert close_to(share, probability, 8000) or share == probability


def test_a_channel_is_exchanged_after_normalisation_so_its_scale_remains():
    pixels = PIXEL.expand(300, -1, -1, -1)
    steps = only(channel="exchange", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    values = augment(pixels, steps, generator=generator())[:, 1, 0, 0].unique()
    torch.testing.assert_close(values, normalise_only(PIXEL).flatten().sort().values)


def test_the_mixture_is_uniform_on_the_simplex_and_replicated():
    pure = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(6000, -1, -1, -1)
    out = augment(pure, only(channel="mix", mix=0.5), generator=generator())[:, :, 0, 0]
    unchanged = (out == torch.tensor([1.0, 0, 0])).all(dim=1)
    assert close_to(unchanged.double().mean(), 0.5, 6000)
    mixed = out[~unchanged]
    assert (mixed == mixed[:, :1]).all()
    # One weight of a uniform point of the simplex of three follows Beta(1, 2).
    assert stats.kstest(mixed[:, 0].numpy(), stats.beta(1, 2).cdf).pvalue > 1e-3


def test_images_of_a_batch_draw_independently():
    images = photographs(1, 24, 12).expand(64, -1, -1, -1)
    out = augment(images, visible_exchange(), generator=generator())
    assert len(out.flatten(1).unique(dim=0)) > 60
