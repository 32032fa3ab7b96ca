"""A run that is asked to stop puts its work down, and goes on to the same bits, also within an epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import toy_parts
from harness.contracts import Loss, Memory
from harness.engine import checkpoint, train
from harness.engine import run as run_module
from harness.engine.midway import put_back, snapshot
from harness.engine.stopping import SIGNALS, Stopped, stoppable
from harness.errors import ContractError, RunError, RunStopped
from harness.plugins import Catalogue

METHODS = {"catalogue": Catalogue(), "model": {"backbone": "small", "pretrained": False}}
METHODS["recipe"] = {"epochs": 2, "iterations": 3}


def stopping(monkeypatch, owner, name: str, *, call: int, number: int = signal.SIGTERM) -> None:
    """Ask this process to stop during the ``call``-th call of ``owner.name``."""
    before, calls = getattr(owner, name), [0]

    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


def stopped(
    run, monkeypatch, *, call: int, number: int = signal.SIGTERM, owner=train.Trainer, name="_iteration", **how
):
    stopping(monkeypatch, owner, name, call=call, number=number)
    with pytest.raises(RunStopped) as caught:
        run("stopped", **how)
    monkeypatch.undo()
    return caught.value


@pytest.mark.parametrize(
    "plugins",
    [
        ("baseline",),
        ("chcr", "tsmem"),
        *(
            pytest.param(names, marks=pytest.mark.slow)
            for names in (
                ("chcr",), ("pgm",), ("ecul",), ("dmic",), ("hil",), ("pclhd",), ("pclhd-paper",),
                ("chcr", "brst", "mccl"), ("dnc", "pclhd"), ("mie", "hmcl", "neighbours"),
            )
        ),
    ],
    ids="+".join,
)  # fmt: skip
def test_a_method_stopped_within_every_epoch_ends_with_the_same_bits(run, plugins, monkeypatch) -> None:
    whole = run("whole", plugins=plugins, **METHODS)
    first = stopped(run, monkeypatch, call=2, plugins=plugins, **METHODS)
    assert "after 0 of 2 epochs and 2 iterations of the next" in str(first)
    second = stopped(run, monkeypatch, call=2, resume=True, plugins=plugins, **METHODS)
    assert "after 1 of 2 epochs and 1 iterations of the next" in str(second)
    resumed = run("stopped", resume=True, plugins=plugins, **METHODS)
    assert (resumed.show.resumed_at, resumed.show.iterations) == (1, 1)
    assert resumed.bits == whole.bits


@pytest.mark.parametrize("step", ["sum", "draw"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_every_signal_stops_after_the_iteration_it_came_in(run, step, number, monkeypatch) -> None:
    settings = {"recipe": {"step": step, "iterations": 4, "evaluate_encoder": "teacher", "teacher_decay": 0.5}}
    whole = run("whole", **settings)
    error = stopped(run, monkeypatch, call=6, number=number, **settings)
    assert error.exit_code == 128 + number
    assert "after 1 of 4 epochs and 2 iterations of the next" in str(error)
    resumed = run("stopped", resume=True, **settings)
    assert (resumed.show.resumed_at, resumed.show.iterations) == (1, 2)
    assert resumed.bits == whole.bits


@pytest.mark.parametrize(
    ("owner", "name", "call", "place"),
    [
        (run_module, "build_cache", 1, "after 0 of 4 epochs"),
        (train, "extract_features", 1, "after 0 of 4 epochs"),
        (train, "extract_features", 3, "after 2 of 4 epochs"),
        (run_module, "label_quality", 2, "after 1 of 4 epochs and 3 iterations of the next"),
        (run_module, "save_checkpoint", 2, "after 2 of 4 epochs"),
        (run_module, "extract_features", 2, "after 4 of 4 epochs"),
        (run_module, "evaluate_all", 2, "after 4 of 4 epochs"),
    ],
)
def test_wherever_it_is_stopped_it_says_where_and_loses_nothing(run, owner, name, call, place, monkeypatch) -> None:
    settings = {"recipe": {"iterations": 3}}
    whole = run("whole", **settings)
    error = stopped(run, monkeypatch, owner=owner, name=name, call=call, **settings)
    assert str(error) == f"stopped by SIGTERM {place}"
    assert run("stopped", resume=True, **settings).bits == whole.bits


def test_a_second_request_does_not_wait(run, monkeypatch) -> None:
    def twice(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    whole = run("whole")
    monkeypatch.setattr(train.Trainer, "_iteration", twice)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.undo()
    assert run("stopped", resume=True).bits == whole.bits


def test_handlers_are_as_before_after_a_run(run) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    run()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_request_outside_whole_blocks_ends_the_work_at_once() -> None:
    with stoppable() as stop:
        with stop.whole():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(Stopped):
            stop.now()
    with stoppable(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_part_that_does_not_declare_what_it_changes_costs_the_epoch_and_is_named(run, monkeypatch) -> None:
    monkeypatch.setattr(toy_parts.MeanMemory, "changing", None)
    whole = run("whole")
    stopping(monkeypatch, train.Trainer, "_iteration", call=3)
    with pytest.raises(RunStopped, match=r"1 iterations of the next are lost: the memory 'means'.*does not declare"):
        run("stopped")
    monkeypatch.undo()
    monkeypatch.setattr(toy_parts.MeanMemory, "changing", None)
    assert run("stopped", resume=True).bits == whole.bits


def test_a_damaged_file_within_an_epoch_falls_back_to_its_start(run, monkeypatch) -> None:
    whole = run("whole", recipe={"iterations": 3})
    stopped(run, monkeypatch, call=5, recipe={"iterations": 3})
    folder = whole.folder.parent.parent / "stopped" / "toy" / "checkpoint"
    (midway,) = folder.glob("*-step-*.pt")
    midway.write_bytes(midway.read_bytes()[:-100])
    resumed = run("stopped", resume=True, recipe={"iterations": 3})
    assert (resumed.show.resumed_at, resumed.show.iterations) == (1, 0)
    assert any(f"{midway.name} is damaged" in warning for warning in resumed.record.warnings)
    assert resumed.bits == whole.bits


def test_a_file_within_an_epoch_is_not_used_without_the_file_at_its_start(tmp_path: Path) -> None:
    for epochs in (1, 2):
        checkpoint.save_checkpoint(tmp_path, epochs, {"epochs_done": epochs})
    checkpoint.save_midway(tmp_path, 2, 7, {"epochs_done": 2, "step": 7})
    assert checkpoint.load_latest(tmp_path).midway == {"epochs_done": 2, "step": 7}
    (tmp_path / "epoch-00002.pt").write_bytes(b"torn")
    found = checkpoint.load_latest(tmp_path)
    assert (found.epoch, found.midway) == ({"epochs_done": 1}, None)


@pytest.mark.parametrize("kind", ["epoch", "midway"])
def test_a_checkpoint_of_another_version_is_refused_in_one_sentence(run, kind, monkeypatch) -> None:
    stopped(run, monkeypatch, call=5, recipe={"iterations": 3})
    folder = run("whole", recipe={"iterations": 3}).folder.parent.parent / "stopped" / "toy" / "checkpoint"
    path = next(path for path in folder.iterdir() if ("step" in path.name) == (kind == "midway"))
    state = torch.load(path, weights_only=True)
    del state["trainer"]["encoder"]
    torch.save(state, path)
    with pytest.raises(RunError, match=r"does not fit this run \(KeyError: 'encoder'\).*--force"):
        run("stopped", resume=True, recipe={"iterations": 3})


def test_the_end_of_an_epoch_removes_files_within_it(run, monkeypatch) -> None:
    stopped(run, monkeypatch, call=2, recipe={"iterations": 3})
    folder = run("stopped", resume=True, recipe={"iterations": 3}).folder / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-00003.pt", "epoch-00004.pt"]


def test_the_command_says_in_one_line_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, "run", "--data", str(tmp_path / "none"), "--force", "--name", "a b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.strip() == (
        "harness: stopped by Ctrl-C after 2 of 4 epochs. "
        f"To go on: harness run --data {tmp_path / 'none'} --name 'a b' --resume"
    )


CODE = """
import signal
import sys
from harness.cli import main
from harness.errors import RunStopped

