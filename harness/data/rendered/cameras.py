"""Where people are seen: a camera's background, light and sensor, and what it makes of a painted canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from harness.data.rendered.shapes import Array

Spectrum = Literal["visible", "infrared", "thermal"]

VISIBLE_CAMERAS = (1, 2, 4, 5)
INFRARED_CAMERAS = (3, 6)
REGDB_VISIBLE_CAMERA, REGDB_THERMAL_CAMERA = 7, 8
"""The cameras of the RegDB layout; their numbers differ from the others', so their random streams do too."""

STRENGTH = 0.4
"""How far cameras differ in colour, exposure and perspective; 0 is no difference."""

BLOCK_CONTRAST = 0.18

_LUMINANCE = np.asarray((0.299, 0.587, 0.114), dtype=np.float32)
_REFERENCE_HEIGHT = 64  # blur is drawn in pixels of an image of this height


@dataclass(frozen=True)
class Block:
    """A piece of furniture: centre, half extents (in image widths and heights) and colour [C]."""

    x: float
    y: float
    half_width: float
    half_height: float
    colour: Array


@dataclass(frozen=True)
class Camera:
    """One camera. ``wall``, ``floor`` and ``tint`` are [C]; C is 3 for visible, 1 for infrared and thermal."""

    spectrum: Spectrum
    wall: Array
    floor: Array
    horizon: float
    blocks: tuple[Block, ...]
    tint: Array
    gamma: float
    saturation: float
    blur: float
    noise: float
    side_light: float
    foreshortening: float
    scale: float
    offset_x: float
    offset_y: float
    vignette: float
    glow: float

    @property
    def channels(self) -> int:
        """1 for infrared and thermal, 3 for visible."""
        return 3 if self.spectrum == "visible" else 1


def draw_camera(rng: Generator, *, infrared: bool, strength: float = STRENGTH) -> Camera:
    """A random camera of the given spectrum."""
    channels = 1 if infrared else 3

    def colour(low: float, high: float) -> Array:
        grey = rng.uniform(low, high)
        spread = 0.0 if infrared else 0.12
        return np.clip(grey + rng.uniform(-spread, spread, channels), 0.0, 1.0).astype(np.float32)

    def around_one(spread: float) -> float:
        return 1.0 + rng.uniform(-spread, spread) * strength

    wall = rng.uniform(0.35, 0.75)
    # Furniture stands out little: it returns in every image of a camera, and would outweigh the person.
    blocks = tuple(
        Block(
            x=rng.uniform(0.0, 1.0),
            y=rng.uniform(0.25, 0.8),
            half_width=rng.uniform(0.06, 0.22),
            half_height=rng.uniform(0.08, 0.3),
            colour=colour(wall - BLOCK_CONTRAST, wall + BLOCK_CONTRAST),
        )
        for _ in range(int(rng.integers(1, 4)))
    )
    return Camera(
        spectrum="infrared" if infrared else "visible",
        wall=colour(wall, wall),
        floor=colour(wall - 0.25, wall + 0.05),
        horizon=rng.uniform(0.55, 0.85),
        blocks=blocks,
        tint=np.asarray([around_one(0.22) * around_one(0.3) for _ in range(channels)], dtype=np.float32),
        gamma=around_one(0.35),
        saturation=around_one(0.5),
        blur=rng.uniform(0.2, 0.5) if infrared else rng.uniform(0.15, 0.5),
        noise=rng.uniform(0.02, 0.035) if infrared else rng.uniform(0.01, 0.035),
        side_light=rng.uniform(-0.5, 0.5) * strength,
        foreshortening=around_one(0.12),
        scale=around_one(0.1),
        offset_x=rng.uniform(-0.06, 0.06) * strength,
        offset_y=rng.uniform(-0.04, 0.04) * strength,
        vignette=rng.uniform(0.1, 0.45) if infrared else 0.0,
        glow=rng.uniform(0.0, 0.12) if infrared else 0.0,
    )


