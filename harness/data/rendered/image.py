"""One rendered image, from (dataset seed, identity, camera, image number) alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import Generator, SeedSequence

from harness.data.rendered.cameras import (
    INFRARED_CAMERAS,
    REGDB_THERMAL_CAMERA,
    Camera,
    Spectrum,
    draw_camera,
    draw_thermal_camera,
    paint_background,
    take_picture,
)
from harness.data.rendered.figure import draw_pose, paint_person
from harness.data.rendered.people import Person, draw_person
from harness.data.rendered.shapes import Array, Canvas

OCCLUDED = 0.06
"""The share of images in which something stands before the person."""

OFFSET_X, OFFSET_Y = 0.12, 0.04
"""How far from image to image a person stands from the image's middle, in image widths and heights."""

_PERSON, _CAMERA, _IMAGE = 1, 2, 3  # one random stream each


def person_of(seed: int, identity: int) -> Person:
    """The person behind an identity of the dataset with this seed."""
    return _person_of(seed, identity)


def camera_of(seed: int, camera: int, *, infrared: bool | None = None) -> Camera:
    """A camera of the dataset with this seed; infrared or thermal if its number says so, unless told otherwise."""
    if infrared is not None:
        return _camera_of(seed, camera, "infrared" if infrared else "visible")
    if camera == REGDB_THERMAL_CAMERA:
        return _camera_of(seed, camera, "thermal")
    return _camera_of(seed, camera, "infrared" if camera in INFRARED_CAMERAS else "visible")


def render_image(seed: int, *, identity: int, camera: int, number: int, size: tuple[int, int]) -> np.ndarray:
    """The image that the dataset with this seed holds at this place.

    It depends on the arguments alone, so any part of a dataset can be rendered in any order.

    Args:
        seed: the dataset's seed, not negative.
        identity: the person, from 1.
        camera: 1 .. 6, or one of the RegDB layout (7 visible, 8 thermal).
        number: the image of this person in this camera, from 1.
        size: height and width in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    rng = _stream(seed, _IMAGE, identity, camera, number)
    return render_person(person_of(seed, identity), camera_of(seed, camera), rng, size=size)


def render_person(person: Person, camera: Camera, rng: Generator, *, size: tuple[int, int]) -> np.ndarray:
    """A person in front of a camera; ``rng`` decides pose, framing, occlusion and exposure. uint8 [H, W, 3]."""
    canvas = Canvas(paint_background(camera, rng, size=size), **_framing(person, camera, rng, size=size))
    paint_person(canvas, person, draw_pose(rng), spectrum=camera.spectrum)
    if rng.random() < OCCLUDED:
        _paint_occluder(canvas, rng, brightest=0.25 if camera.spectrum == "thermal" else 0.8)
    return take_picture(camera, canvas.pixels, rng)


@lru_cache(maxsize=4096)
def _person_of(seed: int, identity: int) -> Person:
    return draw_person(_stream(seed, _PERSON, identity))


@lru_cache(maxsize=256)
def _camera_of(seed: int, camera: int, spectrum: Spectrum) -> Camera:
    rng = _stream(seed, _CAMERA, camera)
    return draw_thermal_camera(rng) if spectrum == "thermal" else draw_camera(rng, infrared=spectrum == "infrared")


def _stream(*key: int) -> Generator:
    return np.random.default_rng(SeedSequence(key))


def _framing(person: Person, camera: Camera, rng: Generator, *, size: tuple[int, int]) -> dict[str, Array]:
    """Body coordinates of the canvas's columns and rows, as a detector's box around the person gives them."""
    height, width = size
    scale = 0.93 * person.height * camera.scale * rng.uniform(0.93, 1.06)
    centre = 0.5 + camera.offset_x + rng.uniform(-OFFSET_X, OFFSET_X)
    soles = 0.97 + camera.offset_y + rng.uniform(-OFFSET_Y, OFFSET_Y)
    # Short people leave room above and below, not above alone.
    soles -= 0.5 * max(0.0, 0.93 - scale)
    columns = ((np.arange(width) + 0.5) / width - centre) * (width / height) / scale
    rows = ((np.arange(height) + 0.5) / height - soles) / scale + 1.0
    rows = np.sign(rows) * np.abs(rows) ** camera.foreshortening
    return {"x": columns.astype(np.float32), "y": rows.astype(np.float32)}


def _paint_occluder(canvas: Canvas, rng: Generator, *, brightest: float) -> None:
    """A plain obstacle: low and wide (a table), or tall and narrow (a post)."""
    channels = canvas.pixels.shape[2]
    colour = np.full(channels, rng.uniform(0.15, brightest), dtype=np.float32)
    x = rng.uniform(-0.18, 0.18)
    if rng.random() < 0.6:
        top = rng.uniform(0.62, 0.82)
        canvas.box(x - 0.25, x + 0.25, top, 1.2, colour)
    else:
        canvas.box(x - 0.03, x + 0.03, 0.0, 1.2, colour)
