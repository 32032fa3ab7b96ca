"""Images decoded and resized once, kept as a memory-mapped uint8 array beside a small description."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from harness.data.manifest import Manifest, fingerprint, stat_file
from harness.errors import DataError
from harness.files import replace_text
from harness.machine import usable_cores
from harness.reading import read_text

Interpolation = Literal["bicubic", "lanczos", "bilinear"]
Progress = Callable[[int, int], None]

CACHE_VERSION = 1
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}
_MOST_LISTED = 20
_ROWS_PER_READ = 256
_MOST_BYTES = 1 << 16  # a description: 400 bytes
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageCache:
    """The M decoded images of a manifest, in its order.

    Attributes:
        file: the ``.npy`` file behind the array.
        pixels: read-only memory map, uint8 [M, 3, H, W].
        dataset_fingerprint: :func:`harness.data.manifest.fingerprint` of the images.
        fingerprint: hexadecimal digest of the dataset fingerprint, the size, the interpolation and every pixel.
    """

    file: Path
    pixels: NDArray[np.uint8]
    dataset_fingerprint: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """A copy of the images at ``index``.

        Args:
            index: int64 [B], rows of the manifest; repeats are allowed.

        Returns:
            uint8 [B, 3, H, W] on the CPU, safe to write to.

        Raises:
            IndexError: an index is negative or not below M.
        """
        rows = index.cpu().numpy()
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"image index {rows.min()}..{rows.max()} is outside 0..{len(self) - 1}")
        return torch.from_numpy(self.pixels[rows])


class ImageFiles:
    """The M images of a manifest, decoded whenever they are asked for: as :class:`ImageCache`, with the same pixels.

    For datasets that no disk holds decoded. Threads decode, since Pillow does so outside the interpreter lock.

    Attributes:
        fingerprint: as that of the cache.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        size: tuple[int, int],
        interpolation: Interpolation = "bicubic",
        fingerprint: str = "",
        workers: int | None = None,
    ) -> None:
        self.manifest, self.size, self.interpolation, self.fingerprint = manifest, size, interpolation, fingerprint
        self._pool = ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.manifest)

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """The images at ``index``, int64 [B]: uint8 [B, 3, H, W] on the CPU.

        Raises:
            IndexError: an index is negative or not below M.
            DataError: an image cannot be decoded any more.
        """
        rows = index.cpu().tolist()
        if rows and (min(rows) < 0 or max(rows) >= len(self)):
            raise IndexError(f"image index {min(rows)}..{max(rows)} is outside 0..{len(self) - 1}")
        distinct = dict.fromkeys(rows)
        decoded = dict(zip(distinct, self._pool.map(self._decoded, distinct), strict=True))
        pixels = np.empty((len(rows), 3, *self.size), dtype=np.uint8)
        for place, row in enumerate(rows):
            pixels[place] = decoded[row]
        return torch.from_numpy(pixels)

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        try:
            return _resized(self.manifest.file(row), self.size, self.interpolation)
        except _Damaged as error:
            damaged = f"{self.manifest.file(row)} ({error})"
            raise DataError(_describe_damaged([damaged], total=len(self))) from error


