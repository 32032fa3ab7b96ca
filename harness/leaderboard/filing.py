"""Records in a board's folder: what is accepted, under which name, and how far each is verified.

    records/NAME.json     a run's record, as the run wrote it
    rescored/NAME.json    says that its figures were computed again from its stored embeddings

A seal shows a careless change; whoever makes a new seal must also make the figures fit one another: the means over the
trials, and those over the single queries. What remains is found by scoring the embeddings again, or by training again.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from harness import __version__
from harness.errors import RunError, suggest
from harness.evaluation import PROTOCOLS
from harness.evaluation.figures import FIGURE_NAMES, Figures, FrozenModel
from harness.files import replace_text
from harness.leaderboard.board import Verified
from harness.leaderboard.names import slug
from harness.leaderboard.record import (
    Digest,
    Name,
    Record,
    canonical_digest,
    now,
    read_record,
    record_json,
    settings_digest,
    write_record,
)
from harness.leaderboard.statistics import Run, agree
from harness.leaderboard.versions import VERSIONS_NAME, Versions, entry_for, read_versions, version_of
from harness.reading import parse_json, read_text

RECORDS, RESCORED = "records", "rescored"
_LONGEST_NAME = 80
_MOST_BYTES = 1 << 20
_AGREEMENT_OF_QUERIES = 1e-4  # single queries are kept to 1/65000
_AGREEMENT_OF_TRIALS = 2e-8  # figures are kept to eight decimals


class Rescoring(FrozenModel):
    """That the figures of a record came out of its stored embeddings again.

    Attributes:
        record: the record's seal. ``figures``: digest of the figures that came out, of all protocols.
        harness: the version that scored. ``on``: when.
    """

    record: Digest
    embeddings_sha256: Digest
    figures: Digest
    harness: Name
    on: date


@dataclass(frozen=True, slots=True)
class Filed:
    """A record of a board. ``version``: that of its dataset. ``disagrees``: an independent run came out otherwise."""

    name: str
    record: Record
    version: str
    verified: Verified
    disagrees: bool = False

    @property
    def run(self) -> Run:
        """Seed and trial."""
        return self.record.seed, self.record.dataset.trial


def seal_of(record: Record) -> str:
    """The seal that the record's file carries."""
    return canonical_digest(record.model_dump(mode="json"))


def protocols_digest(figures: Mapping[str, Figures]) -> str:
    """SHA-256 over the figures of all protocols."""
    return canonical_digest({name: found.model_dump(mode="json") for name, found in figures.items()})


def filed_name(record: Record) -> str:
    """The name under which a record is filed, without its ending: that of the run, and the beginning of the seal."""
    return f"{slug(record.name)[:_LONGEST_NAME]}-{seal_of(record)[:8]}"


def require_known_protocols(record: Record) -> None:
    """Refuse protocols that this harness does not define, or that belong to another dataset."""
    for name in record.protocols:
        if name not in PROTOCOLS:
            raise RunError(
                f"Run {record.name!r} has figures under the protocol {name!r}, which this harness does not define. "
                f"{suggest(name, PROTOCOLS)} Figures of unknown rules have no table."
            )
        if PROTOCOLS[name].dataset != record.dataset.name:
            raise RunError(
                f"Run {record.name!r} was made on the dataset {record.dataset.name!r}, but has figures under "
                f"{name!r}, a protocol of {PROTOCOLS[name].dataset!r}."
            )


def require_known_version(record: Record, versions: Versions) -> str:
    """The version of the dataset that a run was made on; refuses one that the board does not list."""
    version = version_of(record.dataset, versions)
    if version is None:
        raise RunError(
            f"Run {record.name!r} was made on images that the board does not know: no version of "
            f"{record.dataset.name!r} in {VERSIONS_NAME} has this size, seed and fingerprint. If they are meant to "
            "have a table, file the run with --new-dataset, which adds:\n"
            f"{entry_for(record.dataset, versions).rstrip()}"
        )
    return version


