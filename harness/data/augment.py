"""Training augmentation and the test transform, on whole batches of decoded images.

Equal in distribution, image by image, to the per-image pipelines of baseline.md section 2. Every image of a
batch draws on its own. Parameters are drawn on the CPU from the generator that is passed in, in a fixed order,
and pixels are computed on the device of the images; so a seed gives the same draws on every device.

Deviation: colour jitter works on floats, where the published code rounds to 8 bits after each of its operations.

Shape suffixes: B images, C = 3 channels, H height, W width, K attempts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from harness.errors import ContractError

ChannelOperation = Literal["none", "exchange", "exchange_or_gray", "adaptive_gray", "mix"]
Probability = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
ERASE_FILL: Triple = (0.4914, 0.4822, 0.4465)
LUMINANCE: Triple = (0.2989, 0.5870, 0.1140)

_ERASE_ATTEMPTS = 100


class Augmentation(BaseModel):
    """One training view. Steps run in the order of the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pad: int = Field(10, ge=0, description="Black pixels added on each side before the random crop.")
    flip: Probability = Field(0.5, description="Probability of a horizontal flip.")
    brightness: float = Field(0.0, ge=0, description="Colour jitter: brightness factor within 1 +- this.")
    contrast: float = Field(0.0, ge=0, description="Colour jitter: contrast factor within 1 +- this.")
    saturation: float = Field(0.0, ge=0, description="Colour jitter: saturation factor within 1 +- this.")
    hue: float = Field(0.0, ge=0, le=0.5, description="Colour jitter: hue shift within +- this (turns).")
    brightness_gamma: float = Field(
        0.0, ge=0, lt=1, description="Gain and exponent of x -> gain * x ** gamma, each within 1 +- this."
    )
    mean: Triple = Field(IMAGENET_MEAN, description="Subtracted from each channel (scale 0..1).")
    std: Triple = Field(IMAGENET_STD, description="Divides each channel after the mean is subtracted.")
    erase: Probability = Field(0.5, description="Probability of erasing one rectangle.")
    erase_area: tuple[float, float] = Field((0.02, 0.4), description="Erased share of the image, from..to.")
    erase_aspect: tuple[float, float] = Field(
        (0.3, 1 / 0.3), description="Height over width of the rectangle, from..to (uniform)."
    )
    erase_fill: Triple = Field(ERASE_FILL, description="Erased value of each channel, in normalised units.")
    channel: ChannelOperation = Field(
        "none",
        description=(
            "none; exchange: one random channel copied to all; exchange_or_gray: one of the channels or the "
            "luminance; adaptive_gray: R, G, B 1/4 each, unchanged 1/8, luminance 1/8; mix: a random convex "
            "mixture of the channels copied to all."
        ),
    )
    mix: Probability = Field(0.5, description="Probability of the mixture when channel is 'mix'.")


def visible_plain() -> Augmentation:
    """The visible view 1 of baseline.md section 2."""
    return Augmentation()


def visible_exchange() -> Augmentation:
    """The visible view 2 ("CA"): one random channel in all three."""
    return Augmentation(channel="exchange")


def infrared() -> Augmentation:
    """The infrared view: adaptive gray."""
    return Augmentation(channel="adaptive_gray")


@dataclass(frozen=True)
class Drawn:
    """What one view of B images is made by: drawn on the CPU, image by image, without looking at pixels.

    ``offsets_2B``: top and left of the crop. ``jitter_4B``: amounts of brightness, contrast, saturation and hue, in
    the order of ``order_B4``. ``gain_gamma_2B``, ``boxes_B4`` (top, left, height, width) and ``weights_B3`` where
    ``replaced_B``: as their steps take them. None: that step is off.
    """

    offsets_2B: Tensor
    flipped_B: Tensor
    jitter_4B: Tensor | None = None
    order_B4: Tensor | None = None
    gain_gamma_2B: Tensor | None = None
    boxes_B4: Tensor | None = None
    weights_B3: Tensor | None = None
    replaced_B: Tensor | None = None

    def rows(self, rows: slice) -> Drawn:
        """The same for some of the images."""
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            last = field.name.endswith(("_2B", "_4B"))
            found[field.name] = None if value is None else value[:, rows] if last else value[rows]
        return Drawn(**found)


