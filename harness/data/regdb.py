"""RegDB read from its original tree: ``Visible``, ``Thermal`` and the lists of ten random halvings in ``idx``.

A trial trains on one half of the identities and is tested on the other; camera 1 is visible, camera 2 thermal.
Source: Nguyen et al., Person Recognition System Based on a Combination of Body Images from Visible Light and
Thermal Cameras, Sensors 2017; baseline.md 1.2, evaluation.md 5.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from harness.data.manifest import INFRARED, VISIBLE, Manifest, evaluation_order, training_order
from harness.data.trees import name_some, nested_hint, refuse_prepared, require_folder
from harness.errors import DataError
from harness.reading import read_text, shortened

Split = Literal["train", "test"]
Modality = Literal["visible", "thermal"]

VISIBLE_CAMERA, THERMAL_CAMERA = 1, 2
TRIALS = tuple(range(1, 11))
SPLITS: tuple[Split, ...] = ("train", "test")
MODALITIES: tuple[Modality, ...] = ("visible", "thermal")
FOLDERS: Mapping[str, str] = {"visible": "Visible", "thermal": "Thermal"}
LAYOUT = (
    "Visible and Thermal, each with one folder of .bmp images per identity, and "
    "idx/{train,test}_{visible,thermal}_{1..10}.txt"
)

_MOST_BYTES = 16 << 20  # the published lists have 2060 lines, 70 kB
_LINE = "a line such as `Visible/85/name.bmp 0`: path, blank, label"


@dataclass(frozen=True)
class Entry:
    """One line of a list: an image's path relative to the root, with forward slashes, and its label."""

    path: str
    label: int


Lists = Mapping[tuple[Split, Modality], tuple[Entry, ...]]
"""The lists of one trial."""


def read_regdb(root: Path, *, split: Split, trial: int) -> Manifest:
    """The manifest of one split of one trial.

    ``identity`` is the label of the list. It is comparable within a split only: both splits of a trial may
    count their identities from 0. As everywhere, it serves evaluation and diagnostics, never training.

    Args:
        root: the folder that holds ``Visible``, ``Thermal`` and ``idx``.
        split: ``"train"`` (in training order, see :func:`harness.data.manifest.training_order`) or
            ``"test"`` (sorted by camera, identity and path).
        trial: 1 .. 10.

    Raises:
        DataError: there is no such trial; the tree, a list, a modality or listed images are missing; a list
            cannot be parsed or names an image twice; the two modalities of the split show different
            identities; or the two splits of the trial share an image or an identity.
    """
    root = Path(root)
    require_layout(root)
    _require_trial(root, split=split, trial=trial)
    lists = read_lists(root, trial)
    require_consistent(root, lists, split=split, trial=trial)
    require_disjoint(root, lists, trial=trial)
    manifest = list_images(root, lists, split=split)
    require_files(root, manifest.paths)
    return manifest.take(training_order(manifest) if split == "train" else evaluation_order(manifest))


def list_file(root: Path, split: str, modality: str, trial: int) -> Path:
    """Where the list of a split, modality and trial is."""
    return root / "idx" / f"{split}_{modality}_{trial}.txt"


def read_lists(root: Path, trial: int) -> Lists:
    """The lists of ``trial`` that exist, by split and modality."""
    return {
        (split, modality): read_list(list_file(root, split, modality, trial), modality=modality)
        for split in SPLITS
        for modality in MODALITIES
        if list_file(root, split, modality, trial).is_file()
    }


def read_list(file: Path, *, modality: Modality) -> tuple[Entry, ...]:
    """The images that a list names, in its order.

    A byte-order mark, any line ending, blank lines, blanks around a line, blanks within a path and backslashes
    in it are tolerated. A path cannot leave the root (see :mod:`harness.data.trees`).

    Raises:
        DataError: the file cannot be read, is not text or lists nothing; a line has no label, or names a path
            that is not under the modality's folder.
    """
    hint = f"RegDB ships it in `idx`: {_LINE}."
    text = read_text(file, "list", most_bytes=_MOST_BYTES, error=DataError, hint=hint)
    lines = enumerate(text.splitlines(), start=1)
    entries = tuple(
        _parse_line(line.strip(), where=f"{file}, line {number}", modality=modality)
        for number, line in lines
        if line.strip()
    )
    if not entries:
        raise DataError(f"{file} lists no image. Expected one {_LINE} per image.")
    return entries


def _parse_line(line: str, *, where: str, modality: Modality) -> Entry:
    # From the right: a path may hold blanks, a label does not.
    path, label = (["", *line.rsplit(maxsplit=1)])[-2:]
    shown = shortened(line)
    if not path:
        raise DataError(f"{where}: {shown!r} has no label. Expected {_LINE}.")
    if not re.fullmatch(r"[0-9]{1,9}", label):
        raise DataError(f"{where}: {shown!r} does not end with a label, a whole number from 0. Expected {_LINE}.")
    return Entry(_parse_path(path, where=where, folder=FOLDERS[modality]), int(label))


