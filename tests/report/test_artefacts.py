"""What a run leaves for its report changes none of its figures, and is there after any interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from harness.engine import artefacts, train
from harness.engine import run as run_module
from harness.errors import RunError
from harness.evaluation import evaluate_all, pair_precision
from harness.evaluation.embeddings import read_embeddings
from tests.faults.workbench import file_size_limit
from toy_runs import run_toy

SHORT = {"recipe": {"epochs": 2, "iterations": 2}, "evaluation": {"trials": 2}}


class Killed(BaseException):
    """Stands for the end of the process."""


def dying(patch: pytest.MonkeyPatch, owner, name: str) -> None:
    def die(*_, **__):
        raise Killed

    patch.setattr(owner, name, die)


def left(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("start.safetensors", "labels.safetensors", "metrics.jsonl")}


def test_embedding_the_start_changes_no_bit_of_the_run(tiny: Path, tmp_path: Path) -> None:
    with_start = run_toy(tmp_path / "a", **SHORT)
    without = run_toy(tmp_path / "b", **{**SHORT, "evaluation": {"trials": 2, "before": False}})
    assert with_start.bits == without.bits
    assert (with_start.folder / "start.safetensors").exists()
    assert not (without.folder / "start.safetensors").exists()


def test_the_start_is_that_of_the_encoder_before_training(tiny: Path, tmp_path: Path) -> None:
    ran = run_toy(tmp_path / "a", **SHORT)
    untrained = run_toy(tmp_path / "b", reference="pretrained", evaluation={"trials": 2})
    start = read_embeddings(ran.folder / "start.safetensors")
    before = read_embeddings(untrained.folder / "embeddings.safetensors")
    np.testing.assert_allclose(start.features, before.features, atol=1e-3)
    with safe_open(ran.folder / "start.safetensors", "numpy") as file:
        figures = json.loads(file.metadata()["harness"])["figures"]
    primary = untrained.record.protocols[untrained.record.primary_protocol]
    assert figures["rank1"] == primary.rank1
    assert figures["mAP"] == primary.mAP
    assert not (untrained.folder / "start.safetensors").exists()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (run_module, "_embed_start"),
        (run_module, "save_start"),
        (artefacts, "save_file"),
        (run_module, "save_labels"),
        (run_module, "save_checkpoint"),
        (train.Trainer, "_update"),
        (run_module, "make_record"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_interrupted_run_leaves_the_same_in_the_end(
    tiny: Path, tmp_path: Path, owner, name: str, monkeypatch
) -> None:
    whole = run_toy(tmp_path / "whole", **SHORT)
    dying(monkeypatch, owner, name)
    with pytest.raises(Killed):
        run_toy(tmp_path / "killed", **SHORT)
    monkeypatch.undo()
    resumed = run_toy(tmp_path / "killed", resume=True, **SHORT)
    assert left(resumed.folder) == left(whole.folder)
    assert resumed.bits == whole.bits


def test_a_start_that_is_there_is_not_made_again(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    dying(monkeypatch, run_module, "save_checkpoint")
    with pytest.raises(Killed):
        run_toy(tmp_path, **SHORT)
    monkeypatch.undo()
    dying(monkeypatch, run_module, "save_start")
    assert run_toy(tmp_path, resume=True, **SHORT).record is not None


@pytest.mark.parametrize("name", ["save_start", "save_labels"])
def test_a_full_disk_loses_nothing_that_was_kept(tiny: Path, tmp_path: Path, name: str, monkeypatch) -> None:
    whole = run_toy(tmp_path / "whole", **SHORT)
    before = getattr(run_module, name)

    def on_a_full_disk(*args, **kwargs):
        with file_size_limit(300):
            return before(*args, **kwargs)

    monkeypatch.setattr(run_module, name, on_a_full_disk)
    with pytest.raises(RunError, match=r"Cannot write .*safetensors.*mend the disk and add --resume"):
        run_toy(tmp_path / "full", **SHORT)
    monkeypatch.undo()
    assert not list((tmp_path / "full").rglob("*.tmp"))
    resumed = run_toy(tmp_path / "full", resume=True, **SHORT)
    assert resumed.bits == whole.bits
    assert left(resumed.folder) == left(whole.folder)


def test_force_begins_without_what_the_earlier_run_left(tiny: Path, tmp_path: Path) -> None:
    first = run_toy(tmp_path, seed=1, **SHORT)
    before = left(first.folder)
    (first.folder / "report.html").write_text("old")
    again = run_toy(tmp_path, seed=0, force=True, **SHORT)
    assert left(again.folder)["start.safetensors"] != before["start.safetensors"]
    assert not (again.folder / "report.html").exists()


def test_the_record_knows_nothing_of_it(finished: Path) -> None:
    record = (finished / "record.json").read_text()
    assert "start.safetensors" not in record
    assert "pairs" not in json.loads(record)["pseudo_labels"][0]
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[-1]["pairs"]) == {"joint", "visible>infrared"}


def naive_precision(source, target, links, identity, modality) -> float | None:
    right = pairs = 0
    forwards = links is None or not (modality[source >= 0] == 1).all()
    for one in range(len(source)):
        for other in range(len(target)):
            if (modality[one], modality[other]) != ((0, 1) if forwards else (1, 0)):
                continue
            linked = source[one] if links is None else (links[source[one]] if source[one] >= 0 else -1)
            if source[one] >= 0 and linked >= 0 and linked == target[other]:
                pairs += 1
                right += int(identity[one] == identity[other])
    return right / pairs if pairs else None


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 2), st.integers(0, 1)), max_size=25))
@settings(max_examples=60, deadline=None)
def test_pair_precision_in_joint_clusters_is_that_of_all_pairs(rows) -> None:
    labels, identity, modality = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    found = pair_precision(labels, labels, links=None, identity=identity, modality=modality)
    assert found == pytest.approx(naive_precision(labels, labels, None, identity, modality))


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pair_precision_of_links_is_that_of_all_pairs(random, backwards: bool) -> None:
    modality = np.array([random.randint(0, 1) for _ in range(20)])
    identity = np.array([random.randint(0, 3) for _ in range(20)])
    labels = np.array([random.randint(-1, 2) for _ in range(20)])
    visible, infrared = (np.where(modality == kind, labels, -1) for kind in (0, 1))
    source, target = (infrared, visible) if backwards else (visible, infrared)
    links = np.array([random.randint(-1, 2) for _ in range(3)])
    found = pair_precision(source, target, links=links, identity=identity, modality=modality)
    if (source >= 0).any():
        assert found == pytest.approx(naive_precision(source, target, links, identity, modality))
    else:
        assert found is None


def test_the_toy_runs_start_is_scored_as_any_embeddings_are(finished: Path) -> None:
    start = read_embeddings(finished / "start.safetensors")
    from harness.evaluation import protocol

    rules = protocol("rendered/all/single/S/v1")
    features = start.features.astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    result = evaluate_all(features, start.test_set, [rules], trials=2)[rules.identifier].figures()
    with safe_open(finished / "start.safetensors", "numpy") as file:
        kept = json.loads(file.metadata()["harness"])["figures"]
    assert kept["mAP"] == pytest.approx(result.mAP, abs=5e-3)
