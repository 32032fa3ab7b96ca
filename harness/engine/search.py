"""How an epoch's clusterers find neighbours, and how well they did where that is approximate."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from harness.clustering.approximate import approximate_neighbours
from harness.clustering.neighbours import nearest_neighbours
from harness.progress import progress_of
from harness.settings import ClusteringSettings


@dataclass(frozen=True)
class NeighbourSearch:
    """The search that the settings ask for. ``recalls``: measured in every approximate search of the epoch."""

    settings: ClusteringSettings = field(default_factory=ClusteringSettings)
    recalls: list[float] = field(default_factory=list)

    def __call__(self, features_ND: Tensor, k: int) -> Tensor:
        """The k nearest rows of every row, int64 [N, min(k, N)]."""
        progress = progress_of("searching neighbours")
        if self.settings.search == "exact":
            return nearest_neighbours(features_ND, k, progress=progress)
        found = approximate_neighbours(features_ND, k, probes=self.settings.probes, progress=progress)
        self.recalls.append(found.recall)
        return found.ranking_NK

    @property
    def recall(self) -> float | None:
        """The lowest recall of the epoch; None if every search was exact."""
        return min(self.recalls, default=None)
