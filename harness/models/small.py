"""A small two-stream encoder for the rendered dataset: trains on a CPU in a minute.

Shape suffixes: B images, H and W pixels, C channels, S horizontal strips, D embedding dimensions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from harness.builtin import SmallOptions
from harness.errors import WeightsError
from harness.models.state import one_line, packed, read_state, shipped_weights, unpacked

INPUT_SIZE = (64, 32)
_STAGES = ((32, 1), (64, 2), (128, 2))  # channels, stride
_STEM_CHANNELS = 32
_STRIPS = 8
_SHIPPED = "small_mild100.safetensors"
_STEMS = {"visible": "stem_visible.", "infrared": "stem_infrared."}
_REMEDY = (
    "Use a file made by scripts/pretrain_small.py or the weights.safetensors of a run with this encoder; or leave "
    "`model.weights` out, for the shipped ones."
)


class SmallTwoStream(nn.Module):
    """One stem per modality, then a shared trunk of three residual blocks over horizontal strips.

    Both stems start from the same weights. Every image is standardised by one mean and one deviation over all
    its pixels and channels, so an affine change of the input (such as the ImageNet normalisation with equal
    constants) does not matter.

    Attributes:
        embedding_dims: the embeddings that :meth:`forward` returns, with their widths.
        input_size: height and width in pixels.
    """

    pixel_mean = (0.0, 0.0, 0.0)
    pixel_std = (1.0, 1.0, 1.0)
    modality_on_host = True

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        """Initialise at random, from ``generator`` if given, else from torch's global one."""
        super().__init__()
        self.input_size = INPUT_SIZE
        self.stem_visible = _stem()
        self.stem_infrared = _stem()
        channels, blocks = _STEM_CHANNELS, []
        for width, stride in _STAGES:
            blocks.append(BasicBlock(channels, width, stride=stride))
            channels = width
        self.trunk = nn.Sequential(*blocks)
        self.embedding_dims = {"main": channels * _STRIPS}
        self.neck = nn.BatchNorm1d(channels * _STRIPS)
        self.neck.bias.requires_grad_(False)
        _initialise(self, generator)
        self.stem_infrared.load_state_dict(self.stem_visible.state_dict())

    def forward(self, images_B3HW: Tensor, modality_B: Tensor) -> dict[str, Tensor]:
        """Embed images of both modalities in one pass, so that batch statistics mix them.

        Args:
            images_B3HW: float [B, 3, H, W].
            modality_B: int64 [B], 0 visible or 1 infrared, in any order.

        Returns:
            ``{"main": [B, 1024]}``, the neck's output, not normalised.
        """
        maps = self.trunk(self._stems(_standardise(images_B3HW), modality_B))
        strips_BCS = nn.functional.adaptive_avg_pool2d(maps, (_STRIPS, 1)).squeeze(3)
        return {"main": self.neck(strips_BCS.flatten(1))}

    def _stems(self, images_B3HW: Tensor, modality_B: Tensor) -> Tensor:
        """Each image through its modality's stem, [B, C, H / 2, W / 2], in the order given."""
        rows = [
            torch.nonzero(modality_B == code).squeeze(1).to(images_B3HW.device, non_blocking=True) for code in (0, 1)
        ]
        if len(rows[0]) + len(rows[1]) != len(images_B3HW):
            raise ValueError(
                f"modality_B must hold one code per image, 0 (visible) or 1 (infrared): got {len(images_B3HW)} images "
                f"and codes {sorted(set(modality_B.tolist()))} of shape {list(modality_B.shape)}."
            )
        stems = (self.stem_visible, self.stem_infrared)
        # An empty part is skipped: batch norm refuses to train on it.
        parts = [stem(images_B3HW[part]) for stem, part in zip(stems, rows, strict=True) if len(part)]
        order = torch.argsort(torch.cat(rows))
        return torch.cat(parts)[order]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a skip (He et al., 2016)."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.skip = nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(maps)))
        return torch.relu(self.norm2(self.conv2(out)) + self.skip(maps))


def from_options(options: SmallOptions, seed: int) -> SmallTwoStream:
    """The encoder that ``--set model.*`` describes.

    Raises:
        WeightsError: the chosen weights cannot be read or do not fit.
    """
    model = SmallTwoStream(generator=torch.Generator().manual_seed(seed))
    if options.weights is not None or options.pretrained:
        load_small_weights(model, options.weights)
    return model


def load_small_weights(model: SmallTwoStream, path: Path | None = None) -> None:
    """Fill ``model`` from a weights file; a file with one stem fills both.

    Args:
        path: made by ``scripts/pretrain_small.py``, or a state of this encoder; default: the file shipped with the
            harness.

    Raises:
        WeightsError: the file cannot be read, or does not hold exactly this network's tensors.
    """
    path = path or shipped_weights(_SHIPPED)
    state = unpacked(read_state(path, remedy=_REMEDY), **_STEMS)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"The weights of {path} do not fit SmallTwoStream: {one_line(error)}. {_REMEDY}") from error


def pack_small_weights(model: SmallTwoStream) -> dict[str, Tensor]:
    """What a weights file holds (:func:`harness.models.state.packed`)."""
    return packed(model, **_STEMS)


def _stem() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, _STEM_CHANNELS, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(_STEM_CHANNELS), nn.ReLU()
    )


def _initialise(model: nn.Module, generator: torch.Generator | None) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)


def _standardise(images_B3HW: Tensor) -> Tensor:
    """Each image with mean 0 and deviation 1 over all its values."""
    centred = images_B3HW - images_B3HW.mean(dim=(1, 2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centred / (deviation + 1e-5)
