"""Datasets as the engine sees them: two manifests and the protocols that score them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.builtin import RenderedOptions, SysuOptions
from harness.data.manifest import Manifest
from harness.data.rendered import ensure_rendered
from harness.data.sysu_mm01 import read_sysu_mm01
from harness.errors import SettingsError
from harness.evaluation.protocols import Protocol, protocols_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk. ``protocols``: all that are scored; the first is the one that tables show first.

    ``variant`` tells apart datasets of one name (the rendered one's size and seed).
    """

    name: str
    root: Path
    train: Manifest
    test: Manifest
    protocols: tuple[Protocol, ...]
    variant: str = ""


def _seeded(name: str) -> tuple[Protocol, ...]:
    return tuple(protocol for protocol in protocols_of(name) if protocol.gallery_rule == "S")


def rendered(options: RenderedOptions, root: Path | None, progress: Progress | None = None) -> Dataset:
    """The rendered dataset; drawn into the user's cache on first use, or read from ``root`` if one is given."""
    folder = root or ensure_rendered(size=options.size, seed=options.seed, progress=progress)
    variant = f"{options.size}, seed {options.seed}" if root is None else str(root.name)
    return Dataset(
        "rendered",
        folder,
        read_sysu_mm01(folder, split="train"),
        read_sysu_mm01(folder, split="test"),
        tuple(protocol for protocol in _seeded("rendered") if protocol.shots == 1),
        variant,
    )


def sysu_mm01(options: SysuOptions, root: Path | None, progress: Progress | None = None) -> Dataset:
    """SYSU-MM01 from its own tree. Raises SettingsError without a folder, DataError if the tree is not as expected."""
    if root is None:
        raise SettingsError(
            "The dataset 'sysu-mm01' is read from disk: add --data DIR, the folder holding cam1 .. cam6 and exp."
        )
    return Dataset(
        "sysu-mm01",
        root,
        read_sysu_mm01(root, split="train", include_val=options.include_val),
        read_sysu_mm01(root, split="test"),
        _seeded("sysu-mm01"),
        "train + val" if options.include_val else "train",
    )
