"""Features like those of visible-infrared person re-identification, from a formula.

Cameras 0 to 3 are visible (modality 0), 4 and 5 infrared (1). With P people and Gaussian vectors of unit expected
length in 64 dimensions, person[p], camera[c], modality[m], pose[p, c] and nuisance[i], and a random map A into D
dimensions, image i of person p under camera c is the unit vector along

    A (person + 0.35 camera + 0.35 modality + 0.35 pose + 1.1 t_i nuisance_i) + 0.15 noise_i,   t_i = exp(0.4 z_i),

with z_i standard normal and noise_i Gaussian in D dimensions. People appear under all cameras of the chosen part in
turn, so neighbours cross cameras; the order of the images is random. One ``torch.Generator`` with the seed draws
everything. DBSCAN at eps 0.6 leaves 11 to 20 % of the images as outliers where D is 768 or 2,048, about 5 % where it is
256.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Part = Literal["visible", "infrared", "joint"]
CAMERAS = {"visible": (0, 1, 2, 3), "infrared": (4, 5), "joint": (0, 1, 2, 3, 4, 5)}
_LATENT = 64


def mixture(
    rows: int, size: int, *, people: int, seed: int = 0, part: Part = "joint", step: int = 8192
) -> tuple[Tensor, Tensor]:
    """Unit rows, float32 [rows, size], and the person of each, int64 [rows]."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int, dimensions: int = _LATENT) -> Tensor:
        return torch.randn(count, dimensions, generator=generator) / math.sqrt(dimensions)

    person, camera, modality, pose, upward = drawn(people), drawn(6), drawn(2), drawn(6 * people), drawn(_LATENT, size)
    order = torch.randperm(rows, generator=generator)
    cameras = torch.tensor(CAMERAS[part])
    p_N, c_N = order % people, cameras[(order // people) % len(cameras)]
    spread_N1 = 1.1 * torch.exp(0.4 * torch.randn(rows, 1, generator=generator))
    features = torch.empty(rows, size)
    for own in (slice(start, start + step) for start in range(0, rows, step)):
        p, c = p_N[own], c_N[own]
        latent = person[p] + 0.35 * (camera[c] + modality[c // 4] + pose[6 * p + c]) + spread_N1[own] * drawn(len(p))
        # The map's columns are as long as its rows would be for unit length to be kept.
        mapped = latent @ upward * math.sqrt(size / _LATENT)
        features[own] = normalize(mapped + 0.15 * drawn(len(p), size), dim=1)
    return features, p_N
