"""DNC: how the radius and the size of the query expansion change with the epoch (dmic.md 3.3).

Stated by the paper: both formulas and all their values, for stages of 50 epochs. Reconstructed: the divisor of the k2
exponent. Ours: lengths are shares of a stage, so that shorter stages run through the same values.
"""

from __future__ import annotations

from harness_dmic.options import EpsSchedule


def eps_at(epoch: int, stage_epochs: int, *, cross: bool, schedule: EpsSchedule) -> float:
    """DBSCAN's radius in an epoch of a stage, both counted from 0.

    It shrinks over the whole stage, or with ``cross`` in its first part only, and then grows.
    """
    if not cross:
        return schedule.eps * schedule.eps_shrink ** (epoch / stage_epochs)
    turn = max(1, round(schedule.shrink_share * stage_epochs))
    if epoch <= turn:
        return schedule.eps * schedule.eps_shrink ** (epoch / turn)
    return schedule.eps_low * schedule.eps_growth ** ((epoch - turn) / (stage_epochs - turn))


def k2_at(epoch: int, horizon: int, *, start: int, growth: float) -> int:
    """Neighbours averaged within a modality: from ``start`` to ``growth`` times that in ``horizon`` epochs, then held.

    Halves are rounded to even.
    """
    return round(start * growth ** min(1.0, epoch / horizon))
