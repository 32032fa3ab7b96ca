"""A report: one HTML file about one run or several, with everything in it and nothing fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from harness import __version__
from harness.engine.folder import RunFolder
from harness.engine.observers import figures_of
from harness.errors import HarnessError, RunError
from harness.evaluation import Protocol
from harness.files import replace_text
from harness.leaderboard.site.build import page_environment
from harness.leaderboard.site.numbers import fixed, three_digits
from harness.observations import ReportedRun, ReportSection
from harness.observing import Observers, choose_observers
from harness.plugins import Catalogue, Plugin
from harness.reading import printable
from harness.report.clusters import PartitionSheets, cluster_sheets
from harness.report.curves import Chart, Points, charts_of, curves_of
from harness.report.images import Album, find_images
from harness.report.maps import (
    Projection,
    embedding_map,
    named_people,
    pair_similarities,
    sampled_rows,
)
from harness.report.plots import Drawing, Format, cost_drawing, curve_drawing, map_drawing, pairs_drawing
from harness.report.retrieval import TrialSheets, by_kind, retrieval_sheets
from harness.report.sections import SectionView, section_views
from harness.report.source import Source, read_runs
from harness.report.tables import all_settings, compared_settings, figure_tables, unusual_settings

MOST_BYTES = 5_000_000
"""Of a page. Thumbnails take what the rest leaves, and are left out beyond it, with a note."""
_MOST_OF_IMAGES = 3_000_000
_MOST_MAPS = 4
"""Runs whose embeddings are drawn: each takes up to half a megabyte."""
_MOST_TRIALS = 10


@dataclass(frozen=True)
class Report:
    """What was written: the page, its size in bytes, the files of drawings, and what the reader should know."""

    page: Path
    size: int
    plots: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass
class RunView:
    """What the page shows of one run. ``images``: why there are no pictures, empty if there are."""

    source: Source
    curves: dict[str, Points]
    images: str = ""
    trials: list[TrialSheets] = field(default_factory=list)
    thumbnails: dict[int, str | None] = field(default_factory=dict)
    partitions: list[PartitionSheets] = field(default_factory=list)
    training: dict[int, str | None] = field(default_factory=dict)
    drawings: list[Drawing] = field(default_factory=list)
    pairs: list[tuple[str, Any]] = field(default_factory=list)
    unusual: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """How a report is made. ``protocol``: of the retrieval sheets; default: each run's primary one."""

    projection: Projection = "pca"
    seed: int = 0
    protocol: Protocol | None = None
    observers: tuple[str, ...] = ()


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    choices: Choices | None = None,
    plots: Path | None = None,
    formats: Sequence[Format] = ("svg",),
    catalogue: Catalogue | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Write the report of one run or of several.

    Args:
        runs: folders of runs, finished or not.
        out: the page; default: ``report.html`` in the run's folder, or here for several.
        choices: how it is made.
        plots: folder for each drawing as a file of its own.
        formats: of those files.
        catalogue: where plugins are found.
        progress: called with what is being done.

    Raises:
        RunError: a folder holds no run, or the page cannot be written.
    """
    choices = Choices() if choices is None else choices
    catalogue = Catalogue() if catalogue is None else catalogue
    say = progress or (lambda text: None)
    sources = read_runs(runs)
    page = out or (RunFolder(runs[0]).report if len(runs) == 1 else Path("report.html"))
    album = Album(_MOST_OF_IMAGES)
    views: list[RunView] = []
    for source in sources:
        say(f"reading {source.label}")
        views.append(_view(source, album, choices, catalogue, alone=len(sources) == 1, drawn=len(views) < _MOST_MAPS))
    charts = charts_of({view.source.label: view.curves for view in views})
    drawings = [curve_drawing(chart) for chart in charts]
    cost = {view.source.label: view.source.seconds for view in views if view.source.seconds}
    time = cost_drawing(cost) if cost else None
    say("asking observers")
    sections = _sections(views, choices, catalogue)
    notes = _notes(views, album)
    say("drawing")
    text = _render(views, charts, drawings, time, sections, album, notes)
    written = _write(page, text)
    files_of = [drawing for view in views for drawing in view.drawings] + drawings + ([time] if time else [])
    kept = [drawing.write(plots, form) for drawing in files_of for form in formats] if plots else []
    return Report(page, written, tuple(kept), tuple(notes))


def _write(page: Path, text: str) -> int:
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        replace_text(page, text)
    except OSError as error:
        raise RunError(f"The report {page} cannot be written: {error.strerror or error}.") from error
    return len(text.encode())


def _view(source: Source, album: Album, choices: Choices, catalogue: Catalogue, *, alone: bool, drawn: bool) -> RunView:
    view = RunView(source, curves_of(source))
    view.unusual = unusual_settings(source, catalogue, source.notes)
    rules = choices.protocol or source.protocol
    if rules is None:
        if source.end is not None or source.start is not None:
            source.notes.append("Its protocol is not known here: there are no retrieval sheets and no maps.")
        return view
    if drawn:
        _guarded(source, "The maps are left out", lambda: _draw(view, rules, choices, alone=alone))
    else:
        source.notes.append(f"Embeddings are drawn of the first {_MOST_MAPS} runs only.")
    images = find_images(source)
    view.images = images.missing
    if images.root is not None and source.end is not None:
        root = images.root
        _guarded(
            source, "The retrieval sheets are left out", lambda: _retrieve(view, rules, root, album, choices, alone)
        )
    if images.train is not None and source.labels is not None:
        manifest = images.train
        _guarded(source, "The cluster sheets are left out", lambda: _group(view, manifest, album, choices))
    return view


def _guarded(source: Source, what: str, work: Callable[[], None]) -> None:
    """Files that others wrote can fail in many ways; what cannot be shown is a note."""
    try:
        work()
    except (HarnessError, ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError) as error:
        source.notes.append(f"{what}: {printable(str(error))}")


def _draw(view: RunView, rules: Protocol, choices: Choices, *, alone: bool) -> None:
    source, name = view.source, "" if alone else view.source.label
    found = [
        (when, vectors)
        for when, vectors in (("before training", source.start), ("after training", source.end))
        if vectors
    ]
    if len(found) == 2 and found[0][1].paths != found[1][1].paths:
        source.notes.append("The embeddings from before training are of other test images, and left out.")
        found = found[1:]
    if not found:
        return
    people = named_people(found[-1][1], rules)
    rows = sampled_rows(found[-1][1], people, seed=choices.seed)
    for when, vectors in found:
        points = embedding_map(vectors, rules, rows, people=people, how=choices.projection, seed=choices.seed)
        view.drawings.append(map_drawing(points, when=when, run=name))
    pairs = [(when, pair_similarities(vectors, rules, seed=choices.seed)) for when, vectors in found]
    known = [(when, of) for when, of in pairs if of is not None]
    span = (min((of.edges[0] for _, of in known), default=0.0), max((of.edges[-1] for _, of in known), default=1.0))
    for when, of in known:
        view.drawings.append(pairs_drawing(of, when=when, run=name, span=span))
    view.pairs = known


def _retrieve(view: RunView, rules: Protocol, root: Path, album: Album, choices: Choices, alone: bool) -> None:
    vectors, record = view.source.end, view.source.record
    if vectors is None:
        return
    known = record.protocols.get(rules.identifier) if record else None
    trials = min(known.trials if known else 1, _MOST_TRIALS) if alone else 1
    view.trials = retrieval_sheets(vectors, rules, trials=trials, seed=choices.seed)
    for of in view.trials:
        for sheet in of.sheets:
            for row in (sheet.row, *(found.row for found in sheet.found)):
                if row not in view.thumbnails:
                    view.thumbnails[row] = album.add(root, vectors.paths[row])
    if not any(view.thumbnails.values()):
        view.trials, view.images = [], f"No test image is left in {root}: there are no retrieval sheets."


def _group(view: RunView, train: Any, album: Album, choices: Choices) -> None:
    from harness.engine.artefacts import paths_digest

    labels = view.source.labels
    if labels is None:
        return
    if labels.paths_sha256 != paths_digest(train.paths):
        raise RunError("the training images on disk are not those that the run was trained on.")
    if any(len(partition) != len(train) for partition in labels.partitions.values()):
        raise RunError("labels.safetensors does not label each training image.")
    partitions = cluster_sheets(labels, train, seed=choices.seed)
    for partition in partitions:
        for sheet in partition.sheets:
            for member in sheet.members:
                if member.row not in view.training:
                    view.training[member.row] = album.add(train.root, train.paths[member.row])
    view.partitions = partitions


def _sections(views: Sequence[RunView], choices: Choices, catalogue: Catalogue) -> list[SectionView]:
    names = [*choices.observers]
    for view in views:
        named = view.source.settings.get("observers")
        names += [str(name) for name in named] if isinstance(named, list) else []
    chosen: list[Plugin] = []
    for name in dict.fromkeys(names):
        try:
            chosen += choose_observers(catalogue.require, [name])
        except HarnessError:
            if name in choices.observers:
                raise
            views[0].source.notes.append(f"The observer {name!r} of the run is not installed here, and not asked.")
    with Observers(chosen, log=None, warned=views[0].source.notes.append) as observers:
        return section_views(observers.sections([_reported(view) for view in views]) if chosen else [])


def _reported(view: RunView) -> ReportedRun:
    source = view.source
    return ReportedRun(
        name=source.label,
        method=source.method,
        dataset=source.dataset,
        seed=source.seed,
        finished=source.record is not None,
        folder=source.path.resolve() / "observers",
        figures=figures_of(source.record) if source.record else {},
        curves=view.curves,
        seconds=source.seconds,
        warnings=tuple(source.warnings),
    )


def _notes(views: Sequence[RunView], album: Album) -> list[str]:
    several = len(views) > 1
    notes = [
        f"{view.source.label}: {note}" if several else note
        for view in views
        for note in dict.fromkeys([*view.source.notes, *([view.images] if view.images else [])])
    ]
    if album.left_out:
        notes.append(f"{album.left_out} thumbnails are left out, so that the page stays below 5 MB.")
    if album.unreadable and album.pictures:
        notes.append(f"{album.unreadable} images could not be read; an empty frame stands for each.")
    return [printable(note) for note in notes]


def _render(
    views: list[RunView],
    charts: list[Chart],
    drawings: list[Drawing],
    time: Drawing | None,
    sections: list[SectionView],
    album: Album,
    notes: list[str],
) -> str:
    sources = [view.source for view in views]
    return (
        _environment()
        .get_template("report.html")
        .render(
            views=views,
            several=len(views) > 1,
            title=" and ".join(source.label for source in sources) if len(sources) < 3 else f"{len(sources)} runs",
            tables=figure_tables(sources),
            charts=list(zip(charts, (drawing.inline() for drawing in drawings), strict=True)),
            time=time.inline() if time else None,
            compared=compared_settings(sources) if len(views) > 1 else [],
            settings=[all_settings(source) for source in sources],
            sections=sections,
            pictures=album.pictures,
            notes=notes,
        )
    )


def _environment() -> Environment:
    environment = page_environment("harness.report")
    site = (files("harness.leaderboard.site") / "assets" / "site.css").read_text(encoding="utf-8")
    own = (files("harness.report") / "templates" / "report.css").read_text(encoding="utf-8")
    environment.filters.update(fixed=fixed, three_digits=three_digits, printable=lambda text: printable(str(text)))
    environment.globals.update(style=Markup(site + own), by_kind=by_kind, version=__version__)
    return environment


__all__ = ["Choices", "Report", "ReportSection", "write_report"]
