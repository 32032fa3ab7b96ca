"""Whole evaluations against the worked numbers of evaluation.md, section 8, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import ProtocolError
from harness.evaluation import (
    FIGURE_NAMES,
    Figures,
    TestSet,
    evaluate,
    evaluate_all,
    protocol,
    protocols_of,
    read_official_identities,
    read_official_permutations,
)
from harness.evaluation.retrieval import EvaluationResult

HALF_DIGIT = 6e-7  # the worked numbers are printed with six decimals


@pytest.fixture(scope="module")
def toy(synthetic):
    return synthetic.labelled_features(synthetic.sysu_toy_counts(), dims=6)


def _evaluate_toy(toy, synthetic, search, rule, shots) -> EvaluationResult:
    test_set, features = toy
    rules = replace(protocol(f"sysu-mm01/{search}/single/{rule}/v1"), shots=shots)
    return evaluate(features, test_set, rules, permutations=synthetic.sysu_toy_permutations())


def _assert_curve(found, printed):
    expected = np.array([float(value) for value in printed.split()])
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=0, atol=HALF_DIGIT)


FIRST = "first"
MEAN = "mean"
TOY_ROWS = [
    ("O", "all", 1, FIRST, ".500000 .727273 .909091 .909091 .954545 1 1", 0.584892, 0.530803),
    ("O", "all", 1, MEAN, ".486364 .686364 .845455 .868182 .909091 .981818 1", 0.567361, 0.497991),
    ("O", "all", 2, FIRST, ".500000 .727273 .863636 .863636 .909091 .909091 1", 0.530234, 0.441755),
    ("O", "all", 2, MEAN, ".468182 .740909 .863636 .863636 .909091 .936364 1", 0.520462, 0.425001),
    ("O", "indoor", 1, FIRST, ".666667 .722222 .944444 .944444 1 1", 0.737026, 0.719885),
    ("O", "indoor", 1, MEAN, ".622222 .761111 .861111 .944444 .977778 1", 0.720836, 0.704365),
    ("O", "indoor", 2, FIRST, ".666667 .833333 .833333 .888889 1 1", 0.717189, 0.705467),
    ("O", "indoor", 2, MEAN, ".650000 .833333 .833333 .922222 .983333 1", 0.691725, 0.644908),
    ("S", "all", 1, FIRST, ".590909 .636364 .772727 .818182 .909091 .954545 1", 0.588987, 0.503552),
    ("S", "all", 1, MEAN, ".472727 .709091 .831818 .872727 .927273 .959091 1", 0.560682, 0.489442),
    ("S", "all", 2, FIRST, ".454545 .727273 .863636 .863636 .909091 .954545 1", 0.504589, 0.410766),
    ("S", "all", 2, MEAN, ".459091 .745455 .863636 .863636 .913636 .940909 1", 0.519015, 0.421585),
    ("S", "indoor", 1, FIRST, ".666667 .833333 .833333 .888889 1 1", 0.750915, 0.736949),
    ("S", "indoor", 1, MEAN, ".611111 .794444 .850000 .927778 .988889 1", 0.722889, 0.707013),
    ("S", "indoor", 2, FIRST, ".666667 .833333 .833333 .888889 1 1", 0.693364, 0.653514),
    ("S", "indoor", 2, MEAN, ".644444 .833333 .833333 .905556 .994444 1", 0.684842, 0.628279),
]


@pytest.mark.parametrize(("rule", "search", "shots", "which", "curve", "mean_ap", "mean_inp"), TOY_ROWS)
def test_the_sysu_toy_gives_the_official_figures(toy, synthetic, rule, search, shots, which, curve, mean_ap, mean_inp):
    result = _evaluate_toy(toy, synthetic, search, rule, shots)
    if which == FIRST:
        found = (result.trials[0].cmc, result.trials[0].mAP, result.trials[0].mINP)
    else:
        found = (result.mean_cmc, result.mean("mAP"), result.mean("mINP"))
    _assert_curve(found[0], curve)
    assert found[1] == pytest.approx(mean_ap, abs=HALF_DIGIT)
    assert found[2] == pytest.approx(mean_inp, abs=HALF_DIGIT)


def test_the_second_official_trial_of_the_toy(toy, synthetic):
    second = _evaluate_toy(toy, synthetic, "all", "O", 1).trials[1]
    _assert_curve(second.cmc, ".545455 .681818 .772727 .818182 .863636 1 1")
    assert second.mAP == pytest.approx(0.569983, abs=HALF_DIGIT)


def test_without_one_entry_per_identity_the_toy_gives_other_figures(toy, synthetic):
    test_set, features = toy
    per_image = replace(protocol("sysu-mm01/all/single/O/v1"), cmc="image")
    result = evaluate(features, test_set, per_image, permutations=synthetic.sysu_toy_permutations())
    _assert_curve(result.trials[0].cmc, ".500000 .681818 .727273 .818182 .909091 .909091 .909091")


@pytest.mark.parametrize(
    ("search", "shots", "valid", "gallery"),
    [("all", 1, 22, 17), ("all", 2, 22, 34), ("indoor", 1, 18, 10), ("indoor", 2, 18, 20)],
)
def test_the_toy_counts_queries_and_gallery_images(toy, synthetic, search, shots, valid, gallery):
    for scores in _evaluate_toy(toy, synthetic, search, "O", shots).trials:
        assert (scores.queries, scores.valid_queries, scores.gallery_size) == (24, valid, gallery)


@pytest.mark.parametrize(
    ("direction", "curve", "mean_ap", "mean_inp"),
    [
        ("visible-to-infrared", ".666667 .933333 1 1 1", 0.690232, 0.600325),
        ("infrared-to-visible", ".533333 .866667 1 1 1", 0.699815, 0.610556),
    ],
)
def test_the_regdb_toy_gives_the_published_figures(synthetic, direction, curve, mean_ap, mean_inp):
    counts = {(camera, identity): 3 for camera in (1, 2) for identity in range(1, 6)}
    test_set, features = synthetic.labelled_features(counts, dims=6)
    result = evaluate(features, test_set, protocol(f"regdb/{direction}/v1"))
    assert len(result.trials) == 1
    _assert_curve(result.mean_cmc, curve)
    assert result.mean("mAP") == pytest.approx(mean_ap, abs=HALF_DIGIT)
    assert result.mean("mINP") == pytest.approx(mean_inp, abs=HALF_DIGIT)
    assert result.sd("mAP") is None


@pytest.fixture(scope="module")
def full_size(splits, synthetic):
    permutations = read_official_permutations(splits / "rand_perm_cam.mat")
    identities = set(read_official_identities(splits / "test_id.mat"))
    permutations = {key: table for key, table in permutations.items() if key[1] in identities}
    counts = {key: table.shape[1] for key, table in permutations.items()}
    test_set, features = synthetic.labelled_features(counts, dims=16, identity_weight=0.5)
    return test_set, features, permutations


@pytest.fixture(scope="module")
def full_results(full_size):
    test_set, features, permutations = full_size
    return evaluate_all(features, test_set, protocols_of("sysu-mm01"), permutations=permutations)


FULL_ROWS = [
    ("O/all/single", FIRST, 0.117276, 0.409151, 0.658691, 0.867736, 0.159638, 0.086404),
    ("O/all/single", MEAN, 0.118459, 0.423850, 0.653484, 0.859874, 0.164079, 0.087528),
    ("O/all/multi", MEAN, 0.155798, 0.519984, 0.743702, 0.901367, 0.096528, 0.025533),
    ("O/indoor/single", FIRST, 0.127717, 0.494112, 0.756341, 0.938859, 0.260050, 0.227169),
    ("O/indoor/single", MEAN, 0.153714, 0.506975, 0.753397, 0.935643, 0.279689, 0.240310),
    ("O/indoor/multi", MEAN, 0.229257, 0.631069, 0.828623, 0.949502, 0.158828, 0.069457),
    ("S/all/single", FIRST, 0.120431, 0.441231, 0.658428, 0.861162, 0.165381, 0.088121),
    ("S/all/single", MEAN, 0.116987, 0.426400, 0.654510, 0.857507, 0.165223, 0.089460),
    ("S/all/multi", MEAN, 0.154404, 0.515961, 0.743755, 0.901630, 0.096775, 0.025176),
    ("S/indoor/single", MEAN, 0.157835, 0.522192, 0.755525, 0.935643, 0.283060, 0.242045),
    ("S/indoor/multi", MEAN, 0.227265, 0.635009, 0.834284, 0.950861, 0.159263, 0.069855),
]


@pytest.mark.parametrize("case", FULL_ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_full_size_check_gives_the_official_figures(full_results, case):
    name, which, *expected = case
    rule, search, shots = name.split("/")
    result = full_results[f"sysu-mm01/{search}/{shots}/{rule}/v1"]
    over = np.mean if which == MEAN else (lambda values: values[0])
    assert [over(result.per_trial(figure)) for figure in FIGURE_NAMES] == pytest.approx(expected, abs=HALF_DIGIT)
    assert result.trials[0].queries == 3803
    assert result.trials[0].valid_queries == (3803 if search == "all" else 2208)
    assert len(result.mean_cmc) == (96 if search == "all" else 56)


def test_float32_torch_features_give_the_same_figures(toy, synthetic):
    test_set, features = toy
    rules = protocol("sysu-mm01/all/single/S/v1")
    expected = evaluate(features, test_set, rules).figures()
    tensor = torch.from_numpy(features).float().requires_grad_()
    assert evaluate(tensor, test_set, rules).figures() == expected


def test_the_order_of_the_images_on_disk_does_not_matter(toy):
    test_set, features = toy
    rules = protocol("sysu-mm01/all/single/S/v1")
    shuffled = np.random.default_rng(3).permutation(len(test_set))
    other = TestSet(
        identity=test_set.identity[shuffled], camera=test_set.camera[shuffled], order=test_set.order[shuffled]
    )
    assert evaluate(features[shuffled], other, rules).figures() == evaluate(features, test_set, rules).figures()


def test_a_result_does_not_depend_on_the_size_of_the_blocks(toy, monkeypatch):
    test_set, features = toy
    rules = protocol("sysu-mm01/indoor/single/S/v1")
    expected = evaluate(features, test_set, rules).figures()
    monkeypatch.setattr("harness.evaluation.retrieval._BLOCK_ENTRIES", 40)
    assert evaluate(features, test_set, rules).figures() == expected


def test_the_rendered_dataset_follows_the_rules_of_sysu(toy):
    test_set, features = toy
    rendered = evaluate(features, test_set, protocol("rendered/all/single/S/v1")).figures()
    assert rendered == evaluate(features, test_set, protocol("sysu-mm01/all/single/S/v1")).figures()


def test_figures_hold_means_per_trial_values_and_sample_deviation(toy):
    test_set, features = toy
    figures = evaluate(features, test_set, protocol("sysu-mm01/all/single/S/v1"), trials=4).figures()
    assert isinstance(figures, Figures)
    assert figures.trials == len(figures.per_trial["mAP"]) == 4
    assert figures.mAP == pytest.approx(np.mean(figures.per_trial["mAP"]), abs=1e-7)
    assert figures.sd["mAP"] == pytest.approx(np.std(figures.per_trial["mAP"], ddof=1), abs=1e-7)
    assert figures.rank20 == 1  # seven identities: the curve ends at 7 and keeps its last value


def test_a_nan_in_the_features_is_refused_with_its_row(toy):
    test_set, features = toy
    damaged = features.copy()
    damaged[5, 2] = np.nan
    with pytest.raises(ProtocolError, match="row 5"):
        evaluate(damaged, test_set, protocol("sysu-mm01/all/single/S/v1"))


def test_features_that_are_not_unit_rows_are_refused(toy):
    test_set, features = toy
    with pytest.raises(ProtocolError, match="L2-normalise"):
        evaluate(2 * features, test_set, protocol("sysu-mm01/all/single/S/v1"))


def test_features_of_another_number_of_images_are_refused(toy):
    test_set, features = toy
    with pytest.raises(ProtocolError, match="one row per image"):
        evaluate(features[1:], test_set, protocol("sysu-mm01/all/single/S/v1"))


@pytest.mark.parametrize(("kept", "missing"), [((1, 2, 4, 5), "infrared"), ((3, 6), "visible")])
def test_a_test_set_of_one_modality_is_refused(toy, kept, missing):
    test_set, features = toy
    rows = np.flatnonzero(np.isin(test_set.camera, kept))
    part = TestSet(identity=test_set.identity[rows], camera=test_set.camera[rows], order=test_set.order[rows])
    with pytest.raises(ProtocolError, match=f"no {missing} image"):
        evaluate(features[rows], part, protocol("sysu-mm01/all/single/S/v1"))


def test_query_and_gallery_without_a_common_identity_are_refused():
    test_set = TestSet(identity=np.array([1, 2]), camera=np.array([1, 6]), order=np.array([0, 0]))
    with pytest.raises(ProtocolError, match="None of the 1 queries"):
        evaluate(np.eye(2), test_set, protocol("sysu-mm01/all/single/S/v1"))


def test_cameras_of_another_dataset_are_refused(toy):
    test_set, features = toy
    with pytest.raises(ProtocolError, match=r"cameras \[3, 4, 5, 6\]"):
        evaluate(features, test_set, protocol("regdb/visible-to-infrared/v1"))


def test_an_evaluation_without_trials_is_refused(toy):
    test_set, features = toy
    with pytest.raises(ProtocolError, match="at least one"):
        evaluate(features, test_set, protocol("sysu-mm01/all/single/S/v1"), trials=0)


def test_protocols_scored_together_have_the_figures_they_have_alone(toy, synthetic):
    test_set, features = toy
    rules = [
        replace(protocol(f"sysu-mm01/{search}/single/{rule}/v1"), shots=shots)
        for rule in "SO"
        for search in ("all", "indoor")
        for shots in (1, 2)
    ]
    permutations = synthetic.sysu_toy_permutations()
    together = evaluate_all(features, test_set, rules, permutations=permutations, threads=2)
    assert list(together) == [rule.identifier for rule in rules]
    for rule in rules:
        alone = evaluate(features, test_set, rule, permutations=permutations)
        assert together[rule.identifier].figures() == alone.figures()


def test_ties_follow_the_gallery_order_of_each_rule():
    # All features are equal: the ranking is the gallery order, id-major for S, camera-major for O.
    identity, camera = np.array([1, 1, 2, 2, 2, 1]), np.array([1, 4, 1, 4, 6, 6])
    test_set = TestSet(identity=identity, camera=camera, order=np.zeros(6, dtype=np.int64))
    features = np.tile([[1.0, 0.0]], (6, 1))
    permutations = {(c, i): np.ones((1, 1), dtype=np.int64) for c in (1, 4) for i in (1, 2)}
    rules = [protocol("sysu-mm01/all/single/S/v1"), protocol("sysu-mm01/all/single/O/v1")]
    seeded, official = evaluate_all(features, test_set, rules, trials=1, permutations=permutations).values()
    # S: 1 1 2 2; O: 1 2 1 2. Queries are of identity 2 and of identity 1.
    assert seeded.mean("mAP") == pytest.approx(((1 / 3 + 2 / 4) / 2 + 1) / 2)
    assert official.mean("mAP") == pytest.approx(((1 / 2 + 2 / 4) / 2 + (1 + 2 / 3) / 2) / 2)


def test_a_protocol_that_is_not_defined_is_reported_and_the_others_are_scored(toy):
    test_set, features = toy
    told = []
    rules = [protocol("sysu-mm01/all/multi/S/v1"), protocol("sysu-mm01/all/single/S/v1")]
    results = evaluate_all(features, test_set, rules, not_defined=lambda rule, error: told.append((rule, str(error))))
    assert list(results) == ["sysu-mm01/all/single/S/v1"]
    assert [rule.identifier for rule, _ in told] == ["sysu-mm01/all/multi/S/v1"]
    assert "takes 10" in told[0][1]


def test_the_euclidean_distance_ranks_features_as_they_are(toy, oracle):
    test_set, unit = toy
    rules = replace(protocol("regdb/visible-to-infrared/v1"), query_cameras=(6,), gallery_cameras=(1,), cameras=(1, 6))
    kept = np.flatnonzero(np.isin(test_set.camera, (1, 6)))
    part = TestSet(identity=test_set.identity[kept], camera=test_set.camera[kept], order=test_set.order[kept])
    features = unit[kept] * np.linspace(0.5, 2, len(kept))[:, None]
    query, gallery = np.flatnonzero(part.camera == 6), np.flatnonzero(part.camera == 1)
    distance = np.linalg.norm(features[query][:, None] - features[gallery][None], axis=2)
    curve, mean_ap, _, _ = oracle.naive_scores(-distance, part.identity[query], part.identity[gallery], cmc="image")
    result = evaluate(features, part, rules, distance="euclidean")
    np.testing.assert_allclose(result.mean_cmc, curve, atol=1e-12)
    assert result.mean("mAP") == pytest.approx(mean_ap, abs=1e-12)


def test_on_unit_rows_both_distances_give_the_same_figures(toy):
    test_set, features = toy
    rules = protocol("sysu-mm01/all/single/S/v1")
    assert evaluate(features, test_set, rules, distance="euclidean").figures() == (
        evaluate(features, test_set, rules).figures()
    )


def test_progress_ends_with_all_queries(toy, monkeypatch):
    test_set, features = toy
    monkeypatch.setattr("harness.evaluation.retrieval._BLOCK_ENTRIES", 40)
    seen = []
    evaluate_all(
        features, test_set, [protocol("sysu-mm01/all/single/S/v1")], progress=lambda *counts: seen.append(counts)
    )
    assert len(seen) > 1
    assert seen[-1] == (24, 24)
