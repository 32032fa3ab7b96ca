"""ADCA's rules on cases that can be worked by hand, and what the harness expects of every plugin."""

from __future__ import annotations

import torch
from harness_adca.association import by_means, by_votes
from harness_adca.memory import aggregated
from torch.nn.functional import normalize

from harness import OUTLIER, PseudoLabels, TrainIndex
from harness.testing import parametrize_with_checks


@parametrize_with_checks("adca")
def test_adca_keeps_the_contracts(check) -> None:
    check()


def labelled(visible: list[int], infrared: list[int]) -> PseudoLabels:
    modality = torch.tensor([0] * len(visible) + [1] * len(infrared))
    train = TrainIndex(modality=modality, camera=modality + 1)
    return PseudoLabels(
        train,
        {
            "visible": torch.tensor(visible + [OUTLIER] * len(infrared)),
            "infrared": torch.tensor([OUTLIER] * len(visible) + infrared),
        },
    )


def test_votes_pair_every_cluster_at_most_once() -> None:
    """The worked example of the specification: eight pairs vote, and two clusters of each modality find a partner."""
    t = torch.arange(3) + 1
    visible = normalize(torch.cos(0.5 * torch.arange(6)[:, None] * t), dim=1)
    infrared = normalize(torch.cos(0.6 * torch.arange(5)[:, None] * t + 0.2), dim=1)
    labels = labelled([0, 0, 1, 1, 2, OUTLIER], [0, 0, 1, OUTLIER, 1])
    to_infrared, to_visible = by_votes(torch.cat([visible, infrared]), labels, threshold=0.5)
    assert to_infrared.tolist() == [0, 1, OUTLIER]
    assert to_visible.tolist() == [0, 1]


def test_means_pair_clusters_that_choose_each_other() -> None:
    degrees = torch.deg2rad(torch.tensor([0.0, 40, 90, 10, 80]))
    features = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    to_infrared, to_visible = by_means(features, labelled([0, 1, 2], [0, 1]))
    assert to_infrared.tolist() == [0, OUTLIER, 1]
    assert to_visible.tolist() == [0, 2]


def test_clusters_of_one_modality_only_find_no_partner() -> None:
    features = normalize(torch.ones(4, 3), dim=1)
    labels = labelled([0, 0], [OUTLIER, OUTLIER])
    for maps in (by_votes(features, labels, threshold=0.5), by_means(features, labels)):
        assert [partners.tolist() for partners in maps] == [[OUTLIER], []]


def test_linked_visible_prototypes_take_in_nine_tenths_of_their_partner() -> None:
    visible, infrared = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.6, 0.8]])
    mixed = aggregated(visible, infrared, torch.tensor([OUTLIER, 0]), keep=0.1)
    torch.testing.assert_close(mixed, torch.tensor([[1.0, 0], [0.54, 0.82]]))
    torch.testing.assert_close(visible, torch.tensor([[1.0, 0], [0, 1]]))
