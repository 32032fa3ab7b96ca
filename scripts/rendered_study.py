"""The reference table of the rendered dataset: every row of it, from nothing.

Runs each row on dataset seeds 1 and 2 with training seeds 0, 1 and 2 (finished runs are kept, so an interrupted study
goes on), computes the training-free cues, and prints one Markdown table: mean over the dataset seeds' runs and the
sample deviation over all six. About an hour on two cores.

    .venv/bin/python scripts/rendered_study.py --out runs/study
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from harness.builtin import RenderedOptions
from harness.data.cache import build_cache
from harness.data.cues import CUES, standardise_by_modality
from harness.data.datasets import rendered
from harness.data.places import cache_root
from harness.evaluation import TestSet, evaluate
from harness.leaderboard.record import Record, read_record

FULL_CROSS = ["--set", "cross-contrast.weight=1.0", "--set", "cross-contrast.direction=both"]
FULL_CROSS += ["--set", "cluster-memory.cross_update=off"]
"""For the oracle probe: the question is whether the path across modalities is wired, not what PGM weighs it by."""

ROWS: dict[str, list[str]] = {
    "pre-trained only": ["--plugins", "baseline", "--reference", "pretrained"],
    "baseline (intra-modality only)": ["--plugins", "baseline"],
    "pgm, mutual nearest": ["--plugins", "pgm", "--set", "pgm.matching=mutual"],
    "pgm": ["--plugins", "pgm"],
    "chcr,tsmem": ["--plugins", "chcr,tsmem"],
    "oracle association (probe, full cross weight)": [
        "--plugins",
        "pgm",
        "--reference",
        "oracle-association",
        *FULL_CROSS,
    ],
    "supervised (reference)": ["--plugins", "baseline", "--reference", "supervised"],
    "pgm, random start": ["--plugins", "pgm", "--set", "model.pretrained=false"],
}
FIGURES = ("rank1", "rank10", "mAP", "mINP")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--datasets", default="1,2", help="dataset seeds")
    parser.add_argument("--seeds", default="0,1,2", help="training seeds")
    parser.add_argument("--rows", help="only rows whose name contains this")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, one thread each")
    chosen = parser.parse_args()
    datasets, seeds = ([int(n) for n in text.split(",")] for text in (chosen.datasets, chosen.seeds))
    rows = [row for row in ROWS if not chosen.rows or chosen.rows in row]
    jobs = [(row, dataset, seed) for row in rows for dataset in datasets for seed in seeds]
    with ThreadPoolExecutor(chosen.at_once) as pool:
        list(pool.map(lambda job: _run(chosen.out, *job), jobs))
    print(_table(chosen.out, rows, datasets, seeds))
    if not chosen.rows:
        print(f"\nTraining-free cues, standardised per modality, same dataset seeds:\n\n{_cue_table(datasets)}")


def _name(row: str, dataset: int, seed: int) -> str:
    words = "".join(c if c.isalnum() else " " for c in row).split()
    return f"{'-'.join(words)}-d{dataset}-s{seed}"


def _run(out: Path, row: str, dataset: int, seed: int) -> None:
    name = _name(row, dataset, seed)
    if (out / name / "record.json").exists():
        return
    command = [sys.executable, "-m", "harness", "run", *ROWS[row], "--out", str(out), "--name", name]
    command += ["--set", f"data.seed={dataset}", "--seed", str(seed), "--threads", "1", "--resume"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(f"{name}: {'done' if done.returncode == 0 else done.stderr.strip()}", file=sys.stderr, flush=True)


def _table(out: Path, rows: list[str], datasets: list[int], seeds: list[int]) -> str:
    body = []
    for row in rows:
        records = [read_record(out / _name(row, d, s) / "record.json") for d in datasets for s in seeds]
        body.append([row, *(_cell(records, figure) for figure in FIGURES), _ari(records), _precision(records)])
    headers = ["row", "rank-1", "rank-10", "mAP", "mINP", "ARI visible / infrared", "association precision"]
    return tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True)


def _cue_table(datasets: list[int]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in datasets:
        data = rendered(RenderedOptions(seed=seed), None)
        cache = build_cache(data.test, size=(64, 32), cache_dir=cache_root() / "images")
        images = cache.gather(torch.arange(len(data.test))).permute(0, 2, 3, 1).numpy()
        names = [Path(path).name for path in data.test.paths]
        test_set = TestSet.from_names(data.test.identity, data.test.camera, names=names)
        for name, cue in CUES.items():
            features = standardise_by_modality(cue(images), data.test.modality)
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            result = evaluate(unit, test_set, data.protocols[0])
            found.setdefault(name, []).append((100 * result.mean("rank1"), 100 * result.mean("mAP")))
    body = [
        [name, *(f"{statistics.fmean(column):.2f}" for column in zip(*v, strict=True))] for name, v in found.items()
    ]
    return tabulate(body, headers=["cue", "rank-1", "mAP"], tablefmt="pipe", disable_numparse=True)


def _cell(records: list[Record], figure: str) -> str:
    values = [100 * getattr(record.protocols[record.primary_protocol], figure) for record in records]
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def _ari(records: list[Record]) -> str:
    if not records[0].pseudo_labels:
        return ""
    last = [record.pseudo_labels[-1].partitions for record in records]
    return " / ".join(
        f"{statistics.fmean(p[name].ari or 0.0 for p in last):.2f}"
        for name in ("visible", "infrared")
        if name in last[0]
    )


def _precision(records: list[Record]) -> str:
    links = [record.pseudo_labels[-1].links.get("visible>infrared") for record in records if record.pseudo_labels]
    known = [link.precision for link in links if link is not None and link.precision is not None]
    return f"{statistics.fmean(known):.2f}" if known else ""


if __name__ == "__main__":
    main()
