"""What changed between two boards, as Markdown for a pull request."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import RunError
from harness.evaluation.figures import FIGURE_NAMES, figure_header
from harness.leaderboard.board import Board, Row, Table
from harness.leaderboard.rows import DIGEST_LENGTH
from harness.leaderboard.table import escape_markdown
from harness.leaderboard.tables import two_decimals
from harness.reading import printable


def changes(before: Board, after: Board) -> str:
    """Rows that were added, removed or changed, table by table."""
    old, new = ({table.identifier: table for table in board.tables} for board in (before, after))
    identifiers = [*new, *(identifier for identifier in old if identifier not in new)]
    found = [_of_table(old.get(identifier), new.get(identifier)) for identifier in identifiers]
    return "\n".join(filter(None, found)) or "The boards do not differ in any row.\n"


def _of_table(before: Table | None, after: Table | None) -> str:
    from tabulate import tabulate

    old, new = ({row.identifier: row for row in table.rows} if table else {} for table in (before, after))
    lines = [_added(new[name]) for name in new if name not in old]
    lines += [_removed(old[name]) for name in old if name not in new]
    lines += [line for name in new if name in old and (line := _changed(old[name], new[name]))]
    named = after or before
    if not lines or named is None:
        return ""
    what = " (new table)" if before is None else " (table removed)" if after is None else ""
    headers = ["", "method", "rank-1", "mAP", "verified", "what changed"]
    body = [[escape_markdown(cell) for cell in line] for line in lines]
    drawn = tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True)
    return f"## {escape_markdown(named.title)}{what}\n\n{drawn}\n"


def _added(row: Row) -> list[str]:
    return ["added", _name(row), *_figures(row), row.verified, "; ".join(row.marks)]


def _removed(row: Row) -> list[str]:
    return ["removed", _name(row), *_figures(row), row.verified, ""]


def _changed(before: Row, after: Row) -> list[str] | None:
    what = [*_figure_changes(before, after), *_other_changes(before, after)]
    return ["changed", _name(after), *_figures(after), after.verified, "; ".join(what)] if what else None


def _name(row: Row) -> str:
    return f"{row.method} (settings {row.settings[:DIGEST_LENGTH]})" if row.kind == "run" else row.method


def _figures(row: Row) -> list[str]:
    return [two_decimals(row.figures.get("rank1")), two_decimals(row.figures.get("mAP"))]


def _figure_changes(before: Row, after: Row) -> list[str]:
    found = []
    for figure in FIGURE_NAMES:
        old, new = before.figures.get(figure), after.figures.get(figure)
        if two_decimals(old) == two_decimals(new):
            continue
        points = f" ({new.mean - old.mean:+.2f})" if old and new else ""
        found.append(f"{figure_header(figure)} was {two_decimals(old) or 'not there'}{points}")
    return found


def _other_changes(before: Row, after: Row) -> list[str]:
    """Everything else of a row that a reader would want to have noticed."""
    pairs = {
        "verified": (before.verified, after.verified),
        "group": (before.group, after.group),
        "seeds": (", ".join(map(str, before.seeds)), ", ".join(map(str, after.seeds))),
        "trials": (before.trials, after.trials),
        "records": (", ".join(before.records), ", ".join(after.records)),
        "source": (before.source, after.source),
        "extra information": (", ".join(before.extra_information), ", ".join(after.extra_information)),
        "remarks": ("; ".join(before.marks), "; ".join(after.marks)),
    }
    return [f"{name} was {old or 'none'}" for name, (old, new) in pairs.items() if old != new]


@contextmanager
def board_at(revision: str, folder: Path) -> Iterator[Path]:
    """The folder as it was at a git revision of the checkout that it stands in, for the time of the block.

    Raises:
        RunError: no checkout, no such revision, or no such folder in it.
    """
    # A revision that begins with a hyphen would be an option of git's
    if revision.startswith("-"):
        raise RunError(f"{revision!r} is no git revision.")
    with TemporaryDirectory() as temporary:
        command = ["git", "-C", str(folder), "archive", "--format=tar", revision, "."]
        try:
            packed = subprocess.run(command, capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            said = printable((getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip())
            raise RunError(f"git cannot show {folder} at revision {revision!r}: {said}.") from error
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(temporary, filter="data")
        yield Path(temporary)
