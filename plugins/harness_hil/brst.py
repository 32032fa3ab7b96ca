"""Bidirectional reverse selection transmission: labels carried over between the modalities (hil.md 3.3).

From the released code: the rule, its thresholds, and that labels go from infrared to visible only. Stated by the
abstract: that matching is bidirectional, which ``direction = "alternate"`` stands for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.clustering.centroids import cluster_means
from harness.contracts import OUTLIER, EpochContext, LabelRefiner, PseudoLabels, compact
from harness_baseline.clusterer import clustering_features
from harness_hil.options import BrstOptions

NO_STAGE = (
    "no label is carried over, because the recipe has no stage with cross-modality evidence; one that has is "
    "--recipe hil."
)


class ReverseSelection(LabelRefiner):
    """Relabels one modality's images by the clusters of the other, in stages with cross-modality evidence.

    Partitions that were given stay given. Visible and infrared ones come out linked, so that their joint clusters are
    those of the modality that gives labels. If only a joint partition was given, it becomes that labelling.
    A joint partition beside those of the modalities is left as it is.
    """

    options: BrstOptions

    def refine(self, epoch: EpochContext, labels: PseudoLabels) -> PseudoLabels:
        if not epoch.cross:
            if epoch.stages == 1:
                epoch.note(NO_STAGE)
            return labels
        if "visible" not in labels or "infrared" not in labels:
            epoch.note("no label is carried over: the clusterer gives neither joint clusters nor those of modalities.")
            return labels
        giving, taking = self._direction(epoch)
        if not labels[giving].num_clusters:
            return labels
        return transferred(labels, self._new_labels(epoch, labels, giving, taking), giving=giving, taking=taking)

    def _direction(self, epoch: EpochContext) -> tuple[str, str]:
        reverse = self.options.direction == "v2r" or (self.options.direction == "alternate" and epoch.epoch % 2 == 1)
        return ("visible", "infrared") if reverse else ("infrared", "visible")

    def _new_labels(self, epoch: EpochContext, labels: PseudoLabels, giving: str, taking: str) -> Tensor:
        features_ND = clustering_features(epoch, centre_cameras=self.options.centre_cameras)
        source = labels[giving]
        prototypes_KD = cluster_means(features_ND, source.labels, source.num_clusters)
        scope = epoch.train.visible if taking == "visible" else epoch.train.infrared
        found = reverse_selection(
            features_ND[scope], labels[taking].labels[scope], prototypes_KD=prototypes_KD, rho=self.options.rho
        )
        return torch.full_like(labels[taking].labels, OUTLIER).masked_scatter(scope, found)


def reverse_selection(features_ND: Tensor, labels_N: Tensor, *, prototypes_KD: Tensor, rho: float) -> Tensor:
    """New labels int64 [N]: an image's nearest prototype by cosine, if the prototype agrees; −1 otherwise.

    It agrees if the image is at least ``rho`` times as similar to it as the most similar of all N images, outliers
    included. ``labels_N`` int64: images with −1 stay so; other values do not matter. Features and prototypes may have
    any length. Source: hil.md 3.3.
    """
    similarity_NK = normalize(features_ND, dim=1) @ normalize(prototypes_KD, dim=1).T
    if not similarity_NK.numel():
        return torch.full_like(labels_N, OUTLIER)
    best_N, nearest_N = similarity_NK.max(dim=1)
    bound_K = rho * similarity_NK.amax(dim=0)
    return torch.where((labels_N >= 0) & (best_N >= bound_K[nearest_N]), nearest_N, OUTLIER)


def transferred(labels: PseudoLabels, moved_N: Tensor, *, giving: str, taking: str) -> PseudoLabels:
    """``labels`` with ``moved_N`` [N] in place of the partition ``taking``, in the forms that were given.

    ``moved_N``: clusters of the partition ``giving``, −1 = outlier or not of the modality ``taking``.
    """
    if not {giving, taking} <= set(labels.given):
        return labels.replace({"joint": torch.maximum(labels[giving].labels, moved_N)})
    own, giving_to_own = compact(moved_N)
    missing = labels[giving].num_clusters - giving_to_own.numel()
    giving_to_own = torch.cat([giving_to_own, giving_to_own.new_full((missing,), OUTLIER)])
    own_to_giving = torch.nonzero(giving_to_own >= 0).squeeze(1)
    return labels.replace({taking: own}, links={(taking, giving): own_to_giving, (giving, taking): giving_to_own})
