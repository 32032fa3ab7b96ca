"""Features of whole image sets: eval mode, image and mirror image averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness.contracts import Modality
from harness.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalise_only
from harness.progress import progress_of

Gather = Callable[[Tensor], Tensor]
Triple = tuple[float, float, float]
ImageTransform = Callable[[Tensor, Tensor], Tensor]

_CHANNELS = {"red": 0, "green": 1, "blue": 2}


def pixel_statistics(encoder: nn.Module) -> tuple[Triple, Triple]:
    """Mean and deviation per channel that the encoder's input is normalised by; ImageNet's unless it says otherwise."""
    mean: Triple = getattr(encoder, "pixel_mean", IMAGENET_MEAN)  # type: ignore[assignment]
    std: Triple = getattr(encoder, "pixel_std", IMAGENET_STD)  # type: ignore[assignment]
    return mean, std


def channel_view(images_B3HW: Tensor, modality_B: Tensor, view: str) -> Tensor:
    """``images`` with one channel of the visible ones ("red", "green", "blue") copied into all three, or unchanged."""
    if view == "plain":
        return images_B3HW
    channel = images_B3HW[:, _CHANNELS[view]][:, None].expand_as(images_B3HW)
    return torch.where((modality_B == Modality.VISIBLE)[:, None, None, None], channel, images_B3HW)


@torch.no_grad()
def extract_features(
    encoder: nn.Module,
    gather: Gather,
    *,
    modality: Tensor,
    transforms: Sequence[ImageTransform],
    device: torch.device,
    batch: int,
    flip: bool,
    renorm: bool,
    view: str = "plain",
    rows: Tensor | None = None,
) -> dict[str, Tensor]:
    """Embeddings of M images by name, float32 [M, D], on ``device``.

    Each is the mean of the L2-normalised embeddings of image and mirror image (``flip``), L2-normalised again if
    ``renorm`` (baseline.md 4, step 1). ``gather(index [B]) -> uint8 [B, 3, H, W]``. ``rows`` limits the pass to some
    images; the others stay zero.
    """
    mean, std = pixel_statistics(getattr(encoder, "module", encoder))
    was_training = encoder.training
    encoder.eval()
    count = len(modality)
    found: dict[str, Tensor] = {}
    wanted = torch.arange(count) if rows is None else rows.cpu()
    progress = progress_of("extracting features")
    for number, index in enumerate(wanted.split(batch)):
        if progress is not None:
            progress(number * batch, len(wanted))
        kinds = modality[index].to(device)
        images = channel_view(gather(index).to(device), kinds, view)
        for transform in transforms:
            images = transform(images, kinds)
        pixels = normalise_only(images, mean=mean, std=std)
        for name, features in _embed(encoder, pixels, kinds, flip=flip, renorm=renorm).items():
            if name not in found:
                found[name] = features.new_zeros(count, features.shape[1])
            found[name][index.to(device)] = features
    encoder.train(was_training)
    return found


def _embed(encoder: nn.Module, pixels: Tensor, kinds: Tensor, *, flip: bool, renorm: bool) -> dict[str, Tensor]:
    plain = {name: normalize(e.float(), dim=1) for name, e in encoder(pixels, kinds).items()}
    if not flip:
        return plain
    mirrored = {name: normalize(e.float(), dim=1) for name, e in encoder(pixels.flip(3), kinds).items()}
    mean = {name: (plain[name] + mirrored[name]) / 2 for name in plain}
    return {name: normalize(e, dim=1) for name, e in mean.items()} if renorm else mean