def stopped(*_):
    raise RunStopped(signal.SIGINT, "after 2 of 4 epochs")

sys.modules["harness.cli.run"]._runs = stopped
main()
"""


class Odd(Memory):
    names = ()
    build = bank = update = None


def test_losses_that_update_must_declare_and_others_need_not() -> None:
    class Plain(Loss):
        def terms(self, batch, embeddings, memory, epoch):
            return {}

    class Moving(Plain):
        def update(self, batch, embeddings):
            return None

    class Declared(Moving):
        changing = ("rows",)

        def update(self, batch, embeddings):
            return None

    assert (Plain.changing, Moving.changing, Declared.changing) == ((), None, ("rows",))
    assert Memory.changing is None


def test_what_is_declared_comes_back_and_views_follow() -> None:
    part = Odd(None, None)
    part.changing = ("rows", "banks", "generator", "count")
    part.rows = torch.arange(6.0)
    part.banks = {("a", "main"): part.rows[:3], "b": {"deep": torch.ones(2)}}
    part.generator, part.count = torch.Generator().manual_seed(3), 5
    torch.rand(4, generator=part.generator)
    taken = snapshot(part)
    taken = torch_round_trip(taken)
    expected = torch.rand(4, generator=part.generator)
    part.rows.zero_()
    part.banks["b"], part.count = {"deep": torch.zeros(2)}, 9
    put_back(part, taken)
    assert part.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert part.banks["a", "main"].data_ptr() == part.rows.data_ptr()
    assert part.banks["b"]["deep"].tolist() == [1, 1]
    assert part.count == 5
    assert torch.rand(4, generator=part.generator).equal(expected)


def torch_round_trip(values):
    import io

    file = io.BytesIO()
    torch.save(values, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("value", "complaint"), [(..., "is a ellipsis"), (None, "is not there")])
def test_what_cannot_be_saved_is_named(value, complaint) -> None:
    part = Odd(None, None)
    part.changing = ("rows",)
    if value is not None:
        part.rows = value
    with pytest.raises(ContractError, match=rf"'rows', declared in `changing`, {complaint}"):
        snapshot(part)
