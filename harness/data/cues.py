"""Training-free cues: what can be told from colour, brightness or outline alone.

They stand beside every table of the rendered dataset: a trained encoder that does not beat them has learnt
nothing. Each takes uint8 images [N, H, W, 3] and returns float32 features [N, D].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Features = NDArray[np.float32]

_LUMINANCE = np.asarray((0.299, 0.587, 0.114), dtype=np.float32)
_ROWS_AT_ONCE = 512


def mean_colour(images_NHW3: Images) -> Features:
    """The mean of each channel, [N, 3]."""
    return images_NHW3.mean(axis=(1, 2), dtype=np.float32) / np.float32(255.0)


def colour_histogram(images_NHW3: Images, *, bins: int = 8) -> Features:
    """The share of pixels in each of ``bins`` equal ranges of each channel, [N, 3 * bins]."""
    channels = [_histogram(images_NHW3[..., channel], bins) for channel in range(3)]
    return np.concatenate(channels, axis=1)


def grey_histogram(images_NHW3: Images, *, bins: int = 16) -> Features:
    """The share of pixels in each of ``bins`` equal ranges of brightness, [N, bins]."""
    return _in_parts(lambda part: _histogram(np.rint(_grey(part)).astype(np.uint8), bins), images_NHW3)


def grey_thumbnail(images_NHW3: Images, *, size: tuple[int, int] = (16, 8)) -> Features:
    """Mean brightness of a grid of cells, each image standardised, [N, height * width of the grid]."""

    def thumbnail(part: Images) -> Features:
        cells = _cells(_grey(part), size).mean(axis=(2, 4)).reshape(len(part), -1)
        return _standardise_rows(cells)

    return _in_parts(thumbnail, images_NHW3)


def hog(images_NHW3: Images, *, cells: tuple[int, int] = (16, 8), orientations: int = 9) -> Features:
    """Histograms of oriented gradients, [N, (rows - 1) * (columns - 1) * 4 * orientations].

    Unsigned gradients of the grey image, linear votes between the two nearest orientations, blocks of 2x2 cells
    that overlap by one cell, each with L2 norm, clipping at 0.2 and L2 norm again.

    Source: Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005.
    """

    def describe(part: Images) -> Features:
        votes = _orientation_votes(_grey(part), orientations)
        # axes: image, cell row, row in cell, cell column, column in cell, orientation
        histograms = _cells(votes, cells).sum(axis=(2, 4))
        return _blocks(histograms)

    return _in_parts(describe, images_NHW3)


def standardise_by_modality(features_ND: Features, modality_N: NDArray[np.int64]) -> Features:
    """Each dimension with mean 0 and deviation 1 within each modality, float32 [N, D].

    This uses statistics of the set at hand, so a table must say that it was done.
    """
    standardised = np.empty_like(features_ND, dtype=np.float32)
    for code in np.unique(modality_N):
        rows = modality_N == code
        part = features_ND[rows]
        standardised[rows] = (part - part.mean(axis=0)) / (part.std(axis=0) + 1e-6)
    return standardised


CUES: Mapping[str, Callable[[Images], Features]] = MappingProxyType(
    {
        "mean colour": mean_colour,
        "colour histogram": colour_histogram,
        "grey histogram": grey_histogram,
        "grey thumbnail": grey_thumbnail,
        "HOG": hog,
    }
)
"""The cues of the reference table, by the name it prints."""


def _in_parts(cue: Callable[[Images], Features], images: Images) -> Features:
    """``cue`` over a few hundred images at a time, so that memory does not grow with N."""
    parts = [cue(images[start : start + _ROWS_AT_ONCE]) for start in range(0, max(len(images), 1), _ROWS_AT_ONCE)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def _grey(images: Images) -> Features:
    return images.astype(np.float32) @ _LUMINANCE


def _histogram(values_NHW: Images, bins: int) -> Features:
    """Shares of ``bins`` equal ranges of 0..255, float32 [N, bins]."""
    count = len(values_NHW)
    places = (values_NHW.reshape(count, -1).astype(np.int64) * bins) >> 8
    places += np.arange(count)[:, None] * bins
    counts = np.bincount(places.ravel(), minlength=count * bins).reshape(count, bins)
    return (counts / places.shape[1]).astype(np.float32)


def _cells(values: Features, grid: tuple[int, int]) -> Features:
    """[N, H, W, ...] as [N, rows, H / rows, columns, W / columns, ...]."""
    count, height, width, *rest = values.shape
    rows, columns = grid
    if height % rows or width % columns:
        raise ValueError(f"images of {height}x{width} pixels cannot be cut into {rows}x{columns} equal cells")
    return values.reshape(count, rows, height // rows, columns, width // columns, *rest)


def _orientation_votes(grey_NHW: Features, orientations: int) -> Features:
    """Each pixel's gradient, split between its two nearest orientations, float32 [N, H, W, orientations]."""
    padded = np.pad(grey_NHW, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    place = (np.arctan2(down, right) % np.pi) * (orientations / np.pi)
    offset = place[..., None] - np.arange(orientations, dtype=np.float32)
    apart = np.abs((offset + orientations / 2) % orientations - orientations / 2)
    return np.hypot(down, right)[..., None] * np.clip(1.0 - apart, 0.0, None)


def _blocks(histograms: Features) -> Features:
    """Overlapping blocks of 2x2 cells, normalised, [N, D]."""
    corners = (histograms[:, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1))
    blocks = np.concatenate([np.ascontiguousarray(corner) for corner in corners], axis=3)
    blocks = np.minimum(_unit(blocks), 0.2)
    return _unit(blocks).reshape(len(blocks), -1)


def _unit(blocks: Features) -> Features:
    return blocks / (np.linalg.norm(blocks, axis=3, keepdims=True) + 1e-3)


def _standardise_rows(values: Features) -> Features:
    return (values - values.mean(axis=1, keepdims=True)) / (values.std(axis=1, keepdims=True) + 1e-6)
