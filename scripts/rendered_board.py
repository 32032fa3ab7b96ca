"""Train what stands on the rendered leaderboard: every method plugin that is installed, and combinations of parts.

    .venv/bin/python scripts/rendered_board.py --out runs/board      # about an hour on two cores
    .venv/bin/harness leaderboard add runs/board/* && .venv/bin/harness leaderboard build

A plugin of kind "method" is on the board by being installed; combinations and reference rows are listed below. One
budget for all: the rendered preset of the row's recipe (12 epochs of 20 iterations), dataset seed 1, training seeds
0, 1 and 2, one thread a run. Finished runs are kept, so that an interrupted board goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.plugins import Catalogue

COMBINATIONS = (
    "pgm",
    "chcr,tsmem",
    "chcr,brst,mccl",
    "dnc,pclhd",
    "emcc,pgm",
)
"""Parts of several papers, and the second-generation baseline."""

REFERENCES = ("pretrained", "supervised")
DATASET_SEED, SEEDS = 1, (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/board"))
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    chosen = parser.parse_args()
    rows = [*((names, None) for names in (*methods(), *COMBINATIONS)), *(("baseline", name) for name in REFERENCES)]
    jobs = [(names, reference, seed) for seed in chosen.seeds for names, reference in rows]
    with ThreadPoolExecutor(chosen.at_once) as pool:
        codes = list(pool.map(lambda job: train(chosen.out, *job), jobs))
    failed = [job for job, code in zip(jobs, codes, strict=True) if code]
    if failed:
        sys.exit(f"{len(failed)} of {len(jobs)} runs failed: {', '.join(map(str, failed))}")


def methods() -> list[str]:
    """Installed plugins that are whole methods."""
    cards = {plugin.name: plugin.card for plugin in Catalogue().values() if plugin.problem is None}
    return sorted(name for name, card in cards.items() if card is not None and card.kind == "method")


def train(out: Path, plugins: str, reference: str | None, seed: int) -> int:
    """One run, in a process of its own. Returns its exit code."""
    name = f"rendered-{reference or plugins.replace(',', '+')}-d{DATASET_SEED}-s{seed}"
    command = [sys.executable, "-m", "harness", "run", "--plugins", plugins, "--out", str(out), "--name", name]
    command += ["--set", f"data.seed={DATASET_SEED}", "--seed", str(seed), "--threads", "1", "--eval-every", "3"]
    command += ["--reference", reference] if reference else []
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    print(f"{name}: {'done' if done.returncode == 0 else done.stderr.strip()}", flush=True)
    return done.returncode


if __name__ == "__main__":
    main()
