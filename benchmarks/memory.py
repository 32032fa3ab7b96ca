"""Host memory of an epoch of SYSU-MM01's size: 34,167 images in a memory-mapped cache, features and banks of 2,048.

    python -m benchmarks.memory [--images N] [--folder DIR]     # DIR: 4.0 GiB are free there

The encoder pools and projects, so that an epoch takes minutes on any machine: what a network's activations take is not
in the figure (on a GPU they are not on the host). Images are people of noise and colours, so that there is something to
cluster. Pages of the cache that are in memory count as the process's, though the system takes them back when it needs
them; so both figures are given: all that was resident at the peak, and of it what is the process's own.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.contracts import TrainIndex
from harness.data.cache import ImageCache
from harness.engine.plan import plan_run
from harness.settings import make_settings
from tests.benchmarks.training_epoch import make_trainer

SIZE, GRID, DIMS = (288, 144), (8, 4), 2_048
ITERATIONS, CLUSTERS, INSTANCES = 5, 8, 16


class Pooling(nn.Module):
    """Mean colours of a grid, projected to 2,048."""

    input_size = SIZE
    embedding_dims = {"main": DIMS}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * GRID[0] * GRID[1], DIMS, bias=False)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, images_B3HW: Tensor, modality_B: Tensor) -> dict[str, Tensor]:
        """``{"main": [B, 2048]}``."""
        return {"main": self.layer(nn.functional.adaptive_avg_pool2d(images_B3HW, GRID).flatten(1))}


class Watched:
    """The largest values of the process's resident memory, looked at twenty times a second, in bytes."""

    def __init__(self) -> None:
        self.own = self.all = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            text = Path("/proc/self/status").read_text()
            found = {name: int(kib) << 10 for name, kib in re.findall(r"(RssAnon|VmRSS):\s+(\d+) kB", text)}
            self.own, self.all = max(self.own, found["RssAnon"]), max(self.all, found["VmRSS"])

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=34_167)
    parser.add_argument("--people", type=int, default=395)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        ids = torch.arange(flags.images) % flags.people
        file = people_in(Path(folder) / "cache.npy", ids)
        cache = ImageCache(file, np.load(file, mmap_mode="r"), dataset_fingerprint="", fingerprint="")
        modality = (torch.arange(flags.images) >= flags.images * 22_258 // 34_167).long()
        train = TrainIndex(modality, 1 + torch.arange(flags.images) % 6)
        trainer = make_trainer(_plan(flags), cache.gather, train, ids=ids, batch=256, encoder=Pooling())
        watched, before = Watched(), time.perf_counter()
        trainer.run_epoch(0)
        trainer.state()
        watched.close()
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in trainer.clock.seconds.items())
    print(f"{flags.images:,} images in {cache.pixels.nbytes / 2**30:.2f} GiB, {DIMS:,} values ({seconds}; ", end="")
    print(f"{time.perf_counter() - before:.0f} s in all)")
    print(f"peak of the resident memory {watched.all / 2**30:.2f} GiB, of it the process's own ", end="")
    print(f"{watched.own / 2**30:.2f} GiB")


def people_in(path: Path, ids: Tensor) -> Path:
    """A file of images whose coarse colours are the person's: uint8 [N, 3, H, W]."""
    rng = np.random.default_rng(0)
    colours = rng.integers(30, 226, (int(ids.max()) + 1, 3, *GRID), dtype=np.int16)
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(ids), 3, *SIZE))
    each = (SIZE[0] // GRID[0], SIZE[1] // GRID[1])
    for row, person in enumerate(ids.tolist()):
        coarse = np.clip(colours[person] + rng.integers(-12, 13, colours[person].shape), 0, 255).astype(np.uint8)
        pixels[row] = coarse.repeat(each[0], axis=1).repeat(each[1], axis=2)
    pixels.flush()
    return path


def _plan(flags: Any) -> Any:
    recipe = {
        "epochs": 1,
        "iterations": ITERATIONS,
        "visible_clusters": CLUSTERS,
        "infrared_clusters": CLUSTERS,
        "instances": INSTANCES,
        "visible_views": ("plain", "exchange"),
        "infrared_views": ("infrared",),
    }
    compute = {"device": "cpu", "precision": "fp32", "threads": flags.threads}
    return plan_run(make_settings({"plugins": ("baseline",), "recipe": recipe, "compute": compute}))


if __name__ == "__main__":
    main()
