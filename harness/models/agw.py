"""Two-stream AGW ResNet-50: a stem per modality, a shared trunk, GeM pooling and a BN neck.

Source: baseline.md 3.1; Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook (AGW);
Yang et al., Augmented Dual-Contrastive Aggregation Learning (ADCA), whose two-stream form later work kept.
Deviation: the published networks list three complete ResNets and an unused classifier; only what computes is here.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet50_Weights, resnet50

from harness.builtin import AgwOptions
from harness.errors import ContractError, SettingsError, WeightsError
from harness.models.layers import BNNeck, GeM, GroupedBatchNorm2d, NonLocalBlock
from harness.models.state import one_line, read_state, some, split_by_modality

NonLocal = Literal["off", "rank1", "half"]

_STEM_PARTS = ("conv1", "bn1")
_TRUNK_PARTS = ("layer1", "layer2", "layer3", "layer4")
_NON_LOCAL_AFTER = {"layer2": (2, 3), "layer3": (3, 4, 5)}
_WIDTHS = {"layer2": 512, "layer3": 1024}
_REMEDY = (
    "Use `--set model.weights=FILE` with a local ResNet-50 file (.pth or .safetensors), or "
    "`--set model.pretrained=false` to start from random weights."
)


class AgwResNet50(nn.Module):
    """Two-stream ResNet-50 with 2048-dimensional embeddings.

    Args:
        non_local: ``"off"``; ``"rank1"``, five blocks of one inner channel as all published code runs them;
            ``"half"``, the same blocks with C // 2 inner channels as the AGW paper intends.
        bn_groups: G, batch-norm groups in training. Group g holds the g-th share of the visible and of the
            infrared images of the batch, as if the batch were split over G replicas without synchronisation;
            the running statistics follow group 0. G must divide the number of images of either modality.

    The initial weights are random; :func:`build_agw` seeds them and loads ImageNet's.
    """

    embedding_dims: ClassVar[Mapping[str, int]] = {"main": 2048}
    input_size: ClassVar[tuple[int, int]] = (288, 144)
    modality_on_host: ClassVar[bool] = True
    channels_last: ClassVar[bool] = True

    def __init__(self, *, non_local: NonLocal = "off", bn_groups: int = 1) -> None:
        super().__init__()
        if non_local not in ("off", "rank1", "half"):
            raise SettingsError(f"model.non_local is {non_local!r}; expected 'off', 'rank1' (as published) or 'half'.")
        if bn_groups < 1:
            raise SettingsError(f"model.bn_groups is {bn_groups}; expected 1 or more.")
        self.bn_groups = bn_groups
        resnet = resnet50(norm_layer=partial(GroupedBatchNorm2d, groups=bn_groups))
        _keep_last_resolution(resnet)
        self.visible_stem = _stem(resnet)
        self.infrared_stem = copy.deepcopy(self.visible_stem)
        self.trunk = nn.ModuleDict({name: getattr(resnet, name) for name in _TRUNK_PARTS})
        self.non_local = _non_local_blocks(non_local, bn_groups)
        self.pool = GeM(3)
        self.neck = BNNeck(2048, groups=bn_groups)

    def forward(self, images_BCHW: Tensor, modality_B: Tensor) -> dict[str, Tensor]:
        """Embeddings before normalisation.

        Args:
            images_BCHW: float [B, 3, H, W], normalised; visible and infrared images in any order.
            modality_B: int64 [B], 0 = visible, 1 = infrared.

        Returns:
            ``{"main": float32 [B, 2048]}``, in the order of the input.

        Raises:
            ContractError: shapes differ, a modality code is unknown, or a training batch cannot be split into
                ``bn_groups`` equal groups.
        """
        visible, infrared = split_by_modality(images_BCHW, modality_B)
        order_B = self._trunk_order(visible, infrared)
        stems = [
            stem(images_BCHW if len(rows) == len(images_BCHW) else images_BCHW[rows])
            for stem, rows in ((self.visible_stem, visible), (self.infrared_stem, infrared))
            if len(rows)
        ]
        x = stems[0] if len(stems) == 1 else torch.cat(stems)
        rows_B = torch.cat([visible, infrared])
        if order_B is not None:
            x, rows_B = x[order_B], rows_B[order_B]
        z_BD = self.neck(self.pool(self._trunk(x)))
        return {"main": z_BD[torch.argsort(rows_B)]}

    def _trunk(self, x: Tensor) -> Tensor:
        for name, layer in self.trunk.items():
            for number, block in enumerate(layer.children()):
                x = block(x)
                key = f"{name}_{number}"
                if key in self.non_local:
                    x = self.non_local[key](x)
        return x

    def _trunk_order(self, visible: Tensor, infrared: Tensor) -> Tensor | None:
        """Places in [visible; infrared] that bring group after group together; None if there is one group."""
        if self.bn_groups == 1 or not self.training:
            return None
        for name, rows in (("visible", visible), ("infrared", infrared)):
            if len(rows) % self.bn_groups:
                raise ContractError(
                    f"The batch holds {len(rows)} {name} images, which {self.bn_groups} batch-norm groups cannot "
                    "share equally. Choose batch sizes that `model.bn_groups` divides, or `--set model.bn_groups=1`."
                )
        places = torch.arange(len(visible) + len(infrared), device=visible.device)
        shares = [part.view(self.bn_groups, -1) for part in places.split([len(visible), len(infrared)])]
        return torch.cat(shares, dim=1).flatten()


def build_agw(
    *,
    seed: int,
    pretrained: bool = True,
    weights: Path | None = None,
    non_local: NonLocal = "off",
    bn_groups: int = 1,
) -> AgwResNet50:
    """An encoder ready to train.

    Args:
        seed: seeds what is not loaded (all of it, or the neck and the non-local blocks).
        pretrained: start from ImageNet (torchvision's IMAGENET1K_V1, downloaded once). Ignored if ``weights``
            is given.
        weights: a ``.pth`` or ``.safetensors`` file: a torchvision ResNet-50, copied into both stems, or a
            state of this very encoder.
        non_local: see :class:`AgwResNet50`.
        bn_groups: see :class:`AgwResNet50`.

    Raises:
        WeightsError: the weights cannot be downloaded, read, or fitted.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        model = AgwResNet50(non_local=non_local, bn_groups=bn_groups)
    if weights is not None:
        load_weights(model, read_state(Path(weights), remedy=_REMEDY), source=str(weights))
    elif pretrained:
        load_weights(model, _imagenet_state(), source="torchvision's IMAGENET1K_V1")
    return model


def load_weights(model: AgwResNet50, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load a torchvision ResNet-50 state into both stems and the trunk, or a state of ``model`` as it is.

    Raises:
        WeightsError: entries are missing, left over or of another shape; nothing is skipped.
    """
    own = any(name.startswith("visible_stem.") for name in state)
    renamed = dict(state) if own else _from_resnet(state)
    expected = {
        name for name in model.state_dict() if own or name.startswith(("visible_stem.", "infrared_stem.", "trunk."))
    }
    # Files saved before torchvision 0.2 have no batch counters; the momentum of batch norm does not use them.
    missing = [name for name in sorted(expected - renamed.keys()) if not name.endswith("num_batches_tracked")]
    surplus = sorted(renamed.keys() - expected)
    if missing or surplus:
        raise WeightsError(
            f"The weights of {source} do not fit the AGW ResNet-50: {some('missing', missing)}"
            f"{'; ' if missing and surplus else ''}{some('unexpected', surplus)}. Expected a torchvision "
            f"ResNet-50 or a state saved from this encoder with the same model settings. {_REMEDY}"
        )
    try:
        model.load_state_dict(renamed, strict=False)
    except RuntimeError as error:
        raise WeightsError(
            f"The weights of {source} do not fit the AGW ResNet-50: {one_line(error)}. {_REMEDY}"
        ) from error


def _from_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of this encoder for a torchvision ResNet-50 state; the classifier is left behind."""
    renamed = {}
    for name, tensor in state.items():
        part = name.split(".")[0]
        if part in _STEM_PARTS:
            renamed[f"visible_stem.{name}"] = tensor
            renamed[f"infrared_stem.{name}"] = tensor
        elif part in _TRUNK_PARTS:
            renamed[f"trunk.{name}"] = tensor
        elif part != "fc":
            renamed[name] = tensor
    return renamed


def _imagenet_state() -> Mapping[str, Tensor]:
    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"The ImageNet weights of ResNet-50 could not be downloaded from {weights.url} "
            f"({one_line(error)}). {_REMEDY}"
        ) from error


def _stem(resnet: ResNet) -> nn.Sequential:
    stem = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool"):
        stem.add_module(name, getattr(resnet, name))
    return stem


def _keep_last_resolution(resnet: ResNet) -> None:
    first = resnet.layer4[0]
    first.conv2.stride = (1, 1)
    first.downsample[0].stride = (1, 1)


def _non_local_blocks(non_local: NonLocal, bn_groups: int) -> nn.ModuleDict:
    if non_local == "off":
        return nn.ModuleDict()
    return nn.ModuleDict(
        {
            f"{name}_{number}": NonLocalBlock(
                _WIDTHS[name],
                inner=1 if non_local == "rank1" else _WIDTHS[name] // 2,
                bn_groups=bn_groups,
            )
            for name, numbers in _NON_LOCAL_AFTER.items()
            for number in numbers
        }
    )


def from_options(options: AgwOptions, seed: int) -> AgwResNet50:
    """The encoder that ``--set model.*`` describes; see :func:`build_agw`."""
    return build_agw(
        seed=seed,
        pretrained=options.pretrained,
        weights=options.weights,
        non_local=options.non_local,
        bn_groups=options.bn_groups,
    )
