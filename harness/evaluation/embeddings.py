"""Embeddings of test images read from files: a run's own, anybody's, and the official SYSU-MM01 feature cells."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ProtocolError
from harness.evaluation.arrays import read_npz, read_safetensors
from harness.evaluation.official import SYSU_TEST_IDENTITIES, read_cells
from harness.evaluation.retrieval import Distance
from harness.evaluation.test_set import TestSet
from harness.reading import parse_json, printable, shortened

LAYOUT = (
    "`features` (float, one row per image), `identities` and `cameras` (integers), and `paths` (text; decides the "
    "order of the images of an identity in a camera); optionally `features_mirrored`, of the mirror images"
)
_NAMES = {
    "features": ("features", "feature", "embeddings"),
    "features_mirrored": ("features_mirrored",),
    "identity": ("identities", "identity", "ids", "labels"),
    "camera": ("cameras", "camera", "cams"),
    "paths": ("paths", "names"),
}
_KNOWN = {name for names in _NAMES.values() for name in names}
_LARGEST_LABEL = 2**31 - 1  # identities and cameras are counted in thousands
_FLOATS = ("float16", "float32", "float64")
_UNIT = 1e-5  # how far the length of a unit row in float32 may be from 1


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of M test images.

    Attributes:
        features: float [M, D], as they are in the file.
        mirrored: float [M, D] of the mirror images, if the file has them.
        test_set: the labels.
        notes: what a reader of the figures should know about the file.
        about: what a run stored beside them (``protocol``); empty for other files.
    """

    features: NDArray[np.floating[Any]]
    mirrored: NDArray[np.floating[Any]] | None
    test_set: TestSet
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] | None = None


def read_embeddings(path: Path) -> Embeddings:
    """Embeddings from ``.safetensors``, ``.npz``, or a folder of official ``NAME_cam1.mat .. NAME_cam6.mat``.

    A path ``FOLDER/NAME`` picks one of several such sets. In a safetensors file ``paths`` is a JSON list in the
    metadata.

    Raises:
        DataError: the file is missing, damaged, of another kind, or lacks something; the message says what was found.
        ProtocolError: labels that do not fit together.
    """
    if path.is_dir() or (not path.exists() and _cell_files(path)):
        return _from_cells(path)
    if not path.is_file():
        raise DataError(f"There is no embedding file {path}.")
    if path.suffix == ".safetensors":
        arrays, metadata = read_safetensors(path, _KNOWN)
        about, paths = _about(path, metadata)
        return _from_arrays(path, arrays if paths is None else {**arrays, "paths": paths}, about)
    if path.suffix == ".npz":
        return _from_arrays(path, read_npz(path, _KNOWN), None)
    raise DataError(
        f"{path} is of a kind that is not read. Give a .safetensors or .npz file with {LAYOUT}; or the folder of the "
        "official NAME_cam1.mat .. NAME_cam6.mat."
    )


def ranked_features(
    embeddings: Embeddings, *, distance: Distance, flip: bool | None = None
) -> tuple[NDArray[np.floating[Any]], str]:
    """The features that are ranked, and a sentence saying how they were made.

    For the cosine distance rows are L2-normalised (left alone if they are unit rows already); with ``flip`` the mean of
    image and mirror image is L2-normalised again (evaluation.md 1). ``flip`` None: if the file has mirror images.

    Raises:
        DataError: mirror images asked for that are not there, a row of length 0, or flip with Euclidean distance.
    """
    mirrored = embeddings.mirrored if flip is not False else None
    if flip and mirrored is None:
        raise DataError(f"Flip averaging was asked for, but the file has no `features_mirrored`. Expected {LAYOUT}.")
    if distance == "euclidean":
        if mirrored is not None:
            raise DataError("Flip averaging is defined on unit rows: use --distance cosine, or --no-flip.")
        return embeddings.features, "Euclidean distance of the features as they are, no flip averaging"
    unit, how = _unit_rows(embeddings.features)
    if mirrored is None:
        return unit, f"cosine distance, {how}, no flip averaging"
    both = (unit.astype(np.float64) + _unit_rows(mirrored)[0]) / 2
    return _unit_rows(both)[0], f"cosine distance, {how}, mean of image and mirror image L2-normalised again"


