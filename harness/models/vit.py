"""Two-stream ViT with a convolutional stem per modality, and two embeddings of every image: deep and shallow.

Source: hil.md 3.1 and baseline.md 3.2; Yang et al., Shallow-Deep Collaborative Learning (SDCL, CVPR 2024); the stem and
its weights: Luo et al., Self-Supervised Pre-Training for Transformer-Based Person Re-Identification (TransReID-SSL).

Shape suffixes: B images, T tokens (patches, and the class token in front), D width.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from harness.builtin import SmallVitOptions, VitOptions
from harness.errors import WeightsError
from harness.models.state import (
    one_line,
    packed,
    read_state,
    shipped_weights,
    some,
    split_by_modality,
    unpacked,
)

_STEM_STRIDE = 2
_PRETRAINING_ASPECT = 2
"""Height over width of the grid of patches in pre-training."""
_LEFT_BEHIND = ("head", "fc.", "dist", "pre_logits")
_REMEDY = (
    "Fetch vit_base_ics_cfs_lup.pth (ViT-B/16 with ICS, pre-trained on LUPerson with CFS; see the model list of "
    "https://github.com/damo-cv/TransReID-SSL) and use `--set model.weights=FILE`; or start from random weights with "
    "`--set model.pretrained=false`; or train a ResNet-50 with `--set model.backbone=agw`."
)
_SHIPPED = "small_vit_mild1000.safetensors"
_SMALL_REMEDY = (
    "Use a file made by scripts/pretrain_small.py --backbone small-vit or the weights.safetensors of a run with this "
    "encoder; or leave `model.weights` out, for the shipped ones."
)
_STEMS = {"visible": "visible_stem.", "infrared": "infrared_stem."}


@dataclass(frozen=True, slots=True)
class VitShape:
    """The sizes of a :class:`TwoStreamVit`. ``depth`` counts blocks; the last one is there twice."""

    input_size: tuple[int, int]
    patch: int
    width: int
    depth: int
    heads: int
    stem_channels: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.input_size
        return height // self.patch, width // self.patch


BASE = VitShape((288, 144), patch=16, width=768, depth=12, heads=12, stem_channels=64)
SMALL = VitShape((64, 32), patch=8, width=96, depth=4, heads=3, stem_channels=16)
"""For the rendered dataset: 32 patches, an eighth of the base's width, a third of its blocks, a quarter of its stem's
channels. The structure is the same; it trains on a CPU in minutes and ships in 1.2 MB."""


class TwoStreamVit(nn.Module):
    """A patch stem per modality; all else is shared.

    The class token of the last block is the *deep* vector. A second copy of that block sees the class token of the
    block before beside the patches as the stem left them, and gives the *shallow* vector. Either passes a BN neck of
    its own. The embedding ``"main"``, which is clustered and ranked, is the two side by side.

    Attributes:
        embedding_dims: the embeddings that :meth:`forward` returns, with their widths.
        input_size: height and width in pixels.
    """

    modality_on_host = True

    def __init__(self, shape: VitShape, *, drop_path: float = 0.0) -> None:
        """Initialise at random, from torch's global generator."""
        super().__init__()
        self.input_size, self.grid = shape.input_size, shape.grid
        self.embedding_dims = {"main": 2 * shape.width, "deep": shape.width, "shallow": shape.width}
        self.visible_stem = PatchStem(shape)
        rates = (drop_path * number / (shape.depth - 1) for number in range(shape.depth))
        *blocks, last = (Block(shape.width, shape.heads, drop_path=rate) for rate in rates)
        self.blocks = nn.ModuleList(blocks)
        self.class_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + shape.grid[0] * shape.grid[1], shape.width))
        self.deep_block, self.deep_norm, self.deep_neck = last, _layer_norm(shape.width), _neck(shape.width)
        self._initialise()
        self.infrared_stem = copy.deepcopy(self.visible_stem)
        self.shallow_block, self.shallow_norm = copy.deepcopy(self.deep_block), copy.deepcopy(self.deep_norm)
        self.shallow_neck = _neck(shape.width)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # By width: the usual deviation of 0.02 leaves narrow blocks with hardly any say in the class token.
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, images_BCHW: Tensor, modality_B: Tensor) -> dict[str, Tensor]:
        """Embeddings before normalisation.

        Args:
            images_BCHW: float [B, 3, H, W], normalised; visible and infrared images in any order.
            modality_B: int64 [B], 0 = visible, 1 = infrared.

        Returns:
            ``"deep"`` and ``"shallow"`` [B, D], and ``"main"`` [B, 2 D], which is [deep | shallow].

        Raises:
            ContractError: shapes differ or a modality code is unknown.
        """
        patches_BTD = self._patches(images_BCHW, modality_B)
        tokens_BTD = torch.cat([self.class_token.expand(len(patches_BTD), -1, -1), patches_BTD], dim=1) + self.position
        hidden_BTD = tokens_BTD
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD)
        mixed_BTD = torch.cat([hidden_BTD[:, :1], tokens_BTD[:, 1:]], dim=1)
        deep_BD = self.deep_neck(self.deep_norm(self.deep_block(hidden_BTD, keep=1)[:, 0]))
        shallow_BD = self.shallow_neck(self.shallow_norm(self.shallow_block(mixed_BTD, keep=1)[:, 0]))
        return {"main": torch.cat([deep_BD, shallow_BD], dim=1), "deep": deep_BD, "shallow": shallow_BD}

    def _patches(self, images_BCHW: Tensor, modality_B: Tensor) -> Tensor:
        rows = split_by_modality(images_BCHW, modality_B)
        stems = (self.visible_stem, self.infrared_stem)
        # An empty part is skipped: batch norm refuses to train on it.
        parts = [stem(images_BCHW[part]) for stem, part in zip(stems, rows, strict=True) if len(part)]
        return torch.cat(parts)[torch.argsort(torch.cat(rows))]


