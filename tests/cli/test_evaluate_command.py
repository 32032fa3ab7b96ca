"""``harness evaluate``, ``harness protocols`` and trials: scoring without training, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.data.rendered import ensure_rendered
from harness.evaluation import PROTOCOLS

QUICK = (
    "--set=model.backbone=small", "--set=model.pretrained=false", "--set=recipe.visible_clusters=3",
    "--set=recipe.infrared_clusters=3", "--set=recipe.instances=2", "--threads=1", "--epochs=2", "--iterations=1",
    "--precision=fp32", "--device=cpu",
)  # fmt: skip


@pytest.fixture(scope="session")
def regdb_tree(harness_cache: Path) -> Path:
    return ensure_rendered(size="tiny", seed=0, layout="regdb")


@pytest.fixture
def finished(harness) -> Path:
    """A finished run on the tiny rendered dataset."""
    done = harness("run", "--set=data.size=tiny", *QUICK, "--name", "one")
    assert done.code == 0, done.err
    return Path("runs") / "one"


class TestARun:
    def test_is_scored_to_the_figures_of_its_record(self, harness, finished: Path) -> None:
        again = harness("evaluate", finished, "--json", "again.json")
        assert again.code == 0, again.err
        assert "Identical to the record." in again.out
        recorded = json.loads((finished / "record.json").read_text())["protocols"]
        assert json.loads(Path("again.json").read_text())["protocols"] == recorded

    def test_whose_embeddings_were_changed_is_found_out(self, harness, finished: Path) -> None:
        path = finished / "embeddings.safetensors"
        tensors = load_file(path)
        tensors["features"] = np.roll(tensors["features"], 7, axis=0)
        about = json.dumps({"paths": [f"{row:04d}" for row in range(len(tensors["features"]))]})
        save_file(tensors, path, metadata={"harness": about})
        again = harness("evaluate", finished)
        assert again.code == 2
        assert "not the file that the figures of this run were computed from" in again.err

    def test_that_has_fewer_embeddings_than_test_images_is_refused(self, harness, finished: Path) -> None:
        path = finished / "embeddings.safetensors"
        tensors = {name: np.ascontiguousarray(values[:-1]) for name, values in load_file(path).items()}
        save_file(tensors, path, metadata={"harness": "{}"})
        refused = harness("evaluate", finished)
        assert refused.code == 2
        assert "not of the same run" in refused.err

    def test_is_not_scored_otherwise_than_recorded(self, harness, finished: Path) -> None:
        for flag in (("--protocol", "regdb"), ("--flip",), ("--trials", "3"), ("--distance", "euclidean")):
            refused = harness("evaluate", finished, *flag)
            assert refused.code == 2
            assert "--embeddings runs/one/embeddings.safetensors" in refused.err

    def test_may_be_scored_as_a_foreign_file_too(self, harness, finished: Path) -> None:
        shown = harness("evaluate", "--embeddings", finished / "embeddings.safetensors")
        assert shown.code == 0, shown.err
        assert "rows of unit length as given" in shown.out
        assert "| rendered/all/single/S/v1" in shown.out

    def test_that_does_not_exist_is_refused(self, harness) -> None:
        assert "no run record at" in harness("evaluate", "nowhere").err
        assert "either a run's folder or --embeddings" in harness("evaluate").err


class TestAForeignFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        rows = [(i, c, k) for i in range(1, 9) for c in range(1, 7) for k in range(3)]
        identity, camera, _ = map(np.array, zip(*rows, strict=True))
        rng = np.random.default_rng(0)
        features = rng.standard_normal((len(rows), 8)) + 2 * rng.standard_normal((9, 8))[identity]
        paths = np.array([f"cam{c}/{i:04d}/{k:04d}.jpg" for i, c, k in rows])
        np.savez(tmp_path / "f.npz", features=features, identities=identity, cameras=camera, paths=paths)
        return tmp_path / "f.npz"

    def test_needs_a_protocol(self, harness, file: Path) -> None:
        refused = harness("evaluate", "--embeddings", file)
        assert refused.code == 2
        assert "Add --protocol ID" in refused.err
        assert "Did you mean" in harness("evaluate", "--embeddings", file, "--protocol", "sysu-mm01/all/one").err

    def test_is_scored_under_every_protocol_of_a_dataset_that_is_defined_on_it(self, harness, file: Path) -> None:
        shown = harness("evaluate", "--embeddings", file, "--protocol", "sysu-mm01", "--json", "out.json")
        assert shown.code == 0, shown.err
        assert set(json.loads(Path("out.json").read_text())["protocols"]) == {
            "sysu-mm01/all/single/S/v1",
            "sysu-mm01/indoor/single/S/v1",
        }
        assert "144 images x 8; cosine distance, rows L2-normalised here, no flip averaging" in shown.out
        assert "(O) need --permutations" in shown.out
        assert "multi/S/v1 was not evaluated: Identity 1 has 3 images in camera 1" in shown.out
        assert "not the published test images" in shown.out

    def test_a_protocol_that_was_named_must_be_defined(self, harness, file: Path) -> None:
        refused = harness("evaluate", "--embeddings", file, "--protocol", "sysu-mm01/all/multi/S/v1")
        assert refused.code == 1
        assert "takes 10 of every (identity, camera)" in refused.err
        refused = harness("evaluate", "--embeddings", file, "--protocol", "sysu-mm01/all/single/O/v1")
        assert "rand_perm_cam.mat" in refused.err
        refused = harness("evaluate", "--embeddings", file, "--protocol", "regdb")
        assert refused.code == 1
        assert "its cameras are [1, 2]" in refused.err


class TestProtocols:
    def test_every_protocol_is_listed_with_its_definition(self, harness) -> None:
        shown = harness("protocols")
        assert shown.code == 0
        for identifier in PROTOCOLS:
            assert identifier in shown.out
        assert shown.out.count("\n  query ") == len(PROTOCOLS)

    def test_the_definition_names_what_changes_a_figure(self, harness) -> None:
        official = harness("protocols", "sysu-mm01/indoor/multi/O/v1").out
        for words in ("10 images", "cameras 1, 2)", "rand_perm_cam.mat", "camera 3, every image of camera 2"):
            assert words in official
        regdb = harness("protocols", "regdb/visible").out
        assert "all infrared test images (camera 2)" in regdb
        assert "first k images" in regdb

    def test_an_unknown_beginning_is_refused(self, harness) -> None:
        refused = harness("protocols", "sysu-mm02")
        assert refused.code == 1
        assert "No protocol begins with 'sysu-mm02'" in refused.err


class TestTrials:
    def test_are_runs_of_their_own_that_are_aggregated_and_resumed(self, harness, regdb_tree: Path) -> None:
        command = ("run", "--dataset", "regdb", "--data", regdb_tree, *QUICK, "--trials")
        first = harness(*command, "2")
        assert first.code == 0, first.err
        assert "trial 2" in first.out
        both = harness(*command, "1-2", "--resume")
        assert both.code == 0, both.err
        assert "regdb-baseline-t2-s0 is finished already; left alone" in both.out
        for direction in ("visible-to-infrared", "infrared-to-visible"):
            assert both.out.count(f"| regdb/{direction}/v1") == 1
            assert f"## regdb/{direction}/v1" in both.out
        assert "fewer than ten trials" in both.out
        records = [json.loads(Path(f"runs/regdb-baseline-t{t}-s0/record.json").read_text()) for t in (1, 2)]
        assert [record["dataset"]["trial"] for record in records] == [1, 2]
        assert records[0]["dataset"]["fingerprint"] == records[1]["dataset"]["fingerprint"]
        assert any("published RegDB" in warning for warning in records[0]["warnings"])
        mean = np.mean([100 * r["protocols"]["regdb/visible-to-infrared/v1"]["rank1"] for r in records])
        table = both.out[both.out.index("## regdb/visible-to-infrared") :]
        assert f"| baseline | {mean:.2f} ± " in " ".join(table.split())

    def test_without_resume_a_finished_trial_is_in_the_way(self, harness, regdb_tree: Path) -> None:
        command = ("run", "--dataset", "regdb", "--data", regdb_tree, *QUICK, "--trials", "1", "--name", "x")
        assert harness(*command).code == 0
        refused = harness(*command)
        assert refused.code == 2
        assert "--resume to leave finished runs alone" in refused.err
