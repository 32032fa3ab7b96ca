"""Which images a rendered dataset in the layout of SYSU-MM01 holds: identities, splits, cameras and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from harness.data.rendered.plan import Cell, Plan, find_size

CAMERAS = (1, 2, 3, 4, 5, 6)
SPLITS = ("train", "val", "test")

_SPLIT_STREAM = 4


@dataclass(frozen=True)
class Share:
    """How one split meets one camera: ``present`` of its identities, ``images`` in all."""

    present: int
    images: int


@dataclass(frozen=True)
class Size:
    """A dataset size.

    Attributes:
        image_size: height and width in pixels.
        identities: number of identities of each split.
        shares: by (split, camera).
    """

    image_size: tuple[int, int]
    identities: Mapping[str, int]
    shares: Mapping[tuple[str, int], Share]

    @property
    def images(self) -> int:
        """Images in all."""
        return sum(share.images for share in self.shares.values())


def _even(image_size: tuple[int, int], *, identities: tuple[int, int, int], visible: int, infrared: int) -> Size:
    """Every identity in every camera, with ``visible`` or ``infrared`` images in each."""
    counts = dict(zip(SPLITS, identities, strict=True))
    shares = {
        (split, camera): Share(count, count * (infrared if camera in (3, 6) else visible))
        for split, count in counts.items()
        for camera in CAMERAS
    }
    return Size(image_size, MappingProxyType(counts), MappingProxyType(shares))


def _sysu() -> Size:
    """The published counts of SYSU-MM01 (baseline.md 1.1)."""
    table = {
        "train": ((194, 4721), (195, 5753), (293, 5929), (283, 4821), (291, 4989), (200, 4000)),
        "val": ((0, 0), (0, 0), (99, 1980), (99, 990), (99, 984), (0, 0)),
        "test": ((56, 1374), (56, 1565), (93, 1883), (94, 1918), (95, 1918), (96, 1920)),
    }
    shares = {
        (split, camera): Share(*row) for split, rows in table.items() for camera, row in zip(CAMERAS, rows, strict=True)
    }
    return Size((288, 144), MappingProxyType({"train": 296, "val": 99, "test": 96}), MappingProxyType(shares))


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "tiny": _even((32, 16), identities=(6, 2, 6), visible=2, infrared=4),
        "small": _even((64, 32), identities=(56, 8, 40), visible=3, infrared=6),
        "full": _sysu(),
    }
)


def plan_sysu_mm01(*, size: str, seed: int) -> Plan:
    """The dataset of this size and seed; a SettingsError if there is no such size."""
    chosen = find_size(size, SIZES)
    return Plan(
        image_size=chosen.image_size,
        cells=list_cells(chosen, seed=seed),
        place=_place,
        lists="exp",
        write_lists=partial(_write_lists, size=chosen, seed=seed),
    )


def split_identities(size: Size, *, seed: int) -> dict[str, tuple[int, ...]]:
    """The identities of each split, sorted. Identity numbers are dealt to the splits at random."""
    total = sum(size.identities.values())
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SPLIT_STREAM)))
    deck = (rng.permutation(total) + 1).tolist()
    dealt, start = {}, 0
    for split in SPLITS:
        end = start + size.identities[split]
        dealt[split] = tuple(sorted(deck[start:end]))
        start = end
    return dealt


def list_cells(size: Size, *, seed: int) -> list[Cell]:
    """Every (identity, camera) that has images, with how many.

    Where a camera misses some identities, cameras 1, 2 and 6 miss the last of a split and cameras 3, 4 and 5
    the first, so that everyone is seen in both modalities; images are spread evenly over those present.
    """
    identities = split_identities(size, seed=seed)
    return [
        cell
        for (split, camera), share in size.shares.items()
        for cell in _deal(identities[split], camera, share)
        if cell.images
    ]


def _deal(identities: tuple[int, ...], camera: int, share: Share) -> list[Cell]:
    if not share.present:
        return []
    present = identities[: share.present] if camera in (1, 2, 6) else identities[-share.present :]
    each, left = divmod(share.images, share.present)
    return [Cell(identity, camera, each + (place < left)) for place, identity in enumerate(present)]


def _place(cell: Cell, number: int) -> str:
    return f"cam{cell.camera}/{cell.identity:04d}/{number:04d}.jpg"


def _write_lists(root: Path, *, size: Size, seed: int) -> None:
    identities = split_identities(size, seed=seed)
    identities["available"] = tuple(sorted(identity for split in identities.values() for identity in split))
    for name, listed in identities.items():
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, listed)) + "\n")
