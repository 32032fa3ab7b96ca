"""The report of a grid: what every change is worth, and what two of them are worth together beyond their sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from harness.attribution.changes import Change, Changes, blocks, changes_of
from harness.attribution.grid import SETTING, Cell, Grid, words
from harness.attribution.intervals import Difference, Mean, holm, mean_of
from harness.errors import AttributionError
from harness.evaluation.figures import FigureName
from harness.leaderboard.statistics import Run
from harness.reading import printable

Kind = Literal["part", "several", "interaction"]
LEVEL = 0.05


@dataclass(frozen=True)
class Effect:
    """One line of the report.

    Attributes:
        kind: ``part``: one part or setting changes; ``several``: items that never change apart; ``interaction``: what
            two changes give together beyond the sum of what each gives alone.
        roles: the role of the parts, or roles joined by `` + ``. ``change``: in words.
        figure: which figure the percentage points are of. ``p_holm``: adjusted for all effects of its family, which are
            those of this figure that are interactions, or those that are not.
        confounded: settings that change along with the parts.
    """

    kind: Kind
    roles: str
    change: str
    figure: FigureName
    mean: Mean
    p_holm: float | None = None
    confounded: tuple[str, ...] = ()

    @property
    def reading(self) -> str:
        """What may be said of it, in words."""
        mean = self.mean
        if mean.low is None or mean.high is None or self.p_holm is None:
            return "no interval"
        if mean.low == mean.high == 0:
            return "none in any block" if self.kind == "interaction" else "no difference in any pair"
        if mean.low <= 0 <= mean.high:
            return "within noise"
        return "stands after Holm" if self.p_holm <= LEVEL else "95 % only, not after Holm"


@dataclass(frozen=True)
class Report:
    """What ``harness attribute`` says of one grid.

    Attributes:
        reference: the parts that others are compared with, in words.
        effects: of all figures, in order. ``interactions``: the same.
        figures: those reported. ``units``: the seeds (or trials, as ``unit`` says).
        notes: what a reader should know.
    """

    dataset: str
    protocol: str
    reference: str
    figures: tuple[FigureName, ...]
    unit: str
    units: tuple[int, ...]
    cells: int
    runs: int
    effects: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    notes: tuple[str, ...]

    def of(self, figure: FigureName, kinds: Iterable[Kind]) -> list[Effect]:
        """The effects of some kinds on one figure."""
        return [one for one in (*self.effects, *self.interactions) if one.figure == figure and one.kind in kinds]


def report_of(grid: Grid, figures: Sequence[FigureName]) -> Report:
    """The report of ``grid`` on ``figures``, which it must hold.

    Raises:
        AttributionError: there is one cell only, or no two cells have a run in common.
    """
    _require_pairs(grid)
    changes = changes_of(grid)
    effects = [one for figure in figures for one in _adjusted(_effects(grid, changes, figure))]
    interactions = [one for figure in figures for one in _adjusted(_interactions(grid, changes, figure))]
    return Report(
        dataset=grid.dataset,
        protocol=grid.protocol,
        reference=words(grid.reference),
        figures=tuple(figures),
        unit=grid.unit,
        units=tuple(grid.units),
        cells=len(grid.figures),
        runs=grid.runs,
        effects=tuple(effects),
        interactions=tuple(interactions),
        notes=(*grid.notes, *_notes(grid, changes)),
    )


def _require_pairs(grid: Grid) -> None:
    if len(grid.figures) < 2:
        raise AttributionError(
            f"The runs on {grid.dataset} ({grid.runs}) all have the same parts and settings: there is nothing to "
            "compare. Give runs that differ in a part, such as those of a sweep."
        )
    if all(a.keys().isdisjoint(b) for a, b in combinations(grid.figures.values(), 2)):
        raise AttributionError(
            f"No two of the {len(grid.figures)} cells on {grid.dataset} have a seed in common, so nothing can be "
            "paired: run the cells with the same seeds."
        )


def _effects(grid: Grid, changes: Changes, figure: FigureName) -> list[Effect]:
    found = []
    names = _names(changes)
    for change, partners in changes.items():
        pairs = [(beside | change.removed, beside | change.added) for beside in partners]
        found.append(
            Effect(
                kind="part" if change.single else "several",
                roles=" + ".join(map(printable, change.roles)),
                change=names[change],
                figure=figure,
                mean=mean_of([d for pair in pairs for d in _differences(grid, pair, (-1, 1), figure)]),
                confounded=change.settings,
            )
        )
    return found


def _interactions(grid: Grid, changes: Changes, figure: FigureName) -> list[Effect]:
    found = []
    names = _names(changes)
    for one, other in combinations([change for change in changes if not change.settings], 2):
        corners = blocks(grid, one, other, changes)
        differences = [d for cells in corners for d in _differences(grid, cells, (1, -1, -1, 1), figure)]
        if differences:
            roles = dict.fromkeys((*one.roles, *other.roles))
            text = f"{names[one]}  ×  {names[other]}"
            found.append(Effect("interaction", " × ".join(map(printable, roles)), text, figure, mean_of(differences)))
    return found


def _names(changes: Iterable[Change]) -> dict[Change, str]:
    """Changes in words; those that read alike (two recipes, ...) are numbered."""
    texts = [str(change) for change in changes]
    return {
        change: text if texts.count(text) == 1 else f"{text} [{texts[: number + 1].count(text)}]"
        for number, (change, text) in enumerate(zip(changes, texts, strict=True))
    }


def _differences(grid: Grid, cells: Sequence[Cell], signs: Sequence[int], figure: FigureName) -> list[Difference]:
    """The signed sums of runs that all of ``cells`` have; what the cells share are their partners."""
    runs: Sequence[Mapping[Run, Mapping[FigureName, float]]] = [grid.figures[cell] for cell in cells]
    shared = frozenset.intersection(*cells)
    return [
        Difference(sum(s * of[run][figure] for s, of in zip(signs, runs, strict=True)), grid.unit_of(run), shared)
        for run in runs[0]
        if all(run in of for of in runs)
    ]


def _adjusted(family: Sequence[Effect]) -> list[Effect]:
    adjusted = holm([effect.mean.p for effect in family])
    return [replace(effect, p_holm=p) for effect, p in zip(family, adjusted, strict=True)]


def _notes(grid: Grid, changes: Changes) -> list[str]:
    notes = []
    if len(grid.units) == 1:
        notes.append(
            f"There is one {grid.unit} only: what another would give cannot be known, so no interval is given and no "
            "effect can be told from noise."
        )
    elif len(grid.units) == 2:
        notes.append(f"There are two {grid.unit}s only: intervals are wide, and must be.")
    confounded = sorted({name for change in changes for name in change.settings})
    if confounded:
        notes.append(
            "CONFOUNDED: some parts never change without a setting besides them, so that their effect cannot be told "
            f"from that of the setting: {', '.join(map(printable, confounded))}. The first-named plugin's recipe rules "
            "a run; give all runs one (--recipe NAME)."
        )
    alone = {item for change in changes if change.single for item in change.items} | grid.reference
    never = [item for item in grid.items if item not in alone and any(item not in cell for cell in grid.figures)]
    parts = [str(item) for item in never if item.role != SETTING]
    if parts:
        notes.append(f"Never changed alone: {', '.join(parts)}.")
    return notes
