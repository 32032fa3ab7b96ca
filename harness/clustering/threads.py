"""Compiled kernels over ranges of rows, on as many threads as torch may use.

A kernel releases the interpreter lock and writes nothing that another range reads, so the result does not depend on
the number of threads. Plain threads rather than numba's own: those cannot be called from two Python threads at once
or after a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from harness.progress import Progress


def over_rows(
    kernel: Callable[..., Any], total: int, *arguments: Any, step: int | None = None, progress: Progress | None = None
) -> list[Any]:
    """What ``kernel(first, last, *arguments)`` returns for consecutive ranges of ``total`` rows, in their order.

    ``step``: rows of a range; by default a thirty-second of all, but 256 to 16,384.
    """
    step = step or min(max(256, -(-total // 32)), 16_384)
    ranges = [(first, min(first + step, total)) for first in range(0, total, step)]
    results = []
    for (_, last), result in zip(ranges, _in_order(kernel, ranges, arguments), strict=True):
        results.append(result)
        if progress is not None:
            progress(last, total)
    return results


def _in_order(kernel: Callable[..., Any], ranges: list[tuple[int, int]], arguments: tuple[Any, ...]) -> Iterator[Any]:
    threads = min(torch.get_num_threads(), len(ranges))
    if threads <= 1:
        yield from (kernel(first, last, *arguments) for first, last in ranges)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda own: kernel(*own, *arguments), ranges)


def part_of(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """The progress of one of ``parts`` passes over the same rows, told to ``progress`` as a share of all passes."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)
