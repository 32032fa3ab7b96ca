"""What a run leaves behind: its history while it runs, its record at the end."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness.contracts import PseudoLabels
from harness.data.datasets import Dataset
from harness.data.manifest import Manifest
from harness.engine.cost import Clock, peak_memory_mib
from harness.engine.extraction import plain_module
from harness.engine.plan import Plan
from harness.engine.train import Trainer
from harness.evaluation import EvaluationResult, association_quality, partition_quality
from harness.leaderboard.record import (
    CodeState,
    Cost,
    DatasetCard,
    EncoderCard,
    Environment,
    EpochCurve,
    EpochLabels,
    Extraction,
    NeighbourSearchCard,
    Part,
    Record,
    now,
)
from harness.providers import CAMERA_LABELS

_PACKAGES = (
    "vireid-harness",
    "torch",
    "torchvision",
    "faiss-gpu",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightning-fabric",
)


@dataclass
class History:
    """What happened so far: one row per epoch, and warnings. Kept in checkpoints as JSON."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dataset_fingerprints: tuple[str, str] = ("", "")
    weights_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> History:
        """The inverse of :meth:`to_json`."""
        fingerprints = tuple(values["dataset_fingerprints"])
        return History(values["rows"], values["warnings"], fingerprints, values.get("weights_sha256"))


def label_quality(labels: PseudoLabels, train: Manifest) -> dict[str, Any]:
    """Quality of an epoch's labels against the hidden identities, as plain values: partitions and links.

    Only the core sees this; nothing of it reaches a part.
    """
    scopes = {"visible": train.modality == 0, "infrared": train.modality == 1}
    arrays = {name: labels[name].labels.cpu().numpy() for name in labels.available}
    partitions = {
        name: partition_quality(array, train.identity, modality=train.modality, scope=scopes.get(name))
        for name, array in arrays.items()
    }
    links = {}
    for source, target in (("visible", "infrared"), ("infrared", "visible")):
        link = labels.link(source, target) if source in labels and target in labels else None
        if link is not None:
            links[f"{source}>{target}"] = association_quality(
                arrays[source], arrays[target], links=link.cpu().numpy(), identity=train.identity
            )
    return {
        "partitions": {name: quality.model_dump(mode="json") for name, quality in partitions.items()},
        "links": {name: quality.model_dump(mode="json") for name, quality in links.items()},
    }


def make_record(
    plan: Plan,
    dataset: Dataset,
    trainer: Trainer,
    clock: Clock,
    history: History,
    results: Mapping[str, EvaluationResult],
    *,
    embeddings_sha256: str,
) -> Record:
    """The record of a finished run; ``results`` by protocol identifier are those of the last epoch."""
    primary = dataset.protocols[0].identifier
    settings = plan.settings
    encoder = plain_module(trainer.evaluated_encoder())
    return Record(
        name=str(settings.name),
        method=",".join(settings.plugins),
        created=now(),
        dataset=_dataset_card(dataset, history, plan),
        protocols={identifier: result.figures() for identifier, result in results.items()},
        primary_protocol=primary,
        by_query=results[primary].by_query,
        embeddings_sha256=embeddings_sha256,
        parts=_part_cards(plan),
        recipe=plan.recipe.model_dump(mode="json"),
        encoder=EncoderCard(
            name=plan.backbone.name,
            weights=_weights_name(plan),
            embeddings=dict(trainer.embedding_dims),
            parameters=sum(p.numel() for p in encoder.parameters()),
            options=plan.backbone.options.model_dump(
                mode="json", exclude_defaults=True, exclude={"weights", "pretrained"}
            ),
            weights_sha256=history.weights_sha256,
        ),
        extraction=Extraction(
            feature="neck",
            flip=settings.evaluation.flip,
            flip_mean_renorm=settings.features.flip_mean_renorm,
        ),
        neighbour_search=_neighbour_search(plan, history),
        extra_information=_extra_information(plan),
        seed=settings.seed,
        reference=settings.reference,
        curves=[_curve(row) for row in history.rows],
        pseudo_labels=[
            EpochLabels(epoch=row["epoch"], stage=row["stage"], **row["labels"])
            for row in history.rows
            if "labels" in row
        ],
        skipped_epochs=[row["epoch"] for row in history.rows if "skipped" in row],
        cost=_cost(plan, trainer, clock),
        environment=_environment(),
        code=code_state(),
        warnings=[*plan.selection.notes, *dataset.notes, *history.warnings],
    )


