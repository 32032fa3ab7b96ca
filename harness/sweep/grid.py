"""The grid of a sweep: plugins per role, options, datasets, trials and seeds, as a TOML file or flags say them.

A role's list holds plugins; ``a+b`` (or a list in a list) is a chain of refiners, a sum of losses. ``none`` is no
refiner; ``own`` are the losses that come with the other plugins of a cell, the baseline's if none does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.errors import SettingsError, suggest
from harness.plugins import SECTIONS, explain
from harness.settings import merge, read_toml

NONE, OWN = "none", "own"

Role = Literal["clusterer", "refiners", "memory", "loss"]
ROLES: dict[Role, str] = {"clusterer": "clusterers", "refiners": "refiners", "memory": "memories", "loss": "losses"}
"""The roles of a grid, each with the key of its list."""


def _words(separator: str) -> BeforeValidator:
    """A list of entries, each a tuple of words: ``"a+b"`` and ``["a", "b"]`` are one."""

    def split(value: Any) -> Any:
        entries = value if isinstance(value, (list, tuple)) else [value]
        return tuple(
            tuple(word.strip() for word in entry.split(separator) if word.strip()) if isinstance(entry, str) else entry
            for entry in entries
        )

    return BeforeValidator(split)


def _several(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _dataset(value: Any) -> Any:
    return tuple({"name": entry} if isinstance(entry, str) else entry for entry in _several(value))


Entry = tuple[str, ...]
Roles = Annotated[tuple[Entry, ...], _words("+")]
Methods = Annotated[tuple[Entry, ...], _words(",")]
Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_several), AfterValidator(_once)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetChoice(_Frozen):
    """A dataset, and the folder that it is in."""

    name: str
    root: Path | None = None


class Exclusion(_Frozen):
    """Cells that are left out: those that agree with every entry of ``where``."""

    reason: str = Field(min_length=1)
    where: dict[str, tuple[Any, ...]] = Field(min_length=1)

    def covers(self, coordinates: Mapping[str, Any]) -> bool:
        """Whether a cell, or a group of cells, is left out."""
        return all(key in coordinates and coordinates[key] in values for key, values in self.where.items())


class Grid(_Frozen):
    """What is combined with what. Every list is an axis; ``options`` are axes of the cells that have the part."""

    clusterers: Roles = ()
    refiners: Roles = ()
    memories: Roles = ()
    losses: Roles = ()
    plugins: Methods = Field((), description="Whole combinations, as `harness run --plugins` takes them.")
    recipe: str | None = Field(None, description="Whose recipe every cell trains by.")
    datasets: Annotated[tuple[DatasetChoice, ...], BeforeValidator(_dataset)] = (DatasetChoice(name="rendered"),)
    trials: Numbers = ()
    seeds: Numbers = (0,)
    options: dict[str, Annotated[tuple[Any, ...], BeforeValidator(_several)]] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict, description="The same in every cell.")
    exclude: tuple[Exclusion, ...] = ()

    @property
    def roles(self) -> dict[Role, tuple[Entry, ...]]:
        """The roles that are listed, with their entries."""
        listed: dict[Role, tuple[Entry, ...]] = {role: getattr(self, key) for role, key in ROLES.items()}
        return {role: entries for role, entries in listed.items() if entries}

    @property
    def size(self) -> int:
        """Cells at most: options and trials of absent parts make none."""
        combined = math.prod(map(len, self.roles.values())) if self.roles else 0
        others = (self.datasets, self.seeds, self.trials or (1,), *self.options.values())
        return (combined + len(self.plugins)) * math.prod(map(len, others))

    def combinations(self) -> Iterator[dict[Role, Entry]]:
        """The product over the listed roles."""
        if self.roles:
            for entries in itertools.product(*self.roles.values()):
                yield dict(zip(self.roles, entries, strict=True))

    def to_toml(self) -> str:
        """The grid as a file that :func:`read_grid` reads."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"exclude"})
        for key in ROLES.values():
            if key in values:
                values[key] = [spelt(tuple(entry)) for entry in values[key]]
        if self.plugins:
            values["plugins"] = [",".join(entry) for entry in self.plugins]
        if "datasets" in values:
            values["datasets"] = [{k: v for k, v in one.items() if v is not None} for one in values["datasets"]]
        if self.exclude:
            values["exclude"] = [{**one.where, "reason": one.reason} for one in self.exclude]
        return tomli_w.dumps(values)


def spelt(entry: Entry) -> str:
    """An entry as it is written: its plugins joined by ``+``."""
    return "+".join(entry)


