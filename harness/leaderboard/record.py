"""The record of a finished run: one JSON file that says what was run, on what, at what cost, and what came out.

Figures are fractions rounded to eight decimals; keys are sorted and the file ends with a newline, so that equal records
are equal bytes. The file carries a seal over all of it, so that a figure that was changed by hand shows.
:func:`figures_digest` covers the figures alone: two runs of the same settings and seed must agree on
it, whatever their times and machines. The model-selection rule and reference rows are part of the record, because
published figures differ by points on them (evaluation.md, section 7).

A field that came later is left out where it says what was always so (``exclude_if``), and older records keep their
bytes and their digests.
"""

from __future__ import annotations

import hashlib
import json
import operator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from harness.errors import RunError
from harness.evaluation.figures import Figures, Fraction, FrozenModel, QueryMeans
from harness.evaluation.pseudo_labels import AssociationQuality, PartitionQuality
from harness.files import replace_text
from harness.reading import parse_json, printable, read_text, require_plain, shortened

SCHEMA_VERSION = 2
RECORD_NAME = "record.json"
_MOST_BYTES = 64 << 20  # a thousand epochs make about 2 MB
_LONGEST_NAME = 1000  # all plugins of this repository in one run: 130 characters


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("Input should be a moment within the years 1 to 9999") from error


def _on_one_line(name: str) -> str:
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(f"Input should be printable text on one line, of at most {_LONGEST_NAME} characters")
    return name


