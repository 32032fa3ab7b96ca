"""Rendered datasets on disk, in the layout of SYSU-MM01 or of RegDB."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from filelock import FileLock
from PIL import Image

from harness.data import places
from harness.data.rendered.cameras import REGDB_THERMAL_CAMERA
from harness.data.rendered.halves import plan_regdb
from harness.data.rendered.image import render_image
from harness.data.rendered.layout import plan_sysu_mm01
from harness.data.rendered.plan import Cell, Plan
from harness.errors import DataError, SettingsError, suggest
from harness.machine import usable_cores

RENDERER_VERSION = 1
"""Raised with every change of the rendered pixels or of the layout; caches of other versions are not used."""

JPEG_QUALITY = 95

Progress = Callable[[int, int], None]

SYSU_MM01 = "sysu-mm01"

_DESCRIPTION = "rendered.json"
_WORTH_A_POOL = 10_000  # images; starting processes costs more than a smaller dataset takes


class _Planner(Protocol):
    def __call__(self, *, size: str, seed: int) -> Plan: ...


_PLANNERS: Mapping[str, _Planner] = MappingProxyType({SYSU_MM01: plan_sysu_mm01, "regdb": plan_regdb})


def write_rendered(
    root: Path,
    *,
    size: str = "small",
    seed: int = 0,
    layout: str = SYSU_MM01,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Render a dataset into ``root``.

    ``root`` appears only once it is complete. The images do not depend on ``workers``.

    Args:
        root: the folder to make; its parents are made too.
        size: ``"tiny"``, ``"small"`` or ``"full"``.
        seed: the dataset's seed, not negative. An identity is the same person in every layout.
        layout: ``"sysu-mm01"`` (six cameras, near infrared) or ``"regdb"`` (two cameras, thermal).
        progress: called with (images written, images in all).
        workers: processes; default: one, or one per usable core for ``full``. With more than one, a script that
            calls this needs the usual ``if __name__ == "__main__":`` guard.

    Raises:
        SettingsError: an unknown size or layout, a negative seed, or fewer than one worker.
        DataError: ``root`` exists and is not an empty folder.
    """
    root = Path(root)
    _require_settings(seed, workers)
    plan = _plan(layout, size=size, seed=seed)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists already. A dataset is rendered into a new folder: name another, or remove it.")
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=_part_prefix(root), suffix=".part", dir=root.parent))
    try:
        _write_images(part, plan, seed=seed, workers=workers, progress=progress)
        (part / plan.lists).mkdir()
        plan.write_lists(part)
        description = _describe(layout=layout, size=size, seed=seed)
        (part / plan.lists / _DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        # mkdtemp makes a private folder; a dataset is readable like any other.
        part.chmod(0o755)
        os.replace(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def ensure_rendered(
    *,
    size: str,
    seed: int,
    layout: str = SYSU_MM01,
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of a rendered dataset, rendered now unless it is in the cache.

    Processes that ask for the same dataset at once wait for the one that renders it.

    Args:
        size: ``"tiny"``, ``"small"`` or ``"full"``.
        seed: the dataset's seed, not negative.
        layout: ``"sysu-mm01"`` or ``"regdb"``.
        cache_root: where rendered datasets are kept; default: ``$HARNESS_CACHE``, else the user's cache folder.
        progress: called with (images written, images in all) while rendering.

    Raises:
        SettingsError: an unknown size or layout, or a negative seed.
        DataError: something else is in the dataset's place.
    """
    _require_settings(seed, None)
    description = Path(_plan(layout, size=size, seed=seed).lists) / _DESCRIPTION
    expected = _describe(layout=layout, size=size, seed=seed)
    root = rendered_folder(size=size, seed=seed, layout=layout, cache_root=cache_root)
    if _is_complete(root, description, expected):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f"{root.name}.lock")):
        if not _is_complete(root, description, expected):
            _remove_leftovers(root)
            write_rendered(root, size=size, seed=seed, layout=layout, progress=progress)
    return root


def rendered_folder(*, size: str, seed: int, layout: str = SYSU_MM01, cache_root: Path | None = None) -> Path:
    """Where :func:`ensure_rendered` keeps a dataset, whether it is there or not."""
    name = f"{size}-seed{seed}" if layout == SYSU_MM01 else f"{layout}-{size}-seed{seed}"
    return (cache_root or places.cache_root()) / "rendered" / f"v{RENDERER_VERSION}" / name


def _require_settings(seed: int, workers: int | None) -> None:
    if seed < 0:
        raise SettingsError(f"The seed of a rendered dataset is {seed}; expected 0 or more.")
    if workers is not None and workers < 1:
        raise SettingsError(f"Rendering was asked to use {workers} workers; expected 1 or more.")


def _plan(layout: str, *, size: str, seed: int) -> Plan:
    if layout not in _PLANNERS:
        raise SettingsError(f"Nothing is rendered in the layout {layout!r}. {suggest(layout, _PLANNERS)}")
    return _PLANNERS[layout](size=size, seed=seed)


def _describe(*, layout: str, size: str, seed: int) -> dict[str, object]:
    named = {} if layout == SYSU_MM01 else {"layout": layout}
    return {"renderer_version": RENDERER_VERSION, "seed": seed, "size": size, **named}


def _is_complete(root: Path, description: Path, expected: Mapping[str, object]) -> bool:
    """Whether ``root`` holds the dataset that the file ``description`` in it should describe as ``expected``.

    Raises:
        DataError: it holds something else.
    """
    if not root.exists():
        return False
    try:
        found = json.loads((root / description).read_text())
    except (OSError, ValueError):
        found = None
    if found != expected:
        raise DataError(
            f"{root} should hold the rendered dataset {expected['size']!r} of seed {expected['seed']}, but its "
            f"{description} is missing or says otherwise. Remove the folder; it is rendered again."
        )
    return True


def _part_prefix(root: Path) -> str:
    return f".{root.name}."


def _remove_leftovers(root: Path) -> None:
    """Remove what a killed process left; the caller holds the dataset's lock."""
    for part in root.parent.glob(f"{_part_prefix(root)}*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _write_images(root: Path, plan: Plan, *, seed: int, workers: int | None, progress: Progress | None) -> None:
    write = partial(_write_cell, root=root, seed=seed, image_size=plan.image_size, place=plan.place)
    written = 0
    with _mapper(workers or _default_workers(plan)) as each:
        for count in each(write, plan.cells):
            written += count
            if progress is not None:
                progress(written, plan.images)


def _write_cell(
    cell: Cell, *, root: Path, seed: int, image_size: tuple[int, int], place: Callable[[Cell, int], str]
) -> int:
    for number in range(1, cell.images + 1):
        file = root / place(cell, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = render_image(seed, identity=cell.identity, camera=cell.camera, number=number, size=image_size)
        _save(pixels, file, grey=cell.camera == REGDB_THERMAL_CAMERA)
    return cell.images


def _save(pixels: np.ndarray, file: Path, *, grey: bool) -> None:
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    encoded = io.BytesIO()  # Pillow does not notice a write that a full disk cuts short
    if file.suffix == ".jpg":
        image.save(encoded, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(encoded, format=Image.registered_extensions()[file.suffix])
    file.write_bytes(encoded.getbuffer())


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
            "A rendering process ended early; nothing of the dataset is kept. If it was killed (little memory?), try "
            "again. A script that renders with several workers needs the guard "
            '`if __name__ == "__main__":`; if it has one, try `workers=1`.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _default_workers(plan: Plan) -> int:
    return 1 if plan.images < _WORTH_A_POOL else usable_cores()
