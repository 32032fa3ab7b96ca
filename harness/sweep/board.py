"""The board of a sweep: the figures of its finished cells, and which cells stand behind a row."""

from __future__ import annotations

from collections.abc import Sequence

from harness.files import replace_text
from harness.leaderboard import Record, leaderboard, read_record, render_markdown, settings_digest
from harness.leaderboard.table import escape_markdown
from harness.sweep.cells import Cell, described
from harness.sweep.folder import SweepFolder

_DIGEST_LENGTH = 8  # as the table has it


def write_board(folder: SweepFolder, cells: Sequence[Cell]) -> str:
    """Write ``board.md`` of the finished ones among ``cells``; returns its text."""
    done = [(cell, read_record(folder.run(cell.name).record)) for cell in cells if folder.done(cell)]
    text = _text(done, total=len(cells))
    replace_text(folder.board, text)
    return text


def _text(done: Sequence[tuple[Cell, Record]], *, total: int) -> str:
    records = [record for _, record in done]
    primary = sorted({record.primary_protocol for record in records})
    tables = render_markdown(leaderboard(records, protocols=primary))
    missing = f"\n{len(done)} of {total} cells are done.\n" if len(done) < total else ""
    return f"{tables}{missing}{_legend(done)}"


def _legend(done: Sequence[tuple[Cell, Record]]) -> str:
    """What the digests stand for, as far as the grid tells cells apart."""
    told: dict[str, str] = {}
    for cell, record in done:
        digest = settings_digest(record)[:_DIGEST_LENGTH]
        axes = {key: value for key, value in cell.coordinates.items() if key not in ("seed", "trial", "dataset")}
        told.setdefault(digest, described(axes))
    lines = [f"- {digest}: {escape_markdown(text)}" for digest, text in told.items()]
    return "\nSettings:\n\n" + "\n".join(lines) + "\n" if lines else ""
