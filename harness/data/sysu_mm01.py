"""SYSU-MM01 read from its original tree: ``cam1..cam6/<identity>/<image>.jpg`` and ``exp/*_id.txt``.

Cameras 1, 2 (indoor), 4, 5 (outdoor) are visible; 3 (indoor) and 6 (outdoor) are infrared.
Source: Wu et al., RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017; baseline.md 1.1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from tabulate import tabulate

from harness.data.cache import damage
from harness.data.manifest import INFRARED, VISIBLE, Manifest, evaluation_order, training_order
from harness.errors import DataError

Split = Literal["train", "test"]

VISIBLE_CAMERAS = (1, 2, 4, 5)
INFRARED_CAMERAS = (3, 6)
CAMERAS = (1, 2, 3, 4, 5, 6)
ID_FILES = ("train", "val", "test")

_IMAGE_SUFFIXES = (".jpg", ".jpeg")
_LAYOUT = "cam1 .. cam6, each with one folder of .jpg images per identity (0001, 0002, ...), and exp/*_id.txt"
_LEGACY_FOLDERS = ("ir_modify", "rgb_modify", "bounding_box_train", "bounding_box_test")
_LARGEST_IDENTITY = 9999  # identity folders have four digits
_LONGEST_LINE = 1 << 20


def read_sysu_mm01(root: Path, *, split: Split, include_val: bool = True) -> Manifest:
    """The manifest of one split.

    Args:
        root: the folder that holds ``cam1 .. cam6`` and ``exp``.
        split: ``"train"`` (in training order, see :func:`harness.data.manifest.training_order`) or
            ``"test"`` (sorted by camera, identity and file name).
        include_val: whether the 99 validation identities are trained on too, as all published work does.

    Raises:
        DataError: the tree, an id file, a camera folder, a modality or the images of an identity are missing,
            or an id file cannot be parsed; the message says what was looked for and where.
    """
    root = Path(root)
    _require_layout(root)
    names = ("train", "val") if split == "train" and include_val else (split,)
    identities = [identity for name in names for identity in read_identities(root, name)]
    _require_disjoint(root, _identity_lists(root))
    _require_cameras(root)
    manifest = _list_images(root, identities)
    _require_both_modalities(manifest, split=split)
    _require_images(manifest, identities, names=names)
    return manifest.take(training_order(manifest) if split == "train" else evaluation_order(manifest))


def read_identities(root: Path, name: str) -> tuple[int, ...]:
    """The identities that ``exp/<name>_id.txt`` lists on its first line, comma separated, in the file's order.

    A byte-order mark, either line ending, blanks and a trailing comma are tolerated.

    Raises:
        DataError: the file is missing, empty, not text, or holds anything but distinct numbers 1..9999.
    """
    path = Path(root) / "exp" / f"{name}_id.txt"
    tokens = [token.strip() for token in _first_line(path).split(",")]
    if tokens[-1] == "":
        tokens.pop()
    if not tokens:
        raise DataError(f"{path} lists no identity. Expected one line such as `1,2,4,5`.")
    identities = tuple(_parse_identity(path, token, position=i + 1) for i, token in enumerate(tokens))
    for position, identity in enumerate(identities, start=1):
        if identity in identities[: position - 1]:
            raise DataError(f"{path} lists identity {identity} twice (again as entry {position}).")
    return identities


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.readline(_LONGEST_LINE)
    except OSError as error:
        raise DataError(
            f"The identity list {path} cannot be read ({error.strerror}). SYSU-MM01 ships it in its `exp` "
            "folder: one line of comma-separated identity numbers."
        ) from error
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"The identity list {path} is not text (byte {error.start + 1} is 0x{raw[error.start]:02x}). "
            "Expected one line such as `1,2,4,5`."
        ) from error


def _parse_identity(path: Path, token: str, *, position: int) -> int:
    if not re.fullmatch(r"[0-9]+", token):
        shown = token if len(token) <= 40 else token[:37] + "..."
        raise DataError(
            f"{path}: entry {position} of the first line is {shown!r}, which is not an identity number. "
            "Expected one line such as `1,2,4,5`; restore the file from the SYSU-MM01 archive."
        )
    if len(token) > 9 or not 1 <= int(token) <= _LARGEST_IDENTITY:
        raise DataError(
            f"{path}: entry {position} of the first line is {token[:12]}, outside 1..{_LARGEST_IDENTITY} "
            "(identity folders have four digits)."
        )
    return int(token)


def _identity_lists(root: Path) -> dict[str, tuple[int, ...]]:
    """The lists that exist, by name."""
    present = [name for name in ID_FILES if (root / "exp" / f"{name}_id.txt").is_file()]
    return {name: read_identities(root, name) for name in present}


def _require_disjoint(root: Path, lists: Mapping[str, Iterable[int]]) -> None:
    owner: dict[int, str] = {}
    for name, identities in lists.items():
        for identity in identities:
            first = owner.setdefault(identity, name)
            if first != name:
                raise DataError(
                    f"Identity {identity} is listed both in {first}_id.txt and in {name}_id.txt of "
                    f"{root / 'exp'}. Training and test identities must be disjoint."
                )


def _require_layout(root: Path) -> None:
    if not root.exists():
        raise DataError(f"The dataset folder {root} does not exist. Expected a folder with {_LAYOUT}.")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a dataset folder. Expected a folder with {_LAYOUT}.")
    has_cameras = any(_camera_folder(root, camera).is_dir() for camera in CAMERAS)
    has_lists = (root / "exp").is_dir()
    if not (has_cameras and has_lists):
        _refuse_legacy(root)
    if not has_cameras and not has_lists:
        raise DataError(
            f"{root} does not look like SYSU-MM01: neither a camera folder nor `exp` is in it. Expected "
            f"{_LAYOUT}.{_nested_hint(root)}"
        )
    if not has_cameras:
        raise DataError(f"{root} holds no camera folder: looked for cam1 .. cam6. Expected {_LAYOUT}.")
    if not has_lists:
        raise DataError(
            f"{root} holds camera folders but no `exp` folder: looked for {root / 'exp'}, which lists the "
            "identities of each split (train_id.txt, val_id.txt, test_id.txt)."
        )


def _refuse_legacy(root: Path) -> None:
    found = [name for name in _LEGACY_FOLDERS if (root / name).is_dir()]
    if root.name in _LEGACY_FOLDERS:
        found.append(root.name)
    if found:
        raise DataError(
            f"{root} is a tree prepared for older code (it has {', '.join(found)}), in which images were copied "
            f"and renamed. Point at the original SYSU-MM01 tree instead: {_LAYOUT}."
        )


def _nested_hint(root: Path) -> str:
    for child in sorted(root.iterdir()):
        if child.is_dir() and (child / "exp").is_dir():
            return f" Did you mean {child}?"
    return ""


def _require_cameras(root: Path) -> None:
    missing = [camera for camera in CAMERAS if not _camera_folder(root, camera).is_dir()]
    if not missing:
        return
    listed = ", ".join(str(_camera_folder(root, camera)) for camera in missing)
    for name, cameras in (("visible", VISIBLE_CAMERAS), ("infrared", INFRARED_CAMERAS)):
        if set(cameras) <= set(missing):
            raise DataError(
                f"{root} holds one modality only: no {name} camera is there. Looked for {listed}. "
                "Visible-infrared training and evaluation need both."
            )
    raise DataError(
        f"{root} is only a part of the dataset: of its 6 cameras, {len(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing. Looked for {listed}. Unpack the archive again."
    )


def _require_both_modalities(manifest: Manifest, *, split: str) -> None:
    for name, code, cameras in (
        ("visible", VISIBLE, VISIBLE_CAMERAS),
        ("infrared", INFRARED, INFRARED_CAMERAS),
    ):
        if not (manifest.modality == code).any():
            folders = ", ".join(f"cam{camera}" for camera in cameras)
            raise DataError(
                f"The {split} split of {manifest.root} holds one modality only: no {name} image (.jpg) of its "
                f"identities was found under {folders}."
            )


def _require_images(manifest: Manifest, identities: Iterable[int], *, names: tuple[str, ...]) -> None:
    without = sorted(set(identities) - set(manifest.identity.tolist()))
    if without:
        shown = ", ".join(f"{identity:04d}" for identity in without[:10])
        more = f" and {len(without) - 10} more" if len(without) > 10 else ""
        raise DataError(
            f"{len(without)} identities of {' and '.join(f'{name}_id.txt' for name in names)} have no image in "
            f"any camera folder of {manifest.root}: {shown}{more}. Looked for cam1 .. cam6/{without[0]:04d}/*.jpg."
        )


def _camera_folder(root: Path, camera: int) -> Path:
    return root / f"cam{camera}"


def _list_images(root: Path, identities: Iterable[int]) -> Manifest:
    """All images of ``identities``, in no particular order."""
    wanted = sorted(set(identities))
    rows = [
        (f"cam{camera}/{identity:04d}/{name}", camera, identity)
        for camera in CAMERAS
        for identity in wanted
        for name in _image_names(_camera_folder(root, camera) / f"{identity:04d}")
    ]
    cameras = np.asarray([camera for _, camera, _ in rows], dtype=np.int64)
    return Manifest(
        root=root,
        paths=tuple(path for path, _, _ in rows),
        modality=np.where(np.isin(cameras, INFRARED_CAMERAS), INFRARED, VISIBLE).astype(np.int64),
        camera=cameras,
        identity=np.asarray([identity for _, _, identity in rows], dtype=np.int64),
    )


def _image_names(folder: Path) -> Iterator[str]:
    # Not every identity was filmed by every camera, so a missing folder means no image.
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if _is_image(entry))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return (
        not entry.name.startswith(".")
        and os.path.splitext(entry.name)[1].lower() in _IMAGE_SUFFIXES
        and entry.is_file()
    )


# ---------------------------------------------------------------------------------------------------------------
# harness data check


@dataclass(frozen=True)
class Count:
    """How many images, and of how many identities."""

    images: int
    identities: int


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_sysu_mm01` found.

    Attributes:
        root: the dataset's folder.
        listed: number of identities in each id file, by split name.
        counts: images and identities by (split, camera); split is "train", "val" or "test".
        damaged: (relative path, reason) of every image that cannot be decoded.
        strays: relative paths inside the camera folders that are not images of the layout.
        problems: sentences about missing folders, identities without images, overlapping lists.
        published: differences from the published counts, or None if this is not the published dataset.
    """

    root: Path
    listed: Mapping[str, int]
    counts: Mapping[tuple[str, int], Count]
    damaged: tuple[tuple[str, str], ...]
    strays: tuple[str, ...]
    problems: tuple[str, ...]
    published: tuple[str, ...] | None

    @property
    def ok(self) -> bool:
        """Whether training and evaluation can start on this folder."""
        return not self.damaged and not self.problems


