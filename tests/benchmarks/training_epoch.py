"""A whole epoch of the harness beside one as the field writes it, on one tree of JPEG files, in one process.

    python -m tests.benchmarks.training_epoch                                  # ResNet-50, 288 x 144, float32
    python -m tests.benchmarks.training_epoch --precision bf16                 # the harness's half again, in bf16
    python -m tests.benchmarks.training_epoch --encoder small --people 100 --images 6 --iterations 20 --instances 8

An epoch: features of all images and their mirror images, clustering by modality, then iterations over visible images in
two views and infrared ones in one. Both sides train on the people as labels, so that their work is equal whatever an
encoder without training makes of them; the clustering is done and timed all the same. Seconds are of the wall; those
of the processor, of all processes, are beside them.

At the end stand the operations of the network in that epoch (torch's counter), what each side did of them in a second,
and the most that this machine does (the best of a few convolutions and a matrix product, in the same precision): that
is how far any surroundings of the network could go.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.contracts import PseudoLabels, Setup, TrainIndex
from harness.data.cache import build_cache
from harness.data.manifest import Manifest
from harness.data.rendered.image import render_image
from harness.engine.compute import make_fabric
from harness.engine.cost import Clock
from harness.engine.epoch import Epoch
from harness.engine.extraction import pixel_statistics
from harness.engine.input import ImageSource
from harness.engine.plan import plan_run
from harness.engine.run import _parts
from harness.engine.train import Going, Trainer
from harness.settings import make_settings
from tests.benchmarks import training_reference as peer

INPUT_BATCHES = 20
INPUT_ALONE = f"{INPUT_BATCHES} batches, no network"
CAMERAS = ((1, 2, 4, 5), (3, 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="agw")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--images", type=int, default=4, help="of each person and modality")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--clusters", type=int, default=4)
    parser.add_argument("--instances", type=int, default=2)
    parser.add_argument("--batch", type=int, default=24, help="images per pass of the extraction")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the peers' DataLoader")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=("harness", "peer"))
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), flags)
        rows: dict[str, dict[str, tuple[float, float]]] = {}
        if flags.only != "peer":
            rows["harness"] = scene.harness()
        if flags.only != "harness":
            rows["peer"] = scene.peer()
        operations = scene.operations()
    show(rows, flags)
    show_ceiling(rows, operations, ceiling(flags.precision))


class Timed:
    """Seconds of the wall and of the processor, by name."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        before = time.perf_counter(), processor_s()
        yield
        wall, used = time.perf_counter() - before[0], processor_s() - before[1]
        old = self.found.get(name, (0.0, 0.0))
        self.found[name] = old[0] + wall, old[1] + used