def _unit_rows(features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.floating[Any]], str]:
    lengths = np.sqrt(np.einsum("md,md->m", features, features, dtype=np.float64))
    if not np.isfinite(lengths).all():
        row = int(np.argmin(np.isfinite(lengths)))
        bad = int((~np.isfinite(lengths)).sum())
        raise DataError(
            f"{bad} of {len(features)} feature rows hold NaN or infinite values, the first is row {row}; look for a "
            "damaged image or an encoder that has diverged."
        )
    if (lengths == 0).any():
        raise DataError(f"Feature row {int(np.argmin(lengths))} is zero and has no direction; the cosine needs one.")
    if np.abs(lengths - 1).max(initial=0) <= _UNIT:
        return features, "rows of unit length as given"
    return features / lengths[:, None], "rows L2-normalised here"


def _from_arrays(path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any] | None) -> Embeddings:
    found = {field: next((name for name in names if name in arrays), None) for field, names in _NAMES.items()}
    for field in ("features", "identity", "camera"):
        if found[field] is None:
            raise DataError(f"{path} has no `{_NAMES[field][0]}` (it has {_listed(arrays)}). Expected {LAYOUT}.")
    values = {field: arrays[name] for field, name in found.items() if name is not None}
    features, paths = values["features"], values.pop("paths", None)
    for field in ("features", "features_mirrored"):
        if field in values and (values[field].ndim != 2 or values[field].dtype.name not in _FLOATS):
            raise DataError(
                f"`{found[field]}` in {path} is {values[field].dtype} {list(values[field].shape)}; expected a "
                "floating-point matrix with one row per image."
            )
    for field, column in values.items():
        if column.shape[:1] != (len(features),):
            entries = len(column) if column.ndim else "no"
            raise DataError(f"{path}: `{found[field]}` has {entries} entries for {len(features)} feature rows.")
    if "features_mirrored" in values and values["features_mirrored"].shape != features.shape:
        raise DataError(f"{path}: `features_mirrored` and `features` have different widths.")
    identity, camera = (_whole_numbers(path, str(found[field]), values[field]) for field in ("identity", "camera"))
    names, notes = _image_names(path, paths, len(features))
    try:
        test_set = TestSet.from_names(identity, camera, names=names)
    except ProtocolError as error:
        raise ProtocolError(f"{path}: {error}") from error
    return Embeddings(features, values.get("features_mirrored"), test_set, notes, about)


def _whole_numbers(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    # MATLAB and pandas store whole numbers as floats
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == np.round(values)).all()))
    if values.ndim != 1 or not whole:
        raise DataError(
            f"`{name}` in {path} is {values.dtype} {list(values.shape)}; expected one whole number per image."
        )
    if float(np.abs(values).max(initial=0)) > _LARGEST_LABEL:
        raise DataError(f"`{name}` in {path} holds {values[np.abs(values).argmax()]}; expected numbers that count.")
    return values.astype(np.int64)


def _image_names(path: Path, paths: NDArray[Any] | list[str] | None, images: int) -> tuple[list[str], tuple[str, ...]]:
    if paths is None:
        note = "The file has no `paths`: the images of an identity in a camera are taken in the order of the rows."
        return [f"{row:09d}" for row in range(images)], (note,)
    names = paths if isinstance(paths, list) else _texts(path, paths)
    if len(names) != images:
        raise DataError(f"{path}: `paths` has {len(names)} entries for {images} feature rows.")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"{path} names {len(twice)} images more than once, the first is {printable(shortened(twice[0]))}; every "
            "test image must be there once, or galleries would be drawn from copies."
        )
    return names, ()


def _texts(path: Path, paths: NDArray[Any]) -> list[str]:
    if paths.ndim != 1 or paths.dtype.kind not in "US":
        raise DataError(f"`paths` in {path} is {paths.dtype} {list(paths.shape)}; expected one text per image.")
    try:
        if paths.dtype.kind == "S":
            return [name.decode() for name in paths.tolist()]
        # NumPy makes texts of any 32-bit numbers, and Python fails on those later
        numbers = np.frombuffer(paths.astype(paths.dtype.newbyteorder("=")).tobytes(), np.uint32)
        if numbers.max(initial=0) > sys.maxunicode:
            raise ValueError(f"{numbers.max()} is no character")
    except ValueError as error:
        raise DataError(f"`paths` in {path} holds something other than text: {error}.") from error
    return [str(name) for name in paths.tolist()]