_PUBLISHED_LISTS = MappingProxyType({"train": 296, "val": 99, "test": 96})
_PUBLISHED_IMAGES = MappingProxyType(
    {
        "train": (4721, 5753, 5929, 4821, 4989, 4000),
        "val": (0, 0, 1980, 990, 984, 0),
        "test": (1374, 1565, 1883, 1918, 1918, 1920),
    }
)


def check_sysu_mm01(root: Path, *, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Count and decode every image of the three splits.

    Args:
        root: the dataset's folder.
        progress: called with (images decoded, images in all).

    Raises:
        DataError: the folder is not a SYSU-MM01 tree at all, or an id file cannot be parsed.
    """
    root = Path(root)
    _require_layout(root)
    lists = _identity_lists(root)
    manifests = {name: _list_images(root, identities) for name, identities in lists.items()}
    counts = {(name, camera): _count(manifest, camera) for name, manifest in manifests.items() for camera in CAMERAS}
    return CheckReport(
        root=root,
        listed={name: len(identities) for name, identities in lists.items()},
        counts=counts,
        damaged=_find_damaged(manifests.values(), progress),
        strays=tuple(_find_strays(root)),
        problems=tuple(_find_problems(root, lists, manifests)),
        published=_compare_published(lists, counts),
    )


def format_check(report: CheckReport, *, limit: int = 20) -> str:
    """``report`` as plain text: a table of counts, then what is wrong; at most ``limit`` lines per list."""
    parts = [f"SYSU-MM01 tree at {report.root}", "", _count_table(report)]
    if report.published is not None:
        differences = report.published or ("all counts equal the published SYSU-MM01",)
        parts += ["", "Published counts:", *(f"  {line}" for line in differences)]
    damaged = [f"{path}: {reason}" for path, reason in report.damaged]
    for title, lines in (
        ("Problems", report.problems),
        ("Damaged images", damaged),
        ("Files that are not part of the layout (ignored)", report.strays),
    ):
        if lines:
            parts += ["", f"{title} ({len(lines)}):", *_capped(lines, limit)]
    verdict = "usable" if report.ok else "NOT usable until the problems above are mended"
    return "\n".join([*parts, "", f"Verdict: {verdict}"])


def _count_table(report: CheckReport) -> str:
    headers = ["split", "listed ids", *(f"cam{camera}" for camera in CAMERAS), "visible", "infrared"]
    rows = []
    for name, listed in report.listed.items():
        by_camera = {camera: report.counts[name, camera] for camera in CAMERAS}
        cells = [f"{count.images} ({count.identities})" for count in by_camera.values()]
        sums = [sum(by_camera[c].images for c in group) for group in (VISIBLE_CAMERAS, INFRARED_CAMERAS)]
        rows.append([name, listed, *cells, *sums])
    table = tabulate(rows, headers=headers, tablefmt="github", stralign="right", disable_numparse=True)
    return f"Images (identities) by split and camera; cam3 and cam6 are infrared:\n\n{table}"


def _capped(lines: Iterable[str], limit: int) -> list[str]:
    lines = list(lines)
    more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return [f"  {line}" for line in lines[:limit]] + more


def _count(manifest: Manifest, camera: int) -> Count:
    rows = manifest.camera == camera
    return Count(images=int(rows.sum()), identities=len(np.unique(manifest.identity[rows])))


def _find_damaged(
    manifests: Iterable[Manifest], progress: Callable[[int, int], None] | None
) -> tuple[tuple[str, str], ...]:
    files = [(manifest, row) for manifest in manifests for row in range(len(manifest))]
    found = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        reasons = pool.map(lambda item: damage(item[0].file(item[1])), files)
        for done, ((manifest, row), reason) in enumerate(zip(files, reasons, strict=True), start=1):
            if reason is not None:
                found.append((manifest.paths[row], reason))
            if progress is not None:
                progress(done, len(files))
    return tuple(sorted(found))


def _find_strays(root: Path) -> Iterator[str]:
    for camera in CAMERAS:
        folder = _camera_folder(root, camera)
        for entry in _sorted_entries(folder):
            if not (re.fullmatch(r"[0-9]{4}", entry.name) and entry.is_dir()):
                yield f"{folder.name}/{entry.name}"
                continue
            for inner in _sorted_entries(folder / entry.name):
                if not _is_image(inner):
                    yield f"{folder.name}/{entry.name}/{inner.name}"


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _find_problems(
    root: Path, lists: Mapping[str, tuple[int, ...]], manifests: Mapping[str, Manifest]
) -> Iterator[str]:
    for name in ID_FILES:
        if name not in lists:
            yield f"the identity list {root / 'exp' / f'{name}_id.txt'} is missing"
    checks: list[Callable[[], None]] = [
        lambda: _require_disjoint(root, lists),
        lambda: _require_cameras(root),
    ]
    for name, manifest in manifests.items():
        if name != "val":
            checks.append(lambda m=manifest, n=name: _require_both_modalities(m, split=n))  # type: ignore[misc]
        checks.append(
            lambda m=manifest, n=name: _require_images(m, lists[n], names=(n,))  # type: ignore[misc]
        )
    for check in checks:
        try:
            check()
        except DataError as error:
            yield str(error)


def _compare_published(
    lists: Mapping[str, tuple[int, ...]], counts: Mapping[tuple[str, int], Count]
) -> tuple[str, ...] | None:
    """Differences from the published counts; None unless the id lists have the published lengths."""
    if {name: len(identities) for name, identities in lists.items()} != dict(_PUBLISHED_LISTS):
        return None
    differences = []
    for name, images in _PUBLISHED_IMAGES.items():
        for camera, expected in zip(CAMERAS, images, strict=True):
            found = counts[name, camera].images
            if found != expected:
                differences.append(f"{name}, cam{camera}: {found} images, published {expected}")
    return tuple(differences)
