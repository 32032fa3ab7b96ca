"""The check of a SYSU-MM01 tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from harness.data.check.report import (
    CheckReport,
    Progress,
    collect,
    count_table,
    find_damaged,
    rendered_note,
    sorted_entries,
)
from harness.data.manifest import Manifest
from harness.data.published import SYSU_MM01_IDENTITIES, Count, SysuPart, count, sysu_mm01_differences
from harness.data.sysu_mm01 import (
    CAMERAS,
    ID_FILES,
    INFRARED_CAMERAS,
    VISIBLE_CAMERAS,
    camera_folder,
    identity_lists,
    is_image,
    list_images,
    require_both_modalities,
    require_cameras,
    require_disjoint,
    require_images,
    require_layout,
)

Lists = Mapping[str, tuple[int, ...]]
Manifests = Mapping[SysuPart, Manifest]


def check_sysu_mm01(root: Path, *, progress: Progress | None = None) -> CheckReport:
    """Count and decode every image of the three splits.

    Args:
        root: the dataset's folder.
        progress: called with (images decoded, images in all).

    Raises:
        DataError: the folder is not a SYSU-MM01 tree at all, or an id file cannot be parsed.
    """
    root = Path(root)
    require_layout(root)
    lists = identity_lists(root)
    manifests = {part: list_images(root, identities) for part, identities in _parts(lists).items()}
    counts = {(part, camera): count(manifest, camera) for part, manifest in manifests.items() for camera in CAMERAS}
    paths = dict.fromkeys(path for manifest in manifests.values() for path in manifest.paths)
    return CheckReport(
        dataset="SYSU-MM01",
        root=root,
        counts=counts,
        table=_count_table(_parts(lists), counts),
        damaged=find_damaged(root, paths, progress=progress),
        strays=tuple(_find_strays(root)),
        problems=tuple(_find_problems(root, lists, manifests)),
        published=tuple(_compare_published(lists, manifests)),
        notes=(*rendered_note(root / "exp" / "rendered.json"), _permutation_note(root)),
    )


def _parts(lists: Lists) -> dict[SysuPart, tuple[int, ...]]:
    """The identities of each part of the dataset that the id files there give."""
    named: dict[SysuPart, tuple[str, ...]] = {
        "train": ("train",),
        "val": ("val",),
        "train + val": ("train", "val"),
        "test": ("test",),
    }
    return {
        part: tuple(identity for name in names for identity in lists[name])
        for part, names in named.items()
        if all(name in lists for name in names)
    }


def _count_table(parts: Mapping[SysuPart, tuple[int, ...]], counts: Mapping[tuple[SysuPart, int], Count]) -> str:
    rows = []
    for part, listed in parts.items():
        by_camera = {camera: counts[part, camera] for camera in CAMERAS}
        cells = [f"{cell.images} ({cell.identities})" for cell in by_camera.values()]
        sums = [sum(by_camera[camera].images for camera in group) for group in (VISIBLE_CAMERAS, INFRARED_CAMERAS)]
        rows.append([part, len(listed), *cells, *sums])
    headers = ["split", "listed ids", *(f"cam{camera}" for camera in CAMERAS), "visible", "infrared"]
    caption = "Images (identities) by split and camera; cam3 and cam6 are infrared"
    return count_table(caption, rows, headers=headers)


def _find_strays(root: Path) -> Iterator[str]:
    for camera in CAMERAS:
        folder = camera_folder(root, camera)
        for entry in sorted_entries(folder):
            if not (re.fullmatch(r"[0-9]{4}", entry.name) and entry.is_dir()):
                yield f"{folder.name}/{entry.name}"
                continue
            for inner in sorted_entries(folder / entry.name):
                if not is_image(inner):
                    yield f"{folder.name}/{entry.name}/{inner.name}"


def _find_problems(root: Path, lists: Lists, manifests: Manifests) -> Iterator[str]:
    for name in ID_FILES:
        if name not in lists:
            yield f"the identity list {root / 'exp' / f'{name}_id.txt'} is missing"
    requirements: list[Callable[[], None]] = [partial(require_disjoint, root, lists), partial(require_cameras, root)]
    for part, manifest in manifests.items():
        if part in ("train", "test"):
            requirements.append(partial(require_both_modalities, manifest, split=part))
        if part in lists:
            requirements.append(partial(require_images, manifest, lists[part], names=(part,)))
    yield from collect(requirements)


def _compare_published(lists: Lists, manifests: Manifests) -> Iterator[str]:
    for name, expected in SYSU_MM01_IDENTITIES.items():
        if name in lists and len(lists[name]) != expected:
            yield f"{name}_id.txt: {len(lists[name])} identities, published {expected}"
    differences = {part: sysu_mm01_differences(manifest, part=part) for part, manifest in manifests.items()}
    together = differences.pop("train + val", ())
    apart = [sentence for found in differences.values() for sentence in found]
    # Train and val together tell something new only if each by itself is as published.
    yield from apart
    if not (differences.get("train") or differences.get("val")):
        yield from together


def _permutation_note(root: Path) -> str:
    file = root / "exp" / "rand_perm_cam.mat"
    if file.is_file():
        return "exp/rand_perm_cam.mat, the official permutations that galleries are drawn by, is there."
    return "exp/rand_perm_cam.mat, the official permutations that galleries are drawn by, is not there (not required)."
