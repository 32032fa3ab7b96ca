"""Somebody else's distribution: built, installed beside the harness, checked, trained with, removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

TINY = ("--set=data.size=tiny", "--epochs=2", "--iterations=2", "--set=evaluation.trials=1", "--threads=1",
        "--device=cpu", "--precision=fp32")  # fmt: skip


@pytest.mark.slow
def test_the_example_comes_and_goes_with_its_wheel(environment, repository: Path, tmp_path: Path) -> None:
    source = shutil.copytree(repository / "examples" / "harness-adca", tmp_path / "harness-adca")
    work = tmp_path / "work"
    work.mkdir()
    before = environment.run("harness", "plugins", at=work)
    assert "adca" not in before

    environment.run("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", work, source, at=work)
    (wheel,) = work.glob("*.whl")
    environment.run("python", "-m", "pip", "install", wheel, at=work)
    listed = environment.run("harness", "plugins", at=work)
    (row,) = [line for line in listed.splitlines() if "adca" in line.split()]
    for cell in ("method", "label refiner, memory, loss, recipe", "ACM MM 2022", "harness-adca 0.1.0", "ok"):
        assert cell in row
    assert "adca-memory.keep" in environment.run("harness", "plugins", "adca", at=work)

    environment.run("harness", "run", "--plugins", "adca", "--name", "proof", *TINY, at=work)
    record = json.loads((work / "runs" / "proof" / "record.json").read_text())
    from_it = {part["name"] for part in record["parts"] if part["distribution"] == "harness-adca"}
    assert from_it == {"adca-association", "adca-memory", "adca-contrast"}
    assert "| adca" in environment.run("harness", "leaderboard", "show", "runs/", at=work)
    tests = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", source / "tests", at=work)
    assert " passed" in tests
    assert " failed" not in tests

    environment.run("python", "-m", "pip", "uninstall", "--yes", "harness-adca", at=work)
    assert environment.run("harness", "plugins", at=work) == before
    gone = environment.attempt("harness", "run", "--plugins", "adca", *TINY, at=work)
    assert (gone.returncode, "There is no plugin 'adca'" in gone.stderr) == (2, True)


@pytest.mark.slow
def test_harness_check_certifies_it(environment, repository: Path, tmp_path: Path) -> None:
    source = shutil.copytree(repository / "examples" / "harness-adca", tmp_path / "harness-adca")
    environment.run("python", "-m", "pip", "install", source, at=tmp_path)
    report = json.loads(environment.run("harness", "check", "adca", "--json", at=tmp_path))
    assert report["ok"] is True
    parts = {result["part"] for result in report["results"] if result["outcome"] == "passed"}
    assert {"adca-association", "adca-memory", "adca-contrast"} <= parts