Name = Annotated[str, AfterValidator(_on_one_line)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal."""

Utc = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(lambda value: round(value, 3))]
Selection = Literal["last", "label-free", "oracle"]
Reference = Literal["pretrained", "supervised", "oracle-association"]


class DatasetCard(FrozenModel):
    """The images that were used. ``fingerprint`` tells two versions of one dataset apart and is the same for all of its
    trials; ``size`` and ``seed`` belong to the rendered one, ``trial`` to RegDB (a split of its own, 1 to 10)."""

    name: Name
    fingerprint: Name
    size: Name | None = None
    seed: int | None = None
    trial: int | None = None
    images_train: int = Field(ge=0)
    images_test: int = Field(ge=0)
    cameras: list[int]


class Part(FrozenModel):
    """One active part: the role it fills, its name, the plugin and distribution it came from, and its options."""

    role: Name
    name: Name
    plugin: Name
    distribution: Name
    version: Name
    options: dict[str, Any] = Field(default_factory=dict)


class EncoderCard(FrozenModel):
    """The network. ``weights``: what it started from, "pretrained", "random" or the name of a file, whose content
    ``weights_sha256`` tells; ``embeddings``: the width of each; ``options``: all others that are not its defaults."""

    name: Name
    weights: str
    embeddings: dict[str, int]
    parameters: int = Field(ge=0)
    options: dict[str, Any] = Field(default_factory=dict, exclude_if=operator.not_)
    weights_sha256: Digest | None = Field(default=None, exclude_if=operator.not_)


class Extraction(FrozenModel):
    """How features were made. ``feature``, ``flip`` and ``camera_centred`` are of the test images: plain and
    camera-centred figures never share a table. ``flip_mean_renorm`` is of the training images: whether the mean of
    image and mirror image was L2-normalised for clustering."""

    feature: str = "neck"
    flip: bool = False
    camera_centred: bool = False
    flip_mean_renorm: bool = Field(default=True, exclude_if=bool)


class NeighbourSearchCard(FrozenModel):
    """How clusterers searched for neighbours. ``recall``: the lowest that any epoch of an approximate search measured;
    None if none was made."""

    kind: Literal["exact", "approximate"] = "exact"
    probes: int | None = None
    recall: float | None = Field(default=None, ge=0, le=1)


class EpochLabels(FrozenModel):
    """Pseudo-label quality of one epoch, by partition and by link (``"visible>infrared"``)."""

    epoch: int = Field(ge=0)
    stage: str
    partitions: dict[str, PartitionQuality] = Field(default_factory=dict)
    links: dict[str, AssociationQuality] = Field(default_factory=dict)


class EpochCurve(FrozenModel):
    """What training looked like in one epoch: terms by name, and the primary protocol's figures if it was evaluated."""

    epoch: int = Field(ge=0)
    learning_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    losses: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    rank1: Fraction | None = None
    mAP: Fraction | None = None


class Cost(FrozenModel):
    """What the run took. ``seconds`` is per kind of work (render, extraction, clustering, training, ...);
    ``bn_batch`` the number of images that batch norm sees at once; ``batch_norm`` whether that is over all of
    ``world_size`` processes or in each (None: there is one)."""

    seconds: dict[str, Seconds]
    total_seconds: Seconds
    peak_memory_mib: Seconds | None = None
    device: str
    world_size: int = Field(default=1, ge=1)
    bn_batch: int | None = None
    batch_norm: Literal["synchronised", "local"] | None = Field(default=None, exclude_if=operator.not_)
    compiled: bool = Field(default=False, exclude_if=operator.not_)
    precision: str
    threads: int | None = None
    train_images_per_s: Seconds | None = None
    extract_images_per_s: Seconds | None = None


class Environment(FrozenModel):
    """Versions of what the figures may depend on."""

    python: str
    torch: str
    platform: str
    packages: dict[str, str] = Field(default_factory=dict)


class CodeState(FrozenModel):
    """Revision of the harness's sources and whether they had uncommitted changes; none outside a checkout."""

    revision: str | None = None
    dirty: bool | None = None


class Record(FrozenModel):
    """Everything that is kept of one run with one seed.

    Attributes:
        name: the run's folder name. ``method``: what the leaderboard calls it, such as ``"chcr,tsmem"``.
        protocols: figures by protocol identifier. ``primary_protocol`` is one of them.
        selection: which epoch the figures are of. ``label-free`` and ``oracle`` selection are marked in tables.
        reference: set for rows that are no unsupervised method.
        skipped_epochs: epochs without training, because every image was an outlier.
        by_query: rank-1 and average precision of every query under the primary protocol.
        embeddings_sha256: of the file of test embeddings that the figures were computed from.
        extra_information: what training used beside pixels and modality, such as camera labels.
        warnings: every fallback and oddity a reader should know of.
    """

    schema_version: Literal[2] = 2
    name: Name
    method: Name
    created: Utc
    status: Literal["finished"] = "finished"
    dataset: DatasetCard
    protocols: dict[Name, Figures] = Field(min_length=1)
    primary_protocol: Name
    by_query: QueryMeans
    embeddings_sha256: Digest
    parts: list[Part]
    recipe: dict[str, Any]
    encoder: EncoderCard
    extraction: Extraction = Extraction()
    neighbour_search: NeighbourSearchCard = NeighbourSearchCard()
    extra_information: list[Name] = Field(default_factory=list)
    seed: int
    selection: Selection = "last"
    reference: Reference | None = None
    curves: list[EpochCurve] = Field(default_factory=list)
    pseudo_labels: list[EpochLabels] = Field(default_factory=list)
    skipped_epochs: list[int] = Field(default_factory=list)
    cost: Cost
    environment: Environment
    code: CodeState = CodeState()
    warnings: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _primary_protocol_was_evaluated(self) -> Record:
        if self.primary_protocol not in self.protocols:
            raise ValueError(f"the primary protocol {self.primary_protocol!r} is not among the evaluated ones")
        return self


def now() -> datetime:
    """The moment for ``created``: UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def record_json(record: Record) -> str:
    """The bytes of ``record.json`` as text.

    Raises:
        RunError: an option or recipe value is NaN, infinite or of a kind that JSON does not have.
    """
    try:
        content = record.model_dump(mode="json")
        require_plain(content)
        content["seal"] = canonical_digest(content)
        return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:  # also pydantic's serialisation error
        raise RunError(f"The record of run {record.name!r} cannot be written as JSON: {error}.") from error


def write_record(path: Path, record: Record) -> None:
    """Write ``record`` to ``path``, atomically: readers and a killed process see the old file or the new one."""
    text = record_json(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        RunError: the file is missing, far too large, no JSON, does not fit this version's schema, or was changed after
            it was written (its seal is broken).
    """
    if not path.exists():
        raise RunError(f"There is no run record at {path}; a run writes it when it has finished.")
    text = read_text(path, "run record", most_bytes=_MOST_BYTES, error=RunError, form="a JSON file")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise RunError(f"The run record {path} cannot be read: {error}.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"The file {path} has schema version {shortened(repr(version))}, but this harness reads version "
            f"{SCHEMA_VERSION}; repeat the run or read it with the version of the harness that wrote it."
        )
    seal = content.pop("seal", None)
    try:
        record = Record.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(shortened(".".join(map(str, first["loc"])))) or "the record as a whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        what = shortened(first["msg"], most=300)
        raise RunError(f"The run record {path} is not valid at {where}: {what}{more}.") from error
    if seal != canonical_digest(record.model_dump(mode="json")):
        raise RunError(
            f"The run record {path} was changed after it was written: its seal does not fit its content. Take the file "
            "that the run wrote (`harness evaluate RUN` scores the stored embeddings again), or repeat the run."
        )
    return record


def figures_digest(record: Record) -> str:
    """SHA-256 over the figures of all protocols and the pseudo-label quality; free of times, names and machines."""
    content = record.model_dump(mode="json", include={"protocols", "pseudo_labels", "skipped_epochs"})
    return canonical_digest(content)


def settings_digest(record: Record) -> str:
    """SHA-256 over what a figure may depend on, apart from seed and data: runs that agree are seeds of one row."""
    content = record.model_dump(mode="json", include={"method", "parts", "reference"})
    return canonical_digest(content | settings_beside_parts(record))


def settings_beside_parts(record: Record) -> dict[str, Any]:
    """What a figure may depend on, apart from method, parts, seed and data."""
    content = record.model_dump(mode="json", include={"recipe", "encoder", "extraction", "selection"})
    content |= {"precision": record.cost.precision, "bn_batch": record.cost.bn_batch}
    return content | {"neighbour_search": record.neighbour_search.model_dump(exclude={"recall"})}


def canonical_digest(content: Any) -> str:
    """SHA-256, in hexadecimal, of the shortest JSON form with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