def augment(images_BCHW: Tensor, augmentation: Augmentation, *, generator: torch.Generator) -> Tensor:
    """One random view of every image: :func:`draw_view`, then :func:`apply_view`.

    Args:
        images_BCHW: uint8 [B, 3, H, W], any device; not modified.
        augmentation: the steps.
        generator: a CPU generator.

    Returns:
        float32 [B, 3, H, W], normalised, on the device of the images.

    Raises:
        ContractError: the images are not uint8 [B, 3, H, W].
    """
    _require_images(images_BCHW)
    height, width = images_BCHW.shape[2:]
    drawn = draw_view(len(images_BCHW), augmentation, size=(height, width), generator=generator)
    return apply_view(images_BCHW, augmentation, drawn)


def draw_view(count: int, augmentation: Augmentation, *, size: tuple[int, int], generator: torch.Generator) -> Drawn:
    """Draw the parameters of one view of ``count`` images of ``size`` (height, width), from a CPU generator."""
    offsets_2B = torch.randint(0, 2 * augmentation.pad + 1, (2, count), generator=generator)
    flipped_B = torch.rand(count, generator=generator) < augmentation.flip
    jitter_4B, order_B4 = _draw_jitter(count, augmentation, generator)
    gain_gamma_2B = _draw_gain_gamma(count, augmentation, generator)
    boxes_B4 = _draw_boxes(count, *size, augmentation, generator) if augmentation.erase else None
    weights_B3, replaced_B = _draw_channel_weights(count, augmentation, generator)
    return Drawn(offsets_2B, flipped_B, jitter_4B, order_B4, gain_gamma_2B, boxes_B4, weights_B3, replaced_B)


def apply_view(images_BCHW: Tensor, augmentation: Augmentation, drawn: Drawn) -> Tensor:
    """The view that was drawn: float32 [B, 3, H, W], normalised, on the device of the images (uint8, not modified).

    Raises:
        ContractError: the images are not uint8 [B, 3, H, W].
    """
    _require_images(images_BCHW)
    x = _crop_and_flip(images_BCHW, augmentation, drawn).to(torch.float32).div_(255)
    x = _colour_jitter(x, augmentation, drawn)
    x = _brightness_gamma(x, drawn)
    x = _normalise(x, augmentation.mean, augmentation.std)
    x = _erase(x, augmentation, drawn)
    return _channel_operation(x, drawn)


def normalise_only(images_BCHW: Tensor, *, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD) -> Tensor:
    """The test transform: uint8 [B, 3, H, W] to float32 normalised [B, 3, H, W], on the same device.

    Raises:
        ContractError: the images are not uint8 [B, 3, H, W].
    """
    _require_images(images_BCHW)
    return _normalise(images_BCHW.to(torch.float32).div_(255), mean, std)


def _require_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ContractError(
            f"Augmentation takes decoded images, uint8 [B, 3, H, W]; got {images.dtype} {list(images.shape)}."
        )


def _normalise(x_BCHW: Tensor, mean: Triple, std: Triple) -> Tensor:
    """In place."""
    return x_BCHW.sub_(_per_channel(mean, like=x_BCHW)).div_(_per_channel(std, like=x_BCHW))


def _per_channel(values: Triple, *, like: Tensor) -> Tensor:
    return _moved(torch.tensor(values, dtype=like.dtype), like).view(1, 3, 1, 1)


def _column(values_B: Tensor, like: Tensor) -> Tensor:
    """Per-image values as [B, 1, 1, 1] on the device and in the dtype of ``like``."""
    return values_B.to(device=like.device, dtype=like.dtype, non_blocking=True).view(-1, 1, 1, 1)


def _moved(values: Tensor, like: Tensor) -> Tensor:
    """Values that were drawn on the CPU, on the device of ``like``, without waiting for what it is at."""
    return values.to(like.device, non_blocking=True)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)


