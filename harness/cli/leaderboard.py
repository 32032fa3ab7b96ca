"""``harness leaderboard``: tables from run records, and the board in a repository."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.progress import counting
from harness.errors import RunError, SettingsError

if TYPE_CHECKING:
    from harness.evaluation import Figures
    from harness.leaderboard import Record

BOARD = Path("leaderboards")

_board = click.option(
    "--board", type=click.Path(path_type=Path), default=BOARD, show_default=True, help="Folder of the board."
)
_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
_permutations = click.option(
    "--permutations", type=click.Path(path_type=Path), help="The official rand_perm_cam.mat (O protocols)."
)
_runs = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group(name="leaderboard")
def leaderboard_group() -> None:
    """Tables of results, and the board in a repository."""


@leaderboard_group.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--all-protocols", is_flag=True, help="Every protocol of a record, not only its first.")
@_debug
def show(paths: tuple[Path, ...], all_protocols: bool, debug: bool) -> None:
    """Print the table of the run records under PATHS (default: runs/), several seeds as mean ± standard deviation."""
    from harness.leaderboard.table import find_records, leaderboard, render_markdown

    records = find_records(paths or (Path("runs"),))
    primary = None if all_protocols else sorted({record.primary_protocol for record in records})
    click.echo(render_markdown(leaderboard(records, protocols=primary)), nl=False)


@leaderboard_group.command()
@_runs
@_board
@click.option("--allow-dirty", is_flag=True, help="Also runs of uncommitted code; their rows are marked.")
@click.option("--new-dataset", is_flag=True, help="Add the version of the dataset to the board's list.")
@_permutations
@_debug
def add(
    runs: tuple[Path, ...],
    board: Path,
    allow_dirty: bool,
    new_dataset: bool,
    permutations: Path | None,
    debug: bool,
) -> None:
    """File the records of RUNS, which are run folders or record files. All are checked before the first is filed.

    Where a run's embeddings are still there, its figures are computed from them again, and that is noted.
    """
    from harness.leaderboard import filing
    from harness.leaderboard.versions import VERSIONS_NAME, add_version, read_versions, version_of

    admitted: dict[str, tuple[Record, dict[str, Figures] | None]] = {}
    for run in runs:
        record = _record(run)
        if not allow_dirty:
            filing.require_committed_code(record)
        filing.require_new(record, board)
        if filing.filed_name(record) in admitted:
            raise RunError(f"Run {record.name!r} is named twice.")
        filing.require_sound(record)
        if not new_dataset:
            filing.require_known_version(record, read_versions(board / VERSIONS_NAME))
        admitted[filing.filed_name(record)] = record, _rescored(run, permutations)
    for record, figures in admitted.values():
        if version_of(record.dataset, read_versions(board / VERSIONS_NAME)) is None:
            add_version(board / VERSIONS_NAME, record.dataset)
        click.echo(f"filed: {filing.file_record(board, record)}")
        if figures is not None:
            click.echo(f"re-scored: {filing.file_rescoring(board, record, figures)}")


@leaderboard_group.command()
@_runs
@_board
@_permutations
@_debug
def rescore(runs: tuple[Path, ...], board: Path, permutations: Path | None, debug: bool) -> None:
    """Compute the figures of RUNS, folders of runs that are on the board, from their embeddings again; note it."""
    from harness.leaderboard import filing

    for run in runs:
        record, figures = _record(run), _rescored(run, permutations)
        if figures is None:
            raise RunError(f"{run} holds no embeddings: give the folder of the run.")
        click.echo(f"re-scored: {filing.file_rescoring(board, record, figures)}")


@leaderboard_group.command()
@_board
@click.option("--check", is_flag=True, help="Write nothing; fail if anything is not as it would be made.")
@_debug
def build(board: Path, check: bool, debug: bool) -> None:
    """Make tables, index and page of the board from its records and published figures."""
    from harness.leaderboard import build as building

    if not check:
        for line in building.build(board) or [f"{board} is as it should be."]:
            click.echo(line)
        return
    found = building.differences(board)
    for line in found:
        click.echo(line)
    if found:
        raise RunError(
            f"{len(found)} files of {board} are not what its records make: run `harness leaderboard build` and commit "
            "what it writes."
        )
    click.echo(f"{board} is as it should be.")


@leaderboard_group.command()
@click.argument("boards", nargs=-1, type=click.Path(path_type=Path))
@click.option("--against", metavar="REV", help="Compare with the same folder at this git revision.")
@_debug
def diff(boards: tuple[Path, ...], against: str | None, debug: bool) -> None:
    """Print what changed from one board to another, as Markdown for a pull request.

    \b
    harness leaderboard diff OLD NEW              two folders
    harness leaderboard diff --against main       leaderboards/ as it was at main, and as it is
    """
    from harness.leaderboard.build import load_board
    from harness.leaderboard.diff import board_at, changes

    with ExitStack() as stack:
        if against is not None and len(boards) < 2:
            after = boards[0] if boards else BOARD
            before = stack.enter_context(board_at(against, after))
        elif against is None and len(boards) == 2:
            before, after = boards
        else:
            raise SettingsError("Give either two folders of boards, or --against REV and at most one folder.")
        click.echo(changes(load_board(before), load_board(after)), nl=False)


def _record(run: Path) -> Record:
    from harness.leaderboard import RECORD_NAME, read_record

    return read_record(run / RECORD_NAME if run.is_dir() else run)


def _rescored(run: Path, permutations: Path | None) -> dict[str, Figures] | None:
    """The figures that a run's embeddings give; None where there are none. Refuses other figures than the record's."""
    from harness.engine.folder import RunFolder
    from harness.engine.rescore import rescore
    from harness.leaderboard.filing import require_same_figures

    if not run.is_dir() or not RunFolder(run).embeddings.exists():
        return None
    with counting("scoring", "queries") as progress:
        found = rescore(run, permutations=permutations, progress=progress)
    require_same_figures(found.record, found.figures)
    return found.figures
