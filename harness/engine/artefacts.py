"""What a run leaves for its report beside the record: test embeddings before training, labels of the last epoch.

Neither enters the record or its seal, and no figure of the run depends on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from harness.contracts import PseudoLabels
from harness.data.manifest import Manifest
from harness.errors import RunError
from harness.evaluation import Figures, pair_precision
from harness.files import replacing


def paths_digest(paths: tuple[str, ...]) -> str:
    """SHA-256, in hexadecimal, of the paths of images in their order: tells whether rows still mean the same images."""
    return hashlib.sha256("\0".join(paths).encode()).hexdigest()


def save_start(path: Path, features_MD: Tensor, test: Manifest, *, protocol: str, figures: Figures) -> None:
    """Keep the test embeddings before the first epoch, in half precision, with the primary protocol's figures.

    Raises:
        RunError: the file cannot be written.
    """
    about = {
        "paths": list(test.paths),
        "protocol": protocol,
        "figures": figures.model_dump(mode="json", include={"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}),
    }
    tensors = {
        "features": features_MD.half().cpu().contiguous(),
        "identity": torch.as_tensor(test.identity),
        "camera": torch.as_tensor(test.camera),
    }
    _save(path, tensors, about)


def save_labels(path: Path, labels: PseudoLabels, train: Manifest, *, epoch: int) -> None:
    """Keep the labels of an epoch: partitions by name, int32 [N] in the training set's order, -1 = outlier.

    ``epoch`` counts from 0. Links are kept as ``SOURCE>TARGET``, int32 [K].

    Raises:
        RunError: the file cannot be written.
    """
    tensors = {name: labels[name].labels for name in labels.available} | _links(labels)
    about = {"epoch": epoch, "paths_sha256": paths_digest(train.paths), "partitions": list(labels.available)}
    _save(path, {name: tensor.cpu().int().contiguous() for name, tensor in tensors.items()}, about)


def _links(labels: PseudoLabels) -> dict[str, Tensor]:
    pairs = (("visible", "infrared"), ("infrared", "visible"))
    links = {pair: labels.link(*pair) for pair in pairs if pair[0] in labels and pair[1] in labels}
    return {">".join(pair): link for pair, link in links.items() if link is not None}


def pair_precisions(labels: PseudoLabels, train: Manifest) -> dict[str, float]:
    """By partition or link, the share of cross-modality pairs taken for positive that are of one identity.

    Like all diagnostics it compares with the hidden identities, and reaches no part. Names without a pair are left out.
    """
    arrays: dict[str, NDArray[np.int64]] = {name: labels[name].labels.cpu().numpy() for name in labels.available}
    found = {
        name: pair_precision(array, array, links=None, identity=train.identity, modality=train.modality)
        for name, array in arrays.items()
        if name not in ("visible", "infrared")
    }
    for name, link in _links(labels).items():
        source, target = name.split(">")
        found[name] = pair_precision(
            arrays[source],
            arrays[target],
            links=link.cpu().numpy(),
            identity=train.identity,
            modality=train.modality,
        )
    return {name: round(value, 8) for name, value in found.items() if value is not None}


def _save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    try:
        with replacing(path) as aside:  # one key: safetensors writes several in no fixed order
            save_file(dict(tensors), aside, metadata={"harness": json.dumps(about, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot write {path}: {error}. The checkpoint is kept: mend the disk and add --resume."
        ) from error