class PatchStem(nn.Module):
    """Three convolutions and a patch projection: float [B, 3, H, W] to [B, patches, D], row by row of the grid."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        channels, stride = shape.stem_channels, shape.patch // _STEM_STRIDE
        self.conv = nn.Sequential(
            nn.Conv2d(3, channels, 7, stride=_STEM_STRIDE, padding=3, bias=False),
            InstanceBatchNorm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            InstanceBatchNorm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.proj = nn.Conv2d(channels, shape.width, stride, stride=stride)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        maps: Tensor = self.proj(self.conv(images_BCHW))
        return maps.flatten(2).transpose(1, 2)


class InstanceBatchNorm(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the rest (IBN-Net; Pan et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instance = nn.InstanceNorm2d(channels // 2, affine=True)
        self.batch = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first, rest = x_BCHW.split([self.instance.num_features, self.batch.num_features], dim=1)
        return torch.cat([self.instance(first), self.batch(rest)], dim=1)


class Block(nn.Module):
    """Self-attention and a two-layer perceptron, each normalised first and added to its input.

    [B, T, D] to the same, or to its first ``keep`` tokens, which have seen all.
    """

    def __init__(self, width: int, heads: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = _layer_norm(width), _layer_norm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width))
        )
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x_BTD: Tensor, *, keep: int | None = None) -> Tensor:
        x_BTD = x_BTD[:, :keep] + self.drop_path(self.attn(self.norm1(x_BTD), keep=keep))
        out: Tensor = x_BTD + self.drop_path(self.mlp(self.norm2(x_BTD)))
        return out


class Attention(nn.Module):
    """Multi-head self-attention of the first ``keep`` tokens (default: all) to all, [B, T, D]; one joint projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, *, keep: int | None = None) -> Tensor:
        query, key, value = self.qkv(x_BTD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query[:, :, :keep], key, value)
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


def from_options(options: VitOptions, seed: int) -> TwoStreamVit:
    """The ViT-B/16 that ``--set model.*`` describes.

    Raises:
        WeightsError: pre-trained weights are wanted and no file is named, or the file cannot be read or does not fit.
    """
    if options.pretrained and options.weights is None:
        raise WeightsError(f"The ViT-B/16 needs weights pre-trained on LUPerson, which are not fetched. {_REMEDY}")
    model = _seeded(BASE, drop_path=options.drop_path, seed=seed)
    if options.weights is not None:
        load_vit_weights(model, options.weights, remedy=_REMEDY)
    return model


