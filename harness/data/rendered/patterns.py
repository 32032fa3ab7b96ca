"""Which of a garment's two cloths shows at each place: shares in 0..1 of the second cloth.

Places are local to the part of the body, ``u`` across (-1..1) and ``v`` along (0..1), so a pattern moves with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.data.rendered.shapes import Array

_EDGE = 2.2  # steepness of a stripe's edge; softer than the pixel grid, so that thin stripes do not flicker


def _waves(place: Array, periods: float, phase: float) -> Array:
    return np.sin(2.0 * np.pi * (place * periods + phase))


def _soften(wave: Array) -> Array:
    return np.clip(_EDGE * wave + 0.5, 0.0, 1.0)


def _step(place: Array) -> Array:
    return np.clip(place * 12.0 + 0.5, 0.0, 1.0)


def _between(place: Array, low: float, high: float) -> Array:
    return _step(place - low) * _step(high - place)


def _check(u: Array, v: Array, periods: float, phase: float) -> Array:
    return _soften(1.6 * _waves(u * 0.5, periods * 0.8, phase) * _waves(v, periods, phase))


def _dots(u: Array, v: Array, periods: float, phase: float) -> Array:
    return _soften(0.9 * (_waves(u * 0.5, periods * 0.9, phase) + _waves(v, periods * 1.1, phase)) - 0.5)


_PATTERNS: dict[str, Callable[[Array, Array, float, float], Array]] = {
    "bands": lambda u, v, periods, phase: _soften(_waves(v, periods, phase)) + 0.0 * u,
    "columns": lambda u, v, periods, phase: _soften(_waves(u * 0.5, periods, phase)) + 0.0 * v,
    "check": _check,
    "dots": _dots,
    "diagonal": lambda u, v, periods, phase: _soften(_waves(v + 0.45 * u, periods * 0.8, phase)),
    "halves": lambda u, v, periods, phase: _step(u) + 0.0 * v,
    "belt": lambda u, v, periods, phase: _between(v, 0.25 + 0.3 * phase, 0.50 + 0.3 * phase) + 0.0 * u,
    "yoke": lambda u, v, periods, phase: _step(0.25 + 0.2 * phase - v) + 0.0 * u,
    "side": lambda u, v, periods, phase: _step(np.abs(u) - 0.55) + 0.0 * v,
    "hem": lambda u, v, periods, phase: _step(v - 0.68) + 0.0 * u,
    "knee": lambda u, v, periods, phase: _between(v, 0.36, 0.58) + 0.0 * u,
}


def second_cloth(pattern: str, u: Array, v: Array, *, periods: float, phase: float) -> Array | float:
    """The share of the second cloth at (u, v), float32 [h, w] or 0 for a plain garment."""
    if pattern == "plain":
        return 0.0
    return _PATTERNS[pattern](u, v, periods, phase)


def mix(cloths: Array, share: Array | float) -> Array:
    """Colours of a garment, [h, w, C] (or [C] if plain): ``cloths`` [2, C] mixed by ``share`` of the second."""
    if isinstance(share, float):
        return cloths[0]
    return cloths[0] + share[..., None] * (cloths[1] - cloths[0])
