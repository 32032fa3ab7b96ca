"""Features of whole image sets: eval mode, image and mirror image averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness.contracts import Modality
from harness.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalise_only
from harness.engine.compute import is_out_of_memory
from harness.engine.processes import Processes
from harness.progress import progress_of

Gather = Callable[[Tensor], Tensor]
Triple = tuple[float, float, float]
ImageTransform = Callable[[Tensor, Tensor], Tensor]

_CHANNELS = {"red": 0, "green": 1, "blue": 2}


def plain_module(encoder: nn.Module) -> nn.Module:
    """The encoder itself, out of what Fabric wraps around it."""
    return getattr(encoder, "module", encoder)


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


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. From the host to a GPU it goes by pinned memory, so that nobody waits for the GPU."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
    processes: Processes | None = None,
    noted: Callable[[str], None] = lambda text: None,
) -> dict[str, Tensor]:
    """Embeddings of M images by name, float32 [M, D], on ``device``.

    Each is the mean of the L2-normalised embeddings of image and mirror image (``flip``), L2-normalised again if
    ``renorm`` (baseline.md 4, step 1). ``gather(index [B]) -> uint8 [B, 3, H, W]``. ``rows`` limits the pass to some
    images; the others stay zero. Each of ``processes`` embeds its share, and all have the features of all. A pass of
    ``batch`` images that memory has no room for is made again with half as many, as are those after it, and ``noted``
    is told; a single image without room raises what torch raised.
    """
    processes = processes or Processes()
    mean, std = pixel_statistics(plain_module(encoder))
    was_training = encoder.training
    encoder.eval()
    count = len(modality)
    wanted = torch.arange(count) if rows is None else rows.cpu()
    modality = modality.cpu()
    own = wanted[processes.share(len(wanted))]

    def embedded(index: Tensor) -> dict[str, Tensor]:
        kinds = moved(modality[index], device)
        images = channel_view(moved(gather(index), device), kinds, view)
        for transform in transforms:
            images = transform(images, kinds)
        return _embed(encoder, normalise_only(images, mean=mean, std=std), kinds, flip=flip, renorm=renorm)

    found: dict[str, Tensor] = {}
    progress = progress_of("extracting features")
    start, asked = 0, batch
    while start < len(own):
        if progress is not None:
            progress(start * processes.count, len(wanted))
        index = own[start : start + batch]
        try:
            passed = embedded(index)
        except (RuntimeError, MemoryError) as error:
            if len(index) == 1 or not is_out_of_memory(error):
                raise
            batch = len(index) // 2
            continue
        for name, features in passed.items():
            if name not in found:
                found[name] = features.new_empty(len(own), features.shape[1])
            found[name][start : start + len(index)] = features
        start += len(index)
    encoder.train(was_training)
    if batch < asked:
        noted(f"Memory had no room for features of {asked} images at a time: {batch} were taken (features.batch).")
    return {name: _placed(features, wanted, count, processes) for name, features in found.items()}


def _placed(own: Tensor, wanted: Tensor, count: int, processes: Processes) -> Tensor:
    """The features of all rows [count, D]: those ``wanted`` in their places, zeros elsewhere."""
    features = processes.rows_of_all(own, len(wanted))
    if len(wanted) == count:
        return features
    placed = features.new_zeros(count, features.shape[1])
    placed[moved(wanted, features.device)] = features
    return placed


def _embed(encoder: nn.Module, pixels: Tensor, kinds: Tensor, *, flip: bool, renorm: bool) -> dict[str, Tensor]:
    plain = {name: normalize(e.float(), dim=1) for name, e in encoder(pixels, kinds).items()}
    if not flip:
        return plain
    mirrored = {name: normalize(e.float(), dim=1) for name, e in encoder(pixels.flip(3), kinds).items()}
    mean = {name: (plain[name] + mirrored[name]) / 2 for name in plain}
    return {name: normalize(e, dim=1) for name, e in mean.items()} if renorm else mean
