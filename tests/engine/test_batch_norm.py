"""Synchronised batch norm in several processes, against torch's own on the whole batch; and how rows are shared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.engine.batch_norm import SynchronisedBatchNorm
from harness.engine.processes import Processes

CODE = """
import copy
import sys
import torch
from torch import distributed, nn
from harness.engine.batch_norm import SynchronisedBatchNorm
from harness.engine.processes import Processes
from harness.errors import TrainingError
from harness.models.layers import GroupedBatchNorm2d

rank, count, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=count)
processes = Processes(rank, count)
draw = torch.Generator().manual_seed(3)

def compare(layer, shape, dtype=torch.float32, tolerance=2e-5):
    for parameter in layer.parameters():
        parameter.data = torch.rand(parameter.shape, generator=draw) + 0.5
    whole = (3 * torch.randn(shape, generator=draw) + 2).to(dtype)
    slope = torch.randn(shape, generator=draw)
    other = copy.deepcopy(layer)
    x = whole.clone().requires_grad_()
    expected = layer(x)
    (expected.float() * slope).sum().backward()
    own = processes.share(len(whole))
    mine = whole[own].clone().requires_grad_()
    with SynchronisedBatchNorm(processes):
        found = other(mine)
    assert found.dtype == expected.dtype, (found.dtype, expected.dtype)
    gathered = processes.gathered({"x": found.flatten(1)}, len(whole))["x"]
    (gathered * slope.flatten(1)).sum().backward()
    grads = [p.grad for p in other.parameters()]
    processes.add_up(grads)
    close = dict(atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(gathered, expected.detach().flatten(1).float(), **close)
    torch.testing.assert_close(mine.grad, x.grad[own], **close)
    for a, b in zip(grads, (p.grad for p in layer.parameters()), strict=True):
        torch.testing.assert_close(a, b, atol=20 * tolerance, rtol=20 * tolerance)
    for a, b in zip(other.buffers(), layer.buffers(), strict=True):
        torch.testing.assert_close(a, b, **close)
    other.eval()
    layer.eval()
    with SynchronisedBatchNorm(processes), torch.no_grad():
        torch.testing.assert_close(other(whole), layer(whole), atol=50 * tolerance, rtol=50 * tolerance)

compare(nn.BatchNorm1d(5), (11, 5))
compare(nn.BatchNorm2d(4), (7, 4, 3, 2))
compare(nn.BatchNorm2d(4), (count, 4, 3, 2))
compare(nn.BatchNorm2d(4, affine=False), (8, 4, 3, 2))
compare(nn.BatchNorm2d(4), (8, 4, 3, 2), torch.bfloat16, 2e-2)
compare(GroupedBatchNorm2d(4, groups=2), (8 * count, 4, 3, 2))
assert processes.told(rank + 7) == 7
try:
    processes.require_equal("labels", bytes([rank]))
except TrainingError as error:
    assert "different labels (process 1" in str(error)
else:
    raise AssertionError("unequal labels passed")
processes.require_equal("labels", b"same")
module = nn.BatchNorm1d(2)
module.running_mean += rank
processes.follow_first(module)
assert module.running_mean.tolist() == [0, 0]
print("well")
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_shares_give_what_the_whole_gives(tmp_path: Path, count: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(rank), str(count), str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        for process in started:
            printed, said = process.communicate(timeout=300)
            assert process.returncode == 0, said[-3000:]
            assert printed == "well\n"
    finally:
        for process in started:
            process.kill()


def test_one_process_gives_back_what_it_was_given() -> None:
    alone, rows = Processes(), {"main": torch.rand(4, 2)}
    assert alone.gathered(rows, 4)["main"] is rows["main"]
    assert alone.share(4) == slice(0, 4, 1)
    assert alone.told(5) == 5
    alone.require_equal("labels", b"")
    alone.add_up(list(rows.values()))


def test_outside_of_training_nothing_is_intercepted() -> None:
    layer = nn.BatchNorm1d(2).eval()
    images = torch.rand(3, 2)
    with SynchronisedBatchNorm(Processes(0, 2)):  # it would wait for another process
        assert layer(images).equal(layer(images))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 5, 12])
def test_shares_divide_the_rows(count: int, total: int) -> None:
    rows = [row for rank in range(count) for row in range(total)[Processes(rank, count).share(total)]]
    assert sorted(rows) == list(range(total))
    for begin in (0, 3, 8):
        whole = [begin + r for k in range(count) for r in range(total)[Processes(k, count).share(total, begin=begin)]]
        assert sorted(whole) == list(range(begin, begin + total))
        for rank in range(count):
            chosen = range(total)[Processes(rank, count).share(total, begin=begin)]
            assert all((begin + row) % count == rank for row in chosen)
