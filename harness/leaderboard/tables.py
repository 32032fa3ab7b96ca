"""A board's tables as Markdown, CSV and LaTeX, and the page that links them. Equal boards are equal bytes.

Markdown and LaTeX have one column for what a reader takes in at once (``38.10 ± 0.42 (1.80)``); CSV has one for each
number, in percent. Names come from plugins and users: they are shown as they are, and cannot leave their cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.evaluation.figures import FIGURE_NAMES, FigureName, figure_header
from harness.leaderboard.board import Board, Difference, Estimate, Row, Table
from harness.leaderboard.rows import DIGEST_LENGTH
from harness.leaderboard.table import escape_markdown
from harness.reading import printable

Cell = Callable[[Row], str]

LEGEND = (
    "Figures in percent: mean ± sample deviation over the seeds; in brackets, that over the trials, which are "
    "galleries, or splits where each has a training of its own.",
    "95 %: bootstrap interval over the queries. Group: rows of one group cannot be told apart from its first by a "
    "paired bootstrap over the queries; 1 is the best.",
    "Epoch: by what the reported one was chosen. Cost: of one run. To published: mean minus the published figure, with "
    "its t-interval over the seeds.",
)


def table_files(board: Board) -> dict[str, str]:
    """The text of every table in three formats, by file name."""
    formats = {"md": markdown, "csv": comma_separated, "tex": latex}
    return {f"{table.identifier}.{end}": write(table) for table in board.tables for end, write in formats.items()}


def markdown(table: Table) -> str:
    """A page with one table, and what is to be known before it is read."""
    from tabulate import tabulate

    body = [[escape_markdown(cell(row)) for _, cell in _COLUMNS] for row in table.rows]
    headers = [header for header, _ in _COLUMNS]
    drawn = tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True)
    paragraphs = [f"# {escape_markdown(table.title)}", escape_markdown(table.about), _without_record(table)]
    return "\n\n".join([*filter(None, paragraphs), drawn, *LEGEND]) + "\n"


def latex(table: Table) -> str:
    """A ``tabular`` for a paper that loads booktabs."""
    from tabulate import tabulate

    body = [[printable(cell(row)) for _, cell in _COLUMNS] for row in table.rows]
    headers = [header for header, _ in _COLUMNS]
    drawn = tabulate(body, headers=headers, tablefmt="latex_booktabs", disable_numparse=True)
    return f"% {printable(table.title)}, protocol {printable(table.protocol)}\n{drawn}\n".translate(_LATEX_SIGNS)


def comma_separated(table: Table) -> str:
    """One line per row, one column per number; an empty field is a value that there is not."""
    import pandas as pd

    frame = pd.DataFrame([_record_of(table, row) for row in table.rows])
    return frame.to_csv(index=False, lineterminator="\n")


def index(board: Board) -> str:
    """``README.md`` of the board: every table, what it holds and what it lacks."""
    from tabulate import tabulate

    body = [
        [
            f"[{escape_markdown(table.title)}](tables/{table.identifier}.md)",
            str(len(table.run_rows)),
            str(len(table.rows) - len(table.run_rows)),
            f"[CSV](tables/{table.identifier}.csv), [LaTeX](tables/{table.identifier}.tex)",
        ]
        for table in board.tables
    ]
    headers = ["table", "rows with records", "published rows", "also as"]
    drawn = tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True)
    lacking = [
        f"- {escape_markdown(table.title)}: {lacks}" for table in board.tables if (lacks := _without_record(table))
    ]
    paragraphs = [_INTRODUCTION, _SITE, drawn, *(["\n".join(["## Without a record", "", *lacking])] if lacking else [])]
    return "\n\n".join(paragraphs) + "\n"


_INTRODUCTION = """# Leaderboards