def require_fitting_figures(record: Record) -> None:
    """Refuse figures that are not the means of what the record keeps of trials and queries."""
    for name, figures in record.protocols.items():
        for figure in FIGURE_NAMES:
            _require_mean_of_trials(record, name, figure)
        if not figures.rank1 <= figures.rank5 <= figures.rank10 <= figures.rank20:
            raise _unfitting(record, name, "rank-1, rank-5, rank-10 and rank-20 do not rise")
    primary = record.protocols[record.primary_protocol]
    for query_figure, mean in (("rank1", primary.rank1), ("AP", primary.mAP)):
        values_Q = _by_query(record, query_figure)
        valid_Q = values_Q[~np.isnan(values_Q)]
        if (len(values_Q), len(valid_Q)) != (primary.queries, primary.valid_queries):
            counts = f"{len(valid_Q)} of {len(values_Q)} queries, not {primary.valid_queries} of {primary.queries}"
            raise _unfitting(record, record.primary_protocol, f"single {query_figure} values are kept of {counts}")
        if abs(valid_Q.mean() - mean) > _AGREEMENT_OF_QUERIES:
            what = f"the mean {query_figure} of the single queries is {valid_Q.mean():.5f}, but {mean:.5f} is stated"
            raise _unfitting(record, record.primary_protocol, what)


def _require_mean_of_trials(record: Record, protocol: str, figure: str) -> None:
    figures = record.protocols[protocol]
    values, stated = figures.per_trial.get(figure, []), getattr(figures, figure)  # type: ignore[call-overload]
    sd = figures.sd.get(figure)  # type: ignore[call-overload]
    if len(values) != figures.trials:
        raise _unfitting(record, protocol, f"{len(values)} values of {figure} are kept for {figures.trials} trials")
    if abs(statistics.fmean(values) - stated) > _AGREEMENT_OF_TRIALS:
        raise _unfitting(record, protocol, f"the mean {figure} of the trials is not {stated}")
    spread = statistics.stdev(values) if len(values) > 1 else None
    if (sd is None) != (spread is None) or not math.isclose(sd or 0, spread or 0, abs_tol=_AGREEMENT_OF_TRIALS):
        raise _unfitting(record, protocol, f"the deviation of {figure} over the trials is not {sd}")


def _by_query(record: Record, figure: str) -> np.ndarray:
    try:
        return record.by_query.values(figure)  # type: ignore[arg-type]
    except ValueError as error:
        raise _unfitting(record, record.primary_protocol, f"the single {figure} values cannot be read") from error


def _unfitting(record: Record, protocol: str, what: str) -> RunError:
    return RunError(
        f"The figures of run {record.name!r} under {protocol} do not fit one another: {what}. Take the record that the "
        "run wrote, or repeat the run."
    )


def require_committed_code(record: Record) -> None:
    """Refuse a run of code that nobody can look up."""
    if record.code.dirty:
        raise RunError(
            f"Run {record.name!r} was made with uncommitted changes on top of revision {record.code.revision}: nobody "
            "can repeat it. Commit and run again, or add --allow-dirty; its row is marked then."
        )


def require_new(record: Record, board: Path) -> None:
    """Refuse a record that is filed already."""
    path = record_path(board, record)
    if path.exists():
        raise RunError(f"Run {record.name!r} is on the board already, as {path}.")


def require_sound(record: Record) -> None:
    """Refuse a record that no board may hold: an unknown protocol, or figures that do not fit one another."""
    require_known_protocols(record)
    require_fitting_figures(record)


def record_path(board: Path, record: Record) -> Path:
    """Where a record is filed."""
    return board / RECORDS / f"{filed_name(record)}.json"


def file_record(board: Path, record: Record) -> Path:
    """Write a checked record to its place."""
    path = record_path(board, record)
    write_record(path, record)
    return path


def file_rescoring(board: Path, record: Record, figures: Mapping[str, Figures]) -> Path:
    """Note that ``figures`` came out of the embeddings of a filed record.

    Raises:
        RunError: they are not the record's, or the record is not filed.
    """
    require_same_figures(record, figures)
    if not record_path(board, record).exists():
        raise RunError(f"Run {record.name!r} is not on the board {board}; `harness leaderboard add` files it.")
    found = Rescoring(
        record=seal_of(record),
        embeddings_sha256=record.embeddings_sha256,
        figures=protocols_digest(figures),
        harness=__version__,
        on=now().date(),
    )
    path = board / RESCORED / f"{filed_name(record)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, found.model_dump_json(indent=2) + "\n")
    return path


