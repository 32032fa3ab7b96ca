"""From features of the test images to the figures of a protocol.

Similarity is the dot product of unit rows, computed in float64 and rounded to float32: images with equal features then
tie exactly, whatever the order in which a matrix product happened to add, and ties go to the earlier gallery image.
Queries are taken in blocks; memory does not grow with queries x gallery x trials (evaluation.md, sections 1 to 5).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ProtocolError
from harness.evaluation.figures import FIGURE_NAMES, FigureName, Figures
from harness.evaluation.galleries import Permutations, draw_galleries
from harness.evaluation.metrics import (
    QueryFigures,
    Scores,
    query_figures,
    ranking_keys,
    scores_from_queries,
)
from harness.evaluation.protocols import Protocol
from harness.evaluation.test_set import TestSet

if TYPE_CHECKING:
    import torch

_BLOCK_ENTRIES = 2**22
_UNIT_TOLERANCE = 1e-2  # wide enough for rows that were normalised in half precision


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The scores of every trial of a protocol; means over the trials are of each trial's figure."""

    protocol: Protocol
    trials: tuple[Scores, ...]

    def per_trial(self, figure: FigureName) -> list[float]:
        """One figure over the trials, as fractions."""
        if figure.startswith("rank"):
            return [scores.rank(int(figure.removeprefix("rank"))) for scores in self.trials]
        return [float(getattr(scores, figure)) for scores in self.trials]

    def mean(self, figure: FigureName) -> float:
        """Arithmetic mean of a figure over the trials."""
        return statistics.fmean(self.per_trial(figure))

    def sd(self, figure: FigureName) -> float | None:
        """Sample standard deviation over the trials; none for a single trial."""
        values = self.per_trial(figure)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def mean_cmc(self) -> NDArray[np.float64]:
        """The whole CMC curve, float64 [K], averaged over the trials."""
        return np.mean([scores.cmc for scores in self.trials], axis=0)

    def figures(self) -> Figures:
        """What a run record keeps of this result."""
        first = self.trials[0]
        return Figures(
            **{name: self.mean(name) for name in FIGURE_NAMES},
            per_trial={name: self.per_trial(name) for name in FIGURE_NAMES},
            sd={name: self.sd(name) for name in FIGURE_NAMES},
            trials=len(self.trials),
            queries=first.queries,
            valid_queries=first.valid_queries,
            gallery_size=first.gallery_size,
        )


def evaluate(
    features_MD: torch.Tensor | NDArray[np.floating[Any]],
    test_set: TestSet,
    protocol: Protocol,
    *,
    trials: int = 10,
    permutations: Permutations | None = None,
) -> EvaluationResult:
    """Rank the gallery of every trial for every query and score the rankings.

    Args:
        features_MD: float [M, D], unit rows, one per image of ``test_set``; NumPy, or torch on any device.
        test_set: labels of the M images.
        protocol: what is query, gallery and excluded, and how galleries are drawn.
        trials: number of galleries. RegDB has one fixed gallery per split and always one trial.
        permutations: the official ones, (camera, identity) -> [10, n]; needed by the O protocols only.

    Raises:
        ProtocolError: features that are not finite unit rows or do not fit the labels, no image of one modality, too
            few images for the shots, no query with a correct image, or permutations that do not fit.
    """
    features = _checked_features(features_MD, test_set)
    _require_cameras(test_set, protocol)
    if trials < 1:
        raise ProtocolError(f"An evaluation over {trials} trials was asked for; at least one is needed.")
    pool, galleries = draw_galleries(test_set, protocol, trials=trials, permutations=permutations)
    queries = np.flatnonzero(np.isin(test_set.camera, protocol.query_cameras))
    pool_identity = test_set.identity[pool]

    blocks_of_trial: list[list[QueryFigures]] = [[] for _ in galleries]
    for keys_BP in _key_blocks(features, test_set, protocol, queries=queries, pool=pool):
        for blocks, gallery in zip(blocks_of_trial, galleries, strict=True):
            keys_BG = np.take(keys_BP, gallery, axis=1)
            blocks.append(query_figures(keys_BG, pool_identity[gallery], cmc=protocol.cmc))
    scores = tuple(
        scores_from_queries(QueryFigures.concatenate(blocks), pool_identity[gallery], cmc=protocol.cmc)
        for blocks, gallery in zip(blocks_of_trial, galleries, strict=True)
    )
    return EvaluationResult(protocol=protocol, trials=scores)


