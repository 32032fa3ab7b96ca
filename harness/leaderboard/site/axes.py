"""Axes of a drawing: which values get a mark, and where a value lies."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from harness.leaderboard.site.numbers import coordinate, fixed

_ALIKE = 1e-9  # a share; values that differ by less are one value


@dataclass(frozen=True, slots=True)
class Tick:
    """A marked value: its place along the axis, in drawing units, and its label."""

    at: str
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from ``low`` to ``high`` laid from ``start`` to ``end``, in drawing units (on a y axis start > end)."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    ticks: tuple[Tick, ...] = ()

    def place(self, value: float) -> float:
        """Where ``value`` lies, in drawing units."""
        low, high, at = (
            map(math.log10, (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def marked(self, values: list[float]) -> Axis:
        """The same axis with ticks at ``values``."""
        ticks = tuple(Tick(coordinate(self.place(value)), fixed(value, _decimals(value, values))) for value in values)
        return Axis(self.low, self.high, self.start, self.end, self.logarithmic, ticks)


@dataclass(frozen=True, slots=True)
class Plot:
    """What every drawing has: words, the size of the page it takes, the edges of the plotted area, two axes."""

    title: str
    unit: str
    description: str
    width: str
    height: str
    left: str
    right: str
    top: str
    bottom: str
    x: Axis
    y: Axis


def linear(low: float, high: float, *, start: float, end: float, whole: bool = False) -> Axis:
    """An axis that begins and ends at round values around ``low`` and ``high``.

    Args:
        whole: only whole numbers are marked (epochs), and the axis ends where the values do.
    """
    if high - low <= _ALIKE * max(abs(low), abs(high), _ALIKE):
        low, high = low - 1, high + 1
    step = _round_step((high - low) / 5)
    if whole:
        step = max(1.0, step)
        round_values = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return Axis(low, high, start, end).marked([low, *(value for value in round_values if value > low + step / 2)])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [step * i for i in range(first, last + 1)]
    return Axis(values[0], values[-1], start, end).marked(values)


def logarithmic(low: float, high: float, *, start: float, end: float) -> Axis:
    """A logarithmic axis with room beside ``low`` and ``high``, both above zero, and at least a factor of five.

    Marked at powers of ten, and at some or all multiples of them where that makes fewer than three marks.
    """
    room = max(0.1, (0.7 - math.log10(high / low)) / 2)
    low, high = low / 10**room, high * 10**room
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [
        [value for power in powers for factor in factors if low <= (value := float(f"{factor}e{power}")) <= high]
        for factors in ((1,), (1, 2, 5), range(1, 10))
    ]
    marked = next((values for values in choices if len(values) >= 3), choices[-1])
    return Axis(low, high, start, end, logarithmic=True).marked(marked)


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least ``least``."""
    power = math.floor(math.log10(least))
    steps = [float(f"{factor}e{power + more}") for more in (0, 1) for factor in (1, 2, 5)]
    return next(step for step in steps if step >= least * (1 - 1e-9))


def _decimals(value: float, values: list[float]) -> int:
    """So many that neighbours differ: by the distance of evenly spaced values, by the value itself on a log axis."""
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    even = bool(steps) and max(steps) < 1.01 * min(steps)
    least = min(steps) if even else abs(value)
    return 0 if least == 0 else max(0, -math.floor(math.log10(least) + 1e-9))