def _dataset_card(dataset: Dataset, history: History, plan: Plan) -> DatasetCard:
    options = plan.settings.data if plan.settings.data_root is None else {}
    return DatasetCard(
        name=dataset.name,
        fingerprint=dataset.fingerprint or "-".join(part[:16] for part in history.dataset_fingerprints),
        trial=dataset.trial,
        size=options.get("size"),
        seed=options.get("seed"),
        images_train=len(dataset.train),
        images_test=len(dataset.test),
        cameras=sorted({*map(int, dataset.train.camera), *map(int, dataset.test.camera)}),
    )


def _curve(row: Mapping[str, Any]) -> EpochCurve:
    evaluated = row.get("evaluation", {})
    return EpochCurve(
        epoch=row["epoch"],
        learning_rate=row["learning_rate"],
        losses=row["losses"],
        rank1=evaluated.get("rank1"),
        mAP=evaluated.get("mAP"),
    )


def _extra_information(plan: Plan) -> list[str]:
    """What training uses beside pixels and modality: as parts and options declare it, and the recipe's sampler."""
    reference = plan.settings.reference
    if reference == "pretrained":
        return []
    parts = plan.selection.parts
    used = {name for chosen in parts for name in (*chosen.provider.uses, *chosen.options.uses())}
    if plan.recipe.prefer_other_cameras:
        used.add(CAMERA_LABELS)
    if reference is not None:
        used.add("identity labels")
    return sorted(used)


def _neighbour_search(plan: Plan, history: History) -> NeighbourSearchCard:
    settings = plan.settings.clustering
    if settings.search == "exact":
        return NeighbourSearchCard()
    recalls = [row["search_recall"] for row in history.rows if "search_recall" in row]
    return NeighbourSearchCard(kind="approximate", probes=settings.probes, recall=min(recalls, default=None))


def _part_cards(plan: Plan) -> list[Part]:
    return [
        Part(
            role=part.provider.role,
            name=part.name,
            plugin=part.plugin.name,
            distribution=part.plugin.distribution,
            version=part.plugin.version,
            options=part.options.model_dump(mode="json"),
        )
        for part in plan.selection.parts
    ]


def weights_file(plan: Plan) -> Path | None:
    """The file that the encoder starts from, if the settings name one."""
    weights = plan.backbone.options.model_dump().get("weights")
    return Path(weights) if weights else None


def _weights_name(plan: Plan) -> str:
    file = weights_file(plan)
    if file is not None:
        return file.name
    return "pretrained" if plan.backbone.options.model_dump().get("pretrained") else "random"


def _cost(plan: Plan, trainer: Trainer, clock: Clock) -> Cost:
    recipe = plan.recipe
    images = recipe.instances * (
        recipe.visible_clusters * len(recipe.visible_views) + recipe.infrared_clusters * len(recipe.infrared_views)
    )
    groups = int(plan.settings.model.get("bn_groups", 1))
    device, compute, processes = trainer.fabric.device, plan.settings.compute, trainer.processes
    apart = processes.count if compute.batch_norm == "local" else 1
    return Cost(
        seconds=dict(clock.seconds),
        total_seconds=sum(clock.seconds.values()),
        peak_memory_mib=peak_memory_mib(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type,
        world_size=processes.count,
        bn_batch=images // groups // apart,
        batch_norm=None if processes.alone else compute.batch_norm,
        compiled=compute.compile,
        precision="bf16" if "bf16" in str(trainer.fabric.strategy.precision.precision) else "fp32",
        threads=compute.threads,
        train_images_per_s=clock.rate("training"),
        extract_images_per_s=clock.rate("extraction") or clock.rate("test extraction"),
    )


def _environment() -> Environment:
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    python = sys.version.split()[0]
    return Environment(python=python, torch=torch.__version__, platform=platform.platform(), packages=packages)


def code_state() -> CodeState:
    """Revision of the checkout the harness runs from, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return CodeState()
    try:
        revision = _git(root, "rev-parse", "HEAD").strip()
        return CodeState(revision=revision, dirty=bool(_git(root, "status", "--porcelain").strip()))
    except (OSError, subprocess.SubprocessError):
        return CodeState()


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
