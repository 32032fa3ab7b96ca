"""``harness sweep``: a grid of runs, planned, run, gone on with, and its board."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.run import numbers_of
from harness.cli.span import span
from harness.errors import SettingsError, SweepError, SweepStopped
from harness.reading import shown

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from harness.sweep.attempt import Ended
    from harness.sweep.cells import Cell, Planned
    from harness.sweep.folder import SweepFolder
    from harness.sweep.grid import Grid
    from harness.sweep.local import Slot

MOST_CELLS = 10_000


@click.command()
@click.argument("grid_file", metavar="[GRID]", required=False, type=click.Path(path_type=Path))
@click.option("--clusterers", help="Plugins, separated by commas: an axis of the grid.")
@click.option("--refiners", help="Plugins, or a chain a+b, or none: an axis.")
@click.option("--memories", help="Plugins: an axis.")
@click.option("--losses", help="Plugins, or a sum a+b, or own (those of the other plugins): an axis.")
@click.option("--plugins", multiple=True, metavar="A,B", help="A whole combination, as for run; repeatable.")
@click.option("--recipe", help="Whose recipe trains every cell, if not the first plugin's that has one.")
@click.option("--datasets", help="Datasets, or NAME=FOLDER, separated by commas: an axis.")
@click.option("--trials", help="RegDB: 1-10 or 1,2.")
@click.option("--seeds", help="0,1,2 or 0-4.")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME.OPTION=VALUE", help="A setting; [a, b] is an axis; repeatable."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of every cell.")
@click.option("--iterations", type=click.IntRange(min=1), help="Iterations per epoch of every cell.")
@click.option("--device", help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of a cell (default: the cores divided).")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the sweep (default: sweeps/GRID).")
@click.option("--on", "where", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="local: cells at a time (default: one per GPU, else one).")
@click.option("--address", help="ray: address of the cluster (default: RAY_ADDRESS, else this machine).")
@click.option("--cpus-per-cell", type=click.FloatRange(min=0), help="ray: CPUs of a cell (default: its threads).")
@click.option("--gpus-per-cell", type=click.FloatRange(min=0), help="ray: GPUs of a cell (default: one, if any).")
@click.option("--cell", type=click.IntRange(min=1), help="Run the cell of this number only, for a job array.")
@click.option("--board", is_flag=True, help="Run nothing; write and print the board of the finished cells.")
@click.option("--retry-failed", is_flag=True, help="Run failed cells again.")
@click.option("--dry-run", is_flag=True, help="Print the cells, what is skipped, and what it will take; run nothing.")
@click.option("--yes", is_flag=True, help=f"Also a grid of more than {MOST_CELLS:,} cells.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def sweep(**flags: Any) -> None:
    """Run every combination of a GRID (a TOML file, flags, or both; or the folder of a sweep).

    \b
    harness sweep grid.toml --dry-run
    harness sweep --clusterers baseline,chc --memories baseline,tsmem --seeds 0,1 --jobs 2
    harness sweep --plugins chcr,tsmem --plugins ecul --set united-memory.step2_momentum=[0.1,0.7]

    The same command goes on after a crash, Ctrl-C or a change of the grid: finished cells are left alone.
    """
    from harness.sweep.cells import plan_cells
    from harness.sweep.folder import SweepFolder

    _require_sense(flags)
    grid = _grid(flags)
    if grid.size > MOST_CELLS and not flags["yes"]:
        raise SettingsError(f"The grid has up to {grid.size:,} cells; more than {MOST_CELLS:,} need --yes.")
    folder = SweepFolder(_out(flags))
    if flags["board"] and not folder.cells.exists():
        raise SweepError(f"There is no sweep in {folder.path}.")
    slots = _slots(flags, grid)
    grid = _with_threads(grid, folder, flags, slots)
    if flags["dry_run"]:
        _dry_run(plan_cells(grid, known=folder.known()), folder, slots=len(slots), flags=flags)
        return
    number = flags["cell"]
    if flags["board"]:
        _conclude(folder, _planned(grid, folder, number)[0].cells)
    elif number is not None:
        _run_one(folder, _planned(grid, folder, number)[0].cells, number=number, slot=slots[0])
    else:
        with folder.claimed():  # before anything is written: another grid than the one that is being run
            planned, left = _planned(grid, folder, number)
            _run_all(folder, planned, left, flags=flags, slots=slots)


def _planned(grid: Grid, folder: SweepFolder, number: int | None) -> tuple[Planned, list[str]]:
    """The cells, written down, and the names of those that the grid no longer has."""
    from harness.sweep.cells import plan_cells

    with folder.planning():
        planned = plan_cells(grid, known=folder.known())
        _require_number(number, len(planned.cells))
        return planned, folder.write(grid, planned)


def _require_sense(flags: dict[str, Any]) -> None:
    if flags["where"] == "ray":
        _refuse(flags, "jobs", "--jobs is for --on local; Ray runs as many cells as its nodes have room for.")
    else:
        for name in ("address", "cpus_per_cell", "gpus_per_cell"):
            _refuse(flags, name, f"--{name.replace('_', '-')} is for --on ray.")
    only = [f"--{name.replace('_', '-')}" for name in ("cell", "board", "dry_run") if flags[name]]
    if len(only) > 1:
        raise SettingsError(f"{' and '.join(only)} do different things: give one of them.")


def _require_number(number: int | None, cells: int) -> None:
    if number is not None and number > cells:
        raise SettingsError(f"There is no cell {number}: the grid has {cells}.")


def _refuse(flags: dict[str, Any], name: str, why: str) -> None:
    if flags[name] is not None:
        raise SettingsError(why)


def _out(flags: dict[str, Any]) -> Path:
    file: Path | None = flags["grid_file"]
    if flags["out"]:
        return Path(flags["out"])
    if file and file.is_dir():
        return file
    return Path("sweeps") / (file.stem if file else "sweep")


def _grid(flags: dict[str, Any]) -> Grid:
    from harness.settings import merge
    from harness.sweep.grid import make_grid, read_grid

    file: Path | None = flags["grid_file"]
    values = read_grid(file / "sweep.toml" if file.is_dir() else file) if file else {}
    options, settings = _assigned(flags["assignments"])
    recipe = {key: flags[key] for key in ("epochs", "iterations") if flags[key] is not None}
    compute = {key: flags[key] for key in ("device", "threads") if flags[key] is not None}
    settings = merge(settings, {"recipe": recipe} if recipe else {}, {"compute": compute} if compute else {})
    given = {key: flags[key].split(",") for key in ("clusterers", "refiners", "memories", "losses") if flags[key]}
    given |= {key: list(numbers_of(f"--{key}", flags[key])) for key in ("seeds", "trials") if flags[key]}
    given |= {"plugins": list(flags["plugins"])} if flags["plugins"] else {}
    given |= {"recipe": flags["recipe"]} if flags["recipe"] else {}
    given |= {"datasets": [_dataset(text) for text in flags["datasets"].split(",")]} if flags["datasets"] else {}
    given |= {"options": options} if options else {}
    given |= {"settings": settings} if settings else {}
    for name in ("options", "settings"):
        if not isinstance(values.get(name, {}), dict):
            raise SettingsError(f"Grid: [{name}] is a table; got {shown(repr(values[name]))}.")
    nested = {name: merge(values.get(name, {}), given.pop(name, {})) for name in ("options", "settings")}
    return make_grid({**values, **given, **{name: found for name, found in nested.items() if found}})


def _assigned(assignments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``--set`` as options of the grid (with a point) and settings of all cells (without)."""
    from harness.settings import SECTIONS, parse_assignments

    values = parse_assignments(assignments)
    owners = {**values.pop("options", {}), **{name: values.pop(name) for name in SECTIONS if name in values}}
    options = {f"{owner}.{name}": value for owner, inner in owners.items() for name, value in inner.items()}
    return options, values


