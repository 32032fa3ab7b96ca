"""The processes of a run: one per device, each with a share of every batch and a replica of all else.

Every process draws the same batches, embeds its share of the rows, and gathers the embeddings of all. Losses, memories
and labels are computed everywhere, from equal values; gradients are those of the shares, added up. So the result is
that of one process with the same batch, up to the order in which floats are added. Only the first process writes files,
scores and talks.

Shape letters: B images of a batch, b of them in this process's share, D embedding size, W processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from harness.errors import RunError, TrainingError


class Processes:
    """This process among all. Made without arguments, it is alone and every operation gives back what it was given."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    def share(self, total: int, *, begin: int = 0) -> slice:
        """Which of ``total`` rows are this process's, when they follow ``begin`` others: every W-th."""
        return slice((self.rank - begin) % self.count, total, self.count)

    def gathered(self, own: Mapping[str, Tensor], total: int) -> dict[str, Tensor]:
        """All rows [B, D] by name, in order, from each process's share [b, D].

        Gradient flows back into the share alone: what follows is computed by every process alike, so each knows the
        gradient of its own rows.
        """
        if self.alone:
            return dict(own)
        widths = [tensor.shape[1] for tensor in own.values()]
        joined = _Gathered.apply(torch.cat([tensor.float() for tensor in own.values()], dim=1), total, self)
        return dict(zip(own, joined.split(widths, dim=1), strict=True))

    def rows_of_all(self, own_bD: Tensor, total: int) -> Tensor:
        """All rows [B, D], in order, from each process's share [b, D]; no gradient."""
        if self.alone:
            return own_bD
        most, width = -(-total // self.count), own_bD.shape[1]
        padded = own_bD.new_zeros(most, width)
        padded[: len(own_bD)] = own_bD
        everyones = own_bD.new_empty(self.count * most, width)
        with talking():
            distributed.all_gather_into_tensor(everyones, padded)
        return everyones.view(self.count, most, width).transpose(0, 1).reshape(-1, width)[:total]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place: one message for all."""
        if self.alone or not tensors:
            return
        joined = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with talking():
            distributed.all_reduce(joined)
        for tensor, total in zip(tensors, joined.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(total.view(tensor.shape))

    def follow_first(self, module: nn.Module) -> None:
        """Give a module's buffers the values of the first process: those that were normalised apart differ."""
        if self.alone:
            return
        with talking(), torch.no_grad():
            for buffer in module.buffers():
                whole = buffer.contiguous()
                distributed.broadcast(whole, src=0)
                buffer.copy_(whole)

    def told(self, value: int) -> int:
        """The ``value`` of the first process, in all."""
        if self.alone:
            return value
        said = torch.tensor([value])
        with talking():
            distributed.broadcast(said, src=0)
        return int(said)

    def require_equal(self, what: str, content: bytes) -> None:
        """Raise TrainingError unless every process has the same ``content``."""
        if self.alone:
            return
        digest = torch.frombuffer(bytearray(hashlib.blake2b(content, digest_size=16).digest()), dtype=torch.uint8)
        everyones = [torch.empty_like(digest) for _ in range(self.count)]
        with talking():
            distributed.all_gather(everyones, digest)
        others = [str(rank) for rank, found in enumerate(everyones) if not found.equal(everyones[0])]
        if others:
            raise TrainingError(
                f"The {self.count} processes of the run have come to different {what} (process {', '.join(others)} "
                "beside process 0), so they cannot go on together. A part draws at random outside of epoch.rng, or "
                "computes in no fixed order on this device; train on one device (--devices 1) and tell its author."
            )


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_bD: Tensor, total: int, processes: Processes) -> Tensor:
        ctx.share = processes.share(total)
        return processes.rows_of_all(own_bD, total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.share].contiguous(), None, None


@contextmanager
def talking() -> Iterator[None]:
    """A message between processes. Raises RunError if another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ProcessLost(
            f"Another process of this run ended without a word ({str(error).splitlines()[0][:200]}). What was finished "
            "is kept: add --resume."
        ) from error


class ProcessLost(RunError):
    """A process of the run is gone."""
