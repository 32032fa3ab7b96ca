"""Sound parts of every role, and parts that break one rule each. A docstring says which."""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import count

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import Clusterer, LabelRefiner, PseudoLabels, compact
from harness.testing.plain import PlainLoss, PlainMemory

UNSEEDED = count()
"""What no seed starts anew: every draw differs from the one before, so that no test fails by chance."""


class SoundClusterer(Clusterer):
    """Images that a chain of close neighbours joins are one cluster."""

    def cluster(self, epoch):
        return PseudoLabels(epoch.train, {"joint": self.joint(epoch)})

    def joint(self, epoch):
        features = normalize(epoch.features(), dim=1)
        close = csr_matrix((features @ features.T > 0.8).cpu().numpy())
        component = torch.as_tensor(connected_components(close, directed=False)[1].astype(np.int64))
        return compact(component.to(epoch.train.modality.device), min_size=2)[0]


class SoundRefiner(LabelRefiner):
    """Drops images that are far from the mean of their cluster."""

    def refine(self, epoch, labels):
        features = normalize(epoch.features(), dim=1)
        far = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        for name in labels.given:
            partition = labels[name]
            chosen = partition.labels >= 0
            means = cluster_means(features, partition.labels, partition.num_clusters)
            if partition.num_clusters:
                far[chosen] |= (features[chosen] * means[partition.labels[chosen]]).sum(dim=1) < 0.1
        return labels.drop(far)


class SoundMemory(PlainMemory):
    """Means."""


class SoundLoss(PlainLoss):
    """Contrast."""


def sound_transform(options):
    return lambda images, modality: images.flip(1)


class ListClusterer(SoundClusterer):
    """Returns labels of another type."""

    def cluster(self, epoch):
        return self.joint(epoch).tolist()


class UnseededClusterer(SoundClusterer):
    """Makes an image an outlier by a source that no seed starts anew."""

    def joint(self, epoch):
        labels = super().joint(epoch)
        labels[next(UNSEEDED) % len(labels)] = -1
        return compact(labels)[0]


class ForgetfulClusterer(SoundClusterer):
    """Finds nothing from its second epoch on, and does not say in its state which epoch it is in."""

    calls = 0

    def joint(self, epoch):
        self.calls += 1
        return super().joint(epoch) if self.calls == 1 else torch.full_like(epoch.train.camera, -1)


class RowClusterer(SoundClusterer):
    """Takes the order of images for their identity."""

    def joint(self, epoch):
        return torch.arange(len(epoch.train), device=epoch.train.camera.device) // 8


class CameraClusterer(SoundClusterer):
    """Counts images by camera, as if cameras were numbered from 0."""

    def joint(self, epoch):
        torch.bincount(epoch.train.camera)
        return super().joint(epoch)


class TwoClusterClusterer(SoundClusterer):
    """Takes the second largest cluster's size."""

    def joint(self, epoch):
        labels = super().joint(epoch)
        if bool((labels >= 0).all()):
            torch.bincount(labels).sort(descending=True).values[1]
        return labels


class MixedClusterer(SoundClusterer):
    """Takes the smallest number of visible images in a cluster of both modalities."""

    def joint(self, epoch):
        labels = super().joint(epoch)
        count = int(labels.max()) + 1
        if count > 1 and bool((labels >= 0).all()):
            visible = torch.bincount(labels[epoch.train.visible], minlength=count)
            infrared = torch.bincount(labels[epoch.train.infrared], minlength=count)
            visible[(visible > 0) & (infrared > 0)].min()
        return labels


class BlindClusterer(SoundClusterer):
    """Finds nothing."""

    def joint(self, epoch):
        return torch.full_like(epoch.train.camera, -1)


class PeepingClusterer(SoundClusterer):
    """Looks for identities in the variables of its callers."""

    def joint(self, epoch):
        frame = getattr(sys, "_get" + "frame")()
        while frame is not None:
            for value in getattr(frame, "f_" + "locals").values():
                if hasattr(value, "identity"):
                    return torch.as_tensor(value.identity)
            frame = getattr(frame, "f_" + "back")
        return super().joint(epoch)


class ReadingClusterer(SoundClusterer):
    """Looks for images on the disk."""

    def joint(self, epoch):
        with suppress(FileNotFoundError):
            open("cam1/0001/0001.jpg").close()
        return super().joint(epoch)


class HopefulRefiner(SoundRefiner):
    """Takes the smallest cluster of any partition, as if there were one."""

    def refine(self, epoch, labels):
        torch.cat([labels[name].sizes for name in labels.given]).min()
        return super().refine(epoch, labels)


class CompanionRefiner(SoundRefiner):
    """Takes the smallest cluster with more than one image, as if there were one."""

    def refine(self, epoch, labels):
        sizes = torch.cat([labels[name].sizes for name in labels.given])
        if len(sizes):
            sizes[sizes > 1].min()
        return super().refine(epoch, labels)


class SilentMemory(SoundMemory):
    """Does not say what changes within an epoch."""

    changing = None


class UntrueMemory(SoundMemory):
    """Says that nothing changes within an epoch."""

    changing = ()


class NumberedLoss(SoundLoss):
    """Weighs queries by the number of their cluster."""

    def terms(self, batch, embeddings, memory, epoch):
        found = super().terms(batch, embeddings, memory, epoch)
        weight = 1 + sum(float(labels.float().mean()) for labels in batch.labels.values())
        return {name: weight * value for name, value in found.items()}


class ScalingLoss(SoundLoss):
    """Scales the embeddings that others use as well."""

    changing = ()

    def update(self, batch, embeddings):
        embeddings.main.mul_(2)


class WordlessLoss(SoundLoss):
    """Never has a term."""

    def terms(self, batch, embeddings, memory, epoch):
        return {}


class LonelyLoss(SoundLoss):
    """Does not work beside memories that keep rows of single images."""

    def begin(self, epoch, labels, memory):
        if memory.instances(memory.names[0]) is not None:
            raise ValueError("what are these rows?")


class EndlessGradientLoss(SoundLoss):
    """Its term is finite, its gradient is not."""

    def terms(self, batch, embeddings, memory, epoch):
        return {**super().terms(batch, embeddings, memory, epoch), "root": (0 * embeddings.main).sum().sqrt()}


def float_transform(options):
    return lambda images, modality: images.float()


def mean_transform(options):
    return lambda images, modality: (images.float() - images.float().mean(dim=0)).clamp(0, 255).to(torch.uint8)


def scribbling_transform(options):
    def transform(images, modality):
        images[:, :, 0] = 0
        return images

    return transform


def restless_transform(options):
    return lambda images, modality: images + torch.tensor(1 + next(UNSEEDED) % 200, dtype=torch.uint8)
