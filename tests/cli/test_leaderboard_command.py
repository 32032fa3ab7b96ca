"""``harness leaderboard``: a run becomes a row, what is refused has its reason, and a check finds changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.leaderboard.record import canonical_digest

QUICK = (
    "--set=model.backbone=small", "--set=model.pretrained=false", "--set=recipe.visible_clusters=3",
    "--set=recipe.infrared_clusters=3", "--set=recipe.instances=2", "--threads=1", "--epochs=2", "--iterations=1",
    "--precision=fp32", "--device=cpu", "--set=data.size=tiny",
)  # fmt: skip


@pytest.fixture(scope="session")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of one method, as if made with committed code; copy them before use."""
    from click.testing import CliRunner

    from harness.cli import cli

    out = tmp_path_factory.mktemp("trained")
    done = CliRunner().invoke(cli, ["run", "--seeds=0,1", *QUICK, "--name", "one", "--out", str(out)])
    assert done.exit_code == 0, done.output
    for path in out.glob("*/record.json"):
        _reseal(path, lambda content: content.update(code={"revision": "abc123", "dirty": False}))
    return out


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> list[Path]:
    """The two runs, for this test."""
    return sorted(path.parent for path in Path(shutil.copytree(trained, tmp_path / "runs")).glob("*/record.json"))


@pytest.fixture
def add(harness, runs):
    """Files the two runs on a new board."""

    def call(*arguments, of=runs):
        return harness("leaderboard", "add", *of, *arguments)

    return call


def _reseal(path: Path, change) -> None:
    """Change a record's file and make a new seal, as one would who knows how."""
    content = json.loads(path.read_text())
    content.pop("seal")
    change(content)
    content["seal"] = canonical_digest(content)
    path.write_text(json.dumps(content))


def files(folder: str) -> list[str]:
    return sorted(path.name for path in Path("leaderboards", folder).glob("*"))


class TestAdd:
    def test_files_runs_that_were_scored_again_and_they_become_a_row(self, harness, add):
        done = add("--new-dataset")
        assert done.code == 0, done.err
        assert done.out.count("filed: ") == done.out.count("re-scored: ") == 2
        assert files("records") == files("rescored")
        assert harness("leaderboard", "build").code == 0
        table = Path("leaderboards/tables/rendered-tiny-0-all-single-s-v1.md").read_text()
        (row,) = [line for line in table.splitlines() if line.startswith("| 1 ")]
        assert "baseline" in row
        assert "re-scored" in row
        assert "| 0, 1 " in row

    def test_without_embeddings_the_row_is_that_of_a_run_until_they_are_scored(self, harness, add, runs):
        for run in runs:
            (run / "embeddings.safetensors").rename(run / "aside")
        assert add("--new-dataset").code == 0
        assert files("rescored") == []
        refused = harness("leaderboard", "rescore", *runs)
        assert refused.code == 2
        assert "holds no embeddings" in refused.err
        for run in runs:
            (run / "aside").rename(run / "embeddings.safetensors")
        assert harness("leaderboard", "rescore", *runs).code == 0
        assert files("rescored") == files("records")

    def test_takes_a_record_file_too(self, add, runs):
        assert add("--new-dataset", of=[runs[0] / "record.json"]).code == 0
        assert (len(files("records")), files("rescored")) == (1, [])

    def test_refuses_a_version_of_a_dataset_that_is_not_listed_with_what_to_add(self, add):
        refused = add()
        assert refused.code == 2
        assert "--new-dataset" in refused.err
        assert "[rendered-tiny-0]" in refused.err
        assert not Path("leaderboards").exists()

    def test_refuses_what_is_filed_already(self, add):
        add("--new-dataset")
        refused = add()
        assert refused.code == 2
        assert "is on the board already" in refused.err

    def test_refuses_a_run_that_is_named_twice(self, add, runs):
        refused = add("--new-dataset", of=[runs[0], runs[0]])
        assert refused.code == 2
        assert "named twice" in refused.err

    def test_refuses_uncommitted_code_unless_told_and_marks_it(self, harness, add, runs):
        for run in runs:
            _reseal(run / "record.json", lambda content: content["code"].update(dirty=True))
        refused = add("--new-dataset")
        assert refused.code == 2
        assert "uncommitted changes" in refused.err
        assert add("--new-dataset", "--allow-dirty").code == 0
        harness("leaderboard", "build")
        table = Path("leaderboards/tables/rendered-tiny-0-all-single-s-v1.md").read_text()
        assert "made with uncommitted code" in table

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda content: content.update(seed=5), "its seal does not fit"),
            (lambda content: content["protocols"]["rendered/all/single/S/v1"].update(mAP=0.9), "its seal does not fit"),
        ],
    )
    def test_refuses_what_was_changed_by_hand(self, add, runs, change, reason):
        content = json.loads((runs[1] / "record.json").read_text())
        change(content)
        (runs[1] / "record.json").write_text(json.dumps(content))
        refused = add("--new-dataset")
        assert refused.code == 2
        assert reason in refused.err
        assert not Path("leaderboards").exists()

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda content: content.pop("seed"), "not valid at seed: Field required"),
            (lambda content: content["dataset"].update(fingerprint="other"), "images that the board does not know"),
            (
                lambda content: content["protocols"].update(x=content["protocols"]["rendered/all/single/S/v1"]),
                "protocol 'x', which this harness does not define",
            ),
            (
                lambda content: content["protocols"]["rendered/all/single/S/v1"].update(mAP=0.9),
                "do not fit one another",
            ),
        ],
    )
    def test_refuses_what_was_changed_and_sealed_again(self, add, runs, change, reason):
        add("--new-dataset", of=runs[:1])
        _reseal(runs[1] / "record.json", change)
        refused = add(of=runs[1:])
        assert refused.code == 2
        assert reason in refused.err
        assert len(files("records")) == 1

    def test_refuses_consistent_figures_that_the_embeddings_do_not_give(self, add, runs):
        def shift(content):
            figures = content["protocols"]["rendered/indoor/single/S/v1"]
            figures["mINP"] = round(figures["mINP"] + 0.01, 8)
            figures["per_trial"]["mINP"] = [round(value + 0.01, 8) for value in figures["per_trial"]["mINP"]]

        _reseal(runs[1] / "record.json", shift)
        refused = add("--new-dataset")
        assert refused.code == 2
        assert "do not give the figures of its record under rendered/indoor" in refused.err
        assert not Path("leaderboards").exists()

    def test_refuses_embeddings_that_are_not_the_runs(self, add, runs):
        path = runs[1] / "embeddings.safetensors"
        tensors = load_file(path)
        tensors["features"] = np.roll(tensors["features"], 7, axis=0)
        about = json.dumps({"paths": [f"{row:04d}" for row in range(len(tensors["features"]))]})
        save_file(tensors, path, metadata={"harness": about})
        refused = add("--new-dataset")
        assert refused.code == 2
        assert "not the file that the figures of this run were computed from" in refused.err
        assert not Path("leaderboards").exists()


