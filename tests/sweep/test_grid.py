"""What a grid may say, how it is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SettingsError
from harness.sweep.grid import make_grid, read_grid, threads_of, with_default_threads


def test_chains_and_sums_are_written_in_two_ways() -> None:
    grid = make_grid({"refiners": ["none", "ipr+brst", ["brst", "ipr"]], "losses": "own+dpcl"})
    assert grid.refiners == (("none",), ("ipr", "brst"), ("brst", "ipr"))
    assert grid.losses == (("own", "dpcl"),)


def test_the_product_is_over_the_listed_roles_alone() -> None:
    grid = make_grid({"clusterers": ["baseline", "chc"], "memories": ["baseline", "tsmem"]})
    assert list(grid.combinations()) == [
        {"clusterer": (clusterer,), "memory": (memory,)}
        for clusterer in ("baseline", "chc")
        for memory in ("baseline", "tsmem")
    ]


def test_whole_combinations_stand_beside_the_product() -> None:
    grid = make_grid({"plugins": ["chcr,tsmem", "ecul"], "clusterers": ["chc"], "seeds": [0, 1, 1]})
    assert grid.plugins == (("chcr", "tsmem"), ("ecul",))
    assert grid.seeds == (0, 1)
    assert grid.size == 6


def test_an_option_is_an_axis_however_its_name_is_written() -> None:
    flat = make_grid({"memories": ["tsmem"], "options": {"tsmem.step2_momentum": [0.1, 0.2]}})
    nested = make_grid({"memories": ["tsmem"], "options": {"tsmem": {"step2_momentum": [0.1, 0.2]}}})
    single = make_grid({"memories": ["tsmem"], "options": {"tsmem.step2_momentum": 0.1}})
    assert flat == nested
    assert flat.options == {"tsmem.step2_momentum": (0.1, 0.2)}
    assert single.options == {"tsmem.step2_momentum": (0.1,)}


def test_folders_of_datasets_are_made_absolute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = make_grid({"plugins": ["pgm"], "datasets": ["rendered", {"name": "regdb", "root": "RegDB"}]})
    assert [dataset.root for dataset in grid.datasets] == [None, tmp_path / "RegDB"]


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    grid = make_grid(
        {
            "clusterers": ["baseline", "chc"],
            "refiners": ["none", "ipr+brst"],
            "plugins": ["chcr,tsmem"],
            "recipe": "pgm",
            "datasets": ["rendered", {"name": "regdb", "root": "/data/RegDB"}],
            "trials": [1, 2],
            "seeds": [3],
            "options": {"chc.eps": [0.3, 0.4]},
            "settings": {"recipe": {"epochs": 3}},
            "exclude": [{"clusterer": "chc", "chc.eps": 0.3, "reason": "too\nsmall"}],
        }
    )
    (tmp_path / "sweep.toml").write_text(grid.to_toml())
    assert make_grid(read_grid(tmp_path / "sweep.toml")) == grid


def test_threads_are_settled_once() -> None:
    fresh = with_default_threads(make_grid({"plugins": ["pgm"]}), 3)
    assert threads_of(fresh) == 3
    assert with_default_threads(fresh, 5) == fresh


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "names nothing to combine"),
        ({"clusterer": ["chc"]}, "no entry 'clusterer'. Did you mean 'clusterers'?"),
        ({"memory": ["chc"]}, "no entry 'memory'. Did you mean 'memories'?"),
        ({"clusterers": ["chc+emcc"]}, "A run has one clusterer"),
        ({"clusterers": ["none"]}, "only among the refiners"),
        ({"refiners": ["none+ipr"]}, "'none' stands alone"),
        ({"memories": ["own"]}, "'own' stands only among the losses"),
        ({"refiners": [""]}, "empty entry"),
        ({"plugins": ["pgm"], "seeds": []}, "seeds is an empty list"),
        ({"plugins": ["pgm"], "datasets": []}, "datasets is an empty list"),
        ({"plugins": ["pgm"], "options": {"pgm.matching": []}}, "pgm.matching is an empty list"),
        ({"plugins": ["pgm"], "options": {"pgm": 3}}, "named PART.OPTION"),
        ({"plugins": ["pgm"], "options": 3}, "options"),
        ({"plugins": ["pgm"], "seeds": [-1]}, "seeds.0"),
        ({"plugins": ["pgm"], "seeds": ["a"]}, "seeds.0"),
        ({"plugins": ["pgm"], "datasets": ["rendered", "rendered"]}, "a dataset twice"),
        ({"plugins": ["pgm"], "datasets": [{"root": "x"}]}, "datasets.0.name"),
        ({"plugins": ["pgm"], "settings": {"options": {}}}, r"\[options\] of the grid"),
        ({"plugins": ["pgm"], "settings": {"seed": 1}}, "sets 'seed' in every cell"),
        ({"plugins": ["pgm"], "exclude": [{"seed": 0}]}, "exclude.0.reason"),
        ({"plugins": ["pgm"], "exclude": [{"reason": "no"}]}, "exclude.0.where"),
        ({"plugins": ["pgm"], "exclude": 3}, "exclude"),
    ],
    ids=str,
)
def test_a_bad_grid_is_refused(values: dict, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        make_grid(values)


@pytest.mark.parametrize("text", ["clusterers = [", "seeds = 2026-01-01", "x = nan", "a = 1\na = 2"])
def test_a_file_that_is_no_grid_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"g\.toml is not a TOML file with a grid"):
        read_grid(tmp_path / "g.toml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot read the grid file .*g\.toml"):
        read_grid(tmp_path / "g.toml")
