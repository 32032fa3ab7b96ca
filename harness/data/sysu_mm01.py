"""SYSU-MM01 read from its original tree: ``cam1..cam6/<identity>/<image>.jpg`` and ``exp/*_id.txt``.

Cameras 1, 2 (indoor), 4, 5 (outdoor) are visible; 3 (indoor) and 6 (outdoor) are infrared.
Source: Wu et al., RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017; baseline.md 1.1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from harness.data.manifest import INFRARED, VISIBLE, Manifest, evaluation_order, training_order
from harness.data.trees import name_some, nested_hint, refuse_prepared, require_folder
from harness.errors import DataError
from harness.reading import printable, read_text, shortened

Split = Literal["train", "test"]

VISIBLE_CAMERAS = (1, 2, 4, 5)
INFRARED_CAMERAS = (3, 6)
CAMERAS = (1, 2, 3, 4, 5, 6)
ID_FILES = ("train", "val", "test")
LAYOUT = "cam1 .. cam6, each with one folder of .jpg images per identity (0001, 0002, ...), and exp/*_id.txt"

_IMAGE_SUFFIXES = (".jpg", ".jpeg")
_LARGEST_IDENTITY = 9999  # identity folders have four digits
_MOST_BYTES = 1 << 20  # a list of every identity that four digits can name: 50 kB


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
    require_layout(root)
    names = ("train", "val") if split == "train" and include_val else (split,)
    identities = [identity for name in names for identity in read_identities(root, name)]
    require_disjoint(root, identity_lists(root))
    require_cameras(root)
    manifest = list_images(root, identities)
    require_both_modalities(manifest, split=split)
    require_images(manifest, identities, names=names)
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
    identities: dict[int, None] = {}
    for position, token in enumerate(tokens, start=1):
        identity = _parse_identity(path, token, position=position)
        if identity in identities:
            raise DataError(f"{path} lists identity {identity} twice (again as entry {position}).")
        identities[identity] = None
    return tuple(identities)


def _first_line(path: Path) -> str:
    hint = "SYSU-MM01 ships it in its `exp` folder: one line of identity numbers such as `1,2,4,5`."
    text = read_text(path, "identity list", most_bytes=_MOST_BYTES, error=DataError, hint=hint)
    return text.partition("\n")[0].strip()


def _parse_identity(path: Path, token: str, *, position: int) -> int:
    if not re.fullmatch(r"[0-9]+", token):
        raise DataError(
            f"{path}: entry {position} of the first line is {shortened(token, most=40)!r}, which is not an identity "
            "number. Expected one line such as `1,2,4,5`; restore the file from the SYSU-MM01 archive."
        )
    if len(token) > 9 or not 1 <= int(token) <= _LARGEST_IDENTITY:
        raise DataError(
            f"{path}: entry {position} of the first line is {token[:12]}, outside 1..{_LARGEST_IDENTITY} "
            "(identity folders have four digits)."
        )
    return int(token)


def identity_lists(root: Path) -> dict[str, tuple[int, ...]]:
    """The lists that exist, by name."""
    present = [name for name in ID_FILES if (root / "exp" / f"{name}_id.txt").is_file()]
    return {name: read_identities(root, name) for name in present}


def require_disjoint(root: Path, lists: Mapping[str, Iterable[int]]) -> None:
    """Raise a DataError if an identity is in two of the ``lists`` (by name)."""
    owner: dict[int, str] = {}
    for name, identities in lists.items():
        for identity in identities:
            first = owner.setdefault(identity, name)
            if first != name:
                raise DataError(
                    f"Identity {identity} is listed both in {first}_id.txt and in {name}_id.txt of "
                    f"{root / 'exp'}. Training and test identities must be disjoint."
                )


def require_layout(root: Path) -> None:
    """Raise a DataError unless ``root`` holds a camera folder and ``exp``."""
    require_folder(root, layout=LAYOUT)
    has_cameras = any(camera_folder(root, camera).is_dir() for camera in CAMERAS)
    has_lists = (root / "exp").is_dir()
    if not (has_cameras and has_lists):
        refuse_prepared(root, dataset="SYSU-MM01", layout=LAYOUT)
    if not has_cameras and not has_lists:
        raise DataError(
            f"{root} does not look like SYSU-MM01: neither a camera folder nor `exp` is in it. Expected "
            f"{LAYOUT}.{nested_hint(root, 'exp')}"
        )
    if not has_cameras:
        raise DataError(f"{root} holds no camera folder: looked for cam1 .. cam6. Expected {LAYOUT}.")
    if not has_lists:
        raise DataError(
            f"{root} holds camera folders but no `exp` folder: looked for {root / 'exp'}, which lists the "
            "identities of each split (train_id.txt, val_id.txt, test_id.txt)."
        )


def require_cameras(root: Path) -> None:
    """Raise a DataError unless all six camera folders are there."""
    missing = [camera for camera in CAMERAS if not camera_folder(root, camera).is_dir()]
    if not missing:
        return
    listed = ", ".join(str(camera_folder(root, camera)) for camera in missing)
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


def require_both_modalities(manifest: Manifest, *, split: str) -> None:
    """Raise a DataError if ``manifest``, the split of this name, has no visible or no infrared image."""
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


def require_images(manifest: Manifest, identities: Iterable[int], *, names: tuple[str, ...]) -> None:
    """Raise a DataError if one of ``identities``, those of the id files ``names``, has no image in ``manifest``."""
    without = sorted(set(identities) - set(manifest.identity.tolist()))
    if without:
        shown = name_some(f"{identity:04d}" for identity in without)
        raise DataError(
            f"{len(without)} identities of {' and '.join(f'{name}_id.txt' for name in names)} have no image in "
            f"any camera folder of {manifest.root}: {shown}. Looked for cam1 .. cam6/{without[0]:04d}/*.jpg."
        )


def camera_folder(root: Path, camera: int) -> Path:
    """The folder of a camera's images."""
    return root / f"cam{camera}"


def list_images(root: Path, identities: Iterable[int]) -> Manifest:
    """All images of ``identities``, in no particular order."""
    wanted = sorted(set(identities))
    rows = [
        (f"cam{camera}/{identity:04d}/{name}", camera, identity)
        for camera in CAMERAS
        for identity in wanted
        for name in _image_names(camera_folder(root, camera) / f"{identity:04d}")
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
            yield from (_utf8(entry.name, folder) for entry in entries if is_image(entry))


def _utf8(name: str, folder: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder} holds an image whose name is not UTF-8: {printable(name)}. SYSU-MM01's images are called "
            "0001.jpg, 0002.jpg, ...; remove it."
        ) from error
    return name


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a directory entry counts as an image of the layout."""
    return (
        not entry.name.startswith(".")
        and os.path.splitext(entry.name)[1].lower() in _IMAGE_SUFFIXES
        and entry.is_file()
    )