def read_grid(path: Path) -> dict[str, Any]:
    """The values of a grid file. Raises SettingsError if it cannot be read or is not TOML."""
    return read_toml(path, "grid file", holds="a grid")


def make_grid(values: Mapping[str, Any]) -> Grid:
    """A validated grid. Raises SettingsError saying what is wrong, what was expected, what is near."""
    known = sorted(Grid.model_fields)
    for key in values:
        if key not in known:
            raise SettingsError(f"A grid has no entry {key!r}. {suggest(key, known)}")
    nested = {
        "options": _flat(values.get("options", {})) if isinstance(values.get("options", {}), Mapping) else 0,
        "exclude": [_exclusion(one) for one in _several(values.get("exclude", ()))],
    }
    try:
        grid = Grid(**{**values, **nested})
    except ValidationError as error:
        raise SettingsError(f"Grid: {explain(error)}") from error
    _require_sense(grid)
    return grid.model_copy(
        update={
            "datasets": tuple(
                one.model_copy(update={"root": one.root and one.root.absolute()}) for one in grid.datasets
            )
        }
    )


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """``[options] a.b = 1`` and ``"a.b" = 1`` are one."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        inner = {f"{key}.{name}": item for name, item in _flat(value).items()} if isinstance(value, Mapping) else {}
        found |= inner or {key: value}
    return found


def _exclusion(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    where = {key: _several(value) for key, value in _flat({k: v for k, v in values.items() if k != "reason"}).items()}
    return {"where": where, **({"reason": values["reason"]} if "reason" in values else {})}


def _require_sense(grid: Grid) -> None:
    if not grid.roles and not grid.plugins:
        raise SettingsError(
            "The grid names nothing to combine: give clusterers, refiners, memories, losses or plugins, in the file or "
            "as flags (--clusterers baseline,chc; --plugins chcr,tsmem)."
        )
    for role, entries in grid.roles.items():
        for entry in entries:
            _require_entry(role, entry)
    _require_no_empty_axis(grid)
    names = [dataset.name for dataset in grid.datasets]
    if len(set(names)) < len(names):
        raise SettingsError(
            "The grid names a dataset twice; versions of one are an option, such as data.seed = [1, 2]."
        )
    if "options" in grid.settings:
        raise SettingsError("Options of parts belong into [options] of the grid: they hold where the part is used.")
    for key in grid.options:
        if key.count(".") < 1:
            raise SettingsError(f"An option is named PART.OPTION or SECTION.FIELD, such as chc.eps; got {key!r}.")
    clash = {"name", "plugins", "clusterer", "memory", "recipe_of", "dataset", "data_root", "seed"} & set(grid.settings)
    if clash:
        raise SettingsError(f"The grid itself sets {sorted(clash)[0]!r} in every cell; [settings] cannot.")


def _require_entry(role: Role, entry: Entry) -> None:
    key = ROLES[role]
    if not entry:
        raise SettingsError(f"{key} holds an empty entry.")
    if role in ("clusterer", "memory") and len(entry) > 1:
        raise SettingsError(f"A run has one {role}; {key} names {spelt(entry)!r} as one. Alternatives: 'a', 'b'.")
    if NONE in entry and (role != "refiners" or len(entry) > 1):
        raise SettingsError(f"{key} holds {spelt(entry)!r}; 'none' stands alone, and only among the refiners.")
    if OWN in entry and role != "loss":
        raise SettingsError(f"{key} holds {spelt(entry)!r}; 'own' stands only among the losses.")


def _require_no_empty_axis(grid: Grid) -> None:
    empty = [key for key, values in grid.options.items() if not values]
    empty += [key for key in ("datasets", "seeds") if not getattr(grid, key)]
    if empty:
        raise SettingsError(f"The grid has no cell: {empty[0]} is an empty list.")


def with_default_threads(grid: Grid, threads: int) -> Grid:
    """The grid with the CPU threads of a cell settled: its own if it says them, else ``threads``."""
    compute = grid.settings.get("compute", {})
    given = compute.get("threads") if isinstance(compute, Mapping) else None
    return (
        grid if given else grid.model_copy(update={"settings": merge(grid.settings, {"compute": {"threads": threads}})})
    )


def threads_of(grid: Grid) -> int:
    """The CPU threads that the grid settles for a cell; 0 if it does not."""
    compute = grid.settings.get("compute", {})
    threads = compute.get("threads", 0) if isinstance(compute, Mapping) else 0
    return threads if isinstance(threads, int) else 0


def is_section(key: str) -> bool:
    """Whether an option is one of the core's sections (``recipe.epochs``) rather than a part's."""
    return key.partition(".")[0] in SECTIONS
