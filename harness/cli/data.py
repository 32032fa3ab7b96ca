"""``harness data``: draw the rendered dataset, check a dataset on disk."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from harness.cli.progress import counting

LAYOUTS = ["sysu-mm01", "regdb"]


@click.group()
def data() -> None:
    """Make and check datasets."""


@data.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to make; must not exist or be empty."
)
@click.option(
    "--layout", type=click.Choice(LAYOUTS), default="sysu-mm01", show_default=True, help="Dataset to imitate."
)
@click.option("--size", type=click.Choice(["tiny", "small", "full"]), default="small", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Dataset seed.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; default: one, or all cores for a large dataset."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def render(out: Path, layout: str, size: str, seed: int, workers: int | None, debug: bool) -> None:
    """Write the rendered dataset in the layout of SYSU-MM01 (near infrared) or of RegDB (thermal)."""
    from harness.data.rendered import write_rendered

    with counting("rendering", "images") as progress:
        write_rendered(out, layout=layout, size=size, seed=seed, progress=progress, workers=workers)
    click.echo(f"Wrote {out}. Check it with: harness data check {shlex.quote(str(out))}")


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--dataset",
    type=click.Choice(["auto", *LAYOUTS]),
    default="auto",
    show_default=True,
    help="Whose layout FOLDER has; auto: told by its folders.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def check(folder: Path, dataset: str, debug: bool) -> None:
    """Count the images of FOLDER, decode every one of them, and compare with the published dataset.

    Exit status 1 if something is missing or damaged. Counts other than the published ones are said, but are no error.
    """
    from harness.data.check import check_dataset, format_check

    with counting("decoding", "images") as progress:
        report = check_dataset(folder, dataset=dataset, progress=progress)
    click.echo(format_check(report))
    if not report.ok:
        raise SystemExit(1)
