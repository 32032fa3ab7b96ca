"""How well a device is used: one command, one table.

    python -m benchmarks.gpu                        # a GPU, ResNet-50, 288 x 144, batches of 2 x 128 (+ 128)
    python -m benchmarks.gpu --compile              # the encoder compiled
    python -m benchmarks.gpu --device cpu --small   # the same on a CPU in a minute, to see that it works

Images are random bytes in a memory-mapped file, as many as SYSU-MM01 has for training; labels are drawn. What is slow
for reasons of the machine (a cold disk) is read once before. Every figure is of the wall with the device waited for.

Rows: matrix ceiling (bf16 products of 8,192 x 8,192); images per second of training and of extraction (an image and its
mirror image count once) and the share of that ceiling by the operations of the network (torch's counter; backward
counted twice forward); share of a step that the device waits for input (a step on new batches against a step on one
batch that is there); waits of the host for the device in an iteration (torch's own warning of them, a GPU only);
clustering with its steps; an epoch of the iterations given, without extraction and clustering.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.clustering.dbscan import dbscan
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.contracts import TrainIndex
from harness.engine.plan import plan_run
from harness.engine.prefetch import Batches
from harness.engine.train import Trainer
from harness.settings import make_settings
from tests.benchmarks.clustering_data import mixture
from tests.benchmarks.training_epoch import begin, make_trainer, operations_of

FULL = {"encoder": "agw", "images": 34_167, "visible": 22_258, "people": 395, "clusters": 8, "instances": 16,
        "iterations": 200, "batch": 512, "rows": 34_167, "size": 2_048, "matrix": 8_192}  # fmt: skip
SMALL = {"encoder": "small", "images": 480, "visible": 240, "people": 20, "clusters": 2, "instances": 4,
         "iterations": 4, "batch": 64, "rows": 2_060, "size": 256, "matrix": 1_024}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--small", action="store_true", help="small sizes and the small encoder")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--prefetch", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 = all")
    flags = parser.parse_args()
    case = dict(SMALL if flags.small else FULL)
    case["iterations"] = flags.iterations or case["iterations"]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(flags, case, Path(folder))
        print(f"{bench.name}, torch {torch.__version__}, {case['encoder']}, {flags.precision}")
        print("\n| measured | value |\n| --- | --- |")
        for what, value in bench.rows():
            print(f"| {what} | {value} |", flush=True)


class Bench:
    """An engine on random images, and what is measured of it."""

    def __init__(self, flags: Any, case: dict[str, Any], folder: Path) -> None:
        self.flags, self.case = flags, case
        plan = _plan(flags, case)
        encoder_size = tuple(plan.backbone.make(0).input_size)
        self.pixels = random_cache(folder / "images.npy", case["images"], encoder_size)
        modality = (torch.arange(case["images"]) >= case["visible"]).long()
        train = TrainIndex(modality, torch.where(modality == 0, torch.arange(case["images"]) % 4, 5))
        ids = torch.arange(case["images"]) % case["people"]
        self.trainer: Trainer = make_trainer(
            plan, self.gather, train, ids=ids, batch=case["batch"], cluster=False
        )  # fmt: skip
        self.device = self.trainer.fabric.device
        self.name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.per_step = 3 * case["clusters"] * case["instances"]

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        """Images from the file, as the cache gives them."""
        return torch.from_numpy(self.pixels[index.cpu().numpy()])

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each figure as soon as it is there."""
        ceiling = self.ceiling()
        yield f"matrix ceiling, {self.flags.precision}", f"{ceiling / 1e12:.3g} TFLOP/s"
        forward = self.operations()
        begun = self.begin()
        step, still = self.steps(begun), self.steps(begun, still=True)
        rate = self.per_step / step
        yield f"training, batches of {self.per_step}", f"{rate:,.0f} images/s ({1000 * step:.1f} ms a step)"
        yield "training, share of the ceiling", f"{100 * 3 * forward * rate / ceiling:.1f} %"
        yield "share of a step that waits for input", f"{100 * max(0.0, 1 - still / step):.1f} %"
        if self.device.type == "cuda":
            yield "waits of the host in an iteration", f"{self.waits(begun)}"
        yield "input alone", f"{self.per_step / self.input_alone():,.0f} images/s"
        seconds = self.extraction()
        extracted = self.case["images"] / seconds
        yield f"extraction, {self.case['images']:,} images", f"{extracted:,.0f} images/s ({seconds:.1f} s)"
        yield "extraction, share of the ceiling", f"{100 * 2 * forward * extracted / ceiling:.1f} %"
        yield from self.clustering()
        iterations = self.case["iterations"]
        yield f"{iterations} iterations, banks and all", f"{self.epoch():.1f} s"
        if self.device.type == "cuda":
            yield "peak memory of the device", f"{torch.cuda.max_memory_allocated(self.device) / 2**30:.1f} GiB"

    def timed(self, work: Callable[[], object], *, times: int = 1) -> float:
        """Seconds of one call, the device waited for."""
        self.wait()
        before = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - before) / times

    def wait(self) -> None:
        """Until the device has done all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def ceiling(self) -> float:
        """Operations per second of the best of three products."""
        size = self.case["matrix"]
        dtype = torch.bfloat16 if self.flags.precision == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        self.timed(lambda: a @ b, times=3)
        return 2 * size**3 / min(self.timed(lambda: a @ b, times=10) for _ in range(3))

    def operations(self) -> float:
        """Of one image's forward pass."""
        return operations_of(self.trainer.encoder, self.pixels.shape[2:], device=self.device)

    def begin(self) -> Any:
        """An epoch that has begun: everything that an iteration needs."""
        trainer = self.trainer
        trainer.recipe = trainer.recipe.shortened(iterations=1)
        begun = begin(trainer)
        trainer.recipe = trainer.recipe.shortened(iterations=self.case["iterations"])
        return begun

    def steps(self, begun: Any, *, still: bool = False, times: int | None = None) -> float:
        """Seconds of a step. ``still``: on one batch that is there already."""
        going, context = begun
        times = times or max(3, min(30, self.case["iterations"]))
        warm = 3
        batches = Batches(going.batches.streams, ahead=going.batches.ahead)
        if still:
            item = going.batches.streams[0].next()
            batches = Batches(going.batches.streams)
            batches.next = lambda number: item  # type: ignore[method-assign, assignment]
        going.batches = batches
        with batches.running(times + warm):
            for _ in range(warm):
                self.trainer._iteration(going, context)
            return self.timed(lambda: self.trainer._iteration(going, context), times=times)

    def waits(self, begun: Any) -> int:
        """How often the host waits for the GPU within one iteration, as torch notices."""
        going, context = begun
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.trainer._iteration(going, context)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        for where in sorted({f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)}):
            print(f"<!-- waits at {where} -->")
        return sum("synchroniz" in str(warning.message) for warning in caught)

    def input_alone(self) -> float:
        """Seconds of a batch with no network behind it."""
        going = self.begin()[0]
        batches = Batches(going.batches.streams, ahead=going.batches.ahead)
        with batches.running(25):
            for _ in range(5):
                batches.next(0)
            return self.timed(lambda: batches.next(0), times=20)

    def extraction(self) -> float:
        """Seconds of all images, once the file is in memory."""
        extract = self.trainer._extract({"online": self.trainer.encoder}, [])
        np.add.reduce(self.pixels[:: max(1, len(self.pixels) // 2000)], axis=None)
        return self.timed(lambda: extract("online", "plain"))

    def clustering(self) -> Iterator[tuple[str, str]]:
        """Search, Jaccard distance, DBSCAN."""
        rows, size = self.case["rows"], self.case["size"]
        features = mixture(rows, size, people=max(2, rows // 86))[0].to(self.device)
        self.timed(lambda: k_reciprocal_jaccard(features[:2000], max_distance=0.6))
        found: dict[str, Any] = {}
        search = self.timed(lambda: found.update(lists=nearest_neighbours(features, 30)))
        rest = self.timed(
            lambda: found.update(distances=k_reciprocal_jaccard(features, max_distance=0.6, ranking_NK=found["lists"]))
        )
        labels = self.timed(lambda: dbscan(found["distances"], eps=0.6))
        yield f"clustering {rows:,} x {size:,}", f"{search + rest + labels:.2f} s"
        yield "of it search / Jaccard / DBSCAN", f"{search:.2f} / {rest:.2f} / {labels:.2f} s"

    def epoch(self) -> float:
        """Seconds of the iterations of an epoch, with its banks."""
        return self.timed(lambda: self.trainer.run_epoch(0))


def random_cache(path: Path, images: int, size: tuple[int, int]) -> Any:
    """A memory-mapped file of random images, uint8 [N, 3, H, W]."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, 3, *size))
    rng = np.random.default_rng(0)
    for start in range(0, images, 1024):
        block = pixels[start : start + 1024]
        block[:] = rng.integers(0, 256, block.shape, dtype=np.uint8)
    pixels.flush()
    return np.load(path, mmap_mode="r")


def _plan(flags: Any, case: dict[str, Any]) -> Any:
    return plan_run(
        make_settings(
            {
                "plugins": ("baseline",),
                "model": {"backbone": case["encoder"], "pretrained": False},
                "recipe": {
                    "epochs": 1,
                    "iterations": case["iterations"],
                    "visible_clusters": case["clusters"],
                    "infrared_clusters": case["clusters"],
                    "instances": case["instances"],
                    "visible_views": ("plain", "exchange"),
                    "infrared_views": ("infrared",),
                },
                "compute": {
                    "device": flags.device,
                    "precision": flags.precision,
                    "compile": flags.compile,
                    "prefetch": flags.prefetch,
                    "threads": flags.threads,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
