"""What parts are worth, on grids whose figures are known."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import pytest

from harness.attribution import grid_of, report_of
from harness.errors import AttributionError
from harness.leaderboard import CodeState
from tests.attribution.grids import DATASET, LEVELS, PROTOCOL, figures_at, grid_records, part, record

FIGURES = ("rank1",)


def reported(records, figures=FIGURES, **chosen):
    return report_of(grid_of(records, figures, **chosen), figures)


def by_change(effects):
    return {effect.change: effect for effect in effects}


def points(effects):
    return {effect.change: effect.mean.points for effect in effects}


def additive(clusterer, refiner, memory, seed):
    """Effects of 3, -1 and 2 points; the refiner beside the other memory 4 points more."""
    return 40 + 3 * clusterer - refiner + 2 * memory + 4 * refiner * memory + seed


def test_a_grid_computed_by_hand() -> None:
    report = reported(grid_records(additive))
    # Over both memories, the refiner gives (-1 + 3) / 2; over both refiners, the memory gives (2 + 6) / 2
    assert points(report.effects) == pytest.approx(
        {"modality-dbscan → chc": 3.0, "+ ipr": 1.0, "cluster-memory → tsmem": 4.0}
    )
    assert points(report.interactions) == pytest.approx(
        {
            "modality-dbscan → chc  ×  + ipr": 0.0,
            "modality-dbscan → chc  ×  cluster-memory → tsmem": 0.0,
            "+ ipr  ×  cluster-memory → tsmem": 4.0,
        }
    )
    assert [effect.roles for effect in report.effects] == ["clusterer", "label refiner", "memory"]
    assert {effect.kind for effect in report.effects} == {"part"}
    assert [effect.mean.pairs for effect in report.effects] == [12, 12, 12]
    assert [effect.mean.partners for effect in report.effects] == [4, 4, 4]
    assert (report.cells, report.runs, report.units) == (8, 24, (0, 1, 2))
    assert report.reference == "modality-dbscan + cluster-memory + contrast"
    assert report.notes == ()


def test_main_effects_of_a_balanced_grid_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(2)
    noise = {key: rng.normal(scale=3) for key in itertools.product((0, 1), (0, 1), (0, 1), (0, 1, 2))}
    report = reported(grid_records(lambda *key: 50 + additive(*key) / 4 + noise[key]))
    design = np.array([[1, *key[:3]] for key in noise], dtype=float)
    values = np.array([50 + additive(*key) / 4 + noise[key] for key in noise])
    fitted, *_ = np.linalg.lstsq(design, values, rcond=None)
    assert [effect.mean.points for effect in report.effects] == pytest.approx(fitted[1:], abs=1e-5)


def test_interactions_of_a_balanced_grid_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(4)
    noise = {key: rng.normal(scale=3) for key in itertools.product((0, 1), (0, 1), (0, 1), (0, 1))}
    report = reported(grid_records(lambda *key: 50 + noise[key], seeds=(0, 1)))
    # Levels as -1 and 1: the columns are orthogonal, and a difference of differences is four times the coefficient
    signs = np.array([[2 * level - 1 for level in key[:3]] for key in noise], dtype=float)
    products = [signs[:, a] * signs[:, b] for a, b in ((0, 1), (0, 2), (1, 2))]
    values = np.array([50 + value for value in noise.values()])
    fitted, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(values)), signs, *products]), values, rcond=None)
    assert [effect.mean.points for effect in report.interactions] == pytest.approx(4 * fitted[4:], abs=1e-5)


def test_the_order_of_records_changes_nothing() -> None:
    records = grid_records(additive)
    rng = np.random.default_rng(0)
    shuffled = [records[n] for n in rng.permutation(len(records))]
    assert reported(shuffled, ("rank1", "mAP")) == reported(records, ("rank1", "mAP"))


def test_in_an_unbalanced_grid_only_pairs_count() -> None:
    records = [one for one in grid_records(additive) if not (one.seed == 2 and "chc" in one.method)]
    report = reported(records)
    found = by_change(report.effects)
    # The seed is worth a point: means of all runs would differ by 3 - 0.5
    assert found["modality-dbscan → chc"].mean.points == pytest.approx(3.0)
    assert (found["modality-dbscan → chc"].mean.pairs, found["modality-dbscan → chc"].mean.units) == (8, 2)
    assert found["+ ipr"].mean.pairs == 10
    assert any("Missing runs: 4 of 8 cells x 3 each" in note for note in report.notes)


def test_a_missing_cell_is_counted_and_leaves_other_pairs_as_they_are() -> None:
    gone = ["chc", "ipr", "tsmem"]
    records = [one for one in grid_records(additive) if [p.name for p in one.parts[:3]] != gone]
    report = reported(records)
    assert by_change(report.effects)["modality-dbscan → chc"].mean.partners == 3
    assert "Cells: 7 of the 8" in report.notes[0]
    assert by_change(report.interactions)["+ ipr  ×  cluster-memory → tsmem"].mean.pairs == 3


def test_noise_is_called_noise_and_a_clear_effect_stands() -> None:
    rng = np.random.default_rng(11)
    report = reported(grid_records(lambda c, r, m, seed: 40 + 8 * m + rng.normal()))
    assert {effect.change: effect.reading for effect in report.effects} == {
        "modality-dbscan → chc": "within noise",
        "+ ipr": "within noise",
        "cluster-memory → tsmem": "stands after Holm",
    }


def test_a_part_that_does_nothing_is_said_to_do_nothing() -> None:
    report = reported(grid_records(lambda c, r, m, seed: 40 + seed + 3 * c))
    assert by_change(report.effects)["+ ipr"].reading == "no difference in any pair"


def test_one_seed_gives_means_without_intervals_and_says_so() -> None:
    report = reported(grid_records(additive, seeds=(3,)))
    assert {effect.reading for effect in report.effects} == {"no interval"}
    assert points(report.effects)["modality-dbscan → chc"] == pytest.approx(3.0)
    assert any("one seed only" in note for note in report.notes)


def test_three_levels_are_each_compared_with_the_reference() -> None:
    levels = LEVELS | {"clusterer": ("modality-dbscan", "chc", "emcc")}
    report = reported(grid_records(lambda c, r, m, seed: 40 + (0, 5, 2)[c] + m + seed, levels=levels))
    assert points(report.effects) == pytest.approx(
        {"modality-dbscan → chc": 5, "modality-dbscan → emcc": 2, "+ ipr": 0, "cluster-memory → tsmem": 1}
    )


def test_without_the_baseline_the_first_by_name_is_the_reference() -> None:
    levels = {"clusterer": ("emcc", "chc"), "memory": ("tsmem", "hmcl")}
    report = reported(grid_records(lambda c, m, seed: 40 + 5 * c + m + seed, levels=levels))
    assert points(report.effects) == pytest.approx({"chc → emcc": -5, "hmcl → tsmem": -1})


def test_levels_that_meet_the_reference_nowhere_are_compared_with_each_other() -> None:
    base = [
        record([part("clusterer", "modality-dbscan"), part("memory", "cluster-memory")], 40 + s, seed=s) for s in (0, 1)
    ]
    others = [
        record([part("clusterer", "chc"), part("memory", name)], 45 + n + s, seed=s)
        for n, name in enumerate(("joint-memory", "tsmem"))
        for s in (0, 1)
    ]  # fmt: skip
    report = reported([*base, *others])
    kinds = {effect.change: effect.kind for effect in report.effects}
    assert kinds["joint-memory → tsmem"] == "part"
    assert kinds["modality-dbscan → chc, cluster-memory → tsmem"] == "several"
    assert "Never changed alone: chc." in report.notes


def test_a_chain_of_two_refiners_is_each_beside_the_other() -> None:
    levels = {"clusterer": ("modality-dbscan", "chc")}
    records = []
    for chain in ((), ("brst",), ("ipr",), ("brst", "ipr")):
        for one in grid_records(lambda c, seed: 40 + 3 * c + seed, levels=levels):
            parts = [one.parts[0], *(part("label refiner", name) for name in chain)]
            value = 100 * one.protocols[PROTOCOL].rank1 + ("brst" in chain) + 2 * ("ipr" in chain)
            records.append(record(parts, value, seed=one.seed))
    found = by_change(reported(records).effects)
    assert {name: effect.mean.points for name, effect in found.items()} == pytest.approx(
        {"modality-dbscan → chc": 3, "+ brst": 1, "+ ipr": 2}
    )
    assert found["+ brst"].mean.partners == 4


def test_the_order_of_refiners_is_a_setting_of_its_own_where_both_are_there() -> None:
    chains = [("brst", "ipr"), ("ipr", "brst")]
    records = [
        record([part("clusterer", "chc"), *(part("label refiner", name) for name in chain)], 40 + n + s, seed=s)
        for n, chain in enumerate(chains)
        for s in (0, 1)
    ]
    report = reported(records)
    assert [effect.change for effect in report.effects] == ["order of label refiners brst > ipr → ipr > brst"]
    assert report.effects[0].mean.points == pytest.approx(1.0)


def test_parts_that_always_come_together_are_one_row_that_names_both() -> None:
    def with_pgm(name):
        return [part("label refiner", "pgm"), part("loss", "cross-contrast")] if name == "pgm" else []

    records = [
        record([part("clusterer", clusterer), *with_pgm(name)], 40 + 2 * (name == "pgm") + s, seed=s)
        for clusterer in ("modality-dbscan", "chc")
        for name in ("none", "pgm")
        for s in (0, 1, 2)
    ]
    found = by_change(reported(records).effects)
    together = found["+ pgm, + cross-contrast"]
    assert (together.kind, together.roles, together.confounded) == ("several", "label refiner + loss", ())
    assert together.mean.points == pytest.approx(2.0)
    assert found["modality-dbscan → chc"].kind == "part"


def test_swept_options_are_compared_value_by_value() -> None:
    records = [
        record([part("clusterer", clusterer), memory], 40 + value + s, seed=s)
        for clusterer in ("modality-dbscan", "chc")
        for memory, value in (
            (part("memory", "cluster-memory", momentum=0.1), 0),
            (part("memory", "tsmem", momentum=0.9, rate=1), 1),
            (part("memory", "tsmem", momentum=0.10, rate=1), 3),
        )
        for s in (0, 1)
    ]
    found = points(reported(records).effects)
    assert found == pytest.approx(
        {
            "modality-dbscan → chc": 0,
            "cluster-memory → tsmem (momentum=0.1)": 3,
            "cluster-memory → tsmem (momentum=0.9)": 1,
            "tsmem: momentum=0.1 → 0.9": -2,
        }
    )


def test_a_swept_setting_is_a_factor_like_a_part() -> None:
    records = [
        one.model_copy(update={"recipe": one.recipe | {"learning_rate": rate}, "protocols": {PROTOCOL: value}})
        for one in grid_records(additive)
        for rate in (0.002, 0.01)
        for value in [figures_at(100 * one.protocols[PROTOCOL].rank1 + 100 * rate)]
    ]
    found = by_change(reported(records).effects)
    assert found["recipe.learning_rate 0.002 → 0.01"].mean.points == pytest.approx(0.8)
    assert found["recipe.learning_rate 0.002 → 0.01"].roles == "setting"
    assert found["cluster-memory → tsmem"].confounded == ()
    assert found["cluster-memory → tsmem"].mean.pairs == 24


def test_a_part_that_brings_its_own_recipe_is_flagged() -> None:
    records = [
        one.model_copy(update={"recipe": {"epochs": 24, "learning_rate": 0.002}}) if "tsmem" in one.method else one
        for one in grid_records(additive)
    ]
    report = reported(records)
    found = by_change(report.effects)
    confounded = found["cluster-memory → tsmem, recipe (epochs)"]
    assert (confounded.kind, confounded.confounded) == ("several", ("recipe.epochs",))
    assert found["+ ipr"].confounded == ()
    assert any(note.startswith("CONFOUNDED") and "recipe.epochs" in note for note in report.notes)
    assert all("tsmem" not in effect.change for effect in report.interactions)


def test_where_the_recipe_changes_alone_as_well_the_part_is_not_confounded() -> None:
    other = {"epochs": 24, "learning_rate": 0.002}
    records = grid_records(additive)
    records += [one.model_copy(update={"recipe": other}) for one in records if "tsmem" in one.method]
    report = reported(records)
    assert all(effect.confounded == () for effect in report.effects)
    assert set(by_change(report.effects)) == {
        "modality-dbscan → chc", "+ ipr", "cluster-memory → tsmem", "recipe.epochs 12 → 24",
    }  # fmt: skip


def test_two_changes_that_read_alike_are_numbered() -> None:
    base = [part("clusterer", "modality-dbscan"), part("memory", "cluster-memory")]
    records = [record(base, 40 + s, seed=s) for s in (0, 1)]
    for stages in (["a", "b"], ["c"]):
        recipe = {"epochs": 12, "learning_rate": 0.002, "stages": stages}
        parts = [*base, part("label refiner", "pgm")]
        records += [record(parts, 42 + s, seed=s, recipe=recipe) for s in (0, 1)]
    changes = [effect.change for effect in reported(records).effects if effect.kind == "several"]
    assert changes == ["+ pgm, recipe (stages) [1]", "+ pgm, recipe (stages) [2]"]


def test_a_run_that_is_there_twice_counts_once_and_the_later_one_does() -> None:
    records = grid_records(additive)
    again = record(records[0].parts[:-1], 90, seed=0, name="again", created=datetime(2027, 1, 1, tzinfo=UTC))
    report = reported([again, *records, records[3]])
    assert report.runs == 24
    (note,) = report.notes
    assert "Left out (1)" in note
    assert f"{records[0].name} (instead: again)" in note
    assert by_change(report.effects)["modality-dbscan → chc"].mean.points < 0


def test_other_revisions_and_uncommitted_code_are_noted() -> None:
    records = grid_records(additive)
    records[0] = records[0].model_copy(update={"code": CodeState(revision="fffffff0123", dirty=True)})
    notes = reported(records).notes
    assert any("2 revisions" in note and "fffffff0" in note for note in notes)
    assert any("uncommitted code: 1 of 24 runs" in note for note in notes)


def test_reference_rows_are_left_out() -> None:
    records = grid_records(additive)
    parts = records[0].parts[:-1]
    report = reported([*records, record(parts, 99, reference="supervised")])
    assert report.runs == 24
    assert report.notes[0].startswith("Runs of reference rows are left out: 1.")


def test_trials_are_the_repetitions_where_there_are_several() -> None:
    records = [
        one.model_copy(update={"seed": 0, "dataset": DATASET.model_copy(update={"seed": None, "trial": one.seed + 1})})
        for one in grid_records(additive)
    ]
    report = reported(records)
    assert (report.unit, report.units) == ("trial", (1, 2, 3))
    assert points(report.effects)["modality-dbscan → chc"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("records", "chosen", "message"),
    [
        (grid_records(additive)[:3], {}, "The runs on rendered-small-1 (3) all have the same parts"),
        ([grid_records(additive)[0], grid_records(additive)[4]], {}, "No two of the 2 cells"),
        (grid_records(additive), {"dataset": "regdb"}, "No record is of the dataset 'regdb'. Known: rendered-small-1."),
        (grid_records(additive), {"protocol": "rendered/all/single/S/v2"}, "Did you mean 'rendered/all/single/S/v1'?"),
        ([record([], 40, reference="supervised")], {}, "All records are of reference rows"),
    ],
    ids=["one level", "nothing paired", "no dataset", "no protocol", "references"],
)
def test_what_cannot_be_compared_is_an_error_that_says_why(records, chosen, message: str) -> None:
    with pytest.raises(AttributionError) as caught:
        reported(records, **chosen)
    assert message in str(caught.value)


def test_two_datasets_must_be_told_apart() -> None:
    other = [
        one.model_copy(update={"dataset": DATASET.model_copy(update={"seed": 2})}) for one in grid_records(additive)
    ]
    records = [*grid_records(additive), *other]
    with pytest.raises(AttributionError, match="choose with --dataset one of rendered-small-1, rendered-small-2"):
        reported(records)
    assert reported(records, dataset="rendered-small-2").dataset == "rendered-small-2"
    assert reported(records, dataset="rendered-small-2").runs == 24