def _dataset(text: str) -> dict[str, Any]:
    name, _, root = text.strip().partition("=")
    return {"name": name, **({"root": root} if root else {})}


def _slots(flags: dict[str, Any], grid: Grid) -> list[Slot]:
    """Places for cells at a time: on Ray, and for a cell of a job array, whatever the place provides."""
    from harness.sweep.local import local_slots

    if flags["where"] == "ray" or flags["cell"] is not None or flags["board"]:
        return [{}]
    compute = grid.settings.get("compute", {})
    device = compute.get("device", "auto") if isinstance(compute, dict) else "auto"
    return local_slots(flags["jobs"], device=str(device))


def _with_threads(grid: Grid, folder: SweepFolder, flags: dict[str, Any], slots: Sequence[Slot]) -> Grid:
    """The threads of a cell are of its settings, so they are settled once, when the sweep begins."""
    from harness.sweep.grid import with_default_threads
    from harness.sweep.local import threads_per_cell

    fresh = max(1, int(flags["cpus_per_cell"] or 1)) if flags["where"] == "ray" else threads_per_cell(len(slots))
    return with_default_threads(grid, folder.threads() or fresh)


def _dry_run(planned: Planned, folder: SweepFolder, *, slots: int, flags: dict[str, Any]) -> None:
    width = len(str(len(planned.cells)))
    for cell in planned.cells:
        state = " (done)" if folder.done(cell) else " (failed)" if folder.failure(cell.name) else ""
        parts = ", ".join(part.name for part in cell.plan.selection.parts)
        _say(f"{cell.number:>{width}}  {cell.name}{state}: {parts}")
    _say_skipped(planned)
    _say(f"{_cells(len(planned.cells))} in {_near(folder.path)}")
    _say(_estimate([cell for cell in planned.cells if not folder.done(cell)], folder, slots=slots, flags=flags))


