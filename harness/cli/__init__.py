"""The command line: parse, call, print. ``harness --help`` and ``harness plugins`` load neither torch nor pandas."""

from __future__ import annotations

import shlex
import sys
import traceback

import click

from harness import __version__
from harness.cli.attribute import attribute
from harness.cli.check import check
from harness.cli.data import data
from harness.cli.evaluate import evaluate
from harness.cli.leaderboard import leaderboard_group
from harness.cli.new import new
from harness.cli.plugins import plugins
from harness.cli.protocols import protocols
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.sweep import sweep
from harness.errors import HarnessError, RunStopped
from harness.reading import shown


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Train, evaluate and compare methods for unsupervised visible-infrared person re-identification.

    \b
    harness run --plugins chcr,tsmem      train on the embedded rendered dataset
    harness plugins                       what can be combined
    harness new my-method                 a plugin package to start from
    harness check my-method               whether a plugin keeps its contracts
    harness evaluate --embeddings FILE    official figures of your own features
    harness report runs/NAME              what happened, as a page with pictures
    harness leaderboard show runs/        the figures of all runs
    harness sweep grid.toml               every combination of a grid of parts
    harness attribute runs/               what each part is worth
    """


for command in (run, report, evaluate, plugins, new, check, protocols, data, leaderboard_group, sweep, attribute):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script: errors become one paragraph and an exit code."""
    debug = "--debug" in sys.argv
    try:
        cli.main(standalone_mode=False)
    except RunStopped as stopped:
        again = [*(word for word in sys.argv[1:] if word not in ("--force", "--resume")), "--resume"]
        click.echo(f"\nharness: {stopped}. To go on: {shlex.join(['harness', *again])}", err=True)
        sys.exit(stopped.exit_code)
    except HarnessError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"harness: {shown(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f" ({error.filename})" if error.filename else ""
        click.echo(
            f"harness: {error.strerror or error}{where}. What was finished is kept; --debug shows more.", err=True
        )
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("harness: interrupted. `harness run ... --resume` goes on from the last checkpoint.", err=True)
        sys.exit(130)
