"""Time, memory and growth of the clustering over the number of images, against the dense algorithm of the field.

    python -m tests.benchmarks.clustering_scale 2060 4120 11909 --reference
    python -m tests.benchmarks.clustering_scale 34167 300000 1000000 --size 256 --given-lists
    python -m tests.benchmarks.clustering_scale 2060 11909 34167 --device cuda --reference

Every size is measured in a process of its own: compiled kernels are warm, then the peak of the resident memory
is reset; what it reaches above that point is the extra memory. Seconds on one thread are those of the processor.
``--given-lists`` leaves the neighbour search out: rank lists come from a search within groups of two dozen people.
``--device`` holds the features there: seconds are those of the wall until it is idle, and the extra memory is its own;
labels are still compared with those of the dense algorithm, which stays on the processor. ``--steps torch`` shows what
an accelerator is told to do, on the processor.
Prints one line of Markdown per size.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = {2060: ("infrared", 206), 4120: ("joint", 206), 11909: ("infrared", 395), 22258: ("visible", 395)}
COLUMNS = (
    "images × size", "threads or device", "search, s", "rest, s", "whole, s", "extra MiB", "clusters", "outliers",
    "dense search, s", "dense rest, s", "dense MiB", "whole: times faster",
    "rest: times faster", "memory: times less", "same labels",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where the features are, for example cuda")
    parser.add_argument(
        "--steps", choices=("auto", "compiled", "torch"), default="auto", help="what follows the search"
    )
    parser.add_argument("--reference", action="store_true", help="measure the dense algorithm as well")
    parser.add_argument("--given-lists", action="store_true", help="leave the neighbour search out")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(*measured(options), sep=" | ")
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    rests = []
    for rows in options.rows:
        command = [sys.executable, "-m", "tests.benchmarks.clustering_scale", "--here", str(rows)]
        command += ["--size", str(options.size), "--threads", str(options.threads)]
        command += ["--device", options.device, "--steps", options.steps]
        command += ["--reference"] * options.reference + ["--given-lists"] * options.given_lists
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
        print(f"| {line} |", flush=True)
        rests.append(float(line.split(" | ")[3]))
    for (first, a), (last, b) in itertools.pairwise(zip(options.rows, rests, strict=True)):
        print(f"growth exponent of the rest, {first:,} to {last:,}: {math.log(b / a) / math.log(last / first):.2f}")


def measured(options: argparse.Namespace) -> list[str]:
    """One line of the table."""
    import numpy as np
    import torch

    from harness.clustering.coarse import possible_grades
    from harness.clustering.dbscan import dbscan
    from harness.clustering.jaccard import k_reciprocal_jaccard
    from harness.clustering.neighbours import nearest_neighbours
    from tests.benchmarks.clustering_data import mixture

    torch.set_num_threads(options.threads)
    rows, size, threads, device = options.rows[0], options.size, options.threads, options.device
    part, people = PARTS.get(rows, ("joint", max(2, rows // 86)))

    def rest(features: torch.Tensor, ranking: torch.Tensor) -> Any:
        distances = k_reciprocal_jaccard(features, max_distance=0.6, ranking_NK=ranking, steps=options.steps)
        return dbscan(distances, eps=0.6)

    small = mixture(600, size, people=7)[0].to(device)
    for grade in possible_grades(small):
        rest(small, nearest_neighbours(small, 30, grade=grade))
        nearest_neighbours(small[:1].expand(600, -1), 30, grade=grade)
    features, person = mixture(rows, size, people=people, part=part)
    features, person = features.to(device), person.to(device)
    before = reset_peak(device)
    if options.given_lists:
        ranking, searched = grouped_lists(features, person, 30), math.nan
        before = reset_peak(device)
    else:
        ranking, searched = timed(lambda: nearest_neighbours(features, 30), threads=threads, device=device)
    labels, others = timed(lambda: rest(features, ranking), threads=threads, device=device)
    memory = max(peak(device) - before, 1024)
    line = [f"{rows:,} × {size:,}", f"{threads}" if device == "cpu" else device, f"{searched:.2f}", f"{others:.2f}"]
    line += [f"{searched + others:.2f}", f"{memory / 1024:.0f}", f"{labels.max() + 1}", f"{(labels < 0).mean():.1%}"]
    if not options.reference:
        return line + ["–"] * (len(COLUMNS) - len(line))
    from tests.benchmarks import clustering_reference as dense

    given = features.cpu().numpy()
    gc.collect()
    before = reset_peak()
    lists, dense_searched = timed(lambda: dense.flat_search(given, 30), threads=threads)
    dense_labels, dense_others = timed(
        lambda: dense.dense_labels(dense.dense_jaccard(given, lists=lists), eps=0.6), threads=threads
    )
    dense_memory = peak() - before
    whole = (dense_searched + dense_others) / (searched + others)
    line += [f"{dense_searched:.2f}", f"{dense_others:.2f}", f"{dense_memory / 1024:.0f}", f"{whole:.1f}"]
    line += [f"{dense_others / others:.1f}", f"{dense_memory / memory:.1f}"]
    return [*line, "yes" if np.array_equal(labels, dense_labels) else "no"]


def grouped_lists(features: Any, person: Any, k: int) -> Any:
    """Rank lists of a search within groups of 24 people: the shape of true ones, without their cost."""
    import torch

    from harness.clustering.neighbours import nearest_neighbours

    ranking = torch.empty(len(features), k, dtype=torch.int64, device=features.device)
    order = torch.argsort(person, stable=True)
    edges = torch.searchsorted(person[order], torch.arange(0, int(person.max()) + 24, 24).to(person))
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        own = order[first:last].sort().values
        ranking[own] = own[nearest_neighbours(features[own], k)]
    return ranking


def timed(action: Callable[[], Any], *, threads: int, device: str = "cpu") -> tuple[Any, float]:
    """The result and its seconds: on one thread those of the processor, which a busy machine changes least."""
    clock = time.process_time if threads == 1 and device == "cpu" else time.perf_counter
    wait_for(device)
    start = clock()
    result = action()
    wait_for(device)
    return result, clock() - start


def wait_for(device: str) -> None:
    """Returns when the device has done what it was told."""
    import torch

    if device != "cpu":
        torch.accelerator.synchronize(device)


def reset_peak(device: str = "cpu") -> int:
    """Sets the peak of the memory in use to what it is now, and returns that, in KiB (of the process: Linux)."""
    import torch

    gc.collect()
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        return peak(device)
    # What the allocator keeps of freed memory would hide what is taken next.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak(device: str = "cpu") -> int:
    """The most memory in use since ``reset_peak``, in KiB: resident memory of the process, or tensors of the device."""
    import torch

    if device != "cpu":
        return torch.accelerator.max_memory_allocated(device) // 1024
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
