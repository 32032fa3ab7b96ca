"""What a run prints: rich progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.cli.span import span
from harness.cli.sparklines import levels, summary
from harness.data.datasets import Dataset
from harness.engine.plan import Plan
from harness.engine.profile import ProfileRow
from harness.engine.train import EpochReport
from harness.evaluation import figures_table
from harness.leaderboard.record import Record
from harness.reading import shown


class Terminal:
    """Prints a run. On a terminal a live line shows the epoch, the step and the time left.

    ``reports``: whether a report is written afterwards, so that nobody need be told how.
    """

    def __init__(self, *, reports: bool = False) -> None:
        self.reports = reports
        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._begun = 0.0
        self._first_epoch: int | None = None

    def started(self, plan: Plan, dataset: Dataset, folder: Path, *, resumed_at: int | None, iterations: int) -> None:
        """Name the run and every part in it."""
        self._stop()
        settings, selection = plan.settings, plan.selection
        places = [f"epoch {resumed_at}"] * bool(resumed_at) + [f"{iterations} iterations of the next"] * bool(
            iterations
        )
        self._say(f"run {settings.name} in {folder}" + (f", resumed after {' and '.join(places)}" if places else ""))
        marked = f" (reference row: {settings.reference})" if settings.reference else ""
        data = f"{settings.dataset} ({dataset.variant})"
        self._say(f"  dataset {data}, encoder {plan.backbone.name}, seed {settings.seed}{marked}")
        for part in selection.parts:
            self._say(f"  {part.provider.role}: {part.name} ({part.plugin.name})")
        for note in (*selection.notes, *dataset.notes):
            self._say(f"  note: {note}")
        stages = ", ".join(f"{s.name} {s.epochs} x {s.iterations}" for s in plan.recipe.stages)
        self._say(f"  recipe of {selection.recipe_plugin.name}: {stages} (epochs x iterations)")
        self._begun = time.monotonic()

    def progress(self, what: str, done: int, total: int) -> None:
        """Progress of preparation: rendering, decoding."""
        if self.console.is_terminal:
            self._live(what, done, total)
        elif what != self._what:
            self._say(f"{what} {total} images ...")
        self._what = what

    def work(self, what: str, done: int, total: int) -> None:
        """Progress of what comes before and after an epoch's steps: extraction, clustering, scoring."""
        if self.console.is_terminal:
            self._live(what, done, total)

    def step(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Progress within an epoch."""
        if self.console.is_terminal:
            self._live(f"epoch {epoch + 1}/{epochs}", step, steps)

    def epoch(self, report: EpochReport, row: dict[str, Any], *, epochs: int, images_per_s: float) -> None:
        """One line per epoch: losses by name, clusters and outliers per partition, images per second, time left."""
        self._stop()
        if self._first_epoch is None:
            self._first_epoch = report.epoch
        done = report.epoch - self._first_epoch + 1
        left = (time.monotonic() - self._begun) / done * (epochs - report.epoch - 1)
        losses = " ".join(f"{name} {value:.3f}" for name, value in sorted(report.losses.items()))
        labels = "; ".join(
            f"{name} {quality['clusters']} clusters, {100 * quality['outlier_share']:.0f} % outliers"
            for name, quality in row.get("labels", {}).get("partitions", {}).items()
        )
        figures = row.get("evaluation")
        scored = f" | rank-1 {100 * figures['rank1']:.2f} mAP {100 * figures['mAP']:.2f}" if figures else ""
        self._say(
            f"epoch {report.epoch + 1}/{epochs} {report.stage} | {labels} | {report.skipped or losses}{scored} | "
            f"{images_per_s:.0f} images/s, {span(left)} left"
        )

    def warned(self, message: str) -> None:
        """A warning that is also in the record."""
        self._stop()
        self._say(f"warning: {message}")

    def lost(self, message: str) -> None:
        """Another process of the run failed, and this one ends with it: said as any error."""
        click.echo(f"harness: {shown(message)}", err=True)

    def profiled(self, rows: list[ProfileRow], trace: Path) -> None:
        """Where the time went, by kind of work and by part, and where the trace is."""
        self._say("\nwhere the time went:")
        for row in rows:
            name = row.work if row.part is None else f"    {row.part}"
            self._say(f"  {name:<32} {row.seconds:>9.2f} s {100 * row.share:>5.1f} %")
        if trace.exists():
            self._say(f"trace of a few iterations (chrome://tracing, ui.perfetto.dev): {trace}")

    def finished(self, record: Record, folder: Path) -> None:
        """The figures, and where everything is."""
        self._stop()
        self._say("")
        self._say(figures_table(record.protocols))
        cost = record.cost
        self._say(
            f"\n{span(cost.total_seconds)} in all; training {cost.train_images_per_s:.0f} images/s, extraction "
            f"{cost.extract_images_per_s:.0f} images/s, peak memory {cost.peak_memory_mib:.0f} MiB on {cost.device} "
            f"({cost.precision}, {cost.threads} threads)"
        )
        for line in summary(_curves(record), characters=levels(self.console.file)):
            self._say(line)
        self._say(f"record: {folder / 'record.json'}")
        if not self.reports:
            self._say(f"report: {shlex.join(['harness', 'report', str(folder)])}")

    def _say(self, text: str) -> None:
        self.console.print(shown(text), markup=False, emoji=False)

    def _live(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
            )
            self._bar = Progress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
            )
            self._bar.start()
            self._task = self._bar.add_task(what, total=total)
        if self._task is not None:
            self._bar.update(self._task, description=what, completed=done, total=total)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._task = None, None


def _curves(record: Record) -> list[tuple[str, list[float]]]:
    """What is summed up of a run of at least two epochs: losses, agreement, number of clusters, rank-1 if evaluated."""
    found: dict[str, list[float]] = {}
    for curve in record.curves:
        for name, value in sorted(curve.losses.items()):
            found.setdefault(f"loss {name}", []).append(value)
    for epoch in record.pseudo_labels:
        for name, quality in sorted(epoch.partitions.items()):
            for title, number in (("ARI", quality.ari), ("NMI", quality.nmi), ("clusters", quality.clusters)):
                if number is not None:
                    found.setdefault(f"{title} {name}", []).append(float(number))
    figures = [100 * curve.rank1 for curve in record.curves if curve.rank1 is not None]
    if figures:
        found["rank-1"] = [*figures, 100 * record.protocols[record.primary_protocol].rank1]
    order = ("loss", "ARI", "NMI", "clusters", "rank-1")
    curves = [(name, values) for name, values in found.items() if len(values) > 1]
    return sorted(curves, key=lambda curve: order.index(curve[0].partition(" ")[0]))