def require_same_figures(record: Record, figures: Mapping[str, Figures]) -> None:
    """Refuse a record whose figures do not come out of its embeddings."""
    differing = [name for name, found in record.protocols.items() if figures.get(name) != found]
    if differing:
        raise RunError(
            f"The stored embeddings of run {record.name!r} do not give the figures of its record under "
            f"{', '.join(differing)}: the record was changed, or scored by other rules."
        )


def read_filed(board: Path) -> list[Filed]:
    """The records of a board, by name, each checked again.

    Raises:
        RunError: a record that is not to be trusted or under a name not its own, or a re-scoring that fits none.
        DataError: a list of dataset versions that cannot be read.
    """
    versions = read_versions(board / VERSIONS_NAME)
    records: dict[str, tuple[Record, str]] = {}
    for path in sorted((board / RECORDS).glob("*.json")):
        record = read_record(path)
        try:
            require_sound(record)
            records[path.stem] = record, require_known_version(record, versions)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error
        if path.read_text(encoding="utf-8") != record_json(record):
            raise RunError(f"{path} is not, byte by byte, what the run wrote; take that file, or repeat the run.")
        if path.stem != filed_name(record):
            raise RunError(f"{path} is not filed under its name: rename it to {filed_name(record)}.json.")
    rescored = _read_rescored(board, {name: record for name, (record, _) in records.items()})
    agreeing, disagreeing = _retrained(records)
    return [
        Filed(
            name,
            record,
            version,
            "retrained" if name in agreeing else "re-scored" if name in rescored else "run",
            name in disagreeing,
        )
        for name, (record, version) in records.items()
    ]


def _read_rescored(board: Path, records: Mapping[str, Record]) -> set[str]:
    """The names of the records whose figures were computed again."""
    found = set()
    for path in sorted((board / RESCORED).glob("*.json")):
        record, note = records.get(path.stem), _read_rescoring(path)
        if record is None:
            raise RunError(f"{path} is of a record that the board does not hold; remove it.")
        expected = seal_of(record), record.embeddings_sha256, protocols_digest(record.protocols)
        if (note.record, note.embeddings_sha256, note.figures) != expected:
            raise RunError(
                f"{path} does not fit the record of that name: its seal, embeddings or figures are others. Remove it, "
                "and score the run again with `harness leaderboard rescore`."
            )
        found.add(path.stem)
    return found


def _read_rescoring(path: Path) -> Rescoring:
    text = read_text(path, "note of a re-scoring", most_bytes=_MOST_BYTES, error=RunError, form="a JSON file")
    try:
        parse_json(text)
        return Rescoring.model_validate_json(text, strict=True)
    except (ValueError, ValidationError) as error:
        raise RunError(f"The note of a re-scoring {path} cannot be read: {error}.") from error


def _retrained(records: Mapping[str, tuple[Record, str]]) -> tuple[set[str], set[str]]:
    """The names of the records that another run of the same settings, data and seed agrees with, and disagrees with."""
    alike: defaultdict[tuple[str, str, Run], list[str]] = defaultdict(list)
    for name, (record, version) in records.items():
        alike[settings_digest(record), version, (record.seed, record.dataset.trial)].append(name)
    agreeing, disagreeing = set[str](), set[str]()
    for names in alike.values():
        for one, other in _independent(names, records):
            (agreeing if agree(records[one][0], records[other][0]) else disagreeing).update((one, other))
    return agreeing, disagreeing


def _independent(names: list[str], records: Mapping[str, tuple[Record, str]]) -> Iterable[tuple[str, str]]:
    """Pairs of runs, not of copies: a run has its own time."""
    pairs = ((one, other) for place, one in enumerate(names) for other in names[place + 1 :])
    return ((one, other) for one, other in pairs if records[one][0].created != records[other][0].created)