def open_files(
    manifest: Manifest,
    *,
    size: tuple[int, int],
    cache_dir: Path,
    interpolation: Interpolation = "bicubic",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageFiles:
    """The images of ``manifest`` without a cache. Arguments and errors are those of :func:`build_cache`.

    Every image is decoded once, unless that was done before: damaged ones show, and the fingerprint is had. Only that
    is kept in ``cache_dir``.
    """
    if not len(manifest):
        raise DataError(f"There is no image to decode: the manifest of {manifest.root} is empty.")
    description = _describe(manifest, size=size, interpolation=interpolation)
    _require_writable(Path(cache_dir))
    kept = Path(cache_dir) / f"{description['key'][:24]}.digest.json"
    files = ImageFiles(manifest, size=size, interpolation=interpolation, workers=workers)
    with FileLock(f"{kept}.lock"):
        digest = _kept_digest(kept, description)
        if digest is None:
            digest = _digest_of_files(files, progress)
            replace_text(kept, json.dumps({**description, "pixel_digest": digest}, indent=1, sort_keys=True) + "\n")
    files.fingerprint = _combine(description, digest)
    return files


def _kept_digest(file: Path, description: dict[str, Any]) -> str | None:
    try:
        text = read_text(file, "image digest", most_bytes=_MOST_BYTES, error=DataError, form="a JSON file")
        stored = json.loads(text)
        digest = str(stored.pop("pixel_digest"))
    except (DataError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return digest if stored == description else None


def _digest_of_files(files: ImageFiles, progress: Progress | None) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for start in range(0, len(files), _ROWS_PER_READ):
        rows = torch.arange(start, min(start + _ROWS_PER_READ, len(files)))
        digest.update(files.gather(rows).numpy().data)
        if progress is not None:
            progress(start + len(rows), len(files))
    return digest.hexdigest()


def build_cache(
    manifest: Manifest,
    *,
    size: tuple[int, int],
    cache_dir: Path,
    interpolation: Interpolation = "bicubic",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageCache:
    """The cache of ``manifest``, decoded now unless an earlier one still fits.

    A cache is reused while paths, file sizes, modification times, order, image size and interpolation are
    unchanged. It is written aside and renamed, under a lock, so a killed or a concurrent build leaves
    no half-written cache.

    Args:
        manifest: the images.
        size: height and width of the decoded images in pixels.
        cache_dir: where caches are kept; made if missing.
        interpolation: the resampling filter.
        workers: decoding threads; default: one per usable core.
        progress: called with (images decoded, images in all).

    Raises:
        DataError: some images are damaged (every one is listed, up to 20 by name), the manifest is empty, or
            the cache folder cannot be written to or has no room.
    """
    if not len(manifest):
        raise DataError(f"There is no image to decode: the manifest of {manifest.root} is empty.")
    if interpolation not in _FILTERS:
        raise DataError(f"Unknown interpolation {interpolation!r}. Known: {', '.join(sorted(_FILTERS))}.")
    description = _describe(manifest, size=size, interpolation=interpolation)
    cache_dir = Path(cache_dir)
    _require_writable(cache_dir)
    file = cache_dir / f"{description['key'][:24]}.npy"
    with FileLock(f"{file}.lock"):
        cache = _open(file, description)
        if cache is None:
            _build(file, manifest, description, workers=workers or usable_cores(), progress=progress)
            cache = _open(file, description)
    if cache is None:
        raise DataError(f"The image cache {file} was written but does not read back. Is the disk failing?")
    return cache


def damage(path: Path) -> str | None:
    """Why the image at ``path`` cannot be decoded, or None if it can."""
    try:
        _decode(path)
    except _Damaged as error:
        return str(error)
    return None


class _Damaged(Exception):
    """An image that Pillow cannot decode; the text is the reason."""


def _decode(path: Path) -> Image.Image:
    try:
        if path.stat().st_size == 0:
            raise _Damaged("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise _Damaged("not an image") from error
    except OSError as error:
        raise _Damaged(error.strerror or str(error)) from error
    # Pillow's decoders let these escape on malformed headers.
    except (
        ValueError,
        SyntaxError,
        IndexError,
        KeyError,
        TypeError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from error


def _resized(path: Path, size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """The image at ``path``, uint8 [3, H, W]. Raises _Damaged."""
    resized = _decode(path).resize((size[1], size[0]), _FILTERS[interpolation])
    return np.asarray(resized).transpose(2, 0, 1)


def _describe(manifest: Manifest, *, size: tuple[int, int], interpolation: str) -> dict[str, Any]:
    """What the cache is made from; ``key`` changes whenever the decoded array could."""
    key = hashlib.sha256(f"{CACHE_VERSION} {tuple(size)} {interpolation} {manifest.root.resolve()}\n".encode())
    for path in manifest.paths:
        stat = stat_file(manifest.root / path)
        key.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return {
        "version": CACHE_VERSION,
        "key": key.hexdigest(),
        "dataset_fingerprint": fingerprint(manifest),
        "images": len(manifest),
        "size": list(size),
        "interpolation": interpolation,
    }


def _sidecar(file: Path) -> Path:
    return file.with_suffix(".json")


def _open(file: Path, description: dict[str, Any]) -> ImageCache | None:
    """The cache in ``file``, or None if there is none that fits ``description``."""
    try:
        stored = json.loads(_sidecar(file).read_text())
        digest = stored.pop("pixel_digest")
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        _log.warning("The image cache %s is damaged (%s) and is built again.", file, error)
        return None
    shape = (description["images"], 3, *description["size"])
    if stored != description or pixels.shape != shape or pixels.dtype != np.uint8:
        _log.warning("The image cache %s does not fit its description and is built again.", file)
        return None
    return ImageCache(
        file=file,
        pixels=pixels,
        dataset_fingerprint=description["dataset_fingerprint"],
        fingerprint=_combine(description, digest),
    )


def _combine(description: dict[str, Any], digest: str) -> str:
    parts = [description[name] for name in ("version", "dataset_fingerprint", "size", "interpolation")]
    return hashlib.sha256(json.dumps([*parts, digest]).encode()).hexdigest()


def _build(
    file: Path, manifest: Manifest, description: dict[str, Any], *, workers: int, progress: Progress | None
) -> None:
    shape = (len(manifest), 3, *description["size"])
    _require_room(file.parent, int(np.prod(shape)))
    part = file.with_suffix(".part")
    try:
        pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(part)
        _decode_into(pixels, manifest, interpolation=description["interpolation"], workers=workers, progress=progress)
        digest = _pixel_digest(pixels)
        pixels.flush()
        del pixels
        # The description goes last: without it the array is not taken for a cache.
        _sidecar(file).unlink(missing_ok=True)
        os.replace(part, file)
        sidecar = json.dumps({**description, "pixel_digest": digest}, indent=1, sort_keys=True)
        replace_text(_sidecar(file), sidecar + "\n")
    finally:
        part.unlink(missing_ok=True)


def _reserve(file: Path) -> None:
    """Take the room of a file that is written through a memory map, where a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _decode_into(
    pixels: NDArray[np.uint8], manifest: Manifest, *, interpolation: str, workers: int, progress: Progress | None
) -> None:
    height, width = pixels.shape[2:]

    def decode(row: int) -> str | None:
        try:
            pixels[row] = _resized(manifest.file(row), (height, width), interpolation)
        except _Damaged as error:
            return str(error)
        return None

    damaged = []
    with _thread_pool(workers) as pool:
        for row, reason in enumerate(pool.map(decode, range(len(manifest)))):
            if reason is not None:
                damaged.append(f"{manifest.file(row)} ({reason})")
            if progress is not None:
                progress(row + 1, len(manifest))
    if damaged:
        raise DataError(_describe_damaged(damaged, total=len(manifest)))


@contextmanager
def _thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, since Pillow decodes and resizes outside the interpreter lock; an interrupt drops what waits."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _describe_damaged(damaged: list[str], *, total: int) -> str:
    shown = "; ".join(sorted(damaged)[:_MOST_LISTED])
    more = f"; and {len(damaged) - _MOST_LISTED} more" if len(damaged) > _MOST_LISTED else ""
    return (
        f"{len(damaged)} of {total} images cannot be decoded: {shown}{more}. Replace them from the dataset's "
        "archive (`harness data check DIR` lists damaged files)."
    )


def _pixel_digest(pixels: NDArray[np.uint8]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for start in range(0, len(pixels), _ROWS_PER_READ):
        digest.update(np.ascontiguousarray(pixels[start : start + _ROWS_PER_READ]).data)
    return digest.hexdigest()


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise DataError(f"The image cache folder {folder} cannot be written to. Choose another cache folder.")


def _require_room(folder: Path, needed: int) -> None:
    # Running out of room under a memory map kills the process, so it is asked beforehand.
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"The image cache needs {needed / 2**30:.2f} GiB in {folder}, where {free / 2**30:.2f} GiB are free. "
            "Make room or choose another cache folder."
        )