def _key_blocks(
    features: NDArray[np.floating[Any]],
    test_set: TestSet,
    protocol: Protocol,
    *,
    queries: NDArray[np.int64],
    pool: NDArray[np.int64],
) -> Iterator[NDArray[np.int32]]:
    """Ranking keys of the gallery pool, [B, P], for one block of queries after the other."""
    gallery_DP = features[pool].astype(np.float64).T
    block = max(1, _BLOCK_ENTRIES // len(pool))
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        similarity = (features[rows].astype(np.float64) @ gallery_DP).astype(np.float32)
        yield ranking_keys(
            similarity,
            test_set.identity[rows],
            test_set.identity[pool],
            excluded=_excluded(test_set.camera[rows], test_set.camera[pool], protocol),
        )


def _excluded(
    query_camera: NDArray[np.int64], gallery_camera: NDArray[np.int64], protocol: Protocol
) -> NDArray[np.bool_] | None:
    if not protocol.excluded:
        return None
    mask = np.zeros((len(query_camera), len(gallery_camera)), dtype=bool)
    for from_camera, removed_camera in protocol.excluded:
        mask |= (query_camera == from_camera)[:, None] & (gallery_camera == removed_camera)
    return mask


def _checked_features(
    features_MD: torch.Tensor | NDArray[np.floating[Any]], test_set: TestSet
) -> NDArray[np.floating[Any]]:
    features = _to_numpy(features_MD)
    if features.ndim != 2 or len(features) != len(test_set) or not np.issubdtype(features.dtype, np.floating):
        raise ProtocolError(
            f"Features of shape {features.shape} and type {features.dtype} were given for {len(test_set)} test images; "
            "expected a floating-point matrix with one row per image."
        )
    norms = np.sqrt(np.einsum("md,md->m", features, features, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise ProtocolError(
            f"The features of {len(bad)} of {len(test_set)} test images hold NaN or infinite values, the first of them "
            f"in row {bad[0]}; the encoder has diverged or an image is damaged."
        )
    if len(norms) and np.abs(norms - 1).max() > _UNIT_TOLERANCE:
        row = int(np.abs(norms - 1).argmax())
        raise ProtocolError(
            f"The feature row {row} has length {norms[row]:.4g}, but similarity is defined on unit rows; L2-normalise "
            "the features before the evaluation."
        )
    return features


def _to_numpy(features: torch.Tensor | NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if isinstance(features, np.ndarray):
        return features
    features = features.detach().cpu()
    # NumPy has no bfloat16; widening is exact
    return features.float().numpy() if features.element_size() < 4 else features.numpy()


def _require_cameras(test_set: TestSet, protocol: Protocol) -> None:
    present = {int(camera) for camera in np.unique(test_set.camera)}
    unknown = present - set(protocol.cameras)
    if unknown:
        raise ProtocolError(
            f"The test set has images of cameras {sorted(unknown)}, which {protocol.identifier} does not know; its "
            f"cameras are {list(protocol.cameras)}."
        )
    for role, cameras in (("query", protocol.query_cameras), ("gallery", protocol.gallery_cameras)):
        if present.isdisjoint(cameras):
            modality = "infrared" if set(cameras) <= set(protocol.infrared_cameras) else "visible"
            raise ProtocolError(
                f"The test set has no {modality} image that could be a {role} image: {protocol.identifier} takes them "
                f"from cameras {list(cameras)}, and the test set has cameras {sorted(present)}."
            )
