"""What a run prints: rich progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.data.datasets import Dataset
from harness.engine.plan import Plan
from harness.engine.train import EpochReport
from harness.evaluation import figures_table
from harness.leaderboard.record import Record
from harness.reading import shown


class Terminal:
    """Prints a run. On a terminal a live line shows the epoch, the step and the time left."""

    def __init__(self) -> None:
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
            f"{images_per_s:.0f} images/s, {_span(left)} left"
        )

    def warned(self, message: str) -> None:
        """A warning that is also in the record."""
        self._stop()
        self._say(f"warning: {message}")

    def finished(self, record: Record, folder: Path) -> None:
        """The figures, and where everything is."""
        self._stop()
        self._say("")
        self._say(figures_table(record.protocols))
        cost = record.cost
        self._say(
            f"\n{_span(cost.total_seconds)} in all; training {cost.train_images_per_s:.0f} images/s, extraction "
            f"{cost.extract_images_per_s:.0f} images/s, peak memory {cost.peak_memory_mib:.0f} MiB on {cost.device} "
            f"({cost.precision}, {cost.threads} threads)"
        )
        self._say(f"record: {folder / 'record.json'}")

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


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
