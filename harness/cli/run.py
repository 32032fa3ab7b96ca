"""``harness run``: settings from flags and files, then the engine."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import click

from harness.errors import HarnessError, SettingsError
from harness.machine import process_rank
from harness.reading import shown


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def numbers_of(flag: str, text: str) -> tuple[int, ...]:
    """``0,2,5-7`` as (0, 2, 5, 6, 7). Raises SettingsError for anything else."""
    numbers: dict[int, None] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            numbers.clear()
            break
        numbers.update(dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1)))
    if not numbers:
        raise SettingsError(f"{flag} takes whole numbers and ranges separated by commas: 0,1,2 or 1-10; got {text!r}.")
    return tuple(numbers)


@click.command()
@click.option("--plugins", help="Plugins by name, separated by commas, the ruling one first. Default: baseline.")
@click.option("--dataset", help="rendered (default), sysu-mm01, regdb, or a dataset of a plugin.")
@click.option("--data", "data_root", type=click.Path(path_type=Path), help="Folder of the dataset.")
@click.option("--settings", "settings_file", type=click.Path(path_type=Path), help="TOML file to start from.")
@click.option("--set", "assignments", multiple=True, metavar="NAME.OPTION=VALUE", help="Change a setting; repeatable.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the run (default 0).")
@click.option("--seeds", help="Several runs, one per seed: 0,1,2.")
@click.option("--trials", help="RegDB: several runs, one per trial: 1-10 or 1,2.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs in all, shared among the recipe's stages.")
@click.option("--iterations", type=click.IntRange(min=1), help="Iterations per epoch.")
@click.option("--clusterer", help="Which clusterer, if several plugins bring one.")
@click.option("--memory", help="Which memory, if several plugins bring one.")
@click.option("--recipe", "recipe_of", help="Whose recipe, if not the first plugin's.")
@click.option(
    "--reference",
    type=click.Choice(["pretrained", "supervised", "oracle-association"]),
    help="Make a reference row instead of a method's.",
)
@click.option("--eval-every", type=click.IntRange(min=0), help="Evaluate every n epochs (default: at the end only).")
@click.option("--device", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]))
@click.option("--devices", type=click.IntRange(min=1), help="Devices, with a process each (or start it by torchrun).")
@click.option("--threads", type=click.IntRange(min=0), help="CPU threads; 0 = all.")
@click.option("--name", help="Name of the run.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option(
    "--resume", is_flag=True, help="Go on from the last checkpoint of this run; finished runs are left alone."
)
@click.option("--force", is_flag=True, help="Replace an earlier run of the same name.")
@click.option("--observers", help="Plugins that follow the run, separated by commas: tensorboard.")
@click.option("--report", is_flag=True, help="Write the run's report at the end: RUN/report.html.")
@click.option("--profile", is_flag=True, help="Print at the end where the time went; write a trace beside the record.")
@click.option("--dry-run", is_flag=True, help="Print the resolved settings and stop.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def run(**flags: Any) -> None:
    """Train, evaluate and record a combination of plugins.

    \b
    harness run --plugins chcr,tsmem
    harness run --plugins pgm --seeds 0,1,2 --set pgm.matching=mutual
    harness run --plugins chcr --dataset sysu-mm01 --data DIR
    """
    if flags["resume"] and flags["force"]:
        raise SettingsError("--resume goes on and --force begins anew: give one of them.")
    if flags["seeds"] and flags["seed"] is not None:
        raise SettingsError("--seed gives one seed and --seeds several: use one of them.")
    try:
        plans = _planned(flags)
    except HarnessError as error:
        if process_rank():  # the first process has the same to say
            sys.exit(error.exit_code)
        raise
    from harness.cli.show import Terminal
    from harness.engine.run import run_planned
    from harness.settings import to_toml

    if flags["dry_run"]:
        click.echo("\n".join(to_toml(plan.settings) for plan in plans), nl=False)
        return
    how = {name: flags[name] for name in ("resume", "force", "profile")}
    for plan in plans:
        run_planned(plan, flags["out"], show=Terminal(reports=flags["report"]), **how)
    if process_rank():
        return
    if len(plans) > 1:
        from harness.leaderboard import find_records, leaderboard, render_markdown

        records = find_records([flags["out"] / str(plan.settings.name) for plan in plans])
        click.echo(f"\nAll {len(plans)} runs:\n\n" + render_markdown(leaderboard(records)), nl=False)
    if flags["report"]:
        for plan in plans:
            _report(flags["out"] / str(plan.settings.name))


def _report(folder: Path) -> None:
    """Write a run's report. The run is done and kept, whatever comes of it."""
    from harness.report import write_report

    try:
        made = write_report([folder])
    except HarnessError as error:
        click.echo(f"warning: the report was not written: {shown(str(error))}")
    else:
        click.echo(f"report: {made.page} ({made.size / 1e6:.1f} MB)")


def _planned(flags: dict[str, Any]) -> list[Any]:
    from harness.engine.plan import plan_run
    from harness.settings import make_settings

    return [plan_run(make_settings(values)) for values in _runs(flags)]


def _runs(flags: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of every run that is asked for: one per seed and trial."""
    from harness.settings import merge

    values = merge(*_layers(flags))
    seeds = numbers_of("--seeds", flags["seeds"]) if flags["seeds"] else (values.get("seed", 0),)
    trials = numbers_of("--trials", flags["trials"]) if flags["trials"] else (None,)
    runs = []
    for seed, trial in itertools.product(seeds, trials):
        one = merge(values, {"seed": seed}, {} if trial is None else {"data": {"trial": trial}})
        if "name" in values:
            suffixes = [f"-t{trial}"] * (len(trials) > 1) + [f"-s{seed}"] * (len(seeds) > 1)
            one["name"] = "".join([str(values["name"]), *suffixes])
        runs.append(one)
    return runs


def _layers(flags: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    from harness.settings import parse_assignments, read_settings

    from_file = read_settings(flags["settings_file"]) if flags["settings_file"] else {}
    return from_file, parse_assignments(flags["assignments"]), _from_flags(flags)


def _from_flags(flags: dict[str, Any]) -> dict[str, Any]:
    direct = ("dataset", "data_root", "seed", "clusterer", "memory", "recipe_of", "reference", "name")
    values: dict[str, Any] = {key: flags[key] for key in direct if flags[key] is not None}
    if flags["observers"] is not None:
        values["observers"] = _names(flags["observers"])
    if flags["plugins"] is not None:
        values["plugins"] = _names(flags["plugins"])
        if not values["plugins"]:
            raise SettingsError("--plugins names no plugin. `harness plugins` lists them.")
    sections = {
        "recipe": {"epochs": flags["epochs"], "iterations": flags["iterations"]},
        "evaluation": {"every": flags["eval_every"]},
        "compute": {key: flags[key] for key in ("device", "devices", "precision", "threads")},
    }
    for section, entries in sections.items():
        given = {key: value for key, value in entries.items() if value is not None}
        if given:
            values[section] = given
    return values
