"""What a report states in tables: figures with intervals, and settings beside those of the plugin's own recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import HarnessError
from harness.evaluation.figures import FIGURE_NAMES, FigureName, figure_header
from harness.leaderboard.board import Estimate
from harness.leaderboard.record import Record
from harness.leaderboard.site.numbers import fixed, interval, signed
from harness.leaderboard.statistics import intervals, paired_differences
from harness.plugins import Catalogue
from harness.reading import printable, shortened
from harness.report.source import Source
from harness.settings import Settings

_LONGEST = 120  # characters of a value


@dataclass(frozen=True)
class Cell:
    """A figure in percent, with what stands below it."""

    text: str
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class FigureRow:
    """The figures of a run under a protocol, or of its start; cells in the order of :data:`FIGURE_NAMES`."""

    name: str
    cells: tuple[Cell, ...]
    trials: str = ""
    gallery: str = ""
    queries: str = ""


@dataclass(frozen=True)
class FigureTable:
    """The figures of one protocol."""

    protocol: str
    headers: tuple[str, ...]
    rows: tuple[FigureRow, ...]


@dataclass(frozen=True)
class Setting:
    """A setting that is not what it would have been: names, the value it would have, the value in each run."""

    name: str
    usual: str
    values: tuple[str, ...]


def figure_tables(sources: Sequence[Source]) -> list[FigureTable]:
    """One table for each protocol that a run was scored by, the primary ones first."""
    records = {source.label: source.record for source in sources if source.record is not None}
    names = [record.primary_protocol for record in records.values()]
    names += [name for record in records.values() for name in record.protocols]
    names += [start.protocol.identifier for source in sources if (start := source.start) and start.protocol]
    return [_table(name, sources, records) for name in dict.fromkeys(names)]


def _table(name: str, sources: Sequence[Source], records: Mapping[str, Record]) -> FigureTable:
    rows = []
    first = next((record for record in records.values() if record.primary_protocol == name), None)
    for source in sources:
        start = source.start
        if start is not None and start.protocol is not None and start.protocol.identifier == name and start.figures:
            cells = tuple(Cell(fixed(100 * start.figures[key]) if key in start.figures else "") for key in FIGURE_NAMES)
            rows.append(FigureRow(f"{source.label}, before training", cells))
        if source.record is not None and name in source.record.protocols:
            rows.append(_figure_row(source.label, source.record, name, first))
    return FigureTable(printable(name), tuple(map(figure_header, FIGURE_NAMES)), tuple(rows))


def _figure_row(label: str, record: Record, name: str, first: Record | None) -> FigureRow:
    figures = record.protocols[name]
    cells = []
    for figure in FIGURE_NAMES:
        deviation = figures.sd.get(figure)
        spread = f" ± {fixed(100 * deviation)}" if deviation is not None else ""
        below = _intervals(record, figure, first) if name == record.primary_protocol else ()
        cells.append(Cell(fixed(100 * getattr(figures, figure)) + spread, below))
    valid, every = figures.valid_queries, figures.queries
    queries = str(every) if valid == every else f"{valid} of {every}"
    return FigureRow(label, tuple(cells), str(figures.trials), str(figures.gallery_size), queries)


def _intervals(record: Record, figure: FigureName, first: Record | None) -> tuple[str, ...]:
    """The 95 % interval over queries of a figure that is kept by query, and of its difference to the first run."""
    if figure not in ("rank1", "mAP"):
        return ()
    kept = "rank1" if figure == "rank1" else "AP"
    try:
        own = 100 * record.by_query.values(kept)  # type: ignore[arg-type]
        said = [interval(*found) for found in intervals(own[None]) if found is not None]
        if first is not None and first is not record and first.dataset.fingerprint == record.dataset.fingerprint:
            other = 100 * first.by_query.values(kept)  # type: ignore[arg-type]
            difference = paired_differences(np.stack([own, other])).get((0, 1)) if len(own) == len(other) else None
            said += [_difference(difference)] if difference is not None else []
    except ValueError:
        return ()
    return tuple(said)


def _difference(found: Estimate) -> str:
    return f"{signed(found.mean)} [{interval(found.low, found.high, with_sign=True)}]"


# ---------------------------------------------------------------------------------------------------------------
# settings


def unusual_settings(source: Source, catalogue: Catalogue, notes: list[str]) -> list[Setting]:
    """What the run was told otherwise than its plugins and the harness have it by default, on its dataset."""
    found = [*_recipe(source, catalogue, notes), *_options(source, catalogue, notes), *_general(source)]
    return [setting for setting in found if setting.usual != setting.values[0]]


def _recipe(source: Source, catalogue: Catalogue, notes: list[str]) -> list[Setting]:
    owner, used = source.settings.get("recipe_of"), _recipe_of(source)
    if not isinstance(owner, str) or not used:
        return []
    try:
        usual = catalogue.require(owner).recipe(source.dataset)
    except Exception as error:  # a plugin's own code
        notes.append(f"The recipe of {owner!r} is not at hand ({_reason(error)}): no difference to it is shown.")
        return []
    values = _by_stage(usual.model_dump(mode="json")) if usual is not None else {}
    return [
        Setting(f"recipe.{name}", value_text(values.get(name)), (value_text(value),))
        for name, value in _by_stage(used).items()
        if values and values.get(name) != value and (name in values or name.startswith("stages."))
    ]


def _by_stage(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values, those of a stage as ``stages.NAME.FIELD``."""
    found = {name: value for name, value in recipe.items() if name != "stages"}
    stages = recipe.get("stages")
    for stage in stages if isinstance(stages, (list, tuple)) else ():
        if isinstance(stage, Mapping):
            named = {f"stages.{stage.get('name')}.{field}": value for field, value in stage.items() if field != "name"}
            found |= {name: value for name, value in named.items() if value is not None}
    return found


