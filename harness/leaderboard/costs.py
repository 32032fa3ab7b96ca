"""What the runs of a row took."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from harness.leaderboard.board import RowCost
from harness.leaderboard.record import Cost

_ACCELERATOR = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|TITAN|AMD Instinct|AMD Radeon", re.IGNORECASE)


def unit_of(cost: Cost) -> Literal["CPU-hours", "GPU-hours"]:
    """What the hours of a run are of. A record names its device, and not its kind; accelerators name their maker."""
    return "GPU-hours" if _ACCELERATOR.search(cost.device) else "CPU-hours"


def hours(cost: Cost) -> float | None:
    """Device-hours of one run: per accelerator, or per CPU thread (None if their number is unknown)."""
    if unit_of(cost) == "GPU-hours":
        return cost.total_seconds * cost.world_size / 3600
    return None if cost.threads is None else cost.total_seconds * cost.world_size * cost.threads / 3600


def mean_cost(costs: Sequence[Cost]) -> RowCost | None:
    """Mean over the runs of a row; None if it is unknown for one of them, or their units differ."""
    of_run = [found for found in map(hours, costs) if found is not None]
    units = {unit_of(cost) for cost in costs}
    if len(of_run) < len(costs) or len(units) > 1:
        return None
    memory = [cost.peak_memory_mib for cost in costs if cost.peak_memory_mib is not None]
    seconds: defaultdict[str, float] = defaultdict(float)
    for cost in costs:
        for work, taken in cost.seconds.items():
            seconds[work] += taken / len(costs)
    return RowCost(
        hours=round(statistics.fmean(of_run), 6),
        unit=units.pop(),
        device=", ".join(sorted({cost.device for cost in costs})),
        peak_memory_mib=round(statistics.fmean(memory), 3) if memory else None,
        seconds={work: round(taken, 3) for work, taken in sorted(seconds.items())},
    )
