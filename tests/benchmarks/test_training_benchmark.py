"""Training against a step as the field writes it, in one process: read the ratios, not the times.

A whole epoch, and ResNet-50: ``python -m tests.benchmarks.training_epoch --help``.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import pytest
import torch

from harness.engine.extraction import extract_features
from harness.engine.input import DrawStream
from harness.engine.prefetch import Batches
from tests.benchmarks import training_reference as peer
from tests.benchmarks.training_epoch import Scene, begin

CLUSTERS, INSTANCES = 4, 8
IMAGES = 3 * CLUSTERS * INSTANCES


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """96 files of 12 people, a cache of them, the small encoder without training."""
    flags = argparse.Namespace(
        encoder="small", precision="fp32", people=12, images=4, iterations=1, clusters=CLUSTERS, instances=INSTANCES,
        batch=96, workers=0, threads=1, only=None,
    )  # fmt: skip
    return Scene(tmp_path_factory.mktemp("files"), flags)


@pytest.fixture
def going(scene):
    """An epoch of the engine that has begun: banks are built, batches can be drawn."""
    trainer = scene.trainer()
    return partial(trainer._iteration, *begin(trainer))


def peer_step(scene):
    """A step of the field, with its batch decoded and transformed."""
    rows = [np.flatnonzero(scene.manifest.modality == kind) for kind in (0, 1)]
    paths = [[scene.manifest.file(int(row)) for row in of_kind] for of_kind in rows]
    people = [scene.people[of_kind] for of_kind in rows]
    views = (
        [peer.training_transform(scene.size), peer.training_transform(scene.size, peer.Exchange())],
        [peer.training_transform(scene.size, peer.Gray())],
    )
    encoder = scene.plan.backbone.make(0)
    features = [
        peer.features_of(encoder, paths[k], kind=k, size=scene.size, batch=96, workers=0) for k in (0, 1)
    ]  # fmt: skip
    memories = tuple(peer.Memory(f, labels) for f, labels in zip(features, people, strict=True))
    step = peer.PeerStep(encoder, memories)

    def whole():
        drawn = [
            peer.draw_batches(people[k], iterations=1, clusters=CLUSTERS, instances=INSTANCES, seed=k) for k in (0, 1)
        ]
        loaded = [next(iter(peer.loader(paths[k], views[k], batches=drawn[k], workers=0))) for k in (0, 1)]
        ids = [torch.as_tensor(people[k][drawn[k][0]]) for k in (0, 1)]
        step(loaded[0], ids[0], loaded[1][0], ids[1])

    return whole


@pytest.mark.benchmark(group=f"a step, {IMAGES} images, small encoder")
def test_a_step(benchmark, going):
    terms = benchmark.pedantic(going, rounds=5, warmup_rounds=1)
    assert terms
    assert all(torch.isfinite(term) for term in terms.values())


@pytest.mark.benchmark(group=f"a step, {IMAGES} images, small encoder")
def test_a_step_as_the_field_writes_it(benchmark, scene):
    benchmark.pedantic(peer_step(scene), rounds=3, warmup_rounds=1)


def stream_of(scene) -> DrawStream:
    trainer = scene.trainer()
    labels = trainer.override_labels(trainer._context(0, 0, 0))
    return trainer._streams(labels, 0, stage=trainer.recipe.stages[0])[0]


@pytest.mark.benchmark(group=f"input, {IMAGES} images")
@pytest.mark.parametrize("ahead", [0, 2], ids=["in turn", "by a thread"])
def test_input_from_the_cache(benchmark, scene, ahead):
    batches = Batches([stream_of(scene)], ahead=ahead)
    with batches.running(12):
        batch, images = benchmark.pedantic(batches.next, args=(0,), rounds=10, warmup_rounds=1)
    assert len(batch) == len(images) == IMAGES


@pytest.mark.benchmark(group=f"input, {IMAGES} images")
def test_input_decoded_each_time(benchmark, scene):
    paths = [scene.manifest.file(row) for row in range(len(scene.manifest))]
    views = [peer.training_transform(scene.size, peer.Gray())]
    batches = [list(range(IMAGES))]
    (images,) = benchmark.pedantic(
        lambda: next(iter(peer.loader(paths, views, batches=batches, workers=0))), rounds=3, warmup_rounds=1
    )
    assert len(images) == IMAGES


@pytest.mark.benchmark(group="gathering 96 images from the cache")
def test_gather(benchmark, scene):
    index = torch.arange(len(scene.manifest))
    assert len(benchmark(scene.cache.gather, index)) == len(index)


@pytest.mark.benchmark(group="extraction, 96 images and their mirror images, small encoder")
def test_extraction(benchmark, scene):
    encoder = scene.plan.backbone.make(0)
    found = benchmark.pedantic(
        extract_features,
        args=(encoder, scene.cache.gather),
        kwargs={
            "modality": torch.as_tensor(scene.manifest.modality), "transforms": (), "device": torch.device("cpu"),
            "batch": 96, "flip": True, "renorm": True,
        },
        rounds=3, warmup_rounds=1,
    )  # fmt: skip
    assert found["main"].shape == (len(scene.manifest), encoder.embedding_dims["main"])


@pytest.mark.benchmark(group="extraction, 96 images and their mirror images, small encoder")
def test_extraction_as_the_field_writes_it(benchmark, scene):
    encoder = scene.plan.backbone.make(0)
    paths = [scene.manifest.file(row) for row in range(len(scene.manifest))]
    found = benchmark.pedantic(
        peer.features_of, args=(encoder, paths),
        kwargs={"kind": 0, "size": scene.size, "batch": 96, "workers": 0}, rounds=3, warmup_rounds=1,
    )  # fmt: skip
    assert len(found) == len(paths)
