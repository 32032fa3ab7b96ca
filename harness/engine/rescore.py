"""A finished run scored again from the embeddings it stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.engine.folder import RunFolder
from harness.errors import DataError, RunError, SettingsError
from harness.evaluation import PROTOCOLS, Figures, Permutations, evaluate_all, protocol, read_official_permutations
from harness.evaluation.embeddings import Embeddings, read_embeddings
from harness.evaluation.official import PERMUTATIONS_NAME, permutations_in
from harness.files import file_sha256
from harness.leaderboard.record import Record, read_record
from harness.settings import read_settings


@dataclass(frozen=True)
class Rescored:
    """Figures by protocol identifier, now and in the record."""

    record: Record
    embeddings: Embeddings
    figures: dict[str, Figures]

    @property
    def differing(self) -> tuple[str, ...]:
        """The protocols whose figures are not, to the last recorded digit, those of the record."""
        return tuple(name for name, found in self.figures.items() if found != self.record.protocols[name])


def rescore(
    path: Path, *, permutations: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Rescored:
    """Score the run in folder ``path`` under every protocol of its record.

    Args:
        path: the run's folder.
        permutations: the official rand_perm_cam.mat; default: where the run had it from. Only O protocols need it.
        progress: called with (queries scored, queries in all).

    Raises:
        RunError: no finished run, or embeddings that are not the run's.
        DataError: embeddings or permutations that are missing or damaged.
    """
    folder = RunFolder(path)
    record = read_record(folder.record)
    embeddings = read_embeddings(folder.embeddings)
    if len(embeddings.features) != record.dataset.images_test:
        raise RunError(
            f"{folder.embeddings} holds {len(embeddings.features)} images, but the record of this run counts "
            f"{record.dataset.images_test} test images: the two are not of the same run."
        )
    if file_sha256(folder.embeddings) != record.embeddings_sha256:
        raise RunError(
            f"{folder.embeddings} is not the file that the figures of this run were computed from (its SHA-256 is not "
            "the record's): the two are not of the same run, or the file was changed."
        )
    rules = sorted(map(protocol, record.protocols), key=list(PROTOCOLS.values()).index)
    official = any(rule.gallery_rule == "O" for rule in rules)
    results = evaluate_all(
        embeddings.features,
        embeddings.test_set,
        rules,
        trials=max(figures.trials for figures in record.protocols.values()),
        permutations=_permutations(folder, permutations) if official else None,
        progress=progress,
    )
    return Rescored(record, embeddings, {name: result.figures() for name, result in results.items()})


def _permutations(folder: RunFolder, given: Path | None) -> Permutations:
    path = given or _permutations_of_run(folder)
    if path is None or not path.is_file():
        looked = f" ({path} is not there)" if path else ""
        raise DataError(
            f"The run was scored with the official permutations, which are needed again{looked}: add --permutations "
            f"FILE, the dataset's {PERMUTATIONS_NAME}."
        )
    return read_official_permutations(path)


def _permutations_of_run(folder: RunFolder) -> Path | None:
    try:
        settings = read_settings(folder.settings)
    except SettingsError:
        return None
    data = settings.get("data")
    if isinstance(data, dict) and "permutations" in data:
        return Path(str(data["permutations"]))
    root = settings.get("data_root")
    return permutations_in(Path(str(root))) if root else None
