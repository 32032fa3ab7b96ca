"""``harness protocols``: what each evaluation identifier stands for."""

from __future__ import annotations

import textwrap

import click

_INDENT, _WIDTH = 14, 110


@click.command()
@click.argument("name", required=False)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def protocols(name: str | None, debug: bool) -> None:
    """Define every evaluation protocol, or those whose identifier begins with NAME.

    Figures are recorded under these identifiers; tables never mix two. A change of a definition gets a new version.
    """
    from harness.evaluation import protocols_beginning

    for protocol in protocols_beginning(name or ""):
        click.echo(protocol.identifier)
        for subject, words in protocol.definition().items():
            lead = f"  {subject:<{_INDENT - 2}}"
            click.echo(textwrap.fill(words, _WIDTH, initial_indent=lead, subsequent_indent=" " * _INDENT))
        click.echo()
