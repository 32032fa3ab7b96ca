"""How many images and identities the published datasets hold, and how given images differ from that.

Source: baseline.md 1.1 (SYSU-MM01) and 1.2 (RegDB).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SysuPart = Literal["train", "val", "train + val", "test"]


@dataclass(frozen=True)
class Count:
    """How many images, and of how many identities (None: not published)."""

    images: int
    identities: int | None


class Labelled(Protocol):
    """Images with their labels: a manifest, a test set. Both int64 [M]."""

    @property
    def camera(self) -> NDArray[np.int64]: ...
    @property
    def identity(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class _Part:
    """A published part of a dataset: its identities, and what each camera, by number, shows of them."""

    identities: int
    cameras: Mapping[int, Count]
    infrared: tuple[int, ...]


def count(images: Labelled, camera: int) -> Count:
    """What ``camera`` shows in ``images``."""
    rows = images.camera == camera
    return Count(images=int(rows.sum()), identities=len(np.unique(images.identity[rows])))


def sysu_mm01_differences(images: Labelled, *, part: SysuPart) -> tuple[str, ...]:
    """How ``images`` differs from a part of the published SYSU-MM01: a sentence per camera that does.

    Empty if it does not; a single sentence if every camera does, since then it is another dataset.
    """
    names = {camera: f"cam{camera}" for camera in range(1, 7)}
    return _differences(images, _SYSU_MM01[part], part=part, names=names)


def regdb_differences(images: Labelled, *, part: Literal["train", "test"]) -> tuple[str, ...]:
    """How ``images`` differs from a split of a trial of the published RegDB: a sentence per modality that does.

    Empty if it does not; a single sentence if both do.
    """
    return _differences(images, _REGDB, part=part, names={1: "visible", 2: "thermal"})


def differences_of_test(dataset: str, images: Labelled) -> tuple[str, ...]:
    """How ``images`` differ from the published test images of a dataset; empty for one that is not published."""
    if dataset == "sysu-mm01":
        return sysu_mm01_differences(images, part="test")
    return regdb_differences(images, part="test") if dataset == "regdb" else ()


def _differences(images: Labelled, published: _Part, *, part: str, names: Mapping[int, str]) -> tuple[str, ...]:
    found = {camera: count(images, camera) for camera in names}
    differing = [camera for camera in names if not _agrees(found[camera], published.cameras[camera])]
    if len(differing) == len(names):
        return (_summarise(images, published, part=part),)
    return tuple(
        f"{names[camera]}: {_describe(found[camera], published.cameras[camera], part=part)}" for camera in differing
    )


def _agrees(found: Count, published: Count) -> bool:
    return found.images == published.images and published.identities in (None, found.identities)


def _describe(found: Count, published: Count, *, part: str) -> str:
    if published.identities is None:
        return f"{found.images} {part} images, published {published.images}"
    return (
        f"{found.images} {part} images of {found.identities} identities, "
        f"published {published.images} of {published.identities}"
    )


def _summarise(images: Labelled, published: _Part, *, part: str) -> str:
    is_infrared = np.isin(images.camera, published.infrared)
    visible, infrared = int((~is_infrared).sum()), int(is_infrared.sum())
    expected = sum(published.cameras[camera].images for camera in published.infrared)
    total = sum(cell.images for cell in published.cameras.values())
    return (
        f"every camera: {visible} visible and {infrared} infrared {part} images of "
        f"{len(np.unique(images.identity))} identities, published {total - expected} and {expected} "
        f"of {published.identities}"
    )


def _sysu_part(identities: int, images: tuple[int, ...], present: tuple[int | None, ...]) -> _Part:
    cells = enumerate(zip(images, present, strict=True), start=1)
    return _Part(identities, MappingProxyType({camera: Count(*cell) for camera, cell in cells}), infrared=(3, 6))


# How the identities in cameras 3, 4 and 5 split into train and val is not published.
_SYSU_MM01: Mapping[SysuPart, _Part] = MappingProxyType(
    {
        "train": _sysu_part(296, (4721, 5753, 5929, 4821, 4989, 4000), (194, 195, None, None, None, 200)),
        "val": _sysu_part(99, (0, 0, 1980, 990, 984, 0), (0, 0, None, None, None, 0)),
        "train + val": _sysu_part(395, (4721, 5753, 7909, 5811, 5973, 4000), (194, 195, 392, 382, 390, 200)),
        "test": _sysu_part(96, (1374, 1565, 1883, 1918, 1918, 1920), (56, 56, 93, 94, 95, 96)),
    }
)
_REGDB = _Part(206, MappingProxyType({1: Count(2060, 206), 2: Count(2060, 206)}), infrared=(2,))

SYSU_MM01_IDENTITIES: Mapping[str, int] = MappingProxyType(
    {name: _SYSU_MM01[name].identities for name in ("train", "val", "test")}
)
"""How many identities each id file of SYSU-MM01 lists."""
