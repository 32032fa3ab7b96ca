"""A canvas in body coordinates and the anti-aliased shapes that a person is painted with.

Body coordinates: y runs from 0 (crown) to 1 (soles), x from the body's axis to its right, in the same unit.
A shape is a signed distance, positive inside; the share of a pixel that it covers is
``clip(distance / pixel + 0.5, 0, 1)``.

Shape suffixes: H, W the canvas; h, w the window that a shape touches; C colour channels (3 visible, 1 infrared).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Point = tuple[float, float]


@dataclass(frozen=True)
class Window:
    """The part of a canvas around a shape: its rows and columns, and their body coordinates x [1, w], y [h, 1]."""

    rows: slice
    columns: slice
    x: Array
    y: Array

    @property
    def is_empty(self) -> bool:
        """Whether the shape lies outside the canvas."""
        return self.x.size == 0 or self.y.size == 0


class Canvas:
    """Pixels being painted, back to front.

    Attributes:
        pixels: float32 [H, W, C], reflectances.
        x: float32 [W], body coordinate of each column, increasing.
        y: float32 [H], body coordinate of each row, increasing.
        pixel: the width of one pixel in body units.
    """

    def __init__(self, pixels: Array, *, x: Array, y: Array) -> None:
        self.pixels = pixels
        self.x = x
        self.y = y
        self.pixel = float(x[1] - x[0])

    def window(self, x0: float, x1: float, y0: float, y1: float) -> Window:
        """The window that covers x0..x1, y0..y1 and one pixel around it."""
        columns = slice(*np.searchsorted(self.x, (x0 - self.pixel, x1 + self.pixel)).tolist())
        rows = slice(*np.searchsorted(self.y, (y0 - self.pixel, y1 + self.pixel)).tolist())
        return Window(rows, columns, self.x[None, columns], self.y[rows, None])

    def coverage(self, distance: Array) -> Array:
        """The share of each pixel that lies inside a shape, float32 [h, w]."""
        return np.clip(distance * (1.0 / self.pixel) + 0.5, 0.0, 1.0)

    def paint(self, window: Window, cover: Array, colour: Array) -> None:
        """Lay ``colour`` ([C] or [h, w, C]) over the window, as far as ``cover`` [h, w] says."""
        below = self.pixels[window.rows, window.columns]
        below += cover[..., None] * (colour - below)

    def ellipse(self, centre: Point, radii: Point, colour: Array) -> None:
        """Paint a plain ellipse."""
        (cx, cy), (rx, ry) = centre, radii
        window = self.window(cx - rx, cx + rx, cy - ry, cy + ry)
        if not window.is_empty:
            reach = np.sqrt(((window.x - cx) / rx) ** 2 + ((window.y - cy) / ry) ** 2)
            self.paint(window, self.coverage((1.0 - reach) * min(rx, ry)), colour)

    def box(self, x0: float, x1: float, y0: float, y1: float, colour: Array) -> None:
        """Paint a plain rectangle."""
        window = self.window(x0, x1, y0, y1)
        if not window.is_empty:
            self.paint(window, self.coverage(box_distance(window, x0, x1, y0, y1)), colour)

    def stroke(self, start: Point, end: Point, radius: float, colour: Array) -> None:
        """Paint a plain line with round ends."""
        window = self.around(start, end, radius)
        if not window.is_empty:
            distance, _, _ = capsule(window, start, end, radius, radius)
            self.paint(window, self.coverage(distance), colour)

    def around(self, start: Point, end: Point, radius: float) -> Window:
        """The window around a line of the given radius."""
        return self.window(
            min(start[0], end[0]) - radius,
            max(start[0], end[0]) + radius,
            min(start[1], end[1]) - radius,
            max(start[1], end[1]) + radius,
        )


def box_distance(window: Window, x0: float, x1: float, y0: float, y1: float) -> Array:
    """Signed distance to a rectangle, float32 [h, w]."""
    across = (x1 - x0) / 2 - np.abs(window.x - (x0 + x1) / 2)
    along = (y1 - y0) / 2 - np.abs(window.y - (y0 + y1) / 2)
    return np.minimum(across, along)


def capsule(
    window: Window, start: Point, end: Point, radius_start: float, radius_end: float
) -> tuple[Array, Array, Array]:
    """A limb: a line with round ends and a radius that changes along it.

    Returns:
        float32 [h, w] each: the signed distance, the place along the limb (0 start .. 1 end) and the place
        across it (-1 .. 1 inside), so that a pattern can move with the limb.
    """
    dx, dy = end[0] - start[0], end[1] - start[1]
    squared = dx * dx + dy * dy
    x, y = window.x - start[0], window.y - start[1]
    along = np.clip((x * dx + y * dy) * (1.0 / squared), 0.0, 1.0)
    radius = radius_start + (radius_end - radius_start) * along
    distance = radius - np.hypot(x - along * dx, y - along * dy)
    across = (x * dy - y * dx) * (1.0 / squared**0.5) / radius
    return distance, along, across
