"""Embeddings of test images read from files: a run's own, anybody's, and the official SYSU-MM01 feature cells."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.evaluation.official import SYSU_TEST_IDENTITIES, read_cells
from harness.evaluation.retrieval import Distance
from harness.evaluation.test_set import TestSet

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
        return _from_arrays(path, *_read_safetensors(path))
    if path.suffix == ".npz":
        return _from_arrays(path, _read_npz(path), None)
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
    values = {field: np.asarray(arrays[name]) for field, name in found.items() if name is not None}
    features = values["features"]
    for field in ("features", "features_mirrored"):
        if field in values and (values[field].ndim != 2 or values[field].dtype.kind != "f"):
            raise DataError(
                f"`{found[field]}` in {path} is {values[field].dtype} {list(values[field].shape)}; expected a "
                "floating-point matrix with one row per image."
            )
    for field, column in values.items():
        if len(column) != len(features):
            raise DataError(f"{path}: `{found[field]}` has {len(column)} entries for {len(features)} feature rows.")
    if "features_mirrored" in values and values["features_mirrored"].shape != features.shape:
        raise DataError(f"{path}: `features_mirrored` and `features` have different widths.")
    identity, camera = (_whole_numbers(path, str(found[field]), values[field]) for field in ("identity", "camera"))
    names, notes = _image_names(path, values.get("paths"), len(features))
    test_set = TestSet.from_names(identity, camera, names=names)
    return Embeddings(features, values.get("features_mirrored"), test_set, notes, about)


def _whole_numbers(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    if values.ndim == 1 and values.dtype.kind == "f" and (values == np.round(values)).all():
        values = values.astype(np.int64)  # MATLAB and pandas store whole numbers as floats
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"`{name}` in {path} is {values.dtype} {list(values.shape)}; expected one whole number per image."
        )
    return values.astype(np.int64)


def _image_names(path: Path, paths: NDArray[Any] | None, images: int) -> tuple[list[str], tuple[str, ...]]:
    if paths is None:
        note = "The file has no `paths`: the images of an identity in a camera are taken in the order of the rows."
        return [f"{row:09d}" for row in range(images)], (note,)
    if paths.ndim != 1 or paths.dtype.kind not in "US":
        raise DataError(f"`paths` in {path} is {paths.dtype} {list(paths.shape)}; expected one text per image.")
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in paths.tolist()]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"{path} names {len(twice)} images more than once, the first is {twice[0]}; every test image must be there "
            "once, or galleries would be drawn from copies."
        )
    return names, ()


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
            about = json.loads(metadata.get("harness", "{}"))
            paths = about.pop("paths", None) or json.loads(metadata.get("paths", "null"))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a safetensors file: {error}.") from error
    return arrays if paths is None else {**arrays, "paths": np.array(paths)}, about


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        hint = " Store `paths` as text, not as objects: np.array(paths, dtype=str)." if "pickle" in str(error) else ""
        raise DataError(f"{path} cannot be read as an .npz file: {error}.{hint}") from error


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"


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
