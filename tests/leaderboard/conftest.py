from __future__ import annotations

from datetime import UTC, datetime

import pytest

from harness.evaluation import FIGURE_NAMES, AssociationQuality, Figures, PartitionQuality
from harness.leaderboard import (
    CodeState,
    Cost,
    DatasetCard,
    EncoderCard,
    Environment,
    EpochLabels,
    Part,
    Record,
)

PROTOCOL = "rendered/all/single/S/v1"


def figures_at(rank1):
    """Figures whose rank-1 is given and whose others follow from it."""
    values = dict(zip(FIGURE_NAMES, (rank1, rank1 + 0.1, rank1 + 0.2, rank1 + 0.3, rank1 + 0.05, rank1), strict=True))
    return Figures(
        **values,
        per_trial={name: [value, value] for name, value in values.items()},
        sd=dict.fromkeys(FIGURE_NAMES, 0.0),
        trials=2,
        queries=40,
        valid_queries=38,
        gallery_size=60,
    )


def quality():
    return PartitionQuality(images=96, identities=8, clusters=9, outlier_share=1 / 3, ari=0.5, nmi=0.75, mixed_share=0)


@pytest.fixture
def make_record():
    """Builds a plausible record; keyword arguments replace its fields."""

    def build(*, rank1=0.25, seed=0, **changes):
        fields = {
            "name": f"chcr-{seed}",
            "method": "chcr,tsmem",
            "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "dataset": DatasetCard(
                name="rendered",
                fingerprint="f00dfeed" * 8,
                size="small",
                seed=0,
                images_train=1536,
                images_test=960,
                cameras=[1, 2, 3, 4, 5, 6],
            ),
            "protocols": {PROTOCOL: figures_at(rank1)},
            "primary_protocol": PROTOCOL,
            "parts": [
                Part(
                    role="memory",
                    name="tsmem",
                    plugin="tsmem",
                    distribution="vireid-harness",
                    version="0.1.0",
                    options={"step2_momentum": 0.2, "rate": 3.5e-4},
                )
            ],
            "recipe": {"epochs": 12, "learning_rate": 0.002, "weight_decay": 1e-9},
            "encoder": EncoderCard(name="small", weights="random", embeddings={"main": 128}, parameters=309_000),
            "seed": seed,
            "pseudo_labels": [
                EpochLabels(
                    epoch=0,
                    stage="main",
                    partitions={"visible": quality()},
                    links={"visible>infrared": AssociationQuality(links=3, precision=2 / 3, cover=0.5)},
                )
            ],
            "cost": Cost(seconds={"training": 48.9}, total_seconds=74.0, device="cpu", precision="bf16-mixed"),
            "environment": Environment(python="3.11.9", torch="2.11.0", platform="Linux"),
            "code": CodeState(revision="abc123", dirty=False),
        }
        return Record(**(fields | changes))

    return build