def _crop_and_flip(images: Tensor, augmentation: Augmentation, drawn: Drawn) -> Tensor:
    """Zero-pad, crop back to H x W at a random place, flip; a new uint8 tensor."""
    count, _, height, width = images.shape
    top_B, left_B = _moved(drawn.offsets_2B, images).unbind()
    padded = torch.nn.functional.pad(images, [augmentation.pad] * 4)
    # A view of every window of every image, of which one each is copied.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(count, device=images.device), :, top_B, left_B]
    flipped = _moved(torch.nonzero(drawn.flipped_B).flatten(), images)
    cropped[flipped] = cropped[flipped].flip(-1)
    return cropped


def _draw_jitter(
    count: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor | None, Tensor | None]:
    limits = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    if not any((*limits, augmentation.hue)):
        return None, None
    amounts = [_uniform(count, max(0.0, 1 - limit), 1 + limit, generator) for limit in limits]
    amounts.append(_uniform(count, -augmentation.hue, augmentation.hue, generator))
    return torch.stack(amounts), torch.rand(count, 4, generator=generator).argsort(dim=1)


def _colour_jitter(x: Tensor, augmentation: Augmentation, drawn: Drawn) -> Tensor:
    """Brightness, contrast, saturation and hue, each image in an order of its own."""
    if drawn.jitter_4B is None or drawn.order_B4 is None:
        return x
    limits = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    operations = (_adjust_brightness, _adjust_contrast, _adjust_saturation, _adjust_hue)
    for place in range(4):
        for number, operation in enumerate(operations):
            rows = torch.nonzero(drawn.order_B4[:, place] == number).flatten()
            if limits[number] and len(rows):
                on_device = _moved(rows, x)
                x[on_device] = operation(x[on_device], drawn.jitter_4B[number, rows])
    return x


def _blend(x: Tensor, other: Tensor, factors_B: Tensor) -> Tensor:
    factor = _column(factors_B, x)
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def _adjust_brightness(x: Tensor, factors_B: Tensor) -> Tensor:
    return (x * _column(factors_B, x)).clamp_(0, 1)


def _adjust_contrast(x: Tensor, factors_B: Tensor) -> Tensor:
    return _blend(x, _luminance(x).mean(dim=(2, 3), keepdim=True), factors_B)


def _adjust_saturation(x: Tensor, factors_B: Tensor) -> Tensor:
    return _blend(x, _luminance(x), factors_B)


