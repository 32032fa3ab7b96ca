"""What tells two cells of a grid apart, and which of these changes say something of one part.

A change is the items that one cell has instead of another's: another clusterer, one refiner more, an option's next
value. Every pair of cells is a change; those are kept that begin at the reference and are not made of smaller ones that
are there as well. A part that never changes alone stays in a change of several items (the refiner and the loss that one
plugin brings together; a method and its recipe), which is named for what it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.attribution.grid import SETTING, Cell, Grid, Item, cell_order
from harness.reading import printable

_LONGEST_LIST = 4


@dataclass(frozen=True)
class Change:
    """From a cell with ``removed`` to one with ``added``; all else is the *partners*."""

    removed: Cell
    added: Cell

    @property
    def items(self) -> Cell:
        """All that differs."""
        return self.removed | self.added

    @property
    def roles(self) -> tuple[str, ...]:
        """Those of the parts that differ, in the order of the pipeline; ``("setting",)`` if only settings do."""
        ordered = sorted(self.items, key=lambda item: item.order)
        return tuple(dict.fromkeys(item.role for item in ordered if item.role != SETTING)) or (SETTING,)

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that differ, if parts do as well: what the effect of the parts cannot be told from."""
        names = {item.name for item in self.items if item.role == SETTING}
        return tuple(sorted(names)) if self.roles != (SETTING,) else ()

    @property
    def single(self) -> bool:
        """Whether it is of one role, or of one setting."""
        settings = {item.name for item in self.items if item.role == SETTING}
        return len(self.roles) == 1 and len(settings) <= (self.roles == (SETTING,))

    @property
    def reverse(self) -> Change:
        """The way back."""
        return Change(self.added, self.removed)

    @property
    def order(self) -> tuple[Any, ...]:
        """Single changes before those of several items, in the order of the pipeline."""
        first = min(item.order[0] for item in self.items if item.role != SETTING or self.roles == (SETTING,))
        return not self.single, first, len(self.items), cell_order(self.removed), cell_order(self.added)

    def apply(self, cell: Cell) -> Cell | None:
        """``cell`` after the change; None if it lacks what goes, or has what comes."""
        fits = self.removed <= cell and not self.added & cell
        return (cell - self.removed) | self.added if fits else None

    def __str__(self) -> str:
        parts = [text for role in self.roles if role != SETTING for text in _in_words(self, role)]
        settings = sorted({item.name for item in self.items if item.role == SETTING})
        if not settings:
            return ", ".join(parts)
        if not parts and len(settings) == 1:
            (before,), (after,) = self.removed, self.added
            return f"{printable(settings[0])} {printable(before.value)} → {printable(after.value)}"
        return ", ".join([*parts, *_grouped(settings)])


def _in_words(change: Change, role: str) -> list[str]:
    removed, added = (
        sorted((i for i in side if i.role == role), key=lambda i: i.order) for side in (change.removed, change.added)
    )
    if not removed or not added:
        return [f"+ {item}" for item in added] + [f"− {item}" for item in removed]
    if len(removed) == len(added) == 1 and removed[0].name == added[0].name:
        before, after = _values_that_differ(removed[0].value, added[0].value)
        return [f"{printable(added[0].name)}: {before} → {after}"]
    return [f"{' + '.join(map(str, removed))} → {' + '.join(map(str, added))}"]


def _values_that_differ(before: str, after: str) -> tuple[str, str]:
    """``a=1, b=2`` and ``a=1, b=3`` as ``b=2`` and ``3``."""
    one, other = before.split(", "), after.split(", ")
    if len(one) != len(other):
        return printable(before), printable(after)
    changed = [(b, a) for b, a in zip(one, other, strict=True) if a != b]
    name = changed[0][0].partition("=")[0]
    if len(changed) == 1 and changed[0][1].startswith(f"{name}="):
        return printable(changed[0][0]), printable(changed[0][1].removeprefix(f"{name}="))
    return tuple(", ".join(printable(pair[n]) for pair in changed) for n in (0, 1))  # type: ignore[return-value]