def _about(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], list[str] | None]:
    """What a run stored beside its features, and the paths of the images, wherever they are."""
    try:
        about = parse_json(metadata.get("harness", "{}"))
        paths = parse_json(metadata.get("paths", "null"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read: the JSON in its metadata is damaged: {error}.") from error
    if not isinstance(about, dict) or not isinstance(about.get("protocol", ""), str):
        raise DataError(f"{path} cannot be read: its `harness` metadata are not those of a run.")
    paths = about.pop("paths", None) or paths
    if paths is not None and not (isinstance(paths, list) and all(isinstance(name, str) for name in paths)):
        raise DataError(f"`paths` in {path} is no list of texts; expected one text per image.")
    return about, paths


def _listed(names: Mapping[str, Any]) -> str:
    return shortened(", ".join(f"`{printable(name)}`" for name in sorted(names)), most=400) or "nothing"


# ---------------------------------------------------------------------------------------------------------------
# the official layout: one MATLAB file per camera, one cell per identity, one row per image

_CELL_FILE = re.compile(r"(?P<name>.*)_cam(?P<camera>[1-6])\.mat")


def _cell_files(path: Path) -> dict[str, dict[int, Path]]:
    """Sets of cell files by name: all in a folder, or those of ``FOLDER/NAME``."""
    folder, only = (path, None) if path.is_dir() else (path.parent, path.name)
    sets: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.glob("*_cam[1-6].mat")):
        match = _CELL_FILE.fullmatch(file.name)
        if match and only in (None, match["name"]):
            sets.setdefault(match["name"], {})[int(match["camera"])] = file
    return sets


def _from_cells(path: Path) -> Embeddings:
    sets = _cell_files(path)
    if len(sets) != 1:
        which = f"holds several feature sets: name one, as in {path / sorted(sets)[0]}" if sets else "holds none"
        raise DataError(f"Official features NAME_cam1.mat .. NAME_cam6.mat were looked for; {path} {which}.")
    ((name, files),) = sets.items()
    missing = sorted(set(range(1, 7)) - set(files))
    if missing:
        raise DataError(
            f"The feature set {name} in {path} lacks cameras {missing}: looked for {name}_cam{missing[0]}.mat."
        )
    parts = [part for camera, file in sorted(files.items()) for part in _camera_cells(file, camera)]
    if not parts:
        raise DataError(f"The feature set {name} holds no image of the 96 test identities.")
    widths = {part.shape[1] for _, _, part in parts}
    if len(widths) > 1:
        raise DataError(f"The cells of the feature set {name} have different widths: {sorted(widths)}.")
    counts = [len(part) for _, _, part in parts]
    test_set = TestSet(
        identity=np.repeat([identity for identity, _, _ in parts], counts),
        camera=np.repeat([camera for _, camera, _ in parts], counts),
        order=np.concatenate([np.arange(count) for count in counts]),
    )
    return Embeddings(np.concatenate([part for _, _, part in parts]), None, test_set)


def _camera_cells(file: Path, camera: int) -> list[tuple[int, int, NDArray[np.floating[Any]]]]:
    """(identity, camera, features [n, D]) of the test identities; ``feature{id}(k, :)`` belongs to the k-th image."""
    cells = read_cells(file, "feature")
    found = []
    for identity in SYSU_TEST_IDENTITIES:
        cell = cells[identity - 1] if identity <= len(cells) else np.empty((0, 0))
        if cell.size == 0:
            continue
        if cell.ndim != 2 or cell.dtype.kind != "f":
            raise DataError(
                f"Cell {identity} of `feature` in {file} is {cell.dtype} {list(cell.shape)}; expected one row of real "
                "numbers per image."
            )
        found.append((identity, camera, cell))
    return found
