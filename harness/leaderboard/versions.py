"""The versions of datasets that a board accepts: ``leaderboards/datasets.toml``.

    [rendered-small-0]
    name = "rendered"
    size = "small"
    seed = 0
    fingerprints = ["0123456789abcdef-0123456789abcdef"]

A version has a table for each protocol. A fingerprint covers the pixels as an encoder sees them, so a version has one
for each input size; trials share it. The version that is called as the dataset is (``[sysu-mm01]``) is the published
one: published figures stand in its tables.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w
from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import DataError
from harness.evaluation.figures import FrozenModel
from harness.files import replace_text
from harness.leaderboard.names import slug
from harness.leaderboard.record import DatasetCard, Name
from harness.reading import read_text, shortened

VERSIONS_NAME = "datasets.toml"
_MOST_BYTES = 1 << 20


class DatasetVersion(FrozenModel):
    """One version of a dataset; ``size`` and ``seed`` belong to the rendered one."""

    name: Name
    size: Name | None = None
    seed: int | None = None
    fingerprints: tuple[Name, ...] = Field(min_length=1)

    def holds(self, card: DatasetCard) -> bool:
        """Whether a run was made on this version."""
        same = (self.name, self.size, self.seed) == (card.name, card.size, card.seed)
        return same and card.fingerprint in self.fingerprints


Versions = Mapping[str, DatasetVersion]


def read_versions(path: Path) -> dict[str, DatasetVersion]:
    """The versions in a file, by name, in its order; none if there is no such file.

    Raises:
        DataError: the file is no TOML, or not of the documented form.
    """
    if not path.exists():
        return {}
    text = read_text(path, "list of dataset versions", most_bytes=_MOST_BYTES, error=DataError, form="a TOML file")
    try:
        found = TypeAdapter(dict[str, DatasetVersion]).validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"The list of dataset versions {path} is no TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is not valid at {where}: {shortened(first['msg'], most=300)}.") from error
    for name in found:
        if name != slug(name):
            raise DataError(f"{path} names a version {name!r}; tables are called by it, so write {slug(name)!r}.")
    return found


def version_of(card: DatasetCard, versions: Versions) -> str | None:
    """The name of the version that a run was made on; None if it is not listed."""
    return next((name for name, version in versions.items() if version.holds(card)), None)


def entry_for(card: DatasetCard, versions: Versions) -> str:
    """What to add to the file, as text, for the version that a run was made on."""
    parts = [card.name, card.size, None if card.seed is None else str(card.seed)]
    name = slug("-".join(part for part in parts if part is not None))
    if name in versions:
        name += f"-{slug(card.fingerprint)[:8]}"
    version = DatasetVersion(name=card.name, size=card.size, seed=card.seed, fingerprints=(card.fingerprint,))
    return tomli_w.dumps({name: version.model_dump(exclude_none=True)})


def add_version(path: Path, card: DatasetCard) -> None:
    """Append the version that a run was made on; what was written before stays as it is."""
    entry = entry_for(card, read_versions(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8").rstrip() + "\n\n" if path.exists() else ""
    replace_text(path, before + entry)
