"""``harness report``: what happened in one run or several, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.errors import SettingsError
from harness.reading import shown


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page. Default: RUN/report.html; of several: report.html."
)
@click.option("--plots", type=click.Path(path_type=Path), help="Also write each drawing to this folder, for a paper.")
@click.option("--format", "formats", default="svg", show_default=True, help="Of those files: svg, pdf or svg,pdf.")
@click.option(
    "--map", "projection", type=click.Choice(["pca", "tsne"]), default="pca", show_default=True, help="Embedding map."
)
@click.option("--protocol", "name", help="Protocol of the retrieval sheets. Default: the primary one.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is sampled.")
@click.option("--observers", help="Plugins that add sections, separated by commas, beside those of the runs.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def report(runs: tuple[Path, ...], out: Path | None, plots: Path | None, formats: str, **flags: Any) -> None:
    """Write a report of the runs in folders RUN, finished or not: one HTML file that needs no network.

    \b
    harness report runs/demo
    harness report runs/a runs/b --out compared.html
    harness report runs/demo --plots figures --format svg,pdf
    """
    kinds = tuple(dict.fromkeys(kind.strip() for kind in formats.split(",") if kind.strip()))
    if not kinds or not set(kinds) <= {"svg", "pdf"}:
        raise SettingsError(f"--format takes svg, pdf or svg,pdf; got {formats!r}.")
    from harness.evaluation import protocol
    from harness.report import Choices, write_report

    choices = Choices(
        projection=flags["projection"],
        seed=flags["seed"],
        protocol=protocol(flags["name"]) if flags["name"] else None,
        observers=tuple(name.strip() for name in (flags["observers"] or "").split(",") if name.strip()),
    )
    made = write_report(runs, out, choices=choices, plots=plots, formats=kinds)  # type: ignore[arg-type]
    for note in made.notes:
        click.echo(f"note: {shown(note)}")
    click.echo(f"report: {made.page} ({made.size / 1e6:.1f} MB)")
    if made.plots:
        click.echo(f"{len(made.plots)} drawings in {plots}")