def _grouped(settings: Iterable[str]) -> list[str]:
    """``recipe (stages, step)``: names by section, few of many."""
    sections: defaultdict[str, list[str]] = defaultdict(list)
    for name in settings:
        section, _, field = name.partition(".")
        sections[section].append(field)
    found = []
    for section, fields in sections.items():
        named = [printable(field) for field in fields if field]
        more = [f"{len(named) - _LONGEST_LIST} more"] if len(named) > _LONGEST_LIST else []
        inner = ", ".join([*named[:_LONGEST_LIST], *more])
        found.append(printable(section) + (f" ({inner})" if inner else ""))
    return found


Changes = dict[Change, list[Cell]]
"""Of each change, the partners it was made beside, in order."""


def changes_of(grid: Grid) -> Changes:
    """The changes of a grid that say something of one part, or of parts that never change apart; in order."""
    observed = _observed(grid)
    forward = [change for change in observed if _is_forward(change, grid)]
    aside = [change for change in observed if change.single and not _is_forward(change, grid)]
    kept: dict[Change, None] = {}
    for change in sorted(forward, key=_by_size):
        if not _is_made_of([*kept], change):
            kept[change] = None
    for change in sorted(aside, key=_by_size):
        if change.reverse not in kept and not _is_made_of([*kept], change) and not _is_between([*kept], change):
            kept[change] = None
    return {change: sorted(observed[change], key=cell_order) for change in sorted(kept, key=lambda c: c.order)}


def _observed(grid: Grid) -> Changes:
    """The changes from any cell to any other that has a run in common with it."""
    found: defaultdict[Change, list[Cell]] = defaultdict(list)
    for before, runs in grid.figures.items():
        for after, others in grid.figures.items():
            if before is not after and not runs.keys().isdisjoint(others):
                found[Change(before - after, after - before)].append(before & after)
    return found


def _by_size(change: Change) -> tuple[Any, ...]:
    return len(change.items), change.order


def _is_forward(change: Change, grid: Grid) -> bool:
    """Whether a change begins at the reference; of a change and its reverse, at most one does."""
    ways = [way for way in (change, change.reverse) if _begins_at_reference(way, grid)]
    return bool(ways) and min(ways, key=_by_what_comes) == change


def _by_what_comes(change: Change) -> tuple[Any, ...]:
    """Adding a part before taking one away; the lower value of a setting before the higher."""
    return -sum(item.role != SETTING for item in change.added), cell_order(change.removed)


def _begins_at_reference(change: Change, grid: Grid) -> bool:
    return all(
        item.role == SETTING or item in grid.reference or _is_first_variant(item, change, grid)
        for item in change.removed
    )


def _is_first_variant(item: Item, change: Change, grid: Grid) -> bool:
    """Whether a part gives way to itself with other options, and is the first of these in the grid."""
    to_itself = any((other.role, other.name) == (item.role, item.name) for other in change.added)
    return to_itself and item in grid.first_variants


def _is_made_of(smaller: Collection[Change], change: Change) -> bool:
    """Whether a change is several of ``smaller``, taken in either direction, one after another."""
    for part in (way for other in smaller for way in (other, other.reverse)):
        if part != change and part.removed <= change.removed and part.added <= change.added:
            rest = Change(change.removed - part.removed, change.added - part.added)
            if rest in smaller or rest.reverse in smaller or _is_made_of(smaller, rest):
                return True
    return False


def _is_between(kept: Collection[Change], change: Change) -> bool:
    """Whether both ends of a change are compared with one and the same third."""
    origins = {other.removed for other in kept if other.added == change.removed}
    return any(other.added == change.added and other.removed in origins for other in kept) or (
        change.order > change.reverse.order
    )


def blocks(grid: Grid, one: Change, other: Change, partners: Mapping[Change, list[Cell]]) -> list[tuple[Cell, ...]]:
    """The complete 2 x 2 blocks: cells without, with ``one``, with ``other`` and with both, all else equal."""
    if one.items & other.items:
        return []
    found = []
    for beside in partners[one]:
        base = beside | one.removed
        corners = (base, one.apply(base), other.apply(base))
        both = other.apply(corners[1]) if corners[1] is not None else None
        cells = (*corners, both)
        if all(cell is not None and cell in grid.figures for cell in cells):
            found.append(cells)
    return found  # type: ignore[return-value]