def processor_s() -> float:
    """Of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class Scene:
    """Files of rendered people, their cache, and an encoder."""

    def __init__(self, folder: Path, flags: Any) -> None:
        self.flags = flags
        model = {"backbone": flags.encoder, "pretrained": False}
        recipe = {
            "iterations": flags.iterations, "epochs": 1, "visible_clusters": flags.clusters,
            "infrared_clusters": flags.clusters, "instances": flags.instances,
            "visible_views": ("plain", "exchange"), "infrared_views": ("infrared",),
        }  # fmt: skip
        compute = {"device": "cpu", "precision": flags.precision, "threads": flags.threads}
        settings = {"model": model, "recipe": recipe, "compute": compute, "plugins": ("baseline",)}
        self.plan = plan_run(make_settings(settings))
        self.size = tuple(self.plan.backbone.make(0).input_size)
        self.manifest = draw_files(folder, people=flags.people, images=flags.images, size=self.size)
        self.cache = build_cache(self.manifest, size=self.size, cache_dir=folder / "cache")
        self.people = self.manifest.identity

    def harness(self) -> dict[str, tuple[float, float]]:
        """One epoch by the engine."""
        trainer, timed = self.trainer(), Timed()
        with timed("whole"):
            trainer.run_epoch(0)
        seconds = trainer.clock.seconds
        found = timed.found | {name: (seconds[name], 0.0) for name in seconds}
        stream = trainer.going.batches.streams[0] if trainer.going else None
        with timed(INPUT_ALONE):
            for _ in range(INPUT_BATCHES if stream else 0):
                stream.next()
        return found | {INPUT_ALONE: timed.found[INPUT_ALONE]}

    def operations(self) -> float:
        """Of the network in an epoch: images and mirror images forward, batches forward and backward."""
        encoder, flags = self.plan.backbone.make(0), self.flags
        extracted, trained = 2 * len(self.manifest), 3 * flags.iterations * flags.clusters * flags.instances
        forward, both = (operations_of(encoder, self.size, backward=backward) for backward in (False, True))
        return extracted * forward + trained * both

    def trainer(self) -> Trainer:
        """The engine on these files, with people in the place of clusters."""
        train = TrainIndex(torch.as_tensor(self.manifest.modality), torch.as_tensor(self.manifest.camera))
        return make_trainer(
            self.plan, self.cache.gather, train, ids=torch.as_tensor(self.people), batch=self.flags.batch
        )

    def peer(self) -> dict[str, tuple[float, float]]:
        """One epoch as the field writes it."""
        flags, timed = self.flags, Timed()
        encoder = self.plan.backbone.make(0)
        rows = [np.flatnonzero(self.manifest.modality == kind) for kind in (0, 1)]
        paths = [[self.manifest.file(int(row)) for row in of_kind] for of_kind in rows]
        people = [self.people[of_kind] for of_kind in rows]
        with timed("whole"):
            with timed("extraction"):
                features = [
                    peer.features_of(
                        encoder, paths[k], kind=k, size=self.size, batch=flags.batch, workers=flags.workers
                    )
                    for k in (0, 1)
                ]
            with timed("clustering"):
                for of_kind in features:
                    peer.cluster(of_kind)
            with timed("training, with input"):
                memories = tuple(peer.Memory(f, labels) for f, labels in zip(features, people, strict=True))
                self._peer_steps(peer.PeerStep(encoder, memories), paths, people)
        return timed.found

    def _peer_steps(self, step: Callable[..., None], paths: list[list[Path]], people: list[Any]) -> None:
        flags = self.flags
        views = (
            [peer.training_transform(self.size), peer.training_transform(self.size, peer.Exchange())],
            [peer.training_transform(self.size, peer.Gray())],
        )
        drawn = [
            peer.draw_batches(
                people[k], iterations=flags.iterations, clusters=flags.clusters, instances=flags.instances, seed=k
            )
            for k in (0, 1)
        ]
        loaders = [peer.loader(paths[k], views[k], batches=drawn[k], workers=flags.workers) for k in (0, 1)]
        for number, (visible, (infrared,)) in enumerate(zip(*loaders, strict=True)):
            ids = [torch.as_tensor(people[k][drawn[k][number]]) for k in (0, 1)]
            step(visible, ids[0], infrared, ids[1])


def make_trainer(
    plan: Any, gather: Any, train: TrainIndex, *, ids: Tensor, batch: int, cluster: bool = True, encoder: Any = None
) -> Trainer:
    """The engine on images that ``gather`` gives, trained on ``ids`` [N] as labels.

    ``cluster``: cluster all the same, for the time it takes. ``batch``: images per pass of the extraction.
    ``encoder``: in the place of the plan's.
    """
    fabric = make_fabric(plan.settings.compute)
    train = TrainIndex(train.modality.to(fabric.device), train.camera.to(fabric.device))
    encoder = plan.backbone.make(0) if encoder is None else encoder
    setup = Setup(train=train, dataset="sysu-mm01", embedding_dims=dict(encoder.embedding_dims))
    trainer = Trainer(
        fabric=fabric,
        encoder=encoder,
        parts=_parts(plan, setup),
        recipe=plan.recipe,
        source=ImageSource(gather, (), train, fabric.device, *pixel_statistics(encoder)),
        dataset="sysu-mm01",
        embedding_dims=setup.embedding_dims,
        seed=0,
        features=plan.settings.features.model_copy(update={"batch": batch}),
        clustering=plan.settings.clustering,
        clock=Clock(),
        compute=plan.settings.compute,
    )
    trainer.prepare(needs_teacher=False)
    ids = ids.to(fabric.device)
    labels = {"visible": torch.where(train.visible, ids, -1), "infrared": torch.where(train.infrared, ids, -1)}
    working = trainer.parts.clusterer

    def given(context: Any) -> PseudoLabels:
        with trainer.clock("clustering"):
            if cluster:
                working.part.cluster(context.bound_to(working.chosen.name))
        return PseudoLabels(train, labels)

    trainer.override_labels = given
    return trainer


def draw_files(folder: Path, *, people: int, images: int, size: tuple[int, int]) -> Manifest:
    """JPEG files of ``images`` of each person and modality, in the layout of SYSU-MM01."""
    paths, modality, camera, identity = [], [], [], []
    for kind, cameras in enumerate(CAMERAS):
        for person in range(people):
            for number in range(images):
                place = cameras[number % len(cameras)]
                path = f"cam{place}/{person + 1:04d}/{number + 1:04d}.jpg"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                pixels = render_image(0, identity=person + 1, camera=place, number=number + 1, size=size)
                Image.fromarray(pixels).save(folder / path, quality=95, subsampling=0)
                paths.append(path)
                modality.append(kind)
                camera.append(place)
                identity.append(person)
    columns = [np.asarray(values, dtype=np.int64) for values in (modality, camera, identity)]
    return Manifest(folder, tuple(paths), *columns)


def show(rows: dict[str, dict[str, tuple[float, float]]], flags: Any) -> None:
    images = 3 * flags.clusters * flags.instances
    total = 2 * flags.people * flags.images
    print(
        f"{flags.encoder}, {flags.precision}, {total} images, {flags.iterations} iterations of {images}, "
        f"{flags.threads} threads"
    )
    for side, found in rows.items():
        for name, (wall, used) in found.items():
            print(f"{side:<8} {name:<22} {wall:9.2f} s" + (f" {used:9.2f} s of the processor" if used else ""))
    if "harness" in rows:
        alone = INPUT_BATCHES * images / rows["harness"][INPUT_ALONE][0]
        used = flags.iterations * images / rows["harness"]["training"][0]
        print(
            f"input alone {alone:,.0f} images/s; the steps use {used:,.1f} images/s: {alone / used:.0f} times as many"
        )
    if len(rows) == 2:
        wall, used = (rows["peer"]["whole"][k] / rows["harness"]["whole"][k] for k in (0, 1))
        print(f"the harness's epoch is {wall:.2f} times as fast ({used:.2f} by processor time)")


def operations_of(
    encoder: torch.nn.Module, size: tuple[int, int], *, device: torch.device | str = "cpu", backward: bool = False
) -> float:
    """Of one image's forward pass, or of that and the backward pass."""
    images, kinds = torch.randn(2, 3, *size, device=device), torch.tensor([0, 1], device=device)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        found = encoder.train(backward)(images, kinds)
        if backward:
            found["main"].sum().backward()
    return counter.get_total_flops() / 2


