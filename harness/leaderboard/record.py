"""The record of a finished run: one JSON file that says what was run, on what, at what cost, and what came out.

Figures are fractions rounded to eight decimals; keys are sorted and the file ends with a newline, so that equal records
are equal bytes. :func:`figures_digest` covers the figures alone: two runs of the same settings and seed must agree on
it, whatever their times and machines. The model-selection rule and reference rows are part of the record, because
published figures differ by points on them (evaluation.md, section 7).
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from harness.errors import RunError
from harness.evaluation.figures import Figures, FrozenModel
from harness.evaluation.pseudo_labels import AssociationQuality, PartitionQuality
from harness.files import replace_text

SCHEMA_VERSION = 1
RECORD_NAME = "record.json"

Utc = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(lambda value: round(value, 3))]
Selection = Literal["last", "label-free", "oracle"]
Reference = Literal["pretrained", "supervised", "oracle-association"]


class DatasetCard(FrozenModel):
    """The images that were used. ``fingerprint`` tells two versions of one dataset apart and is the same for all of its
    trials; ``size`` and ``seed`` belong to the rendered one, ``trial`` to RegDB (a split of its own, 1 to 10)."""

    name: str
    fingerprint: str
    size: str | None = None
    seed: int | None = None
    trial: int | None = None
    images_train: int = Field(ge=0)
    images_test: int = Field(ge=0)
    cameras: list[int]


class Part(FrozenModel):
    """One active part: the role it fills, its name, the plugin and distribution it came from, and its options."""

    role: str
    name: str
    plugin: str
    distribution: str
    version: str
    options: dict[str, Any] = Field(default_factory=dict)


class EncoderCard(FrozenModel):
    """The network. ``weights`` says what it started from; ``embeddings`` gives the width of each embedding."""

    name: str
    weights: str
    embeddings: dict[str, int]
    parameters: int = Field(ge=0)


class Extraction(FrozenModel):
    """How test features were made. Plain and camera-centred figures never share a table."""

    feature: str = "neck"
    flip: bool = False
    camera_centred: bool = False


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


class Cost(FrozenModel):
    """What the run took. ``seconds`` is per kind of work (render, extraction, clustering, training, ...);
    ``bn_batch`` the number of images that batch norm sees at once."""

    seconds: dict[str, Seconds]
    total_seconds: Seconds
    peak_memory_mib: Seconds | None = None
    device: str
    world_size: int = Field(default=1, ge=1)
    bn_batch: int | None = None
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
        warnings: every fallback and oddity a reader should know of.
    """

    schema_version: Literal[1] = 1
    name: str
    method: str
    created: Utc
    status: Literal["finished"] = "finished"
    dataset: DatasetCard
    protocols: dict[str, Figures] = Field(min_length=1)
    primary_protocol: str
    parts: list[Part]
    recipe: dict[str, Any]
    encoder: EncoderCard
    extraction: Extraction = Extraction()
    neighbour_search: NeighbourSearchCard = NeighbourSearchCard()
    seed: int
    selection: Selection = "last"
    reference: Reference | None = None
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
        RunError: the file is missing, is no JSON, or does not fit this version's schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"There is no run record at {path}; a run writes it when it has finished.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"The run record {path} cannot be read: {error}.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"The file {path} has schema version {version!r}, but this harness reads version {SCHEMA_VERSION}; repeat "
            "the run or read it with the version of the harness that wrote it."
        )
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record as a whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RunError(f"The run record {path} is not valid at {where}: {first['msg']}{more}.") from error


def figures_digest(record: Record) -> str:
    """SHA-256 over the figures of all protocols and the pseudo-label quality; free of times, names and machines."""
    content = record.model_dump(mode="json", include={"protocols", "pseudo_labels", "skipped_epochs"})
    return canonical_digest(content)


def settings_digest(record: Record) -> str:
    """SHA-256 over what a figure may depend on, apart from seed and data: runs that agree are seeds of one row."""
    fields = {"method", "parts", "recipe", "encoder", "extraction", "selection", "reference"}
    content = record.model_dump(mode="json", include=fields)
    content["precision"], content["bn_batch"] = record.cost.precision, record.cost.bn_batch
    content["neighbour_search"] = record.neighbour_search.model_dump(exclude={"recall"})
    return canonical_digest(content)


def canonical_digest(content: Any) -> str:
    """SHA-256, in hexadecimal, of the shortest JSON form with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