class TestBuild:
    def test_is_the_same_twice_and_checked(self, harness, add):
        add("--new-dataset")
        assert "written: README.md" in harness("leaderboard", "build").out
        assert harness("leaderboard", "build").out == "leaderboards is as it should be.\n"
        checked = harness("leaderboard", "build", "--check")
        assert (checked.code, checked.out) == (0, "leaderboards is as it should be.\n")

    def test_a_check_fails_on_one_changed_digit_and_writes_nothing(self, harness, add):
        add("--new-dataset")
        harness("leaderboard", "build")
        path = Path("leaderboards/tables/rendered-tiny-0-all-single-s-v1.csv")
        path.write_text(path.read_text().replace("0.", "1.", 1))
        changed = path.read_text()
        failed = harness("leaderboard", "build", "--check")
        assert failed.code == 2
        assert f"different: tables/{path.name}" in failed.out
        assert "run `harness leaderboard build`" in failed.err
        assert path.read_text() == changed

    def test_a_check_fails_on_one_changed_digit_of_a_record(self, harness, add):
        add("--new-dataset")
        harness("leaderboard", "build")
        path = next(Path("leaderboards/records").iterdir())
        path.write_text(path.read_text().replace('"rank1": 0.', '"rank1": 1.', 1))
        failed = harness("leaderboard", "build", "--check")
        assert failed.code == 2
        assert path.name in failed.err


class TestDiff:
    def test_of_two_folders_is_markdown(self, harness, add, runs):
        add("--new-dataset", of=runs[:1])
        shutil.copytree("leaderboards", "before")
        add(of=runs[1:])
        found = harness("leaderboard", "diff", "before", "leaderboards")
        assert found.code == 0, found.err
        assert "| changed | baseline" in found.out
        assert "seeds was 0" in found.out

    def test_against_a_revision_is_that_of_the_checkout(self, harness, add, runs):
        add("--new-dataset", of=runs[:1])
        for command in (["init", "-q"], ["add", "leaderboards"], ["commit", "-q", "-m", "one"]):
            identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", *identity, *command], check=True, capture_output=True)
        assert harness("leaderboard", "diff", "--against", "HEAD").out == "The boards do not differ in any row.\n"
        add(of=runs[1:])
        assert "| changed | baseline" in harness("leaderboard", "diff", "--against", "HEAD").out
        refused = harness("leaderboard", "diff", "--against", "nowhere")
        assert refused.code == 2
        assert "at revision 'nowhere'" in refused.err
        assert harness("leaderboard", "diff", "--against=--output=x").code == 2
        assert not Path("x").exists()

    def test_of_one_folder_and_no_revision_is_refused(self, harness):
        refused = harness("leaderboard", "diff", "leaderboards")
        assert refused.code == 2
        assert "two folders of boards, or --against REV" in refused.err


def test_show_prints_the_table_of_runs(harness, runs):
    shown = harness("leaderboard", "show", *runs)
    assert shown.code == 0
    assert "| baseline |" in shown.out
