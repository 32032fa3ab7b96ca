"""``harness data``: what it writes, prints and refuses, with which exit status."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def data(harness):
    """``data("check", ...)``: the command ``harness data``."""
    return lambda *arguments: harness("data", *arguments)


@pytest.mark.parametrize(("layout", "name"), [("sysu-mm01", "SYSU-MM01"), ("regdb", "RegDB")])
def test_what_is_rendered_passes_the_check(data, layout, name):
    code, out, _ = data("render", "--layout", layout, "--size", "tiny", "--seed", 4, "--out", "my data")
    assert code == 0
    assert "harness data check 'my data'" in out
    code, out, _ = data("check", "my data")
    assert code == 0
    assert f"{name} tree at my data" in out
    assert "A rendered dataset: size tiny, seed 4." in out
    assert "Verdict: usable" in out
    assert data("check", "my data", "--dataset", layout)[1] == out


def test_sysu_mm01_is_the_layout_unless_another_is_named(data, tmp_path):
    data("render", "--size", "tiny", "--out", "d")
    assert (tmp_path / "d" / "cam1").is_dir()


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb"])
def test_a_damaged_image_is_exit_status_1(data, tmp_path, layout):
    data("render", "--layout", layout, "--size", "tiny", "--out", "d")
    image = min(path for path in (tmp_path / "d").rglob("*") if path.suffix in (".jpg", ".bmp"))
    image.write_bytes(b"")
    code, out, _ = data("check", "d")
    assert code == 1
    assert f"{image.relative_to(tmp_path / 'd')}: empty file" in out
    assert "NOT usable" in out


def test_something_missing_is_exit_status_1(data, tmp_path):
    data("render", "--layout", "regdb", "--size", "tiny", "--out", "d")
    (tmp_path / "d" / "idx" / "test_visible_3.txt").unlink()
    assert data("check", "d")[0] == 1
    shutil.rmtree(tmp_path / "d" / "Thermal")
    code, out, error = data("check", "d")
    assert code == 1
    assert out == ""
    assert "one modality only" in error
    assert "Traceback" not in error


def test_an_unknown_layout_or_dataset_is_refused(data):
    assert data("render", "--layout", "market", "--out", "d")[0] == 2
    assert data("check", "d", "--dataset", "market")[0] == 2