Made by `harness leaderboard build` from the run records in [records](records) and from
[published figures](published.csv) with their sources; not edited by hand. Two protocols, two versions of a dataset, or
plain and camera-centred features never share a table. [docs/leaderboard.md](../docs/leaderboard.md) says how to read
the tables and how to add a run. [rendered.md](rendered.md) is an earlier reference table of the rendered dataset, made
by `scripts/rendered_study.py`; `harness leaderboard show runs/` prints the table of your own runs."""

_SITE = "[site/index.html](site/index.html) shows the same, to be sorted, filtered and compared."


def _without_record(table: Table) -> str:
    if not table.without_record:
        return ""
    if not table.run_rows:
        return "No row has a record yet: every figure is its source's own, and nothing was run with this harness."
    return f"No record yet of: {escape_markdown(', '.join(table.without_record))}."


def two_decimals(estimate: Estimate | None) -> str:
    """``38.10 ± 0.42 (1.80)``: mean, deviation over the seeds, and that over the trials."""
    if estimate is None:
        return ""
    seeds = "" if estimate.sd_seeds is None else f" ± {estimate.sd_seeds:.2f}"
    trials = "" if estimate.sd_trials is None else f" ({estimate.sd_trials:.2f})"
    return f"{estimate.mean:.2f}{seeds}{trials}"


def _interval(low: float | None, high: float | None, *, sign: str = "") -> str:
    return "" if low is None or high is None else f"{low:{sign}.2f} to {high:{sign}.2f}"


def _figure(name: FigureName) -> Cell:
    return lambda row: two_decimals(row.figures.get(name))


def _ends(name: FigureName) -> Cell:
    return lambda row: _interval(row.figures[name].low, row.figures[name].high) if name in row.figures else ""


def _to_published(name: FigureName) -> Cell:
    def cell(row: Row) -> str:
        found = row.differences.get(name)
        if found is None:
            return ""
        ends = _interval(found.low, found.high, sign="+")
        return f"{found.points:+.2f}" + (f" ({ends})" if ends else "")

    return cell


def _parts(row: Row) -> str:
    return ", ".join(f"{role}: {name}" for role, name in row.parts)


def _encoder(row: Row) -> str:
    return f"{row.encoder} ({row.weights})" if row.encoder else ""


def _extra(row: Row) -> str:
    return ", ".join(row.extra_information) or ("none" if row.kind == "run" else "")


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _cost(row: Row) -> str:
    return "" if row.cost is None else f"{row.cost.hours:.3g} {row.cost.unit} ({row.cost.device})"


def _memory(row: Row) -> str:
    return "" if row.cost is None or row.cost.peak_memory_mib is None else f"{row.cost.peak_memory_mib:.0f} MiB"


def _source(row: Row) -> str:
    if row.kind == "run":
        return f"settings {row.settings[:DIGEST_LENGTH]}"
    where = " ".join(filter(None, [row.venue, _number(row.year)]))
    return "; ".join(filter(None, [where, row.source]))


_COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("group", lambda row: _number(row.group)),
    ("method", lambda row: row.method),
    ("parts", _parts),
    ("encoder", _encoder),
    ("extra information", _extra),
    ("rank-1", _figure("rank1")),
    ("rank-1, 95 %", _ends("rank1")),
    ("rank-5", _figure("rank5")),
    ("rank-10", _figure("rank10")),
    ("rank-20", _figure("rank20")),
    ("mAP", _figure("mAP")),
    ("mAP, 95 %", _ends("mAP")),
    ("mINP", _figure("mINP")),
    ("seeds", lambda row: ", ".join(map(str, row.seeds))),
    ("trials", lambda row: str(row.trials or "")),
    ("epoch", lambda row: row.selection or "not stated"),
    ("world size", lambda row: _number(row.world_size)),
    ("BN batch", lambda row: _number(row.bn_batch)),
    ("cost", _cost),
    ("peak memory", _memory),
    ("verified", lambda row: row.verified),
    ("rank-1 to published", _to_published("rank1")),
    ("mAP to published", _to_published("mAP")),
    ("remarks", lambda row: "; ".join(row.marks)),
    ("source", _source),
)

# What tabulate leaves as it is, for LaTeX engines that read no Unicode
_LATEX_SIGNS = str.maketrans({"±": r"\ensuremath{\pm}", "–": "--", "−": r"\ensuremath{-}", "…": r"\ldots{}"})


def _record_of(table: Table, row: Row) -> dict[str, Any]:
    """A row of the CSV; numbers as text of two decimals, so that equal boards are equal bytes on every machine."""
    return {
        "table": table.identifier,
        "row": row.identifier,
        "kind": row.kind,
        "group": _number(row.group),
        "method": _guarded(row.method),
        "parts": _guarded(_parts(row)),
        "encoder": _guarded(row.encoder),
        "weights": _guarded(row.weights),
        "extra_information": _guarded(_extra(row)),
        **{name: value for figure in FIGURE_NAMES for name, value in _numbers(row, figure).items()},
        "seeds": " ".join(map(str, row.seeds)),
        "trials": str(row.trials or ""),
        "selection": row.selection,
        "reference": _guarded(row.reference or ""),
        "world_size": _number(row.world_size),
        "bn_batch": _number(row.bn_batch),
        "hours": "" if row.cost is None else f"{row.cost.hours:.4f}",
        "hours_unit": "" if row.cost is None else row.cost.unit,
        "device": "" if row.cost is None else _guarded(row.cost.device),
        "peak_memory_mib": _decimals(None if row.cost is None else row.cost.peak_memory_mib),
        "verified": row.verified,
        **_difference("rank1", row.differences.get("rank1")),
        **_difference("mAP", row.differences.get("mAP")),
        "remarks": _guarded("; ".join(row.marks)),
        "paper": _guarded(row.paper),
        "venue": _guarded(row.venue),
        "year": _number(row.year),
        "source": _guarded(row.source),
        "settings": row.settings,
        "records": _guarded(" ".join(row.records)),
    }


def _numbers(row: Row, figure: FigureName) -> dict[str, str]:
    found = row.figures.get(figure)
    kinds: Sequence[str] = ("mean", "sd_seeds", "sd_trials", "low", "high")
    values = {kind: None if found is None else getattr(found, kind) for kind in kinds}
    name = figure_header(figure).replace("-", "")
    shown = {f"{name}_{kind}": _decimals(value) for kind, value in values.items()}
    if figure not in ("rank1", "mAP"):  # the figures that single queries are recorded of
        del shown[f"{name}_low"], shown[f"{name}_high"]
    return shown


def _difference(name: str, found: Difference | None) -> dict[str, str]:
    kinds = {"": "points", "_low": "low", "_high": "high"}
    return {
        f"{name}_to_published{kind}": _decimals(None if found is None else getattr(found, field))
        for kind, field in kinds.items()
    }


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _guarded(text: str) -> str:
    """``text`` on one line; with an apostrophe before what a spreadsheet would take for a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
