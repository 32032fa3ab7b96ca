"""Records of grids whose figures are given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from harness.evaluation import FIGURE_NAMES, Figures
from harness.evaluation.figures import QueryMeans
from harness.leaderboard import CodeState, Cost, DatasetCard, EncoderCard, Environment, Part, Record

PROTOCOL = "rendered/all/single/S/v1"
DATASET = DatasetCard(
    name="rendered", fingerprint="f00d", size="small", seed=1, images_train=96, images_test=48, cameras=[1, 2, 3]
)
LEVELS: Mapping[str, Sequence[str]] = {
    "clusterer": ("modality-dbscan", "chc"),
    "label refiner": ("none", "ipr"),
    "memory": ("cluster-memory", "tsmem"),
}
"""Two levels of three roles; the first of each is the reference."""


def figures_at(percent: float) -> Figures:
    """Figures that are all the same, in percent."""
    values = dict.fromkeys(FIGURE_NAMES, percent / 100)
    return Figures(
        **values,
        per_trial={name: [value] for name, value in values.items()},
        sd=dict.fromkeys(FIGURE_NAMES),
        trials=1,
        queries=4,
        valid_queries=4,
        gallery_size=6,
    )


def part(role: str, name: str, **options: Any) -> Part:
    """A part of some plugin."""
    return Part(role=role, name=name, plugin=name, distribution="vireid-harness", version="0.1.0", options=options)


def record(parts: Sequence[Part], percent: float, *, seed: int = 0, **changes: Any) -> Record:
    """The record of a run; ``changes`` replace its fields."""
    names = "+".join(one.name for one in parts)
    fields: dict[str, Any] = {
        "name": f"{names}-s{seed}",
        "method": ",".join(one.name for one in parts),
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "dataset": DATASET,
        "protocols": {PROTOCOL: figures_at(percent)},
        "primary_protocol": PROTOCOL,
        "by_query": QueryMeans.of(np.full(4, percent / 100), np.full(4, percent / 100)),
        "embeddings_sha256": "e" * 64,
        "parts": [*parts, part("loss", "contrast")],
        "recipe": {"epochs": 12, "learning_rate": 0.002},
        "encoder": EncoderCard(name="small", weights="random", embeddings={"main": 128}, parameters=309_000),
        "seed": seed,
        "cost": Cost(seconds={"training": 48.9}, total_seconds=74.0, device="cpu", precision="fp32"),
        "environment": Environment(python="3.11.9", torch="2.11.0", platform="Linux"),
        "code": CodeState(revision="abc123", dirty=False),
    }
    return Record(**(fields | changes))


def grid_records(
    percent: Callable[..., float], *, seeds: Sequence[int] = (0, 1, 2), levels: Mapping[str, Sequence[str]] = LEVELS
) -> list[Record]:
    """All cells of ``levels``; ``percent(*levels, seed)`` says the figure of each. ``none`` is no part."""
    return [
        record(
            [part(role, name) for role, name in zip(levels, names, strict=True) if name != "none"],
            percent(*(of.index(name) for of, name in zip(levels.values(), names, strict=True)), seed),
            seed=seed,
        )
        for names in itertools.product(*levels.values())
        for seed in seeds
    ]