def _adjust_hue(x: Tensor, shifts_B: Tensor) -> Tensor:
    """Rotate the hue of HSV by a share of a turn; value and saturation stay."""
    value, _ = x.max(dim=1, keepdim=True)
    chroma = value - x.amin(dim=1, keepdim=True)
    sixth = _hue_in_sixths(x, value, chroma) + 6 * _column(shifts_B, x)
    # Standard closed form of HSV to RGB: channel n = value - chroma * clamp(min(k, 4 - k), 0, 1).
    k = (_per_channel((5.0, 3.0, 1.0), like=x) + sixth).remainder_(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def _hue_in_sixths(x: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    red, green, blue = x.split(1, dim=1)
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    return torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )


def _draw_gain_gamma(count: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor | None:
    limit = augmentation.brightness_gamma
    if not limit:
        return None
    return torch.stack([_uniform(count, 1 - limit, 1 + limit, generator) for _ in range(2)])


def _brightness_gamma(x: Tensor, drawn: Drawn) -> Tensor:
    if drawn.gain_gamma_2B is None:
        return x
    gain, gamma = (_column(values_B, x) for values_B in drawn.gain_gamma_2B)
    return x.pow_(gamma).mul_(gain).clamp_(0, 1)


def _erase(x: Tensor, augmentation: Augmentation, drawn: Drawn) -> Tensor:
    """Fill one random rectangle per chosen image, in place."""
    if drawn.boxes_B4 is None:
        return x
    top, left, height, width = _moved(drawn.boxes_B4, x).unbind(1)
    rows_H = torch.arange(x.shape[2], device=x.device)
    columns_W = torch.arange(x.shape[3], device=x.device)
    inside_BH = (rows_H >= top[:, None]) & (rows_H < (top + height)[:, None])
    inside_BW = (columns_W >= left[:, None]) & (columns_W < (left + width)[:, None])
    inside_B1HW = (inside_BH[:, :, None] & inside_BW[:, None, :])[:, None]
    return torch.where(inside_B1HW, _per_channel(augmentation.erase_fill, like=x), x)


def _draw_boxes(count: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Top, left, height, width of each image's rectangle, int64 [B, 4]; empty where nothing is erased.

    Up to 100 attempts per image are drawn at once and the first that fits inside the image is taken, which
    is the law of trying one after another.
    """
    chosen_B = torch.rand(count, generator=generator) < augmentation.erase
    attempts = count * _ERASE_ATTEMPTS
    share = _uniform(attempts, *augmentation.erase_area, generator).view(count, -1)
    aspect = _uniform(attempts, *augmentation.erase_aspect, generator).view(count, -1)
    heights_BK = (share * height * width * aspect).sqrt_().round_()
    widths_BK = (share * height * width / aspect).sqrt_().round_()
    fits_BK = (heights_BK < height) & (widths_BK < width)
    first_B1 = fits_BK.to(torch.uint8).argmax(dim=1, keepdim=True)
    box_height = heights_BK.gather(1, first_B1)[:, 0]
    box_width = widths_BK.gather(1, first_B1)[:, 0]
    top = (_uniform(count, 0, 1, generator) * (height - box_height + 1)).floor_()
    left = (_uniform(count, 0, 1, generator) * (width - box_width + 1)).floor_()
    erased_B = chosen_B & fits_BK.any(dim=1)
    return (torch.stack([top, left, box_height, box_width], dim=1) * erased_B[:, None]).to(torch.int64)


def _channel_operation(x: Tensor, drawn: Drawn) -> Tensor:
    if drawn.weights_B3 is None or drawn.replaced_B is None:
        return x
    weights_B3 = drawn.weights_B3.to(device=x.device, dtype=x.dtype, non_blocking=True)
    return torch.where(_column(drawn.replaced_B, x).bool(), _weighted_sum(x, weights_B3), x)


def _draw_channel_weights(
    count: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor | None, Tensor | None]:
    """Weights [B, 3] of the mixture that all three channels become, and bool [B], where it is applied."""
    if augmentation.channel == "none":
        return None, None
    if augmentation.channel == "mix":
        # Exponential variables divided by their sum are uniform on the simplex (Dirichlet(1, 1, 1)).
        exponential_B3 = -torch.log1p(-torch.rand(count, 3, generator=generator, dtype=torch.float64))
        weights_B3 = exponential_B3 / exponential_B3.sum(dim=1, keepdim=True)
        return weights_B3, torch.rand(count, generator=generator) < augmentation.mix
    table_43 = torch.cat([torch.eye(3), torch.tensor([LUMINANCE])])
    choices = 3 if augmentation.channel == "exchange" else 4
    choice_B = torch.randint(0, choices, (count,), generator=generator)
    replaced_B = torch.ones(count, dtype=torch.bool)
    if augmentation.channel == "adaptive_gray":
        replaced_B = (choice_B < 3) | (torch.rand(count, generator=generator) < 0.5)
    return table_43[choice_B], replaced_B


def _weighted_sum(x_BCHW: Tensor, weights_B3: Tensor) -> Tensor:
    """[B, 1, H, W]. Elementwise on purpose: a matrix product would run in low precision under autocast."""
    red, green, blue = (weights_B3[:, channel, None, None, None] for channel in range(3))
    return x_BCHW[:, :1] * red + x_BCHW[:, 1:2] * green + x_BCHW[:, 2:] * blue


def _luminance(x: Tensor) -> Tensor:
    return _weighted_sum(x, _moved(torch.tensor([LUMINANCE], dtype=x.dtype), x).expand(len(x), 3))