def _say_skipped(planned: Planned) -> None:
    for skipped in planned.skipped:
        _say(f"skipped: {skipped}")
    for note in planned.notes:
        _say(f"note: {note}")


def _estimate(cells: Sequence[Cell], folder: SweepFolder, *, slots: int, flags: dict[str, Any]) -> str:
    from harness.sweep.estimate import earlier_records, estimate
    from harness.sweep.local import visible_gpus

    if not cells:
        return "estimate: nothing is left to run"
    device = cells[0].plan.settings.compute.device
    on_gpu = device.startswith("cuda") or (device == "auto" and bool(visible_gpus()))
    places = (folder.runs, Path("runs"), Path("leaderboards/records"))
    found = estimate(cells, earlier_records(places), on_gpu=on_gpu)
    if found is None:
        return "estimate: none, as there is no earlier record of these datasets and encoders on this kind of device"
    at_once = f", {span(found.seconds / slots)} with {slots} at a time" if slots > 1 else ""
    others = f", {found.alike} by those of other parts" if found.alike else ""
    unknown = f", and {found.unknown} cells that no record tells of are not in it" if found.unknown else ""
    records = f"{found.records} earlier record{'s' * (found.records > 1)}"
    return (
        f"estimate: {span(found.seconds)} for the cells that are left{at_once}; from {records} "
        f"on {', '.join(found.devices)}: {found.cells} cells by records of the same parts{others}{unknown}"
    )


def _run_one(folder: SweepFolder, cells: Sequence[Cell], *, number: int, slot: Slot) -> None:
    cell = cells[number - 1]
    if folder.done(cell):
        _say(f"{cell.name} is done already")
        return
    _run(folder, [cell], total=1, done=0, flags={"where": "local"}, slots=[slot])
    failure = folder.failure(cell.name)
    if failure:
        raise SweepError(f"Cell {number}, {cell.name}, failed: {failure.error} (log: {_near(folder.log(cell.name))})")
    if not folder.done(cell):
        raise SweepError(f"Cell {number}, {cell.name}, is being run by another process.")


def _run_all(
    folder: SweepFolder, planned: Planned, left: Sequence[str], *, flags: dict[str, Any], slots: Sequence[Slot]
) -> None:
    cells = planned.cells
    open_cells = [cell for cell in cells if not folder.done(cell)]
    failed = [cell for cell in open_cells if folder.failure(cell.name)]
    todo = [cell for cell in open_cells if flags["retry_failed"] or cell not in failed]
    _say_skipped(planned)
    counts = [f"{len(cells) - len(open_cells)} done"]
    counts += [f"{len(failed)} failed before"] * bool(failed) + [f"{len(todo)} to run"]
    _say(f"sweep of {_cells(len(cells))} in {_near(folder.path)}: {', '.join(counts)}")
    if left:
        _say(f"{len(left)} cells of an earlier grid are left alone: {', '.join(left[:3])}{', ...' * (len(left) > 3)}")
    if flags["where"] == "local":
        _require_data(todo)
    if todo:
        _run(folder, todo, total=len(cells), done=len(cells) - len(todo), flags=flags, slots=slots)
    _conclude(folder, cells)


def _require_data(cells: Sequence[Cell]) -> None:
    """Raise SettingsError for a folder of images that is not here, before every cell of it fails."""
    for root in {cell.plan.settings.data_root for cell in cells}:
        if root is not None and not root.exists():
            raise SettingsError(f"The dataset folder {root} does not exist.")