def _parse_path(raw: str, *, where: str, folder: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f]", raw):
        raise DataError(f"{where}: the path {shortened(raw)!r} holds control characters. Expected {_LINE}.")
    path = PurePosixPath(raw.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", raw):
        raise DataError(
            f"{where}: the path {shortened(raw)!r} leaves the dataset's folder. Expected one relative to it."
        )
    if path.parts[:1] != (folder,):
        raise DataError(
            f"{where}: the image {shortened(raw)!r} is not under `{folder}`, where images of this list belong."
        )
    return str(path)


def require_layout(root: Path) -> None:
    """Raise a DataError unless ``root`` holds ``Visible``, ``Thermal`` and ``idx``."""
    require_folder(root, layout=LAYOUT)
    missing = [name for name in ("Visible", "Thermal", "idx") if not (root / name).is_dir()]
    if not missing:
        return
    refuse_prepared(root, dataset="RegDB", layout=LAYOUT)
    if len(missing) == 3:
        hint = nested_hint(root, "idx")
        raise DataError(f"{root} does not look like RegDB: it holds no {name_some(missing)}. Expected {LAYOUT}.{hint}")
    looked = name_some(str(root / name) for name in missing)
    if missing in (["Visible"], ["Thermal"]):
        raise DataError(
            f"{root} holds one modality only: looked for {looked}. Visible-infrared training and evaluation need both."
        )
    raise DataError(f"{root} is only a part of RegDB: looked for {looked}. Expected {LAYOUT}.")


def _require_trial(root: Path, *, split: Split, trial: int) -> None:
    if trial not in TRIALS:
        raise DataError(f"There is no trial {trial} of RegDB; expected 1 .. {TRIALS[-1]}, one per random half split.")
    missing = [file.name for m in MODALITIES if not (file := list_file(root, split, m, trial)).is_file()]
    if missing:
        complete = [str(t) for t in TRIALS if not missing_lists(root, t)]
        raise DataError(
            f"Trial {trial} of {root} has no {split} lists: looked for {name_some(missing)} in {root / 'idx'}. "
            f"Trials with all four lists: {name_some(complete) or 'none'}."
        )


def missing_lists(root: Path, trial: int) -> list[str]:
    """The names of the lists of ``trial`` that do not exist."""
    files = [list_file(root, split, modality, trial) for split in SPLITS for modality in MODALITIES]
    return [file.name for file in files if not file.is_file()]


def require_consistent(root: Path, lists: Lists, *, split: Split, trial: int) -> None:
    """Raise a DataError unless a split lists every image once and the same identities in both modalities."""
    for modality in MODALITIES:
        seen: set[str] = set()
        for entry in lists[split, modality]:
            if entry.path in seen:
                file = list_file(root, split, modality, trial)
                raise DataError(f"{file} lists the image {shortened(entry.path)} twice. Expected every image once.")
            seen.add(entry.path)
    visible, thermal = ({entry.label for entry in lists[split, modality]} for modality in MODALITIES)
    if visible != thermal:
        raise DataError(
            f"The {split} lists of trial {trial} in {root / 'idx'} hold different identities: {len(visible - thermal)} "
            f"are in the visible list only and {len(thermal - visible)} in the thermal list only (the first: "
            f"{min(visible ^ thermal)}). Expected the same labels in both; restore the lists from RegDB."
        )


def require_disjoint(root: Path, lists: Lists, *, trial: int) -> None:
    """Raise a DataError if the two splits of a trial, as far as they are there, share an image or an identity.

    Labels cannot tell: both splits may count from 0. What tells is the image, and the folder it lies in where
    the lists use folders as the dataset does, one identity each.
    """
    train, test = (
        [entry for (name, _), listed in lists.items() if name == split for entry in listed] for split in SPLITS
    )
    shared = sorted({entry.path for entry in train} & {entry.path for entry in test})
    what = "images"
    if not shared:
        shared, what = sorted(_identity_folders(train) & _identity_folders(test)), "identity folders"
    if shared:
        raise DataError(
            f"Trial {trial} of {root} lists {len(shared)} {what} both for training and for testing (the first: "
            f"{shortened(shared[0])}). Training and test identities must be disjoint; restore the lists from RegDB."
        )


def _identity_folders(entries: Iterable[Entry]) -> set[str]:
    """The folders below ``Visible`` and ``Thermal`` whose listed images all have one label."""
    labels: dict[str, set[int]] = {}
    for entry in entries:
        folder = entry.path.rpartition("/")[0]
        if "/" in folder:
            labels.setdefault(folder, set()).add(entry.label)
    return {folder for folder, found in labels.items() if len(found) == 1}


def require_files(root: Path, paths: Iterable[str]) -> None:
    """Raise a DataError if a listed image is not on disk."""
    paths = list(paths)
    missing = [path for path in paths if not os.path.isfile(root / path)]  # Path.is_file raises on a path too long
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} listed images are not in {root} (the first: {shortened(min(missing))}). "
            "Unpack the archive again."
        )


def list_images(root: Path, lists: Lists, *, split: Split) -> Manifest:
    """The images of one split, in the order of its lists; it does not look at the disk."""
    visible, thermal = lists[split, "visible"], lists[split, "thermal"]
    sizes = (len(visible), len(thermal))
    return Manifest(
        root=root,
        paths=tuple(entry.path for entry in (*visible, *thermal)),
        modality=np.repeat(np.asarray((VISIBLE, INFRARED), dtype=np.int64), sizes),
        camera=np.repeat(np.asarray((VISIBLE_CAMERA, THERMAL_CAMERA), dtype=np.int64), sizes),
        identity=np.asarray([entry.label for entry in (*visible, *thermal)], dtype=np.int64),
    )
