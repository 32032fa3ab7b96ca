"""Any clusterer, any chain of refiners, any memory and any losses train together, through the whole engine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from harness import PluginCard, hookimpl
from harness.engine.run import plan_run, run_planned
from harness.plugins import Catalogue
from harness.providers import (
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Provider,
)
from toy_parts import TOY_BACKBONE, Silent, toy_settings

IN_TREE = Catalogue()


def offered(kind: type[Provider]) -> dict[str, Provider]:
    """All parts of one role that any installed plugin offers, by name."""
    return {provider.name: provider for plugin in IN_TREE.values() for provider in plugin.offers(kind)}


CLUSTERERS, REFINERS = offered(ClustererProvider), offered(LabelRefinerProvider)
MEMORIES, LOSSES = offered(MemoryProvider), offered(LossProvider)
CHAINS = [chain for length in range(3) for chain in itertools.permutations(REFINERS, length)]
ALL = tuple(LOSSES)


def picked(*providers: Provider) -> Any:
    """A plugin that offers exactly these parts, and the toy's encoder."""

    class Picked:
        @hookimpl
        def harness_plugin():
            return PluginCard("Picked parts.", "method")

        @hookimpl
        def harness_clusterers():
            return [provider for provider in providers if isinstance(provider, ClustererProvider)]

        @hookimpl
        def harness_label_refiners():
            return [provider for provider in providers if isinstance(provider, LabelRefinerProvider)]

        @hookimpl
        def harness_memories():
            return [provider for provider in providers if isinstance(provider, MemoryProvider)]

        @hookimpl
        def harness_losses():
            return [provider for provider in providers if isinstance(provider, LossProvider)]

        @hookimpl
        def harness_image_transforms():
            return [provider for provider in providers if isinstance(provider, ImageTransformProvider)]

        @hookimpl
        def harness_backbones():
            yield TOY_BACKBONE

    return Picked


def train(tmp_path: Path, providers: list[Provider], *, step: str = "sum"):
    # Two stages of one epoch and one iteration: without and with cross-modality evidence.
    stages = [
        {"name": "intra", "epochs": 1, "iterations": 1, "cross": False},
        {"name": "cross", "epochs": 1, "iterations": 1},
    ]
    recipe = {"stages": stages, "visible_clusters": 3, "infrared_clusters": 3, "instances": 4, "step": step}
    options = {p.name: {"min_samples": 2, "eps": 0.9} for p in providers if "min_samples" in p.options.model_fields}
    settings = toy_settings(
        plugins=["picked"],
        model={"backbone": "toy"},
        recipe=recipe,
        evaluation={"trials": 1},
        options=options,
    )
    plan = plan_run(settings, Catalogue(extra={"picked": picked(*providers)}))
    show = Silent()
    return run_planned(plan, tmp_path, resume=False, force=False, show=show), show


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: ">".join(chain) or "none")
@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_parts_of_any_origin_train_with_all_losses(tiny, tmp_path, clusterer: str, chain, memory: str) -> None:
    parts = [CLUSTERERS[clusterer], *(REFINERS[name] for name in chain), MEMORIES[memory]]
    record, show = train(tmp_path, [*parts, *LOSSES.values()])
    assert record.skipped_epochs == []
    assert all(row["losses"] for row in show.rows)
    assert record.protocols[record.primary_protocol].rank1 >= 0


@pytest.mark.parametrize("step", ["sum", "draw"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_each_loss_trains_alone(tiny, tmp_path, clusterer: str, loss: str, step: str) -> None:
    parts = [CLUSTERERS[clusterer], REFINERS["pgm"], MEMORIES["cluster-memory"], LOSSES[loss]]
    record, _ = train(tmp_path, parts, step=step)
    assert record.skipped_epochs == []


@pytest.mark.parametrize("transform", offered(ImageTransformProvider))
def test_each_image_transform_goes_with_the_baseline(tiny, tmp_path, transform: str) -> None:
    parts = [CLUSTERERS["modality-dbscan"], MEMORIES["cluster-memory"], LOSSES["contrast"]]
    plain, _ = train(tmp_path / "plain", parts)
    changed, _ = train(tmp_path / "changed", [*parts, offered(ImageTransformProvider)[transform]])
    assert plain.protocols != changed.protocols


@pytest.mark.parametrize("reference", ["pretrained", "supervised", "oracle-association"])
@pytest.mark.parametrize("plugins", [["baseline"], ["pgm"], ["chcr", "tsmem"]], ids="+".join)
def test_reference_rows_are_made_with_any_method(tiny, tmp_path, reference: str, plugins) -> None:
    if reference != "oracle-association" and plugins != ["baseline"]:
        pytest.skip("one method is enough where the labels do not depend on it")
    settings = toy_settings(
        plugins=plugins,
        reference=reference,
        model={"backbone": "small", "pretrained": False},
        recipe={"epochs": 2, "iterations": 1, "visible_clusters": 3, "infrared_clusters": 3},
        evaluation={"trials": 1},
    )
    record = run_planned(plan_run(settings), tmp_path, resume=False, force=False, show=Silent())
    assert record.reference == reference
    if reference == "supervised":
        assert record.pseudo_labels[-1].partitions["joint"].ari == 1.0
    if reference == "oracle-association" and plugins == ["pgm"]:
        assert record.pseudo_labels[-1].links["visible>infrared"].precision == 1.0
    if reference == "pretrained":
        assert record.pseudo_labels == []


@pytest.mark.slow
def test_the_sysu_path_trains_the_large_encoder(tiny_copy: Path, tmp_path: Path) -> None:
    for folder in tiny_copy.glob("cam*/*"):
        for image in sorted(folder.iterdir())[1:]:
            image.unlink()
    settings = toy_settings(
        dataset="sysu-mm01",
        data_root=tiny_copy,
        plugins=["baseline"],
        model={"backbone": "agw", "pretrained": False},
        recipe={"epochs": 1, "iterations": 1, "visible_clusters": 2, "infrared_clusters": 2, "instances": 2},
        evaluation={"trials": 1, "flip": False},
        options={"modality-dbscan": {"k1": 4, "min_samples": 2, "eps": 0.9}},
    )
    plan = plan_run(settings.model_copy(update={"data": {}}))
    record = run_planned(plan, tmp_path, resume=False, force=False, show=Silent())
    assert record.primary_protocol.startswith("sysu-mm01/")
    assert record.encoder.name == "agw"
    assert record.dataset.images_train == 48
