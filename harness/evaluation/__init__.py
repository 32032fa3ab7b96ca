"""Evaluation: protocols of SYSU-MM01, RegDB and the rendered dataset, retrieval metrics, pseudo-label diagnostics."""

from harness.evaluation.figures import FIGURE_NAMES, Figures, figures_table
from harness.evaluation.galleries import Permutations
from harness.evaluation.metrics import Scores, score_similarity
from harness.evaluation.official import read_official_identities, read_official_permutations
from harness.evaluation.protocols import PROTOCOLS, Protocol, protocol, protocols_beginning, protocols_of
from harness.evaluation.pseudo_labels import (
    AssociationQuality,
    PartitionQuality,
    association_quality,
    pair_precision,
    partition_quality,
)
from harness.evaluation.retrieval import EvaluationResult, evaluate, evaluate_all
from harness.evaluation.test_set import TestSet

__all__ = [
    "FIGURE_NAMES",
    "PROTOCOLS",
    "AssociationQuality",
    "EvaluationResult",
    "Figures",
    "PartitionQuality",
    "Permutations",
    "Protocol",
    "Scores",
    "TestSet",
    "association_quality",
    "evaluate",
    "evaluate_all",
    "figures_table",
    "pair_precision",
    "partition_quality",
    "protocol",
    "protocols_beginning",
    "protocols_of",
    "read_official_identities",
    "read_official_permutations",
    "score_similarity",
]
