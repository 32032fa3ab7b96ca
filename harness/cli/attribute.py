"""``harness attribute``: what each part of a grid of runs is worth."""

from __future__ import annotations

from pathlib import Path

import click

FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", metavar="NAME", help="Which dataset, if the records are of several (rendered-small-1).")
@click.option("--protocol", metavar="NAME", help="Which protocol, if not the first of the records.")
@click.option(
    "--metric", "metrics", multiple=True, type=click.Choice(FIGURES), help="Repeatable.  [default: rank1 and mAP]"
)
@click.option("--markdown", "markdown_file", type=_file, help="Also write the tables to this file.")
@click.option("--csv", "csv_file", type=_file, help="Also write one line per effect and figure to this file.")
@click.option("--plot", "plot_file", type=_file, help="Also draw the effects to this file (svg, pdf or png).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def attribute(
    folders: tuple[Path, ...],
    dataset: str | None,
    protocol: str | None,
    metrics: tuple[str, ...],
    markdown_file: Path | None,
    csv_file: Path | None,
    plot_file: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Print what each part is worth: paired differences over the runs under FOLDERS.

    Runs are paired that differ in one part (or option, or setting) alone, with the same seed and the same partners. A
    sweep's folder, a folder of runs, single runs and a board's folder will do.

    \b
    harness attribute sweeps/parts --plot parts.svg
    harness attribute runs/ --metric mINP --markdown parts.md
    """
    from harness.attribution import grid_of, read_records, report_of, tables
    from harness.attribution.plot import require_format, write_plot
    from harness.files import replace_text

    if plot_file is not None:
        require_format(plot_file)
    figures = tuple(dict.fromkeys(metrics)) or ("rank1", "mAP")
    grid = grid_of(read_records(folders), figures, dataset=dataset, protocol=protocol)  # type: ignore[arg-type]
    report = report_of(grid, figures)  # type: ignore[arg-type]
    click.echo(tables.as_json(report) if as_json else tables.markdown(report), nl=False)
    for file, write in ((markdown_file, tables.markdown), (csv_file, tables.comma_separated)):
        if file is not None:
            replace_text(file, write(report))
    if plot_file is not None:
        write_plot(report, plot_file)