def _run(
    folder: SweepFolder,
    cells: Sequence[Cell],
    *,
    total: int,
    done: int,
    flags: dict[str, Any],
    slots: Sequence[Slot],
) -> None:
    from harness.engine.stopping import Stopped
    from harness.sweep.local import run_local

    names = [cell.name for cell in cells]
    try:
        with Progress(folder, done=done, total=total, slots=len(slots)) as progress:
            if flags["where"] == "local":
                run_local(folder, names, slots=slots, watcher=progress)
            else:
                from harness.sweep.cluster import run_on_ray

                cpus = flags["cpus_per_cell"]
                cpus = cells[0].plan.settings.compute.threads if cpus is None else cpus
                gpus = 0.0 if cells[0].plan.settings.compute.device == "cpu" else flags["gpus_per_cell"]
                run_on_ray(folder, names, address=flags["address"], cpus=cpus, gpus=gpus, watcher=progress)
    except Stopped as stopped:
        finished = sum(folder.done(cell) for cell in cells)
        told = f"{finished} of the {len(cells)} cells that were left are done. The same command goes on."
        raise SweepStopped(stopped.number, told) from stopped


def _conclude(folder: SweepFolder, cells: Sequence[Cell]) -> None:
    """Write and print the board. Raises SweepError unless all cells are done."""
    from harness.sweep.board import write_board

    click.echo("\n" + shown(write_board(folder, cells)), nl=False)
    _say(f"\nboard: {_near(folder.board)}")
    open_cells = [cell for cell in cells if not folder.done(cell)]
    failures = {cell.name: failure for cell in open_cells if (failure := folder.failure(cell.name))}
    for name, failure in failures.items():
        again = f", {failure.attempts} times" if failure.attempts > 1 else ""
        _say(f"failed{again}: {name}: {failure.error} (log: {_near(folder.log(name))})")
    if failures:
        raise SweepError(
            f"{len(failures)} of {len(cells)} cells failed. Mend the cause, and add --retry-failed to run them again."
        )
    if open_cells:
        raise SweepError(
            f"{len(open_cells)} of {len(cells)} cells are not done, or are being run by other processes "
            f"(first: {open_cells[0].name}). The same command without --board goes on."
        )


class Progress:
    """Progress over all cells: a live line on a terminal, plain lines elsewhere; the time left by the cells so far."""

    def __init__(self, folder: SweepFolder, *, done: int, total: int, slots: int) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)
        self._folder, self._done, self._total = folder, done, total
        self._begun, self._ended_here = time.monotonic(), 0
        self._slots, self._running = slots, dict[str, None]()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar_

        if self.console.is_terminal:
            columns = (
                TextColumn("cells", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Bar_(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("", total=self._total, completed=self._done)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def began(self, name: str) -> None:
        """A cell begins, or goes on."""
        self._running[name] = None
        if self._bar is None:
            self._say(f"begins: {name}")
        self._update()

    def ended(self, ended: Ended) -> None:
        """A cell ended, in whatever way."""
        self._running.pop(ended.name, None)
        if ended.state != "stopped":
            self._done += 1
            self._ended_here += 1
        where = f"{self._done}/{self._total}"
        if ended.state == "done":
            self._say(f"{where} done: {ended.name}, {span(ended.seconds)}{self._left()}")
        elif ended.state == "failed":
            self._say(f"{where} FAILED: {ended.name}: {ended.error} (log: {_near(self._folder.log(ended.name))})")
        elif ended.state == "elsewhere":
            self._say(f"{where} left: another process runs {ended.name}")
        else:
            self._say(f"stopped: {ended.name}")
        self._update()

    def note(self, text: str) -> None:
        """Something to know."""
        self._say(text)

    def _left(self) -> str:
        open_cells = self._total - self._done
        if not open_cells:
            return ""
        return f"; about {span((time.monotonic() - self._begun) / self._ended_here * open_cells)} left"

    def _update(self) -> None:
        if self._bar is not None:
            running = ", ".join(list(self._running)[: self._slots])
            left = self._left() if self._ended_here else ""
            self._bar.update(self._task, completed=self._done, description=shown(f"{running}{left}"))

    def _say(self, text: str) -> None:
        self.console.print(shown(text), markup=False, emoji=False)


def _cells(count: int) -> str:
    return f"{count} cell" + "s" * (count != 1)


def _say(text: str) -> None:
    click.echo(shown(text))


def _near(path: Path) -> str:
    """A path as short as it can be given from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
