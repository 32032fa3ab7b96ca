"""What a sweep will take, told from earlier records: of the same parts, of other ones, of none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.leaderboard import Cost, Part, write_record
from harness.sweep.cells import Cell, plan_cells
from harness.sweep.estimate import Estimate, earlier_records, estimate
from harness.sweep.grid import make_grid

SECONDS = {"data": 1.0, "clustering": 12.0, "training": 48.0, "evaluation": 2.0}


def cells(**values: Any) -> list[Cell]:
    return list(plan_cells(make_grid({"recipe": "pgm", **values})).cells)


@pytest.fixture
def record(make_record):
    """A record of a cell's run that took SECONDS, with ``changes``."""

    def build(cell: Cell, *, seconds: dict[str, float] = SECONDS, device: str = "cpu", **changes: Any):
        parts = [
            Part(role=p.provider.role, name=p.name, plugin=p.plugin.name, distribution="d", version="1")
            for p in cell.plan.selection.parts
        ]
        cost = Cost(seconds=seconds, total_seconds=sum(seconds.values()), device=device, precision="fp32", threads=2)
        return make_record(parts=parts, recipe=cell.plan.recipe.model_dump(mode="json"), cost=cost, **changes)

    return build


def test_a_record_of_the_same_parts_says_what_a_cell_takes(record) -> None:
    (cell,) = cells(memories=["tsmem"])
    found = estimate([cell], [record(cell)], on_gpu=False)
    assert found == Estimate(pytest.approx(63), 1, 0, 0, 1, ("cpu (2 threads)",))


def test_several_records_are_averaged_and_cells_added_up(record) -> None:
    found = cells(memories=["tsmem"], seeds=[0, 1, 2])
    earlier = [record(found[0]), record(found[0], seconds={"training": 63.0, "data": 2.0})]
    assert estimate(found, earlier, on_gpu=False).seconds == pytest.approx(3 * 64)


def test_seconds_follow_the_recipe(record) -> None:
    """Half the epochs of half the iterations: a quarter of training, half of clustering, the rest as it is."""
    (long,) = cells(memories=["tsmem"])
    (short,) = cells(memories=["tsmem"], settings={"recipe": {"epochs": 6, "iterations": 10}})
    assert estimate([short], [record(long)], on_gpu=False).seconds == pytest.approx(1 + 6 + 12 + 2)


def test_larger_batches_take_longer(record) -> None:
    (cell,) = cells(memories=["tsmem"])
    (large,) = cells(memories=["tsmem"], settings={"recipe": {"instances": 8}})
    assert estimate([large], [record(cell)], on_gpu=False).seconds == pytest.approx(63 + 48)


def test_without_one_of_the_same_parts_those_of_others_are_taken_and_told_apart(record) -> None:
    same, other = cells(memories=["tsmem", "baseline"])
    found = estimate([same, other], [record(same)], on_gpu=False)
    assert (found.seconds, found.cells, found.alike, found.unknown) == (pytest.approx(126), 1, 1, 0)


def test_records_of_another_dataset_encoder_or_device_say_nothing(record) -> None:
    (cell,) = cells(memories=["tsmem"])
    (tiny,) = cells(memories=["tsmem"], settings={"data": {"size": "tiny"}})
    (vit,) = cells(memories=["tsmem"], settings={"model": {"backbone": "small-vit"}})
    earlier = [record(cell), record(cell, reference="supervised"), record(tiny, device="NVIDIA H200")]
    assert estimate([tiny], earlier, on_gpu=False) is None
    assert estimate([vit], earlier, on_gpu=False) is None
    assert estimate([cell], earlier, on_gpu=False).records == 1
    assert estimate([cell], [], on_gpu=False) is None
    assert estimate([cell], [record(cell, device="NVIDIA H200")], on_gpu=True).seconds == pytest.approx(63)
    assert estimate([cell, tiny], earlier, on_gpu=False).unknown == 1


def test_records_are_found_in_runs_and_boards_and_what_is_none_is_passed_over(tmp_path: Path, record) -> None:
    (cell,) = cells(memories=["tsmem"])
    write_record(tmp_path / "runs" / "a" / "record.json", record(cell, name="a"))
    write_record(tmp_path / "board" / "b.json", record(cell, name="b"))
    write_record(tmp_path / "runs" / "old" / "record.json", record(cell).model_copy(update={"recipe": {"x": 1}}))
    (tmp_path / "board" / "c.json").write_text("{")
    places = [tmp_path / "runs", tmp_path / "board", tmp_path / "none", tmp_path / "board"]
    assert sorted(found.name for found in earlier_records(places)) == ["a", "b"]
