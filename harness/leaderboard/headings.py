"""What stands above a table: its title, and what is to be known before rows are compared."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evaluation import PROTOCOLS, Protocol
from harness.leaderboard.published import PublishedFigure
from harness.leaderboard.versions import DatasetVersion

DATASETS = {"sysu-mm01": "SYSU-MM01", "regdb": "RegDB", "rendered": "Rendered"}
"""Datasets of the core by name, in the order of their tables, and what they are called."""


def title(version_name: str, protocol: Protocol, version: DatasetVersion | None, *, camera_centred: bool) -> str:
    """Dataset, its version, search, shots and galleries."""
    dataset = DATASETS.get(protocol.dataset, protocol.dataset)
    if version is not None and version.size is not None:
        dataset += f" ({version.size}, seed {version.seed})"
    elif version_name != protocol.dataset:
        dataset += f" ({version_name})"
    words = [dataset]
    if protocol.shots is None:
        words.append(protocol.search.replace("-", " "))
    else:
        shots = "single shot" if protocol.shots == 1 else "multi-shot"
        words += [f"{protocol.search}-search", shots, f"galleries {protocol.gallery_rule}"]
    return ", ".join([*words, *(["camera-centred features"] if camera_centred else [])])


def about(
    protocol: str, version: DatasetVersion | None, reported: Sequence[PublishedFigure], *, runs: bool, ranked: bool
) -> str:
    """What is queried, on which images, and what is taken for granted of published figures."""
    definition = PROTOCOLS[protocol].definition()
    sentences = [f"Query: {definition['query']}. Gallery: {definition['gallery']}. Excluded: {definition['excluded']}."]
    if runs and version is not None:
        sentences.append(f"Runs are on images with fingerprint {' or '.join(version.fingerprints)}.")
    if runs and not ranked:
        sentences.append("Single queries are recorded under the primary protocol only: no intervals, no groups here.")
    if reported:
        sentences.append(_assumed(PROTOCOLS[protocol]))
    return " ".join(sentences)


def _assumed(protocol: Protocol) -> str:
    if protocol.gallery_rule == "fixed":
        how = "taken to be means over the ten splits, which not every source says"
    elif protocol.gallery_rule == "O":
        how = "of galleries of the official permutations, as their sources say"
    else:
        how = "taken to be of single-shot, seeded galleries: nearly every public code draws those, and few papers say"
    return (
        f"Published figures are {how}. Few say by what the epoch was chosen; released code often chooses it by test "
        "figures, which is optimistic."
    )