def small_from_options(options: SmallVitOptions, seed: int) -> TwoStreamVit:
    """The small ViT that ``--set model.*`` describes. Raises WeightsError for a file that is unreadable or unfit."""
    model = _seeded(SMALL, drop_path=options.drop_path, seed=seed)
    if options.weights is not None or options.pretrained:
        load_vit_weights(model, options.weights or shipped_weights(_SHIPPED), remedy=_SMALL_REMEDY)
    return model


def load_vit_weights(model: TwoStreamVit, path: Path, *, remedy: str) -> None:
    """Fill ``model`` from a state of this encoder, whole or packed, or from a ViT of TransReID-SSL of the same sizes.

    Of the last, the one stem fills both stems, the last block and the last norm either copy; positions are resized
    bilinearly; the BN necks stay as they are.

    Raises:
        WeightsError: the file cannot be read; entries are missing, left over or of another shape.
    """
    state = read_state(Path(path), remedy=remedy)
    foreign = "class_token" not in state
    state = _from_transreid(state, model) if foreign else unpacked(state, **_STEMS)
    expected = {name for name in model.state_dict() if not (foreign and "_neck." in name)}
    missing, surplus = sorted(expected - state.keys()), sorted(state.keys() - expected)
    if missing or surplus:
        raise WeightsError(
            f"The weights of {path} do not fit this ViT: {some('missing', missing)}"
            f"{'; ' if missing and surplus else ''}{some('unexpected', surplus)}. {remedy}"
        )
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"The weights of {path} do not fit this ViT: {one_line(error)}. {remedy}") from error


def pack_vit_weights(model: TwoStreamVit) -> dict[str, Tensor]:
    """What a shipped file holds (:func:`harness.models.state.packed`)."""
    return packed(model, **_STEMS)


def _from_transreid(state: Mapping[str, Tensor], model: TwoStreamVit) -> dict[str, Tensor]:
    last = f"blocks.{len(model.blocks)}."
    copies = {
        "patch_embed.": ("visible_stem.", "infrared_stem."),
        last: ("deep_block.", "shallow_block."),
        "norm.": ("deep_norm.", "shallow_norm."),
        "cls_token": ("class_token",),
        "pos_embed": ("position",),
    }
    renamed = {}
    for full_name, tensor in state.items():
        name = full_name.removeprefix("module.").removeprefix("backbone.")
        if name.startswith(_LEFT_BEHIND):
            continue
        start = next((start for start in copies if name.startswith(start)), None)
        rest = name.removeprefix(start or "").replace(".IN.", ".instance.").replace(".BN.", ".batch.")
        renamed.update({new + rest: tensor for new in (copies[start] if start else ("",))})
    if "position" in renamed:
        renamed["position"] = resize_position(renamed["position"], model.grid)
    return renamed


def resize_position(position_1TD: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings of a grid twice as high as wide, resized bilinearly to ``grid``; the class token's is kept.

    ``position_1TD`` float [1, 1 + rows * columns, D]. Returns [1, 1 + grid rows * grid columns, D].
    """
    token, patches = position_1TD[:, :1], position_1TD[:, 1:]
    columns = int((patches.shape[1] / _PRETRAINING_ASPECT) ** 0.5)
    rows = patches.shape[1] // max(1, columns)
    if (rows, columns) == grid or rows * columns != patches.shape[1]:
        return position_1TD
    maps = patches.transpose(1, 2).unflatten(2, (rows, columns))
    resized = F.interpolate(maps, size=grid, mode="bilinear")
    return torch.cat([token, resized.flatten(2).transpose(1, 2)], dim=1)


def _seeded(shape: VitShape, *, drop_path: float, seed: int) -> TwoStreamVit:
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return TwoStreamVit(shape, drop_path=drop_path)


_layer_norm = partial(nn.LayerNorm, eps=1e-6)


def _neck(width: int) -> nn.BatchNorm1d:
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck
