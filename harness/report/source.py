"""A run as its folder shows it, finished or not: what can be read is kept, and what cannot is a note.

Nothing here trusts a file. Readers are bounded, values are checked, and what does not fit the rest is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.engine.checkpoint import load_latest
from harness.engine.folder import RunFolder
from harness.errors import DataError, HarnessError, ProtocolError, RunError, SettingsError
from harness.evaluation import Protocol, TestSet, protocol
from harness.evaluation.arrays import read_safetensors
from harness.evaluation.embeddings import read_embeddings
from harness.files import file_sha256
from harness.leaderboard.record import Record, read_record
from harness.reading import parse_json, printable, read_text, shortened
from harness.settings import read_settings

_MOST_BYTES = 64 << 20  # of metrics.jsonl; a thousand epochs make about 2 MB
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class Vectors:
    """Test embeddings: unit rows float32 [M, D] in the order of ``test_set``, whose images are at ``paths``.

    ``figures``: of the primary protocol, as fractions, where the file holds them.
    """

    features: NDArray[np.float32]
    test_set: TestSet
    paths: tuple[str, ...]
    protocol: Protocol | None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """Pseudo-labels after the epoch ``epoch`` (from 1): int64 [N] by partition, links int64 [K] by ``SOURCE>TARGET``.

    ``paths_sha256``: of the training images' paths, in the order of the labels.
    """

    epoch: int
    partitions: dict[str, NDArray[np.int64]]
    links: dict[str, NDArray[np.int64]]
    paths_sha256: str


@dataclass
class Source:
    """What a run's folder holds. ``label`` tells it from the other runs of a report. ``rows``: of metrics.jsonl."""

    path: Path
    label: str
    settings: dict[str, Any]
    record: Record | None
    rows: list[dict[str, Any]]
    warnings: list[str]
    seconds: dict[str, float]
    start: Vectors | None
    end: Vectors | None
    labels: Labels | None
    notes: list[str]

    @property
    def method(self) -> str:
        """What the leaderboard calls the method."""
        if self.record is not None:
            return self.record.method
        plugins = self.settings.get("plugins")
        return ",".join(map(str, plugins)) if isinstance(plugins, list) else "unknown method"

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.record.dataset.name if self.record else str(self.settings.get("dataset", "unknown dataset"))

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        found = self.record.seed if self.record else self.settings.get("seed")
        return found if isinstance(found, int) else None

    @property
    def epochs(self) -> int | None:
        """How many epochs the recipe has."""
        recipe = self.record.recipe if self.record else self.settings.get("recipe")
        stages = recipe.get("stages") if isinstance(recipe, Mapping) else None
        counts = [stage.get("epochs") for stage in stages or () if isinstance(stage, Mapping)]
        whole = [count for count in counts if isinstance(count, int)]
        return sum(whole) if whole and len(whole) == len(counts) else None

    @property
    def done(self) -> int:
        """How many epochs have ended."""
        return max((row["epoch"] + 1 for row in self.rows), default=0)

    @property
    def protocol(self) -> Protocol | None:
        """The primary protocol."""
        names = [self.record.primary_protocol] if self.record else []
        for vectors in (self.end, self.start):
            names += [vectors.protocol.identifier] if vectors and vectors.protocol else []
        try:
            return protocol(names[0]) if names else None
        except ProtocolError:
            return None


def read_runs(paths: Sequence[Path]) -> list[Source]:
    """Every run of a report, labelled so that no two are called alike.

    Raises:
        RunError: a folder holds nothing of a run.
    """
    names = [path.resolve().name for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    labels = [
        "/".join(path.resolve().parts[-2:]) if name in twice else name for path, name in zip(paths, names, strict=True)
    ]
    labels = [f"{label} ({place + 1})" if labels.count(label) > 1 else label for place, label in enumerate(labels)]
    return [read_run(path, label=label) for path, label in zip(paths, labels, strict=True)]


def read_run(path: Path, *, label: str | None = None) -> Source:
    """The run in a folder.

    Raises:
        RunError: the folder holds nothing of a run.
    """
    folder = RunFolder(path)
    if not path.is_dir() or not (folder.begun or folder.metrics.exists()):
        raise RunError(f"There is no run in {path}: give the folder that `harness run` names, such as runs/NAME.")
    notes: list[str] = []
    settings = _settings(folder, notes)
    record = _record(folder, notes)
    rows = _rows(folder, notes) or _rows_of(record)
    warnings, seconds = (list(record.warnings), dict(record.cost.seconds)) if record else _kept(folder, notes)
    source = Source(
        path=path,
        label=shortened(printable(label or path.resolve().name)),
        settings=settings,
        record=record,
        rows=rows,
        warnings=warnings,
        seconds=seconds,
        start=_vectors(folder.start, notes),
        end=_vectors(folder.embeddings, notes, sha256=record.embeddings_sha256 if record else None),
        labels=_labels(folder.labels, notes),
        notes=notes,
    )
    _say_what_is_missing(source)
    return source


def _say_what_is_missing(source: Source) -> None:
    if source.record is None:
        of = f" of {source.epochs}" if source.epochs else ""
        source.notes.insert(
            0,
            f"This run has no record: it has not finished. {source.done}{of} epochs have ended, and what they left is "
            "shown; `harness run ... --resume` goes on with it.",
        )
    if source.start is None and source.epochs != 0:
        source.notes.append(
            "There are no embeddings from before training: the run was made by an earlier version, or with "
            "evaluation.before=false. What compares with the start is left out."
        )
    if source.labels is None and source.epochs != 0 and source.done:
        source.notes.append("There are no pseudo-labels on disk, as an earlier version left none: no cluster sheets.")


def _settings(folder: RunFolder, notes: list[str]) -> dict[str, Any]:
    try:
        return read_settings(folder.settings)
    except SettingsError as error:
        notes.append(f"The settings cannot be read: {error}")
        return {}


def _record(folder: RunFolder, notes: list[str]) -> Record | None:
    if not folder.record.exists():
        return None
    try:
        return read_record(folder.record)
    except RunError as error:
        notes.append(f"The record is left out: {error}")
        return None


def _rows(folder: RunFolder, notes: list[str]) -> list[dict[str, Any]]:
    if not folder.metrics.exists():
        return []
    rows: list[dict[str, Any]] = []
    try:
        text = read_text(folder.metrics, "history", most_bytes=_MOST_BYTES, error=RunError, form="JSON lines")
        for line in filter(None, text.split("\n")[:_MOST_ROWS]):
            row = parse_json(line)
            if not isinstance(row, dict) or not isinstance(row.get("epoch"), int) or row["epoch"] < 0:
                raise ValueError("a line is no row of an epoch")
            rows.append(row)
    except (RunError, ValueError) as error:
        notes.append(f"metrics.jsonl is damaged after {len(rows)} epochs ({error}); the rest of it is left out.")
    return sorted(rows, key=lambda row: row["epoch"])


def _rows_of(record: Record | None) -> list[dict[str, Any]]:
    """The rows that the record keeps, in the form of metrics.jsonl."""
    if record is None:
        return []
    labels = {epoch.epoch: epoch for epoch in record.pseudo_labels}
    return [
        {
            "epoch": curve.epoch,
            "losses": dict(curve.losses),
            "learning_rate": curve.learning_rate,
            "evaluation": {"rank1": curve.rank1, "mAP": curve.mAP},
            "labels": labels[curve.epoch].model_dump(mode="json") if curve.epoch in labels else {},
        }
        for curve in record.curves
    ]


def _kept(folder: RunFolder, notes: list[str]) -> tuple[list[str], dict[str, float]]:
    """Warnings and seconds of an unfinished run, from its last checkpoint."""
    try:
        found = load_latest(folder.checkpoints)
        notes += found.warnings
        state = found.midway or found.epoch
        if state is None:
            return [], {}
        history, clock = json.loads(state["history"]), state["clock"]
        warnings = [str(text) for text in history["warnings"]]
        return warnings, {str(work): float(seconds) for work, seconds in clock["seconds"].items()}
    except (HarnessError, KeyError, TypeError, ValueError, AttributeError) as error:
        notes.append(f"The checkpoint cannot be read ({printable(str(error))}): warnings and times are unknown.")
        return [], {}


def _vectors(path: Path, notes: list[str], *, sha256: str | None = None) -> Vectors | None:
    if not path.exists():
        return None
    try:
        embeddings = read_embeddings(path)
        if sha256 is not None and file_sha256(path) != sha256:
            raise DataError("it is not the file that the figures were computed from (its SHA-256 is not the record's)")
        about = _about(path)
        paths = about.get("paths")
        if not isinstance(paths, list) or not all(isinstance(name, str) for name in paths):
            raise DataError("it names no images")
        features = np.asarray(embeddings.features, dtype=np.float32)
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        if not len(features) or not np.isfinite(lengths).all() or (lengths == 0).any():
            raise DataError("it holds rows without a direction")
        found = about.get("figures")
        figures = {
            str(name): float(value)
            for name, value in (found.items() if isinstance(found, dict) else ())
            if isinstance(value, (int, float)) and 0 <= value <= 1
        }
        rules = _protocol(about.get("protocol"))
        return Vectors(features / lengths, embeddings.test_set, tuple(paths), rules, figures)
    except (HarnessError, OSError) as error:
        notes.append(f"{path.name} is left out: {error}")
        return None


def _protocol(name: Any) -> Protocol | None:
    try:
        return protocol(str(name))
    except ProtocolError:
        return None


def _about(path: Path) -> dict[str, Any]:
    """What the harness stored beside the arrays. Raises DataError if that is no JSON object."""
    _, metadata = read_safetensors(path, ())
    try:
        about = parse_json(metadata.get("harness", "{}"))
    except ValueError as error:
        raise DataError(f"its metadata are damaged: {error}") from error
    if not isinstance(about, dict):
        raise DataError("its metadata are not those of a run")
    return about


def _labels(path: Path, notes: list[str]) -> Labels | None:
    if not path.exists():
        return None
    try:
        about = _about(path)
        epoch, names, digest = (about.get(key) for key in ("epoch", "partitions", "paths_sha256"))
        if not isinstance(epoch, int) or not isinstance(names, list) or not isinstance(digest, str):
            raise DataError("its metadata are not those of pseudo-labels")
        present, _ = read_safetensors(path, ())
        arrays, _ = read_safetensors(path, list(present))
        values = {name: _whole(name, array) for name, array in arrays.items() if array is not None}
        partitions = {str(name): values[str(name)] for name in names if str(name) in values}
        if len({len(labels) for labels in partitions.values()}) != 1:
            raise DataError("its partitions are of different lengths, or there is none")
        if any((labels >= len(labels)).any() for labels in partitions.values()):
            raise DataError("it has more clusters than images")
        links = {name: link for name, link in values.items() if _fits(name, link, partitions)}
        return Labels(epoch + 1, partitions, links, digest)
    except (HarnessError, OSError) as error:
        notes.append(f"{path.name} is left out: {error}")
        return None


def _whole(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind != "i" or (array < -1).any():
        raise DataError(f"`{printable(shortened(name))}` holds no labels")
    return array.astype(np.int64)


def _fits(name: str, link: NDArray[np.int64], partitions: Mapping[str, NDArray[np.int64]]) -> bool:
    source, found, target = name.partition(">")
    if not found or source not in partitions or target not in partitions:
        return False
    clusters, targets = (int(partitions[side].max(initial=-1)) + 1 for side in (source, target))
    return len(link) == clusters and bool((link < targets).all())
