"""Inter-channel pseudo-label refinement (chcr.md 3.4).

Stated by sources: the three channels of the visible images are each clustered with the infrared images; labels are
judged by intersection over union, and unreliable ones are eliminated. Reconstructed: what is compared, the threshold,
how outliers count (as a cluster of their own), that infrared images are judged too, and when refinement runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.contracts import OUTLIER, EpochContext, LabelRefiner, PseudoLabels
from harness_baseline.clusterer import clustering_features, dbscan_labels
from harness_chcr.chc import merge_across_modalities
from harness_chcr.options import IprOptions

CHANNELS = ("red", "green", "blue")


class InterChannelRefinement(LabelRefiner):
    """Makes images outliers whose cluster differs too much between the clusterings of the three colour channels."""

    options: IprOptions

    def refine(self, epoch: EpochContext, labels: PseudoLabels) -> PseudoLabels:
        since = epoch.index - self.options.start_epoch
        if since < 0 or since % self.options.every:
            return labels
        channels = [self._channel_labels(epoch, channel) for channel in CHANNELS]
        score_N = agreement(channels, score=self.options.score, main=main_labels(labels))
        unreliable = score_N < self.options.delta
        if self.options.scope == "visible_only":
            unreliable &= epoch.train.visible
        return labels.drop(unreliable, min_size=self.options.min_cluster_after)

    def _channel_labels(self, epoch: EpochContext, channel: str) -> Tensor:
        options = self.options
        features_ND = clustering_features(epoch, centre_cameras=options.centre_cameras, view=channel)
        labels = dbscan_labels(epoch, features_ND, options=options)
        if options.use_chc:
            labels = merge_across_modalities(
                features_ND, labels, modality=epoch.train.modality, theta=options.theta, rounds=options.rounds
            )
        return labels


def main_labels(labels: PseudoLabels) -> Tensor:
    """The labelling to be refined, over all images: the joint one, or visible and infrared clusters side by side."""
    if "joint" in labels:
        return labels["joint"].labels
    result, offset = torch.full_like(labels.train.modality, OUTLIER), 0
    for name in ("visible", "infrared"):
        if name in labels:
            own = labels[name].labels
            result = torch.where(own >= 0, own + offset, result)
            offset += labels[name].num_clusters
    return result


def agreement(channels: Sequence[Tensor], *, score: str = "triple", main: Tensor | None = None) -> Tensor:
    """How far the clusters of each image agree, float64 [N] in [0, 1].

    ``channels``: three labellings int64 [N], −1 = outlier, which counts as a cluster of one. With S_c(i) the cluster of
    image i in channel c: ``"triple"`` |∩ S_c| / |∪ S_c|; ``"mean_pairwise"`` the mean of |S_c ∩ S_d| / |S_c ∪ S_d| over
    the pairs; ``"vs_main"`` the mean over c of the same with ``main`` in place of d. Cluster ids do not matter. Source:
    chcr.md 3.4.

    Raises ValueError for another score, for other than three channels, and for "vs_main" without ``main``.
    """
    if len(channels) != 3:
        raise ValueError(f"agreement compares three channels; got {len(channels)}.")
    red, green, blue = (_with_singletons(labels) for labels in channels)
    if score == "triple":
        return _triple(red, green, blue)
    if score == "mean_pairwise":
        return (_pair(red, green) + _pair(red, blue) + _pair(green, blue)) / 3
    if score == "vs_main" and main is not None:
        reference = _with_singletons(main)
        return (_pair(reference, red) + _pair(reference, green) + _pair(reference, blue)) / 3
    raise ValueError(f"score must be triple, mean_pairwise, or vs_main with main labels; got {score!r}.")


def _with_singletons(labels_N: Tensor) -> Tensor:
    """The same partition with every outlier as a cluster of its own, ids from 0 without gaps."""
    first = int(labels_N.max()) + 1 if labels_N.numel() else 0
    own = first + torch.arange(labels_N.numel(), device=labels_N.device)
    return torch.unique(torch.where(labels_N >= 0, labels_N, own), return_inverse=True)[1]


def _meet(first: Tensor, second: Tensor) -> Tensor:
    """Ids of the common refinement of two partitions without outliers."""
    width = int(second.max()) + 1 if second.numel() else 1
    return torch.unique(first * width + second, return_inverse=True)[1]


def _size(partition: Tensor) -> Tensor:
    """Size of the cluster that each image is in, float64 [N]."""
    return torch.bincount(partition)[partition].double()


def _pair(first: Tensor, second: Tensor) -> Tensor:
    common = _size(_meet(first, second))
    return common / (_size(first) + _size(second) - common)


def _triple(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    red_green, red_blue, green_blue = _meet(red, green), _meet(red, blue), _meet(green, blue)
    common = _size(_meet(red_green, blue))
    single = _size(red) + _size(green) + _size(blue)
    double = _size(red_green) + _size(red_blue) + _size(green_blue)
    return common / (single - double + common)
