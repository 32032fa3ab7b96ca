"""What goes wrong in a run is named, and the last good state is kept."""

from __future__ import annotations

import json

import pytest
import torch

from harness import LossProvider, PluginCard, hookimpl
from harness.engine.checkpoint import list_checkpoints, load_latest
from harness.errors import ContractError, DataError, HarnessError, PluginError, SettingsError, TrainingError
from toy_parts import Toy, toy_catalogue


def clusterer(**options):
    return {"options": {"by-index": options}}


def loss(**options):
    return {"options": {"plain": options}}


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("list", "broke its contract in cluster: expected harness.PseudoLabels; got list"),
        ("raises", "failed in cluster: ValueError: nothing fits"),
        ("int32", "broke its contract in cluster: labels must be .*torch.int32"),
        ("short", "broke its contract in cluster: .*training set has 128"),
        ("gap", "broke its contract in cluster: .*consecutive"),
        ("draw", "broke its contract in cluster: .*'nowhere'"),
        ("teacher", "broke its contract in cluster: there is no encoder 'teacher'"),
        ("view", "broke its contract in cluster: there is no view 'sepia'"),
    ],
)
def test_a_clusterer_that_breaks_its_contract_is_named(run, fault: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=f"clusterer 'by-index' of plugin 'baseline' {complaint}"):
        run(**clusterer(fault=fault))


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (
            "vector",
            r"loss 'plain' of plugin 'baseline' broke.* in terms: the term 'spoilt' must be a scalar.*shape \[16\]",
        ),
        ("float", "loss 'plain' of plugin 'baseline' broke .* in terms: the term 'spoilt' must be a scalar.*got float"),
        ("list", "loss 'plain' of plugin 'baseline' broke its contract in terms: terms must be a mapping.*list"),
        ("raises", "loss 'plain' of plugin 'baseline' failed in terms: IndexError: past the end"),
        (
            "late features",
            "loss 'plain' of plugin 'baseline' broke its contract in terms: .*after the epoch's training",
        ),
    ],
)
def test_a_loss_that_breaks_its_contract_is_named(run, fault: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint) as caught:
        run(**loss(fault=fault))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("fault", "value"), [("nan", "nan"), ("infinite", "inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(run, tmp_path, fault, value) -> None:
    with pytest.raises(TrainingError, match=f"term 'spoilt' of the loss 'plain' of plugin 'baseline' became {value}"):
        run(**loss(fault=fault, from_epoch=2))
    folder = tmp_path / "runs" / "toy"
    found = load_latest(folder / "checkpoint")
    state = found.epoch
    assert state is not None
    assert found.warnings == []
    assert state["epochs_done"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["trainer"]["encoder"].values())
    assert not (folder / "record.json").exists()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_weights_that_are_not_finite_never_reach_a_checkpoint(run, tmp_path) -> None:
    with pytest.raises(TrainingError, match=r"weights of the encoder .*epoch 3"):
        run(**loss(fault="nan gradient", from_epoch=2), recipe={"iterations": 1})
    state = load_latest(tmp_path / "runs" / "toy" / "checkpoint").epoch
    assert state["epochs_done"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["trainer"]["encoder"].values())


def test_an_epoch_of_outliers_only_is_skipped_and_recorded(run) -> None:
    ran = run(**clusterer(outlier_epochs=[1]))
    assert ran.record.skipped_epochs == [1]
    assert any("epoch 2 skipped" in warning for warning in ran.record.warnings)
    rows = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()]
    assert ["skipped" in row for row in rows] == [False, True, False, False]
    assert rows[1]["losses"] == {}
    assert rows[1]["labels"]["partitions"]["visible"]["outlier_share"] == 1.0


def test_the_encoder_stays_as_it_was_in_a_skipped_epoch(run, tmp_path) -> None:
    with pytest.raises(TrainingError):
        run(**clusterer(outlier_epochs=[1, 2, 3]))
    states = [torch.load(path, weights_only=True) for path in list_checkpoints(tmp_path / "runs/toy/checkpoint")]
    assert [state["epochs_done"] for state in states] == [2, 3]
    before, after = (state["trainer"]["encoder"] for state in states)
    assert all(before[name].equal(after[name]) for name in before)


def test_three_epochs_of_outliers_in_a_row_stop_the_run_with_advice(run) -> None:
    with pytest.raises(TrainingError, match=r"In 3 epochs in a row every image was an outlier.*eps.*min_samples"):
        run(**clusterer(outlier_epochs=[1, 2, 3]))


def test_three_epochs_of_outliers_apart_do_not_stop_the_run(run) -> None:
    ran = run(**clusterer(outlier_epochs=[0, 1, 3]))
    assert ran.record.skipped_epochs == [0, 1, 3]


def test_outliers_in_a_row_are_counted_across_a_restart(run, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    settings = clusterer(outlier_epochs=[0, 1, 2])
    monkeypatch.setattr("toy_parts.Silent.epoch", kill)
    with pytest.raises(Killed):
        run(**settings)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="In 3 epochs in a row"):
        run(resume=True, **settings)


@pytest.mark.parametrize(
    ("values", "error", "complaint"),
    [
        ({"compute": {"device": "abacus"}}, SettingsError, "no device 'abacus'"),
        ({"compute": {"device": "cuda:99"}}, SettingsError, "'cuda:99' is not available"),
        ({"data_root": "no/such/folder"}, DataError, "no/such/folder does not exist"),
        ({"recipe": {"visible_views": ["sepia"]}}, SettingsError, "no augmented view 'sepia'"),
    ],
)
def test_what_a_user_can_mend_is_said_before_anything_is_written(run, tmp_path, values, error, complaint) -> None:
    with pytest.raises(error, match=complaint):
        run(**values)
    assert not (tmp_path / "runs/toy/record.json").exists()


def test_damaged_images_are_all_listed_before_training(run, tiny_copy, tmp_path) -> None:
    first = (tiny_copy / "exp" / "train_id.txt").read_text().split(",")[0]
    cut, text = sorted((tiny_copy / "cam3" / f"{int(first):04d}").glob("*.jpg"))[:2]
    cut.write_bytes(cut.read_bytes()[:300])
    text.write_text("no picture")
    with pytest.raises(DataError) as caught:
        run(data_root=tiny_copy)
    assert "2 of 128 images" in str(caught.value)
    assert str(cut) in str(caught.value)
    assert f"{text} (not an image)" in str(caught.value)
    assert not list_checkpoints(tmp_path / "runs/toy/checkpoint")


def test_a_part_that_cannot_be_made_is_named(run) -> None:
    class Odd:
        @hookimpl
        def harness_plugin():
            return PluginCard("", "part")

        @hookimpl
        def harness_losses():
            yield LossProvider("odd", "no_such_module_anywhere:Loss", "")

    with pytest.raises(PluginError, match=r"loss 'odd' of plugin 'odd'.*ModuleNotFoundError"):
        run(plugins=["baseline", "odd"], catalogue=toy_catalogue(odd=Odd))


def test_a_part_of_another_role_is_refused(run) -> None:
    class Odd:
        @hookimpl
        def harness_plugin():
            return PluginCard("", "part")

        @hookimpl
        def harness_losses():
            yield LossProvider("odd", "toy_parts:MeanMemory", "")

    with pytest.raises(ContractError, match=r"loss 'odd' of plugin 'odd' is not a harness.Loss"):
        run(plugins=["baseline", "odd"], catalogue=toy_catalogue(odd=Odd))


def test_a_plugin_that_is_installed_but_not_named_changes_nothing(run) -> None:
    asked = []

    class Nosy(Toy):
        @hookimpl
        def harness_plugin():
            asked.append("harness_plugin")
            raise HarnessError("never asked")

    plain = run("plain")
    beside = run("beside", catalogue=toy_catalogue(nosy=Nosy))
    assert asked == []
    assert beside.bits == plain.bits
