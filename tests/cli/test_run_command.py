"""The command line: what it prints, what it refuses, with which exit code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import hookimpl
from harness.plugins import Catalogue

QUICK = (
    "--set=data.size=tiny", "--set=model.pretrained=false", "--set=recipe.visible_clusters=3",
    "--set=recipe.infrared_clusters=3", "--set=evaluation.trials=1", "--threads=1", "--epochs=2", "--iterations=1",
    "--precision=fp32", "--device=cpu",
)  # fmt: skip


class TestLight:
    @pytest.mark.parametrize(
        "arguments",
        [["--help"], ["plugins"], ["plugins", "tsmem"], ["run", "--help"], ["evaluate", "--help"], ["--version"]],
    )
    def test_asking_what_there_is_loads_nothing_heavy(self, arguments: list[str]) -> None:
        script = (
            "import sys; from harness.cli import main; sys.argv = ['harness', *sys.argv[1:]]\n"
            "try: main()\n"
            "except SystemExit as leaving: assert not leaving.code, leaving.code\n"
            "heavy = {'torch', 'pandas', 'faiss', 'sklearn', 'scipy', 'torchvision', 'lightning_fabric', 'numpy'}\n"
            "print('LOADED', sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "LOADED []"
        assert len(done.stdout.splitlines()) > 1

    def test_the_list_names_every_plugin_and_its_state(self, harness) -> None:
        shown = harness("plugins")
        assert shown.code == 0
        for name in ("baseline", "pgm", "chcr", "chc", "ipr", "tsmem"):
            assert name in shown.out
        assert "broken" not in shown.out

    def test_one_plugin_is_explained_by_its_options(self, harness) -> None:
        shown = harness("plugins", "tsmem").out
        for text in ("tsmem.switch", "tsmem.step2_momentum", "phase", "random_member", "0.1", "Share of the old"):
            assert text in shown

    def test_a_broken_plugin_is_listed_with_the_reason_in_full(self, harness, monkeypatch) -> None:
        class Odd:
            @hookimpl
            def harness_plugin():
                raise ValueError("list[int] expected [/tmp/x]")

        known = Catalogue(points=[], extra={"odd": Odd})
        monkeypatch.setattr(sys.modules["harness.cli.plugins"], "Catalogue", lambda: known)
        monkeypatch.setenv("COLUMNS", "200")
        shown = harness("plugins")
        assert shown.code == 0
        assert "broken: ValueError: list[int] expected [/tmp/x]" in shown.out

    def test_an_unknown_plugin_is_one_paragraph_and_exit_code_2(self, harness) -> None:
        refused = harness("plugins", "tsmen")
        assert refused.code == 2
        assert one_paragraph(refused.err)
        assert "Did you mean 'tsmem'?" in refused.err


def one_paragraph(text: str) -> bool:
    return len(text.strip().splitlines()) == 1 and text.startswith("harness: ") and "Traceback" not in text


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--plugins", "tsmen"], "Did you mean 'tsmem'?"),
            (["--plugins", ","], "names no plugin"),
            (["--plugins", "chcr", "--set", "chc.epz=0.3"], "no option 'epz'. Did you mean 'eps'"),
            (["--plugins", "chcr", "--set", "chc.eps=wide"], "chc: eps"),
            (["--plugins", "chcr", "--set", "tsmem.switch=3"], "No part named 'tsmem' is used"),
            (["--plugins", "baseline,chcr"], "--clusterer baseline or --clusterer chcr"),
            (["--plugins", "chcr", "--memory", "tsmem"], "No named plugin provides a memory 'tsmem'"),
            (["--set", "recipe.epoch=3"], "no field 'epoch'"),
            (["--set", "nonsense"], "NAME.OPTION=VALUE"),
            (["--set", "recipe=3", "--set", "recipe.epochs=3"], "plain value"),
            (["--dataset", "sysu"], "Did you mean 'sysu-mm01'"),
            (["--settings", "none.toml"], "none.toml"),
            (["--seeds", "0,x"], "--seeds takes whole numbers"),
            (["--seeds", ","], "--seeds takes whole numbers"),
            (["--seeds", "3-1"], "--seeds takes whole numbers"),
            (["--trials", "1-2"], "no option data.trial"),
            (["--dataset", "regdb", "--trials", "0"], "trial"),
            (["--dataset", "regdb"], "add --data DIR"),
            (["--seeds=-1"], "seed"),
            (["--seed", "1", "--seeds", "1,2"], "use one of them"),
            (["--resume", "--force"], "give one of them"),
            (["--device", "abacus", *QUICK[:1]], "no device 'abacus'"),
        ],
    )  # fmt: skip
    def test_are_one_paragraph_and_exit_code_2(self, harness, arguments, complaint: str) -> None:
        refused = harness("run", *arguments)
        assert refused.code == 2
        assert complaint in refused.err
        assert one_paragraph(refused.err)
        assert refused.out == ""

    def test_an_error_of_the_disk_is_one_paragraph_too(self, harness, monkeypatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "somewhere")

        monkeypatch.setattr("harness.engine.run.run_planned", full)
        stopped = harness("run")
        assert stopped.code == 1
        assert "No space left on device (somewhere)" in stopped.err
        assert one_paragraph(stopped.err)

    @pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden"])
    def test_a_name_stays_inside_the_folder_of_runs(self, harness, name: str) -> None:
        refused = harness("run", "--name", name)
        assert refused.code == 2
        assert "name" in refused.err

    def test_debug_shows_the_traceback(self, harness) -> None:
        refused = harness("run", "--plugins", "chrc", "--debug")
        assert refused.code == 2
        assert "Traceback" in refused.err

    @pytest.mark.parametrize("arguments", [["run", "--nonsense"], ["nonsense"], ["run", "--seed", "x"]])
    def test_usage_errors_have_exit_code_2_and_no_traceback(self, harness, arguments) -> None:
        refused = harness(*arguments)
        assert refused.code == 2
        assert "Traceback" not in refused.err
        assert "Usage" in refused.err


class TestRun:
    def test_trains_prints_and_refuses_to_do_it_twice(self, harness, tmp_path: Path) -> None:
        done = harness("run", *QUICK)
        assert done.code == 0, done.err
        for text in ("epoch 1/2", "epoch 2/2", "contrast/visible", "clusters", "images/s", "mAP", "record.json"):
            assert text in done.out
        folder = tmp_path / "runs" / "rendered-baseline-s0"
        assert {"record.json", "settings.toml", "metrics.jsonl", "weights.safetensors"} <= {
            path.name for path in folder.iterdir()
        }
        refused = harness("run", *QUICK)
        assert refused.code == 2
        assert "--force" in refused.err
        assert one_paragraph(refused.err)
        left = harness("run", *QUICK, "--resume")
        assert left.code == 0
        assert "left alone" in left.out
        before = (folder / "weights.safetensors").read_bytes()
        again = harness("run", "--settings", folder / "settings.toml", "--name", "again")
        assert again.code == 0, again.err
        assert (tmp_path / "runs/again/weights.safetensors").read_bytes() == before
        unprepared = harness("run", *QUICK, "--force", "--data", "no-such-folder")
        assert unprepared.code == 1
        assert (folder / "record.json").exists(), "a run that cannot start must not cost the one before"
        assert harness("run", *QUICK, "--force").code == 0
        assert (folder / "weights.safetensors").read_bytes() == before
        board = harness("leaderboard", "show", "runs")
        assert board.code == 0
        assert "baseline" in board.out

    def test_a_dry_run_prints_settings_that_can_be_run_and_writes_nothing(self, harness, tmp_path: Path) -> None:
        dry = harness("run", "--plugins", "chcr,tsmem", "--dry-run", *QUICK)
        assert dry.code == 0
        settings = tomllib.loads(dry.out)
        assert settings["memory"] == "tsmem"
        assert settings["data"]["size"] == "tiny"
        assert not (tmp_path / "runs").exists()
        (tmp_path / "again.toml").write_text(dry.out)
        assert harness("run", "--settings", "again.toml", "--dry-run").out == dry.out

    def test_flags_lie_over_set_and_set_over_the_file(self, harness, tmp_path: Path) -> None:
        (tmp_path / "base.toml").write_text(
            'seed = 3\nplugins = ["pgm"]\n[recipe]\ninstances = 2\nlearning_rate = 0.5\n'
        )
        shown = harness(
            "run", "--settings", "base.toml", "--set", "recipe.instances=5", "--set", "seed=4", "--seed", "7",
            "--dry-run",
        )  # fmt: skip
        settings = tomllib.loads(shown.out)
        assert settings["seed"] == 7
        assert settings["plugins"] == ["pgm"]
        assert settings["recipe"]["instances"] == 5
        assert settings["recipe"]["learning_rate"] == 0.5

    def test_several_seeds_are_several_runs(self, harness, tmp_path: Path) -> None:
        done = harness("run", *QUICK, "--seeds", "0,2", "--name", "mine")
        assert done.code == 0, done.err
        assert {path.name for path in (tmp_path / "runs").iterdir()} == {"mine-s0", "mine-s2"}
        names = harness("run", *QUICK, "--seeds", "0,1,1", "--dry-run").out
        assert names.count('name = "rendered-baseline-s') == 2

    def test_sysu_needs_a_folder(self, harness) -> None:
        refused = harness("run", "--dataset", "sysu-mm01", "--set", "model.pretrained=false")
        assert refused.code == 2
        assert "--data DIR" in refused.err


class TestData:
    def test_a_rendered_dataset_checks_out(self, harness, tmp_path: Path) -> None:
        drawn = harness("data", "render", "--out", "drawn", "--size", "tiny", "--workers", "1")
        assert drawn.code == 0, drawn.err
        checked = harness("data", "check", "drawn")
        assert checked.code == 0
        assert "Verdict: usable" in checked.out
        assert all(split in checked.out for split in ("train", "val", "test", "cam6"))
        refused = harness("data", "render", "--out", "drawn", "--size", "tiny")
        assert refused.code == 1
        assert "exists already" in refused.err
        assert one_paragraph(refused.err)

    def image(self, root: Path, *, number: int = 0) -> Path:
        first = (root / "exp" / "train_id.txt").read_text().split(",")[0]
        return sorted((root / "cam1" / f"{int(first):04d}").glob("*.jpg"))[number]

    def test_damaged_images_are_named_by_check_and_by_run(self, harness, tiny_copy: Path) -> None:
        cut, text = self.image(tiny_copy), self.image(tiny_copy, number=1)
        cut.write_bytes(cut.read_bytes()[:200])
        text.write_text("no picture")
        checked = harness("data", "check", tiny_copy)
        assert checked.code == 1
        assert "NOT usable" in checked.out
        for path in (cut, text):
            assert str(path.relative_to(tiny_copy)) in checked.out
        refused = harness("run", *QUICK, "--data", tiny_copy)
        assert refused.code == 1
        assert str(cut) in refused.err
        assert str(text) in refused.err
        assert one_paragraph(refused.err)

    def test_garbage_in_an_id_file_is_named(self, harness, tiny_copy: Path) -> None:
        (tiny_copy / "exp" / "train_id.txt").write_text("1,2,three\n")
        for arguments in (["data", "check", tiny_copy], ["run", *QUICK, "--data", tiny_copy]):
            refused = harness(*arguments)
            assert refused.code == 1
            assert "'three'" in refused.err
            assert "train_id.txt" in refused.err
            assert one_paragraph(refused.err)

    @pytest.mark.parametrize(
        ("cameras", "complaint"), [([4], "cam4"), ([3, 6], "one modality only"), ([1, 2, 4, 5], "one modality only")]
    )
    def test_missing_cameras_are_named(self, harness, tiny_copy: Path, cameras, complaint: str) -> None:
        for camera in cameras:
            shutil.rmtree(tiny_copy / f"cam{camera}")
        refused = harness("run", *QUICK, "--data", tiny_copy)
        assert refused.code == 1
        assert complaint in refused.err
        assert one_paragraph(refused.err)
        checked = harness("data", "check", tiny_copy)
        assert checked.code == 1
        assert complaint in checked.out

    def test_a_folder_that_is_no_dataset_is_named_with_what_was_looked_for(self, harness, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for folder, complaint in (("empty", "does not look like SYSU-MM01"), ("none", "does not exist")):
            refused = harness("run", *QUICK, "--data", folder)
            assert refused.code == 1
            assert complaint in refused.err
            assert "cam1" in refused.err
            assert one_paragraph(refused.err)
