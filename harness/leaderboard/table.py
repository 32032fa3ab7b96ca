"""Leaderboard tables from run records: one table per dataset version and protocol, one row per settings.

Runs of the same settings with different seeds become one row, mean ± sample standard deviation with the number of
seeds. On a dataset with trials (RegDB), a seed's figure is the mean over its trials; with one seed the deviation is
over the trials. Two protocols, two versions of a dataset, or plain and camera-centred features never meet in one table.
Percentages have two decimals; the order of tables and rows depends on the records alone.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.evaluation.figures import FIGURE_NAMES, FigureName, figure_header
from harness.leaderboard.record import RECORD_NAME, Record, read_record, settings_digest
from harness.leaderboard.statistics import Run, seed_means
from harness.reading import printable

if TYPE_CHECKING:
    import pandas as pd

SHOWN: tuple[FigureName, ...] = ("rank1", "rank10", "mAP", "mINP")
_TABLE_KEYS = ["dataset", "size", "dataset_seed", "fingerprint", "protocol", "camera_centred"]
_DIGEST_LENGTH = 8

# What begins markup of CommonMark and of GitHub: tables, bare links (https://, www., name@host, #1), formulae, ~~
_MEANINGFUL = re.compile(r"""[\\|`*<>\[\]&~$@#]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Row:
    """What makes a row, in sorting order; ``settings`` tells rows of one method apart."""

    dataset: str
    size: str
    dataset_seed: str
    fingerprint: str
    protocol: str
    camera_centred: bool
    method: str
    reference: str
    selection: str
    settings: str


def find_records(paths: Sequence[Path]) -> list[Record]:
    """The records in files, and in folders up to two levels deep, in the order of their paths.

    Raises:
        RunError: a path does not exist, holds no record, or holds one that cannot be read.
    """
    files: dict[Path, None] = {}
    for path in paths:
        found = [path] if path.is_file() else _record_files(path)
        if not found:
            raise RunError(
                f"No {RECORD_NAME} was found under {path}, nor in its folders two levels down; a run writes one when "
                "it has finished."
            )
        files.update(dict.fromkeys(found))
    return [read_record(file) for file in files]


def _record_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise RunError(f"There is no run folder or record at {folder}.")
    return [path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + RECORD_NAME))]


def leaderboard(records: Iterable[Record], *, protocols: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per dataset version, protocol and settings.

    Args:
        records: of finished runs. Of two runs with equal settings, seed and trial, the later one counts.
        protocols: only these identifiers; every recorded one when left out.

    Returns:
        A frame with the columns of ``dataset``, ``size``, ``dataset_seed``, ``fingerprint``, ``protocol``,
        ``camera_centred``, ``method``, ``reference``, ``selection``, ``settings`` (a short digest), ``parts``,
        ``seeds`` (their number), ``seed_list``, ``trials`` (the number that every seed has; 0 on a dataset without),
        and for each figure ``<figure>_mean`` and ``<figure>_sd`` in percent (sd is NaN for a single run). Best rank-1
        first within each table.
    """
    import pandas as pd

    rows = [
        _summary(row, runs) for row, runs in _grouped(records).items() if not protocols or row.protocol in protocols
    ]
    columns = [*_Row.__dataclass_fields__, "parts", "seeds", "seed_list", "trials"]
    columns += [f"{figure}_{kind}" for figure in FIGURE_NAMES for kind in ("mean", "sd")]
    frame = pd.DataFrame(rows, columns=columns)
    by = [*_TABLE_KEYS, "rank1_mean", "method", "settings"]
    ascending = [key != "rank1_mean" for key in by]
    return frame.sort_values(by, ascending=ascending, kind="stable", ignore_index=True)


def _grouped(records: Iterable[Record]) -> dict[_Row, dict[Run, Record]]:
    """The runs of each row by seed and trial."""
    groups: defaultdict[_Row, dict[Run, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.created, record.name)):
        digest = settings_digest(record)[:_DIGEST_LENGTH]
        for protocol in record.protocols:
            groups[_row(record, protocol, digest)][record.seed, record.dataset.trial] = record
    return groups


def _row(record: Record, protocol: str, digest: str) -> _Row:
    dataset = record.dataset
    return _Row(
        dataset=dataset.name,
        size=dataset.size or "",
        dataset_seed="" if dataset.seed is None else str(dataset.seed),
        fingerprint=dataset.fingerprint,
        protocol=protocol,
        camera_centred=record.extraction.camera_centred,
        method=record.method,
        reference=record.reference or "",
        selection=record.selection,
        settings=digest,
    )


def _summary(row: _Row, runs: dict[Run, Record]) -> dict[str, Any]:
    seeds = sorted({seed for seed, _ in runs})
    trials = {seed: [run for run in runs if run[0] == seed and run[1] is not None] for seed in seeds}
    summary: dict[str, Any] = {name: getattr(row, name) for name in row.__dataclass_fields__}
    summary["parts"] = ", ".join(f"{part.role}={part.name}" for part in next(iter(runs.values())).parts)
    summary["seeds"] = len(seeds)
    summary["seed_list"] = ", ".join(map(str, seeds))
    summary["trials"] = min(map(len, trials.values()))
    for figure in FIGURE_NAMES:
        of_run = {run: 100 * float(getattr(record.protocols[row.protocol], figure)) for run, record in runs.items()}
        of_seed = list(seed_means(of_run).values())
        values = of_seed if len(seeds) > 1 else list(of_run.values())
        summary[f"{figure}_mean"] = statistics.fmean(of_seed)
        summary[f"{figure}_sd"] = statistics.stdev(values) if len(values) > 1 else float("nan")
    return summary


def render_markdown(frame: pd.DataFrame, *, figures: Sequence[FigureName] = SHOWN) -> str:
    """The leaderboard as Markdown: a heading and a table for each dataset version and protocol.

    Args:
        frame: from :func:`leaderboard`.
        figures: the columns to show; rank-5 and rank-20 are left out unless named.
    """
    if frame.empty:
        return "No finished run.\n"
    # pandas drops the order of appearance unless told not to sort
    tables = [_one_table(group, figures=figures) for _, group in frame.groupby(_TABLE_KEYS, sort=False)]
    return "\n".join(tables)


def _one_table(group: pd.DataFrame, *, figures: Sequence[FigureName]) -> str:
    from tabulate import tabulate

    rows = group.to_dict("records")
    with_trials = ["trials"] if any(row["trials"] for row in rows) else []
    counts = ["seeds", *with_trials]
    headers = ["method", *map(figure_header, figures), *counts, "selection", "settings"]
    body = [
        [
            _method(row),
            *(_cell(row, figure) for figure in figures),
            *(str(row[count]) for count in counts),
            _selection(row),
            row["settings"],
        ]
        for row in rows
    ]
    alignment = ["left", *("right" for _ in figures), *("right" for _ in counts), "left", "left"]
    table = tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    return f"{_heading(rows[0])}\n\n{table}\n{_footnotes(rows)}"


def _heading(row: dict[Any, Any]) -> str:
    version = [row["size"]] if row["size"] else []
    version += [f"seed {row['dataset_seed']}"] if row["dataset_seed"] else []
    version.append(f"fingerprint {row['fingerprint'][:12]}")
    centred = ", camera-centred features" if row["camera_centred"] else ""
    protocol, dataset, which = map(escape_markdown, (row["protocol"], row["dataset"], ", ".join(version)))
    return f"## {protocol}{centred}\n\nDataset {dataset} ({which}). Figures in percent."


def escape_markdown(text: str) -> str:
    """``text`` as Markdown that shows it as it is, on one line: no markup, HTML, link or column of its own.

    Names come from plugins and users. An underscore within a word and a dot are left alone: they mean nothing there,
    and a table in a terminal stays readable.
    """
    return _MEANINGFUL.sub(r"\\\g<0>", printable(text))


def _method(row: dict[Any, Any]) -> str:
    name = escape_markdown(row["method"])
    return f"{name} † ({row['reference']})" if row["reference"] else name


def _selection(row: dict[Any, Any]) -> str:
    return "oracle ‡" if row["selection"] == "oracle" else str(row["selection"])


def _cell(row: dict[Any, Any], figure: FigureName) -> str:
    mean = f"{row[f'{figure}_mean']:.2f}"
    spread = row[f"{figure}_sd"]
    return mean if math.isnan(spread) else f"{mean} ± {spread:.2f}"


def _footnotes(rows: list[dict[Any, Any]]) -> str:
    notes = []
    if any(row["seeds"] > 1 for row in rows):
        notes.append("mean ± sample standard deviation over the seeds.")
    if any(row["seeds"] == 1 and row["trials"] > 1 for row in rows):
        notes.append("with one seed: mean ± sample standard deviation over the trials.")
    if any(0 < row["trials"] < 10 for row in rows):
        notes.append("fewer than ten trials: not comparable with published figures, which are means of ten.")
    if any(row["reference"] for row in rows):
        notes.append("† reference row, not an unsupervised method.")
    if any(row["selection"] == "oracle" for row in rows):
        notes.append("‡ epoch chosen by test figures: optimistic.")
    return "".join(f"\n{note}\n" for note in notes)
