"""``harness data``: draw the rendered dataset, check a dataset on disk."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.progress import counting


@click.group()
def data() -> None:
    """Make and check datasets."""


@data.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to make; must not exist or be empty."
)
@click.option("--size", type=click.Choice(["tiny", "small", "full"]), default="small", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Dataset seed.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: all cores.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def render(out: Path, size: str, seed: int, workers: int | None, debug: bool) -> None:
    """Write the rendered dataset in the layout of SYSU-MM01."""
    from harness.data.rendered import write_rendered

    with counting("rendering", "images") as progress:
        write_rendered(out, size=size, seed=seed, progress=progress, workers=workers)
    click.echo(f"Wrote {out}. Check it with: harness data check {out}")


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def check(folder: Path, debug: bool) -> None:
    """Count the images of FOLDER (layout of SYSU-MM01) per camera and split, and decode every one of them.

    Exit status 1 if something is missing or damaged.
    """
    from harness.data.sysu_mm01 import check_sysu_mm01, format_check

    with counting("decoding", "images") as progress:
        report = check_sysu_mm01(folder, progress=progress)
    click.echo(format_check(report))
    if not report.ok:
        raise SystemExit(1)
