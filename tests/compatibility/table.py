"""``python -m tests.compatibility.table`` trains the full product and writes ``docs/compatibility.md``."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path

from harness.errors import HarnessError
from tests.compatibility.product import (
    GAPS,
    NONE,
    ROLES,
    Cell,
    Gap,
    cells,
    covering,
    declared,
    parts,
    selected,
    shares,
    tried,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

PROSE = """\
# Compatibility

Written by `python -m tests.compatibility.table`, which trains every combination; the tests hold it to that.

Any clusterer, any label refiner or none, any memory and any loss of this repository, {cells} combinations, each as a
tiny run of exactly these four parts: 96 rendered images, one epoch without and one with cross-modality evidence. A
combination *trains* if it ends without an error and some term of its loss is finite and above 0.

| role | parts | |
|:--|--:|:--|
{roles}

**{trains} of {cells} combinations train. {gaps} are declared not to; none fails.**

{reasons}

By name, `harness run` reaches every pair of parts below. {covering} of these combinations, which together hold every
pair of parts of two roles, are selected with `--plugins` (and `--clusterer`, `--memory` where several are offered) and
trained. In {exact} of them the run has these four parts and no others; in the rest a named plugin brings parts beside
the one it is named for, and these train along.

## Pairs

✓: all combinations that hold both train. ✓¹: all but those declared above.
"""

_REASON = (
    "{losses}, alone: {reason}. A combination trains if it has one of {needed}. No selection by name gives the others: "
    "the plugins that bring these losses bring `contrast` with them. A run in which no loss has a term trains nothing, "
    "and its record warns of it."
)


def document() -> str:
    """The whole file, from what is declared."""
    every, chosen = cells(), covering()
    trains = sum(declared(cell) is None for cell in every)
    text = PROSE.format(
        cells=f"{len(every):,}",
        trains=f"{trains:,}",
        gaps=len(every) - trains,
        roles="\n".join(_role(role) for role in ROLES),
        reasons="\n".join(_reason(gap) for gap in GAPS),
        covering=len(chosen),
        exact=sum(_is_exact(cell) for cell in chosen),
    )
    return text + "".join(f"\n{table}\n" for table in (_table(*pair) for pair in itertools.combinations(ROLES, 2)))


def _role(role: str) -> str:
    names = parts(role)
    return f"| {role} | {len(names)} | {', '.join(_code(name) for name in names)} |"


def _reason(gap: Gap) -> str:
    needed = (*gap.clusterers, *gap.refiners)
    losses = " and ".join(map(_code, gap.losses))
    text = _REASON.format(losses=losses, reason=gap.reason, needed=", ".join(map(_code, needed)))
    return textwrap.fill(text, 118, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _is_exact(cell: Cell) -> bool:
    return len(selected(cell).parts) == sum(name != NONE for name in cell)


def _table(one: str, other: str) -> str:
    found = shares(one, other)
    rows, columns = (parts(role) for role in sorted((one, other), key=lambda role: -len(parts(role))))
    across = len(parts(one)) >= len(parts(other))
    lines = [f"| {' / '.join((one, other) if across else (other, one))} | {' | '.join(map(_code, columns))} |"]
    lines.append("|:--|" + ":-:|" * len(columns))
    for row in rows:
        marks = [_mark(*found[(row, column) if across else (column, row)]) for column in columns]
        lines.append(f"| {_code(row)} | {' | '.join(marks)} |")
    return "\n".join(lines)


def _mark(trains: int, count: int) -> str:
    return {count: "✓", 0: "none"}.get(trains, "✓¹")


def _code(name: str) -> str:
    return name if name == NONE else f"`{name}`"


def observe() -> list[str]:
    """Train every combination; those that did otherwise than is declared, in words."""
    found = []
    for cell in cells():
        try:
            seen = tried(cell)
        except HarnessError as error:
            seen = f"{type(error).__name__}: {error}"
        if (seen is None) != (declared(cell) is None):
            found.append(f"{', '.join(cell)}: {seen or 'trains, though it is declared not to'}")
    return found


def main() -> None:
    import torch

    torch.set_num_threads(1)
    unexpected = observe()
    if unexpected:
        sys.exit("\n".join(unexpected))
    DOCUMENT.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
