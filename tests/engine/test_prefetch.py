"""Batches made ahead by a thread are the batches of the loop, and leave no trace when they are not used."""

from __future__ import annotations

import threading

import pytest
import torch

from harness.contracts import PseudoLabels, TrainIndex
from harness.engine.input import DrawStream, ImageSource
from harness.engine.prefetch import Batches
from harness.engine.processes import Processes
from harness.engine.train import require_shares
from harness.errors import SettingsError
from toy_parts import TOY_RECIPE

TRAIN = TrainIndex(torch.tensor([0] * 14 + [1] * 10), torch.tensor([1, 2] * 7 + [3, 6] * 5))
IMAGES = torch.randint(0, 256, (len(TRAIN), 3, 16, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = PseudoLabels(TRAIN, {"joint": torch.arange(len(TRAIN)) % 5, "visible": torch.tensor([0, 1] * 7 + [-1] * 10)})


def pixels(index):
    return IMAGES[index].clone()


def streams(*, processes: Processes | None = None, gather=pixels) -> list[DrawStream]:
    source = ImageSource(
        gather, (), TRAIN, torch.device("cpu"), (0.5,) * 3, (0.5,) * 3, processes or Processes()
    )  # fmt: skip
    return [
        DrawStream(source, LABELS, draw=draw, recipe=TOY_RECIPE, seed=3, epoch=0) for draw in LABELS.draws
    ]  # fmt: skip


def drawn(batches: Batches, rounds: int, *, ask: int | None = None):
    with batches.running(rounds):
        return [batches.next(number) for _ in range(ask or rounds) for number in range(len(batches))]


def assert_same(first, second) -> None:
    for (batch, images), (other, others) in zip(first, second, strict=True):
        assert batch.index.equal(other.index)
        assert batch.view.equal(other.view)
        assert images.equal(others)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_batches_made_ahead_are_those_of_the_loop(ahead: int) -> None:
    assert_same(drawn(Batches(streams()), 7), drawn(Batches(streams(), ahead=ahead), 7))


def test_what_was_made_and_not_used_is_made_again() -> None:
    whole = drawn(Batches(streams()), 8)
    first = Batches(streams(), ahead=3)
    begun = drawn(first, 8, ask=3)
    second = Batches(streams(), ahead=3)
    second.restore(first.states())
    assert_same(whole, begun + drawn(second, 5))


def test_states_before_the_first_batch_are_those_of_the_beginning() -> None:
    batches = Batches(streams(), ahead=2)
    with batches.running(4):
        again = Batches(streams())
        again.restore(batches.states())
    assert_same(drawn(Batches(streams()), 2), drawn(again, 2))


def test_an_error_comes_where_the_batch_is_asked_for_and_the_thread_ends() -> None:
    calls = []

    def failing(index):
        calls.append(1)
        if len(calls) > 6:
            raise OSError("the disk is gone")
        return pixels(index)

    batches = Batches(streams(gather=failing), ahead=2)
    with pytest.raises(OSError, match="the disk is gone"):
        drawn(batches, 50)
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_are_the_rows_of_the_whole_in_turn(count: int) -> None:
    whole = drawn(Batches(streams()), 3)
    shares = [drawn(Batches(streams(processes=Processes(rank, count))), 3) for rank in range(count)]
    for number, (batch, images) in enumerate(whole):
        for rank in range(count):
            own, pixels_of_share = shares[rank][number]
            assert own.index.equal(batch.index)
            assert pixels_of_share.equal(images[rank::count])


@pytest.mark.parametrize("prefetch", ["on", "off"])
def test_a_run_ends_with_the_same_bits_however_batches_are_made(run, prefetch: str) -> None:
    assert run(prefetch, compute={"prefetch": prefetch}).bits == run("auto").bits


def test_a_batch_that_is_too_small_for_its_processes_is_refused() -> None:
    recipe = TOY_RECIPE.model_copy(update={"infrared_clusters": 1, "instances": 2, "infrared_views": ("infrared",)})
    require_shares(recipe, Processes(0, 2))
    with pytest.raises(SettingsError, match=r"2 infrared images cannot be shared by 3 processes.*recipe\.instances"):
        require_shares(recipe, Processes(0, 3))
