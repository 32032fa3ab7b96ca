"""A board's folder: what is read from it, what is made in it, and whether the two fit.

    published.csv  datasets.toml  records/  rescored/     kept, by hand or by ``harness leaderboard add``
    README.md  tables/  site/                             made from them; the same bytes whenever and wherever

Other files are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import RunError
from harness.files import replace_text
from harness.leaderboard.board import Board
from harness.leaderboard.filing import read_filed
from harness.leaderboard.published import PUBLISHED_NAME, read_published
from harness.leaderboard.rows import board_of
from harness.leaderboard.site import build_site
from harness.leaderboard.tables import index, table_files
from harness.leaderboard.versions import VERSIONS_NAME, read_versions

INDEX, TABLES, SITE = "README.md", "tables", "site"


def load_board(folder: Path) -> Board:
    """The board of the records and published figures in ``folder``.

    Raises:
        RunError: there is no such folder, or a record in it is not to be trusted.
        DataError: published figures or dataset versions that cannot be read.
    """
    if not folder.is_dir():
        raise RunError(f"There is no board at {folder}; name one with --board FOLDER.")
    return board_of(read_filed(folder), read_published(folder / PUBLISHED_NAME), read_versions(folder / VERSIONS_NAME))


def write_board(board: Board, folder: Path) -> None:
    """Write everything that is made from ``board`` to an empty ``folder``."""
    (folder / TABLES).mkdir(parents=True)
    for name, text in table_files(board).items():
        replace_text(folder / TABLES / name, text)
    build_site(board, folder / SITE)
    replace_text(folder / INDEX, index(board))


def differences(folder: Path) -> list[str]:
    """What in ``folder`` is not what would be made there, as ``"missing: PATH"``; empty if all is."""
    return [f"{what}: {path}" for path, what, _ in _compared(folder, _made(folder))]


def build(folder: Path) -> list[str]:
    """Make in ``folder`` what is not there as it should be, and remove what is left over; what was done."""
    done = []
    for path, _, content in _compared(folder, _made(folder)):
        if content is None:
            (folder / path).unlink()
        else:
            _put(folder / path, content)
        done.append(f"{'removed' if content is None else 'written'}: {path}")
    for part in (TABLES, SITE):
        _remove_empty(folder / part)
    return done


def _made(folder: Path) -> dict[str, bytes]:
    """The bytes of everything that belongs in ``folder``, by path."""
    board = load_board(folder)
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        write_board(board, place)
        return {path: (place / path).read_bytes() for path in _files(place)}


def _compared(folder: Path, made: dict[str, bytes]) -> Iterator[tuple[str, str, bytes | None]]:
    """Path, what is the matter, and the bytes that belong there (None: nothing does)."""
    there = {path: (folder / path).read_bytes() for path in _files(folder)}
    for path in sorted({*made, *there}):
        if path not in there:
            yield path, "missing", made[path]
        elif path not in made:
            yield path, "left over", None
        elif made[path] != there[path]:
            yield path, "different", made[path]


def _files(folder: Path) -> list[str]:
    """What is made in ``folder``, by path."""
    found = [path for part in (TABLES, SITE) for path in (folder / part).rglob("*") if not path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in [*found, folder / INDEX] if path.exists())


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(content)
    aside.replace(path)


def _remove_empty(folder: Path) -> None:
    for place in sorted(folder.rglob("*"), reverse=True):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
