"""What the core itself offers: its datasets and encoders. Light; factories are imported when used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.hookspecs import hookimpl
from harness.providers import BackboneProvider, DatasetProvider, Options, PluginCard


class RenderedOptions(Options):
    """Options of the embedded rendered dataset."""

    size: Literal["tiny", "small", "full"] = Field(
        "small", description="tiny: seconds, for tests; small: the benchmark."
    )
    seed: int = Field(0, ge=0, description="Dataset seed. 0: the demo; 1, 2: for ranking methods; 9: for tuning only.")


class SysuOptions(Options):
    """Options of SYSU-MM01."""

    include_val: bool = Field(
        True, description="Train on train + val (395 identities), as the field does, or on train only."
    )
    permutations: Path | None = Field(
        None,
        description="The authors' rand_perm_cam.mat, for the O galleries; default: exp/rand_perm_cam.mat in the tree.",
    )


class RegdbOptions(Options):
    """Options of RegDB."""

    trial: int = Field(1, ge=1, le=10, description="Which of the ten random halvings to train and test on.")


class AgwOptions(Options):
    """Options of the two-stream AGW ResNet-50."""

    pretrained: bool = Field(True, description="Start from ImageNet weights (torchvision, fetched once).")
    weights: Path | None = Field(None, description="Start from this file instead (.pth state dict or .safetensors).")
    non_local: Literal["off", "rank1", "half"] = Field(
        "off", description="Non-local blocks: none, the rank-1 blocks, or C/2."
    )
    bn_groups: int = Field(
        1, ge=1, description="Contiguous groups of a batch normalised apart (emulates data parallelism)."
    )


class SmallOptions(Options):
    """Options of the small two-stream network."""

    pretrained: bool = Field(
        True, description="Start from the shipped weights (other rendered people, visible images only)."
    )
    weights: Path | None = Field(None, description="Start from this .safetensors file instead.")


class VitOptions(Options):
    """Options of the two-embedding ViT-B/16."""

    pretrained: bool = Field(
        True, description="Start from weights pre-trained on LUPerson, which `weights` names; they are not fetched."
    )
    weights: Path | None = Field(
        None, description="A local file: TransReID-SSL's ViT-B/16 with convolutional stem, or a state of this encoder."
    )
    drop_path: float = Field(0.1, ge=0, lt=1, description="Stochastic depth of the last block; it grows from 0.")


class SmallVitOptions(Options):
    """Options of the small two-embedding ViT."""

    pretrained: bool = Field(
        True, description="Start from the shipped weights (other rendered people, visible images only)."
    )
    weights: Path | None = Field(None, description="Start from this .safetensors file instead.")
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth of the last block; it grows from 0.")


class Core:
    """The built-in plugin: datasets and encoders, no method."""

    @hookimpl
    def harness_plugin():  # type: ignore[no-untyped-def, misc]
        return PluginCard("The built-in datasets and encoders.", "part")

    @hookimpl
    def harness_datasets():  # type: ignore[no-untyped-def, misc]
        yield DatasetProvider(
            "rendered", "harness.data.datasets:rendered", "The embedded rendered dataset.", RenderedOptions
        )
        yield DatasetProvider(
            "sysu-mm01", "harness.data.datasets:sysu_mm01", "SYSU-MM01, read from its own tree.", SysuOptions
        )
        yield DatasetProvider(
            "regdb", "harness.data.datasets:regdb", "One trial of RegDB, read from its own tree.", RegdbOptions
        )

    @hookimpl
    def harness_backbones():  # type: ignore[no-untyped-def, misc]
        yield BackboneProvider(
            "agw", "harness.models.agw:from_options", "Two-stream AGW ResNet-50, 288 x 144.", AgwOptions
        )
        yield BackboneProvider(
            "small", "harness.models.small:from_options", "Small two-stream net, 64 x 32.", SmallOptions
        )
        yield BackboneProvider(
            "vit", "harness.models.vit:from_options", "Two-stem ViT-B/16, two embeddings, 288 x 144.", VitOptions
        )
        yield BackboneProvider(
            "small-vit", "harness.models.vit:small_from_options", "The same structure, small, 64 x 32.", SmallVitOptions
        )
