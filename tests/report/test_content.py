"""What a report computes: sheets by the protocol's rules, clusters against identities, maps, curves, differences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.manifest import Manifest
from harness.evaluation import TestSet, evaluate_all, protocol
from harness.evaluation.galleries import draw_galleries
from harness.plugins import Catalogue
from harness.report.clusters import cluster_sheets
from harness.report.curves import charts_of, curves_of
from harness.report.maps import embedding_map, named_people, pair_similarities, sampled_rows
from harness.report.retrieval import TOP, retrieval_sheets
from harness.report.source import Labels, Vectors, read_run
from harness.report.tables import compared_settings, figure_tables, unusual_settings, value_text
from toy_parts import toy_catalogue

RULES = protocol("rendered/all/single/S/v1")


def vectors(people: int = 6, images: int = 3, *, size: int = 5, seed: int = 0, noise: float = 1.0) -> Vectors:
    """Random unit embeddings of people in all six cameras; the smaller the noise, the closer those of one person."""
    generator = np.random.default_rng(seed)
    identity, camera, order = (
        part.ravel() for part in np.meshgrid(np.arange(people), np.arange(1, 7), np.arange(images), indexing="ij")
    )
    centres = generator.standard_normal((people, size))
    features = centres[identity] + noise * generator.standard_normal((len(identity), size))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    paths = tuple(f"{row}.jpg" for row in range(len(identity)))
    return Vectors(features, TestSet(identity, camera, order), paths, RULES)


class TestRetrieval:
    def test_scores_are_those_of_the_evaluation(self) -> None:
        found = vectors(noise=2.0)
        trials = retrieval_sheets(found, RULES, trials=3, seed=0, each=1000)
        result = evaluate_all(found.features, found.test_set, [RULES], trials=3)[RULES.identifier]
        for trial, scores in zip(trials, result.trials, strict=True):
            best = [sheet for sheet in trial.sheets if sheet.kind == "best"]
            assert len(best) == scores.valid_queries
            assert np.mean([sheet.average_precision for sheet in best]) == pytest.approx(scores.mAP)
            assert np.mean([sheet.rank == 1 for sheet in best]) == pytest.approx(scores.rank(1))

    def test_what_is_shown_is_the_ranking_without_excluded_cameras(self) -> None:
        found = vectors(noise=2.0)
        labels = found.test_set
        (trial,) = retrieval_sheets(found, RULES, trials=1, seed=0)
        (gallery,) = draw_galleries(labels, RULES, trials=1)
        assert {labels.camera[sheet.row] for sheet in trial.sheets} <= {3, 6}
        for sheet in trial.sheets:
            allowed = [row for row in gallery if not (sheet.camera == 3 and labels.camera[row] == 2)]
            similarity = {row: float(found.features[sheet.row] @ found.features[row]) for row in allowed}
            expected = sorted(allowed, key=lambda row: -similarity[row])[:TOP]
            assert [one.row for one in sheet.found] == expected
            assert [one.similarity for one in sheet.found] == pytest.approx(
                [similarity[row] for row in expected], abs=1e-6
            )
            assert [one.right for one in sheet.found] == [labels.identity[row] == sheet.identity for row in expected]

    def test_best_are_better_than_worst_and_of_several_people(self) -> None:
        (trial,) = retrieval_sheets(vectors(noise=2.0), RULES, trials=1, seed=0)
        of_kind = {kind: [s for s in trial.sheets if s.kind == kind] for kind in ("best", "worst", "random")}
        assert min(s.average_precision for s in of_kind["best"]) >= max(s.average_precision for s in of_kind["worst"])
        assert all(len({s.identity for s in sheets}) == 3 for sheets in of_kind.values())

    def test_a_query_without_a_right_image_is_not_shown(self) -> None:
        found = vectors()
        keep = ~((found.test_set.identity == 0) & np.isin(found.test_set.camera, (1, 2, 4, 5)))
        labels = TestSet(*(getattr(found.test_set, name)[keep] for name in ("identity", "camera", "order")))
        less = replace(found, features=found.features[keep], test_set=labels)
        (trial,) = retrieval_sheets(less, RULES, trials=1, seed=0, each=1000)
        assert trial.sheets
        assert all(sheet.identity != 0 for sheet in trial.sheets)


class TestMap:
    def test_components_hold_the_share_of_variance_that_they_say(self) -> None:
        from sklearn.decomposition import PCA

        found = vectors()
        rows = np.arange(len(found.features))
        projected = embedding_map(found, RULES, rows, people=(0,), how="pca", seed=0)
        oracle = PCA(2).fit(found.features.astype(np.float64))
        np.testing.assert_allclose(np.abs(projected.points), np.abs(oracle.transform(found.features)), atol=1e-6)
        for axis, share in zip(projected.axes, oracle.explained_variance_ratio_, strict=True):
            assert f"({100 * share:.0f} % of variance)" in axis

    def test_equal_seeds_give_equal_points_with_tsne_too(self) -> None:
        found = vectors(people=3, images=1)
        rows = np.arange(len(found.features))
        one, other = (embedding_map(found, RULES, rows, people=(), how="tsne", seed=3) for _ in range(2))
        np.testing.assert_array_equal(one.points, other.points)
        assert "no unit" in one.axes[0]

    def test_named_people_are_all_among_the_sampled_images(self, monkeypatch) -> None:
        monkeypatch.setattr("harness.report.maps.MOST_POINTS", 50)
        found = vectors(people=20)
        people = named_people(found, RULES)
        rows = sampled_rows(found, people[:2], seed=0)
        assert len(rows) == 50
        assert np.isin(np.flatnonzero(np.isin(found.test_set.identity, people[:2])), rows).all()

    def test_the_first_named_person_agrees_best_across_modalities(self) -> None:
        found = vectors(people=8, noise=0.3)
        spoilt = found.features.copy()
        person = (found.test_set.identity == 4) & np.isin(found.test_set.camera, (3, 6))
        spoilt[person] = -spoilt[person]
        assert named_people(replace(found, features=spoilt), RULES)[-1] == 4

    def test_overlap_is_the_share_of_pairs_of_pairs_in_the_wrong_order(self) -> None:
        found = vectors(people=3, images=2, noise=1.0)
        pairs = pair_similarities(found, RULES, seed=0)
        infrared = np.isin(found.test_set.camera, (3, 6))
        similarity = found.features[~infrared] @ found.features[infrared].T
        same = found.test_set.identity[~infrared][:, None] == found.test_set.identity[infrared][None]
        wrong = similarity[~same][:, None] > similarity[same][None]
        assert pairs.overlap == pytest.approx(float(wrong.mean()), abs=1e-9)
        assert pairs.mean_same == pytest.approx(float(similarity[same].mean()), abs=1e-6)
        assert pairs.same.sum() == pytest.approx(1)
        assert pairs.other.sum() == pytest.approx(1)

    def test_without_two_kinds_of_pairs_there_is_nothing_to_compare(self) -> None:
        assert pair_similarities(vectors(people=1), RULES, seed=0) is None


class TestClusters:
    def manifest(self) -> Manifest:
        identity = np.array([0, 0, 0, 1, 1, 2, 0, 1, 1, 2])
        modality = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
        camera = np.where(modality == 0, 1, 3)
        paths = tuple(f"{row}.jpg" for row in range(10))
        return Manifest(Path("/nowhere"), paths, modality, camera, identity)

    def test_purity_split_and_merged_people_are_counted(self) -> None:
        joint = np.array([0, 0, 1, 1, 1, -1, 0, 1, 2, 2])
        labels = Labels(3, {"joint": joint}, {}, "")
        (found,) = cluster_sheets(labels, self.manifest(), seed=0)
        assert (found.clusters, found.images, found.outliers) == (3, 10, 1)
        assert found.purity == pytest.approx((3 + 3 + 1) / 9)
        assert found.identities == 3
        assert found.split_identities == 2  # person 0 in clusters 0 and 1, person 1 in 1 and 2
        assert found.split[0][:2] == (0, 2)
        assert found.merged == 2  # cluster 1 holds a quarter of person 0, cluster 2 halves
        largest = found.sheets[0]
        assert (largest.kind, largest.number, largest.visible, largest.infrared) == ("largest", 1, 3, 1)
        assert largest.purity == pytest.approx(0.75)
        assert [member.majority for member in largest.members] == [True, True, True, False]

    def test_links_are_said_to_be_right_or_wrong(self) -> None:
        visible = np.array([0, 0, 0, 1, 1, -1, -1, -1, -1, -1])
        infrared = np.array([-1, -1, -1, -1, -1, -1, 0, 1, 1, -1])
        labels = Labels(1, {"visible": visible, "infrared": infrared}, {"visible>infrared": np.array([1, 1])}, "")
        of_visible, of_infrared = cluster_sheets(labels, self.manifest(), seed=0)
        said = {sheet.number: sheet.link for sheet in of_visible.sheets}
        assert said == {
            0: "linked with infrared cluster 1, by majority another person",
            1: "linked with infrared cluster 1, by majority the same person",
        }
        assert {sheet.link for sheet in of_infrared.sheets} == {""}
        assert (of_infrared.images, of_infrared.outliers) == (4, 1)

    def test_no_cluster_at_all_is_no_fault(self) -> None:
        labels = Labels(1, {"joint": np.full(10, -1)}, {}, "")
        (found,) = cluster_sheets(labels, self.manifest(), seed=0)
        assert (found.clusters, found.outliers, found.purity, found.sheets) == (0, 10, None, ())


class TestCurves:
    def test_start_evaluated_epochs_and_end_are_one_curve(self, finished: Path) -> None:
        source = read_run(finished)
        points = curves_of(source)["rank-1"]
        assert [epoch for epoch, _ in points] == [0, 1, 2, 3, 4]
        assert points[0][1] == source.start.figures["rank1"]
        assert points[-1][1] == source.record.protocols[source.record.primary_protocol].rank1

    def test_a_single_run_has_a_chart_for_each_kind_and_several_one_for_each_curve(self, finished: Path) -> None:
        curves = curves_of(read_run(finished))
        titles = [chart.title for chart in charts_of({"a": curves})]
        assert titles == [
            "Losses", "Retrieval of test images", "Clusters against true identities",
            "Number of clusters and identities", "Outliers",
            "Clusters of both modalities", "Right cross-modality positive pairs", "Links between clusters",
            "Learning rate",
        ]  # fmt: skip
        several = charts_of({"a": curves, "b": {"rank-1": ((1, 0.5),)}})
        (rank1,) = [chart for chart in several if chart.title == "Rank-1"]
        assert rank1.lines["b"] == ((1, 50.0),)
        assert rank1.table[1] == (1, [pytest.approx(100 * curves["rank-1"][1][1]), 50.0])
        losses = [chart for chart in several if chart.title.startswith("Loss ")]
        assert all(chart.styles == (0,) for chart in losses)

    def test_without_metrics_the_record_gives_the_curves(self, copy: Path) -> None:
        before = curves_of(read_run(copy))
        (copy / "metrics.jsonl").unlink()
        after = curves_of(read_run(copy))
        assert after["ARI visible"] == before["ARI visible"]
        assert [epoch for epoch, _ in after["rank-1"]] == [0, 1, 2, 3, 4]
        assert set(before) - set(after) == {"pair precision joint", "pair precision visible>infrared"}

    def test_what_is_no_finite_number_is_left_out(self, copy: Path) -> None:
        rows = [{"epoch": 0, "losses": {"a": "x", "b": 1}, "labels": 3, "evaluation": {"rank1": True}, "pairs": []}]
        (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        curves = curves_of(read_run(copy))
        assert curves["loss b"] == ((1, 1.0),)
        assert "loss a" not in curves


class TestTables:
    def test_figures_are_those_of_the_record_with_intervals_over_queries(self, finished: Path) -> None:
        source = read_run(finished)
        first, *_ = figure_tables([source])
        before, row = first.rows
        figures = source.record.protocols[first.protocol]
        assert row.cells[0].text == f"{100 * figures.rank1:.2f} ± {100 * figures.sd['rank1']:.2f}"
        assert before.cells[0].text == f"{100 * source.start.figures['rank1']:.2f}"
        low, high = map(float, row.cells[0].below[0].split(" to "))
        assert low <= 100 * figures.rank1 <= high
        assert row.cells[1].below == ()

    def test_a_run_differs_by_nothing_from_itself(self, finished: Path) -> None:
        one, other = read_run(finished, label="a"), read_run(finished, label="b")
        first, *_ = figure_tables([one, other])
        assert first.rows[3].cells[0].below[1] == "0.00 [0.00 to 0.00]"
        assert compared_settings([one, other]) == []

    def test_what_is_not_as_the_plugins_have_it_is_listed(self, finished: Path) -> None:
        notes: list[str] = []
        found = {s.name: (s.usual, s.values[0]) for s in unusual_settings(read_run(finished), toy_catalogue(), notes)}
        assert found == {
            "by-index.form": ("modality", "linked"), "evaluation.every": ("0", "1"), "evaluation.trials": ("10", "2"),
            "compute.precision": ("auto", "fp32"),
        }  # fmt: skip
        assert notes == []

    def test_a_plugin_that_is_not_there_costs_a_note(self, finished: Path) -> None:
        notes: list[str] = []
        unusual_settings(read_run(finished), Catalogue(points=[], extra={}), notes)
        assert any("The recipe of 'baseline' is not at hand" in note for note in notes)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (True, "true"),
            (None, "none"),
            (0.1, "0.1"),
            ([1, 2], "[1, 2]"),
            ("a\x1b", r"a\x1b"),
            ("x" * 999, "x" * 117 + "..."),
        ],
        ids=str,
    )
    def test_values_are_written_as_one_would_write_them(self, value, text: str) -> None:
        assert value_text(value) == text
