"""How a run searches for neighbours is a setting, and goes on record."""

from __future__ import annotations

import json

import pytest
import torch

from harness.clustering.neighbours import nearest_neighbours
from harness.engine.search import NeighbourSearch
from harness.leaderboard.record import settings_digest
from harness.plugins import Catalogue
from harness.settings import ClusteringSettings

METHOD = {
    "plugins": ("dmic",),
    "catalogue": Catalogue(),
    "model": {"backbone": "small", "pretrained": False},
    "recipe": {"epochs": 2, "iterations": 1},
}


def test_the_search_is_exact_unless_asked_otherwise() -> None:
    features = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    search = NeighbourSearch()
    assert search(features, 5).equal(nearest_neighbours(features, 5))
    assert search.recall is None


def test_the_lowest_recall_of_the_epoch_is_reported() -> None:
    pytest.importorskip("faiss")
    features = torch.randn(900, 12, generator=torch.Generator().manual_seed(0))
    search = NeighbourSearch(ClusteringSettings(search="approximate", probes=2))
    search(features[:300], 7)
    search(features, 7)
    assert len(search.recalls) == 2
    assert search.recall == min(search.recalls) < 1


def test_a_run_with_approximate_search_says_so_in_its_record_with_the_recall(run) -> None:
    pytest.importorskip("faiss")
    approximate = run("approximate", clustering={"search": "approximate", "probes": 1}, **METHOD).record
    card = approximate.neighbour_search
    assert (card.kind, card.probes) == ("approximate", 1)
    assert 0 < card.recall < 1
    exact = run("exact", **METHOD).record
    assert (exact.neighbour_search.kind, exact.neighbour_search.recall) == ("exact", None)
    assert settings_digest(approximate) != settings_digest(exact)


def test_the_recall_of_every_epoch_is_in_the_metrics(run) -> None:
    pytest.importorskip("faiss")
    ran = run(clustering={"search": "approximate", "probes": 1}, **METHOD)
    rows = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()]
    assert ran.record.neighbour_search.recall == min(row["search_recall"] for row in rows)