def draw_thermal_camera(rng: Generator) -> Camera:
    """A random thermal camera: a cold, nearly even background, no light of its own, coarse optics."""
    wall = rng.uniform(0.10, 0.20)

    def warmth(spread: float) -> Array:
        return np.asarray([wall + rng.uniform(-spread, spread)], dtype=np.float32)

    blocks = tuple(
        Block(
            x=rng.uniform(0.0, 1.0),
            y=rng.uniform(0.25, 0.8),
            half_width=rng.uniform(0.06, 0.22),
            half_height=rng.uniform(0.08, 0.3),
            colour=warmth(0.05),
        )
        for _ in range(2)
    )
    return Camera(
        spectrum="thermal",
        wall=warmth(0.0),
        floor=warmth(0.05),
        horizon=rng.uniform(0.55, 0.85),
        blocks=blocks,
        tint=np.ones(1, dtype=np.float32),
        gamma=1.0,
        saturation=1.0,
        blur=rng.uniform(0.7, 0.9),
        noise=rng.uniform(0.01, 0.02),
        side_light=0.0,
        foreshortening=1.0 + rng.uniform(-0.12, 0.12) * STRENGTH,
        scale=1.0 + rng.uniform(-0.1, 0.1) * STRENGTH,
        offset_x=0.0,
        offset_y=0.0,
        vignette=0.0,
        glow=0.0,
    )


def paint_background(camera: Camera, rng: Generator, *, size: tuple[int, int]) -> Array:
    """Wall, floor and furniture as one image of the camera sees them, float32 [H, W, C].

    The furniture shifts from image to image, as a crop around a walking person does.
    """
    height, width = size
    rows = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    columns = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
    horizon = camera.horizon + rng.uniform(-0.05, 0.05)
    floor_share = np.clip((rows - horizon) * height + 0.5, 0.0, 1.0)[..., None]
    pixels = np.empty((height, width, camera.channels), dtype=np.float32)
    pixels[:] = camera.wall + floor_share * (camera.floor - camera.wall)
    for block in camera.blocks:
        x = (block.x + rng.uniform(-0.5, 0.5)) % 1.0
        y = block.y + rng.uniform(-0.05, 0.05)
        across = np.clip((block.half_width - np.abs(columns - x)) * width + 0.5, 0.0, 1.0)
        along = np.clip((block.half_height - np.abs(rows - y)) * height + 0.5, 0.0, 1.0)
        pixels += (across * along)[..., None] * (block.colour - pixels)
    return pixels


def take_picture(camera: Camera, reflectance: Array, rng: Generator) -> np.ndarray:
    """What the camera records of a painted canvas.

    Args:
        reflectance: float32 [H, W, C].
        rng: the image's generator (exposure and sensor noise).

    Returns:
        uint8 [H, W, 3]; the three channels are equal unless the camera is visible.
    """
    height, width, _ = reflectance.shape
    gain = rng.uniform(0.85, 1.15)
    gamma = camera.gamma * rng.uniform(0.9, 1.1)
    light = reflectance * (_illumination(camera, height, width) * (camera.tint * np.float32(gain)))
    if camera.spectrum == "visible":
        grey = light @ _LUMINANCE
        light = grey[..., None] + camera.saturation * (light - grey[..., None])
    light = np.clip(light, 0.0, 1.0) ** gamma
    sigma = camera.blur * height / _REFERENCE_HEIGHT
    light = gaussian_filter(light, sigma=(sigma, sigma, 0.0), mode="nearest", truncate=3.0)
    light += camera.noise * rng.standard_normal(light.shape, dtype=np.float32)
    recorded = (np.clip(light, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return recorded if camera.spectrum == "visible" else np.repeat(recorded, 3, axis=2)


def _illumination(camera: Camera, height: int, width: int) -> Array:
    """Light that reaches each pixel, float32 [H, W, 1]."""
    across = ((np.arange(width, dtype=np.float32) + 0.5) * (2.0 / width) - 1.0)[None, :]
    if camera.spectrum == "visible":
        return np.broadcast_to((1.0 + camera.side_light * across)[..., None], (height, width, 1))
    along = ((np.arange(height, dtype=np.float32) + 0.5) * (2.0 / height) - 1.0)[:, None]
    falloff = np.exp(-0.5 * camera.vignette * (across**2 + along**2))
    return ((1.0 + camera.glow) * falloff * (1.0 + 0.5 * camera.side_light * across))[..., None]
