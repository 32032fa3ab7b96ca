"""Rendered datasets on disk, in the layout of SYSU-MM01."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock
from PIL import Image

from harness.data import places
from harness.data.rendered.image import render_image
from harness.data.rendered.layout import Cell, Size, find_size, list_cells, split_identities
from harness.errors import DataError, SettingsError

RENDERER_VERSION = 1
"""Raised with every change of the rendered pixels or of the layout; caches of other versions are not used."""

JPEG_QUALITY = 95

Progress = Callable[[int, int], None]

_DESCRIPTION = Path("exp") / "rendered.json"
_WORTH_A_POOL = 10_000  # images; starting processes costs more than a smaller dataset takes


def write_rendered(
    root: Path,
    *,
    size: str = "small",
    seed: int = 0,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Render a dataset into ``root``, in the layout of SYSU-MM01.

    ``root`` appears only once it is complete. The images do not depend on ``workers``.

    Args:
        root: the folder to make; its parents are made too.
        size: ``"tiny"``, ``"small"`` or ``"full"``.
        seed: the dataset's seed, not negative.
        progress: called with (images written, images in all).
        workers: processes; default: one, or one per usable core for ``full``. With more than one, a script that
            calls this needs the usual ``if __name__ == "__main__":`` guard.

    Raises:
        SettingsError: an unknown size, a negative seed, or fewer than one worker.
        DataError: ``root`` exists and is not an empty folder.
    """
    root, plan = Path(root), find_size(size)
    _require_settings(seed, workers)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists already. A dataset is rendered into a new folder: name another, or remove it.")
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=_part_prefix(root), suffix=".part", dir=root.parent))
    try:
        _write_images(part, plan, seed=seed, workers=workers, progress=progress)
        _write_lists(part, plan, seed=seed)
        description = _describe(size=size, seed=seed)
        (part / _DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        # mkdtemp makes a private folder; a dataset is readable like any other.
        part.chmod(0o755)
        os.replace(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def ensure_rendered(*, size: str, seed: int, cache_root: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder of a rendered dataset, rendered now unless it is in the cache.

    Processes that ask for the same dataset at once wait for the one that renders it.

    Args:
        size: ``"tiny"``, ``"small"`` or ``"full"``.
        seed: the dataset's seed, not negative.
        cache_root: where rendered datasets are kept; default: ``$HARNESS_CACHE``, else the user's cache folder.
        progress: called with (images written, images in all) while rendering.

    Raises:
        SettingsError: an unknown size or a negative seed.
        DataError: something else is in the dataset's place.
    """
    find_size(size)
    _require_settings(seed, None)
    root = (cache_root or places.cache_root()) / "rendered" / f"v{RENDERER_VERSION}" / f"{size}-seed{seed}"
    if _is_complete(root, size=size, seed=seed):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f"{root.name}.lock")):
        if not _is_complete(root, size=size, seed=seed):
            _remove_leftovers(root)
            write_rendered(root, size=size, seed=seed, progress=progress)
    return root


def _require_settings(seed: int, workers: int | None) -> None:
    if seed < 0:
        raise SettingsError(f"The seed of a rendered dataset is {seed}; expected 0 or more.")
    if workers is not None and workers < 1:
        raise SettingsError(f"Rendering was asked to use {workers} workers; expected 1 or more.")


def _describe(*, size: str, seed: int) -> dict[str, object]:
    return {"renderer_version": RENDERER_VERSION, "seed": seed, "size": size}


def _is_complete(root: Path, *, size: str, seed: int) -> bool:
    """Whether ``root`` holds the dataset.

    Raises:
        DataError: it holds something else.
    """
    if not root.exists():
        return False
    try:
        found = json.loads((root / _DESCRIPTION).read_text())
    except (OSError, ValueError):
        found = None
    if found != _describe(size=size, seed=seed):
        raise DataError(
            f"{root} should hold the rendered dataset {size!r} of seed {seed}, but its {_DESCRIPTION} is missing "
            "or says otherwise. Remove the folder; it is rendered again."
        )
    return True


def _part_prefix(root: Path) -> str:
    return f".{root.name}."


def _remove_leftovers(root: Path) -> None:
    """Remove what a killed process left; the caller holds the dataset's lock."""
    for part in root.parent.glob(f"{_part_prefix(root)}*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _write_lists(root: Path, plan: Size, *, seed: int) -> None:
    folder = root / "exp"
    folder.mkdir()
    identities = split_identities(plan, seed=seed)
    identities["available"] = tuple(sorted(identity for split in identities.values() for identity in split))
    for name, listed in identities.items():
        (folder / f"{name}_id.txt").write_text(",".join(map(str, listed)) + "\n")


def _write_images(root: Path, plan: Size, *, seed: int, workers: int | None, progress: Progress | None) -> None:
    for camera in sorted({camera for _, camera in plan.shares}):
        (root / f"cam{camera}").mkdir()
    cells = list_cells(plan, seed=seed)
    write = partial(_write_cell, root=root, seed=seed, image_size=plan.image_size)
    written = 0
    with _mapper(workers or _default_workers(plan)) as each:
        for count in each(write, cells):
            written += count
            if progress is not None:
                progress(written, plan.images)


def _write_cell(cell: Cell, *, root: Path, seed: int, image_size: tuple[int, int]) -> int:
    folder = root / f"cam{cell.camera}" / f"{cell.identity:04d}"
    folder.mkdir()
    for number in range(1, cell.images + 1):
        pixels = render_image(seed, identity=cell.identity, camera=cell.camera, number=number, size=image_size)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=JPEG_QUALITY, subsampling=0)
    return cell.images


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable[[Cell], int], list[Cell]], Iterable[int]]]:
    """``map`` in this process, or over a pool."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the caller may hold threads (torch, faiss) that a forked child would wait for.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield partial(pool.map, chunksize=8)
    except BrokenProcessPool as error:
        raise DataError(
            "A rendering process ended early. A script that renders with several workers needs the guard "
            '`if __name__ == "__main__":`; if it has one, try `workers=1`.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _default_workers(plan: Size) -> int:
    return 1 if plan.images < _WORTH_A_POOL else _usable_cores()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
