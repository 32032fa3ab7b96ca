"""Clusters x instances batches whose companions come from other cameras than their anchor.

Source: baseline.md 4.4 ("random multiple gallery" sampler of Cluster-Contrast and its successors).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

Indices = NDArray[np.int64]


class CrossCameraSampler:
    """Draws groups of one cluster each from one partition and one modality.

    A group is an anchor, uniform over the cluster, followed by P - 1 companions. Companions come from the
    cluster's images of other cameras than the anchor's; if there is none, from the cluster without the
    anchor. They are distinct if there are at least P to choose from, else drawn with replacement.

    Two ways to draw, on the same stream of randomness:

    * :meth:`one_pass` follows the published sampler to the letter: every cluster once, a single-image cluster
      giving a group of one.
    * :meth:`batches` is what training uses. Two deviations keep every batch at clusters x instances: a
      single-image cluster repeats its image, and when there are fewer clusters than a batch needs, clusters
      repeat (the published one stops with an error). As there, clusters left over at the end of a pass
      are dropped.

    Args:
        labels: int64 [n], cluster of each row; rows labelled -1 are never drawn.
        camera: int64 [n], camera of each row.
        index: int64 [n], global index of each row; what is drawn.
        instances: P, images in a group.
        clusters: groups in a batch.
        generator: the only source of randomness.
        prefer_other_cameras: False ignores the cameras (companions from the whole cluster).

    Raises:
        DataError: shapes differ, a size is below 1, or no row belongs to a cluster.
    """

    def __init__(
        self,
        labels: Indices,
        camera: Indices,
        *,
        index: Indices,
        instances: int,
        clusters: int,
        generator: np.random.Generator,
        prefer_other_cameras: bool = True,
    ) -> None:
        labels, camera, index = (np.asarray(column, dtype=np.int64) for column in (labels, camera, index))
        _check(labels, camera, index, instances=instances, clusters=clusters)
        kept = np.flatnonzero(labels >= 0)
        kept = kept[np.argsort(labels[kept], kind="stable")]
        _, starts = np.unique(labels[kept], return_index=True)
        self._index = index[kept]
        self._camera = camera[kept]
        self._bounds = np.append(starts, len(kept))
        self._instances = instances
        self._clusters = clusters
        self._generator = generator
        self._prefer_other_cameras = prefer_other_cameras
        self._waiting: list[int] = []

    @property
    def cluster_count(self) -> int:
        """Number of clusters that can be drawn."""
        return len(self._bounds) - 1

    @property
    def batch_size(self) -> int:
        """Images in a batch: clusters x instances."""
        return self._clusters * self._instances

    def one_pass(self) -> Iterator[Indices]:
        """Global indices of one group per cluster, clusters in random order; int64 [P], or [1] if it has one."""
        for cluster in self._shuffled():
            yield self._group(cluster)

    def batches(self, iterations: int) -> Iterator[Indices]:
        """``iterations`` batches of global indices, int64 [clusters * instances], group after group.

        The place within the pass is kept between calls, so several calls draw what one longer call would.
        """
        for _ in range(iterations):
            yield np.concatenate([self._full_group(cluster) for cluster in self._next_clusters()])

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue with the same draws; plain values only."""
        return {"generator": self._generator.bit_generator.state, "waiting": list(self._waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            DataError: the state was taken over another set of clusters.
        """
        if any(not 0 <= cluster < self.cluster_count for cluster in state["waiting"]):
            raise DataError(
                f"The sampler's state names clusters beyond the {self.cluster_count} of this partition. It was "
                "saved with other pseudo labels; resume with the checkpoint that it belongs to."
            )
        self._generator.bit_generator.state = state["generator"]
        self._waiting = list(state["waiting"])

    def _shuffled(self) -> list[int]:
        return self._generator.permutation(self.cluster_count).tolist()

    def _next_clusters(self) -> list[int]:
        if len(self._waiting) < self._clusters:
            self._waiting = self._shuffled()
            while len(self._waiting) < self._clusters:
                self._waiting += self._shuffled()
        taken, self._waiting = self._waiting[: self._clusters], self._waiting[self._clusters :]
        if self.cluster_count < self._clusters:
            self._waiting = []
        return taken

    def _full_group(self, cluster: int) -> Indices:
        group = self._group(cluster)
        return group if len(group) == self._instances else np.repeat(group, self._instances)

    def _group(self, cluster: int) -> Indices:
        start, stop = int(self._bounds[cluster]), int(self._bounds[cluster + 1])
        anchor = int(self._generator.integers(start, stop))
        if stop - start == 1:
            return self._index[[anchor]]
        pool = self._companions(start, stop, anchor)
        replace = len(pool) < self._instances
        drawn = self._generator.choice(pool, size=self._instances - 1, replace=replace)
        return self._index[np.append(anchor, drawn)]

    def _companions(self, start: int, stop: int, anchor: int) -> Indices:
        members = np.arange(start, stop)
        if self._prefer_other_cameras:
            others = members[self._camera[start:stop] != self._camera[anchor]]
            if len(others):
                return others
        return members[members != anchor]


def _check(labels: Indices, camera: Indices, index: Indices, *, instances: int, clusters: int) -> None:
    if labels.ndim != 1 or camera.shape != labels.shape or index.shape != labels.shape:
        raise DataError(
            "The sampler needs labels, camera and index of one length; got "
            f"{list(labels.shape)}, {list(camera.shape)} and {list(index.shape)}."
        )
    if instances < 1 or clusters < 1:
        raise DataError(f"A batch needs at least one cluster and one instance; got {clusters} clusters x {instances}.")
    if not (labels >= 0).any():
        raise DataError(
            f"There is no cluster to draw from: all {len(labels)} images are outliers. A larger clustering radius "
            "(eps) or fewer neighbours (min_samples) gives clusters."
        )
