"""Calling the encoder on a batch: this process's share of the rows goes in, the embeddings of all come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.engine.batch_norm import SynchronisedBatchNorm
from harness.engine.processes import Processes
from harness.engine.randomness import derive_seed
from harness.engine.seam import check_embeddings


@dataclass(frozen=True)
class Embedder:
    """Knows the sizes of the embeddings and the processes, and nothing of the run: parts reach it through the teacher.

    ``synchronised``: whether batch norm in training normalises over the rows of all processes, or over each one's own.
    """

    dims: Mapping[str, int]
    processes: Processes = field(default_factory=Processes)
    synchronised: bool = True
    seed: int = 0

    def __call__(
        self, encoder: nn.Module, images: Tensor, modality_B: Tensor, *, moment: tuple[str | int, ...] = ()
    ) -> dict[str, Tensor]:
        """The embeddings [B, D] of a whole batch by name, from the images [b, 3, H, W] of this process's share.

        ``moment``: epoch, iteration and the like; names the randomness of the encoder where there are several processes
        (one process draws from torch's generator, as ever).
        """
        total = len(modality_B)
        with self._together(moment):
            own = encoder(images, modality_B[self.processes.share(total)])
        check_embeddings(own, self.dims, rows=len(images))
        return self.processes.gathered(own, total)

    @contextmanager
    def _together(self, moment: tuple[str | int, ...]) -> Iterator[None]:
        """Normalise over all processes, and leave the generators that parts may draw from equal in all of them."""
        if self.processes.alone:
            yield
            return
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with (
            torch.random.fork_rng(devices=devices),
            SynchronisedBatchNorm(self.processes) if self.synchronised else nullcontext(),
        ):
            torch.manual_seed(derive_seed(self.seed, "encoder", self.processes.rank, *moment))
            yield