def _recipe_of(source: Source) -> dict[str, Any]:
    found = source.record.recipe if source.record else source.settings.get("recipe")
    return dict(found) if isinstance(found, Mapping) else {}


def _options(source: Source, catalogue: Catalogue, notes: list[str]) -> list[Setting]:
    found: list[Setting] = []
    for part in source.record.parts if source.record else ():
        try:
            plugin = catalogue.require(part.plugin)
            provider = next(p for p in plugin.providers if (p.role, p.name) == (part.role, part.name))
            usual = provider.resolve_options(source.dataset, {}).model_dump(mode="json")
        except StopIteration:
            notes.append(f"The plugin {part.plugin!r} that is installed has no {part.role} {part.name!r} any more.")
            continue
        except (HarnessError, ValueError) as error:
            notes.append(f"The defaults of {part.role} {part.name!r} are not at hand ({_reason(error)}).")
            continue
        found += [
            Setting(f"{part.name}.{name}", value_text(usual.get(name)), (value_text(value),))
            for name, value in part.options.items()
            if usual.get(name) != value
        ]
    return found


def _general(source: Source) -> list[Setting]:
    """How the run computes. Threads, device and observers are of the machine and the user, not of the method."""
    found = []
    defaults = Settings()
    for section in ("features", "clustering", "evaluation", "compute"):
        usual = getattr(defaults, section).model_dump(mode="json")
        used = source.settings.get(section)
        for name, value in used.items() if isinstance(used, Mapping) else ():
            if name in usual and name not in ("threads", "device", "devices") and usual[name] != value:
                found.append(Setting(f"{section}.{name}", value_text(usual[name]), (value_text(value),)))
    return found


def all_settings(source: Source) -> dict[str, str]:
    """Every setting of a run by dotted name."""
    found: dict[str, str] = {}

    def take(values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                take(value, f"{prefix}{name}.")
            else:
                found[shortened(printable(prefix + str(name)))] = value_text(value)

    take(source.settings, "")
    return found


def compared_settings(sources: Sequence[Source]) -> list[Setting]:
    """The settings in which several runs differ; an em dash where a run has no such setting."""
    of_runs = [all_settings(source) for source in sources]
    names = sorted({name for settings in of_runs for name in settings} - {"name"})
    rows = [Setting(name, "", tuple(settings.get(name, "—") for settings in of_runs)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def value_text(value: Any) -> str:
    """A setting's value as it would be written."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "none"}[value]
    elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        text = "; ".join(", ".join(f"{k} {value_text(v)}" for k, v in item.items() if v is not None) for item in value)
    elif isinstance(value, (list, tuple, Mapping)):
        text = json.dumps(value, default=str, ensure_ascii=False)
    else:
        text = str(value)
    return shortened(printable(text), most=_LONGEST)


def _reason(error: Exception) -> str:
    return shortened(printable(str(error) or type(error).__name__), most=200)
