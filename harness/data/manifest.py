"""The list of images that one split of a dataset holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

VISIBLE = 0
INFRARED = 1

_ORDER_KEY = b"harness.data.manifest/training-order/v1"


@dataclass(frozen=True, eq=False)
class Manifest:
    """The M images of one split; row ``i`` of every field belongs to ``paths[i]``.

    Attributes:
        root: the dataset's folder.
        paths: M paths relative to ``root``, with forward slashes.
        modality: int64 [M], 0 = visible, 1 = infrared.
        camera: int64 [M], numbered as on disk (from 1).
        identity: int64 [M], for evaluation only; never handed to a plugin.

    Raises:
        DataError: a field's length or a modality code does not fit.
    """

    root: Path
    paths: tuple[str, ...]
    modality: NDArray[np.int64]
    camera: NDArray[np.int64]
    identity: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("modality", "camera", "identity"):
            column = getattr(self, name)
            if column.shape != (len(self.paths),) or column.dtype != np.int64:
                raise DataError(
                    f"The manifest of {self.root} has {len(self.paths)} paths, but `{name}` is "
                    f"{column.dtype} {list(column.shape)}; expected int64 [{len(self.paths)}]."
                )
        if not np.isin(self.modality, (VISIBLE, INFRARED)).all():
            raise DataError(
                f"The manifest of {self.root} holds modality codes other than 0 (visible) and 1 (infrared)."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, row: int) -> Path:
        """The absolute path of image ``row``."""
        return self.root / self.paths[row]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Manifest:
        """The manifest of the given rows, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        return Manifest(
            root=self.root,
            paths=tuple(self.paths[row] for row in rows.tolist()),
            modality=self.modality[rows],
            camera=self.camera[rows],
            identity=self.identity[rows],
        )


def training_order(manifest: Manifest) -> NDArray[np.int64]:
    """Rows of ``manifest`` in training order, int64 [M]: visible first, then infrared, each shuffled.

    The shuffle is a constant one (rows sorted by a keyed hash of the path), so a training image keeps its
    neighbours whatever the file system's listing order was. Index order must not follow the identities:
    ties in neighbour search, border points of a clustering and cluster numbers would then leak them.

    Source: baseline.md 1.4 (order leak).
    """
    digests = [_digest(path) for path in manifest.paths]
    rows = sorted(range(len(manifest)), key=lambda row: (int(manifest.modality[row]), digests[row]))
    return np.asarray(rows, dtype=np.int64)


def evaluation_order(manifest: Manifest) -> NDArray[np.int64]:
    """Rows of ``manifest`` sorted by camera, identity and file name, int64 [M]."""

    def key(row: int) -> tuple[int, int, str]:
        return int(manifest.camera[row]), int(manifest.identity[row]), manifest.paths[row]

    return np.asarray(sorted(range(len(manifest)), key=key), dtype=np.int64)


def fingerprint(manifest: Manifest) -> str:
    """A hexadecimal SHA-256 over the sorted relative paths and the sizes in bytes of the files.

    It reads no pixel, so it takes one ``stat`` per file; it does not depend on where the dataset lies nor on
    the manifest's order. The image cache adds a digest of the decoded pixels.

    Raises:
        DataError: a listed file is not there.
    """
    digest = hashlib.sha256()
    for path in sorted(manifest.paths):
        digest.update(f"{path}\0{stat_file(manifest.root / path).st_size}\n".encode())
    return digest.hexdigest()


def content_fingerprint(root: Path, paths: Iterable[str]) -> str:
    """A hexadecimal SHA-256 over the sorted relative paths and the bytes of the files.

    Raises:
        DataError: a listed file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat_file(root / path)
        digest.update(f"{path}\0".encode())
        digest.update(hashlib.sha256((root / path).read_bytes()).digest())
    return digest.hexdigest()


def stat_file(path: Path) -> os.stat_result:
    """``path.stat()``, with a file that is gone reported as a DataError."""
    try:
        return path.stat()
    except OSError as error:
        raise DataError(
            f"The image {path} was listed but cannot be read ({error.strerror}). Was the dataset moved or "
            "changed while it was being read? Start again once the folder is at rest."
        ) from error


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), key=_ORDER_KEY, digest_size=16).digest()
