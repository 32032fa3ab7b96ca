"""The images of a run, where they still are, and thumbnails of those that a page shows."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.data.manifest import Manifest
from harness.data.regdb import read_regdb
from harness.data.rendered import rendered_folder
from harness.data.sysu_mm01 import read_sysu_mm01
from harness.errors import HarnessError
from harness.report.source import Source

THUMBNAIL = (64, 128)
"""Width and height that a thumbnail fits into, in pixels."""
_QUALITY = 68
_MOST_PIXELS = 64 << 20


@dataclass(frozen=True)
class Images:
    """Where the images of a run lie: its folder, and the training images in the order of the labels.

    ``missing``: a sentence saying what is not there, empty if nothing is.
    """

    root: Path | None = None
    train: Manifest | None = None
    missing: str = ""


def find_images(source: Source) -> Images:
    """Look for the images of a run where its settings say; nothing is rendered or fetched for it."""
    settings, data = source.settings, source.settings.get("data")
    options: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    root = _root(settings, options)
    if root is None or not root.is_dir():
        where = f" ({root})" if root is not None else ""
        remedy = " The next run on this dataset draws them again." if source.dataset == "rendered" else ""
        return Images(
            missing="The images of this run are no longer where they were"
            f"{where}: retrieval and cluster sheets are left out.{remedy}"
        )
    try:
        return Images(root, _training_images(source, root, options))
    except (HarnessError, OSError) as error:
        return Images(root, missing=f"The training images cannot be listed, so there are no cluster sheets: {error}")


def _root(settings: Mapping[str, Any], options: Mapping[str, Any]) -> Path | None:
    if "data_root" in settings:
        return Path(str(settings["data_root"]))
    size, seed = options.get("size"), options.get("seed")
    if settings.get("dataset") == "rendered" and isinstance(size, str) and size.isalnum() and isinstance(seed, int):
        return rendered_folder(size=size, seed=seed)
    return None


def _training_images(source: Source, root: Path, options: Mapping[str, Any]) -> Manifest:
    dataset = source.dataset
    if dataset == "regdb":
        return read_regdb(root, split="train", trial=int(options.get("trial", 1)))
    if dataset in ("rendered", "sysu-mm01"):
        return read_sysu_mm01(root, split="train", include_val=bool(options.get("include_val", True)))
    from harness.engine.plan import plan_run
    from harness.settings import make_settings

    dataset_of_plugin: Any = plan_run(make_settings(source.settings)).dataset.make(root, None)
    manifest: Manifest = dataset_of_plugin.train
    return manifest


@dataclass
class Album:
    """The thumbnails of a page, each kept once however often it is shown. ``most_bytes``: of all of them together."""

    most_bytes: int
    names: dict[Path, str | None] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    left_out: int = 0
    unreadable: int = 0
    _bytes: int = 0

    def add(self, root: Path, path: str) -> str | None:
        """The name of a thumbnail of ``root/path``; None if it cannot be had, or would be too much."""
        place = root / path
        if place not in self.names:
            self.names[place] = self._taken(root, place)
        return self.names[place]

    def _taken(self, root: Path, place: Path) -> str | None:
        picture = thumbnail(place) if place.resolve().is_relative_to(root.resolve()) else None
        if picture is None:
            self.unreadable += 1
            return None
        if self._bytes + len(picture) > self.most_bytes:
            self.left_out += 1
            return None
        self._bytes += len(picture)
        name = f"i{len(self.pictures)}"
        self.pictures[name] = picture
        return name


def thumbnail(path: Path) -> str | None:
    """A small JPEG of an image as a data URI; None if it cannot be decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > _MOST_PIXELS:
                    return None
                small = image.convert("RGB")
        small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
        written = io.BytesIO()
        small.save(written, "JPEG", quality=_QUALITY, optimize=True)
    except (OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, EOFError):
        return None  # what Pillow's decoders raise on damaged files
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")
