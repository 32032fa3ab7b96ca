"""``harness check``: the conformance kit on one plugin."""

from __future__ import annotations

import sys

import click
from rich.console import Console


@click.command()
@click.argument("name")
@click.option("--full", is_flag=True, help="Train beside every combination of partners, not only beside each.")
@click.option("--check", "only", multiple=True, metavar="CHECK", help="Try this check only; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def check(name: str, full: bool, only: tuple[str, ...], as_json: bool, debug: bool) -> None:
    """Try whether the parts of the plugin NAME keep the rules that parts must keep.

    On toy feature sets and a tiny rendered set, on the CPU: contracts, repetition under a seed, resumption, hard cases,
    hidden identities, options, and an epoch beside every in-tree part. Exits with 1 if a check fails, or passes though
    the plugin declares that it fails.
    """
    import torch

    from harness.testing import Session

    torch.set_num_threads(1)  # toy sizes: beside other busy processes, threads that wait for one another cost most
    report = Session(name, full=full, only=only).report()
    if as_json:
        click.echo(report.to_json())
    else:
        console = Console()
        console.print(report.table(), emoji=False)
        console.print(report.summary, markup=False, highlight=False, emoji=False)
    sys.exit(0 if report.ok else 1)
