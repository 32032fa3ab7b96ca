from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import tomli_w

from harness.evaluation import FIGURE_NAMES, AssociationQuality, Figures, PartitionQuality
from harness.evaluation.figures import QueryMeans
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
from harness.leaderboard.versions import DatasetVersion

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


def for_queries(value):
    """``value`` for 38 queries, and 2 without a correct image."""
    return np.append(np.full(38, value), [np.nan, np.nan])


def figures_of(rank1_Q, average_precision_Q):
    """Figures of one gallery whose rank-1 and mAP are the means over the queries."""
    rank1, mean = float(np.nanmean(rank1_Q)), float(np.nanmean(average_precision_Q))
    values = dict(zip(FIGURE_NAMES, (rank1, rank1, rank1, rank1, mean, mean), strict=True))
    return Figures(
        **values,
        per_trial={name: [value] for name, value in values.items()},
        sd=dict.fromkeys(FIGURE_NAMES),
        trials=1,
        queries=len(rank1_Q),
        valid_queries=int((~np.isnan(rank1_Q)).sum()),
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
            "by_query": QueryMeans.of(for_queries(rank1), for_queries(rank1 + 0.05)),
            "embeddings_sha256": "e" * 64,
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


@pytest.fixture
def make_queried(make_record):
    """Builds a record whose figures follow from those of single queries, fractions [Q]."""

    def build(rank1_Q, average_precision_Q=None, **changes):
        rank1_Q = np.asarray(rank1_Q, dtype=float)
        average_precision_Q = rank1_Q if average_precision_Q is None else np.asarray(average_precision_Q, dtype=float)
        protocol = changes.setdefault("primary_protocol", PROTOCOL)
        changes.setdefault("protocols", {protocol: figures_of(rank1_Q, average_precision_Q)})
        return make_record(by_query=QueryMeans.of(rank1_Q, average_precision_Q), **changes)

    return build


VERSIONS = {
    "rendered-small-0": DatasetVersion(name="rendered", size="small", seed=0, fingerprints=("f00dfeed" * 8,)),
    "regdb": DatasetVersion(name="regdb", fingerprints=("0ddba11",)),
    "sysu-mm01": DatasetVersion(name="sysu-mm01", fingerprints=("5ca1ab1e",)),
}


@pytest.fixture
def versions():
    """The versions of datasets that the boards of these tests know."""
    return VERSIONS


@pytest.fixture
def board(tmp_path):
    """A board's folder that knows these versions, and two published figures."""
    folder = tmp_path / "board"
    folder.mkdir()
    listed = {name: version.model_dump(exclude_none=True) for name, version in VERSIONS.items()}
    (folder / "datasets.toml").write_text(tomli_w.dumps(listed))
    header = "method,paper_title,venue,year,supervision,dataset,setting,r1,r5,r10,r20,map,minp,source"
    lines = [
        "PGM,Progressive,CVPR,2023,unsupervised,sysu-mm01,all-search,57.27,,92.48,97.23,51.78,34.96,the paper",
        "AGW,Survey,IEEE TPAMI,2021,supervised,sysu-mm01,all-search,47.50,,,,47.65,35.30,secondary: another paper",
    ]
    (folder / "published.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder
