"""Tables of the rendered dataset: every row of a study, from nothing.

A study is a file in `scripts/studies`: rows by name with the flags of their runs, and the dataset seeds. Every row is
run on each dataset seed with training seeds 0, 1 and 2 (finished runs are kept, so an interrupted study goes on).
Prints one Markdown table: mean and sample deviation over all runs of a row; `reference` adds the training-free cues.

    .venv/bin/python scripts/rendered_study.py reference --out runs/study      # about an hour on two cores
    .venv/bin/python scripts/rendered_study.py dmic ecul --out runs/study
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tomllib
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
from harness.evaluation import evaluate
from harness.leaderboard.record import Record, read_record

STUDIES = Path(__file__).parent / "studies"
FIGURES = ("rank1", "rank10", "mAP", "mINP")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=sorted(file.stem for file in STUDIES.glob("*.toml")))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--datasets", help="dataset seeds, instead of the study's")
    parser.add_argument("--seeds", default="0,1,2", help="training seeds")
    parser.add_argument("--rows", help="only rows whose name contains this")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, one thread each")
    chosen = parser.parse_args()
    for name in chosen.studies:
        study = tomllib.loads((STUDIES / f"{name}.toml").read_text())
        datasets = _numbers(chosen.datasets) if chosen.datasets else study["datasets"]
        seeds = _numbers(chosen.seeds)
        rows = {row: flags for row, flags in study["rows"].items() if not chosen.rows or chosen.rows in row}
        jobs = [(flags, _name(row, d, s), d, s) for row, flags in rows.items() for d in datasets for s in seeds]
        with ThreadPoolExecutor(chosen.at_once) as pool:
            list(pool.map(lambda job: _run(chosen.out, *job), jobs))
        print(f"\n{name}, dataset seeds {datasets}, training seeds {seeds}:\n")
        print(_table(chosen.out, list(rows), datasets, seeds))
        if study.get("cues") and not chosen.rows:
            print(f"\nTraining-free cues, standardised per modality, same dataset seeds:\n\n{_cue_table(datasets)}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _name(row: str, dataset: int, seed: int) -> str:
    words = "".join(c if c.isalnum() else " " for c in row).split()
    return f"{'-'.join(words)}-d{dataset}-s{seed}"


def _run(out: Path, flags: str, name: str, dataset: int, seed: int) -> None:
    if (out / name / "record.json").exists():
        return
    command = [sys.executable, "-m", "harness", "run", *shlex.split(flags), "--out", str(out), "--name", name]
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
        for name, cue in CUES.items():
            features = standardise_by_modality(cue(images), data.test.modality)
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            result = evaluate(unit, data.test_set, data.protocols[0])
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