def begin(trainer: Trainer) -> tuple[Going, Epoch]:
    """An epoch that has run its first: what another iteration needs."""
    kept: list[tuple[Going, Epoch]] = []
    iteration = trainer._iteration

    def keeping(going: Going, context: Epoch) -> Any:
        kept.append((going, context))
        return iteration(going, context)

    trainer._iteration = keeping  # type: ignore[method-assign]
    trainer.run_epoch(0)
    trainer._iteration = iteration  # type: ignore[method-assign]
    return kept[-1]


def ceiling(precision: str) -> float:
    """Operations per second of the fastest of three convolutions of a ResNet-50 and a product of matrices."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    with torch.inference_mode():
        for channels, height, width in ((64, 72, 36), (256, 18, 9), (512, 18, 9)):
            layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=dtype)
            layer = layer.to(memory_format=torch.channels_last)
            images = torch.randn(24, channels, height, width, dtype=dtype).contiguous(memory_format=torch.channels_last)
            best = max(best, _rate(partial(layer, images), 2 * 9 * images.numel() * channels))
        matrix = torch.randn(2048, 2048, dtype=dtype)
        return max(best, _rate(partial(torch.mm, matrix, matrix), 2 * 2048**3))


def _rate(work: Callable[[], object], operations: int) -> float:
    work()
    seconds = []
    for _ in range(5):
        before = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - before)
    return operations / min(seconds)


def show_ceiling(rows: dict[str, dict[str, tuple[float, float]]], operations: float, most: float) -> None:
    print(f"operations of the network {operations / 1e9:,.0f} G; at most {most / 1e9:,.0f} G a second on this machine")
    for side, found in rows.items():
        wall = found["whole"][0]
        print(
            f"{side:<8} {operations / wall / 1e9:9.1f} G a second, input and clustering and all; "
            f"nothing but its operations could be {wall * most / operations:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
