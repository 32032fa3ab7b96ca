"""``harness leaderboard``: tables from run records."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(name="leaderboard")
def leaderboard_group() -> None:
    """Tables of results."""


@leaderboard_group.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--all-protocols", is_flag=True, help="Every protocol of a record, not only its first.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def show(paths: tuple[Path, ...], all_protocols: bool, debug: bool) -> None:
    """Print the table of the run records under PATHS (default: runs/), several seeds as mean ± standard deviation."""
    from harness.leaderboard.table import find_records, leaderboard, render_markdown

    records = find_records(paths or (Path("runs"),))
    primary = None if all_protocols else sorted({record.primary_protocol for record in records})
    click.echo(render_markdown(leaderboard(records, protocols=primary)), nl=False)
