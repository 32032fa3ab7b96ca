"""The toy sets are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.testing.cases import (
    FORMS,
    ToySet,
    toy_apart,
    toy_infrared_only,
    toy_one_cluster,
    toy_outliers,
    toy_people,
    toy_singletons,
)
from harness.testing.tiny import tiny_rendered

ALL = (toy_people, toy_outliers, toy_infrared_only, toy_one_cluster, toy_apart, toy_singletons)


def groups(toys: ToySet, name: str) -> set[frozenset[int]]:
    """The images of every cluster."""
    labels = toys.labels[name]
    return {frozenset(toys.image[labels.labels == cluster].tolist()) for cluster in range(labels.num_clusters)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", ALL)
def test_other_names_and_another_order_are_the_same_set(make, form: str) -> None:
    toys = make(form=form)
    for changed in (toys.renamed(), toys.reordered()):
        for name in toys.labels.given:
            assert groups(changed, name) == groups(toys, name)
        assert torch.equal(changed.train.modality, toys.train.modality)
    reordered = toys.reordered()
    assert torch.equal(reordered.features["main", "plain"][reordered.image.argsort()], toys.features["main", "plain"])
    assert not torch.equal(reordered.image, toys.image)


def test_links_follow_new_names() -> None:
    toys = toy_people(form="linked")
    renamed = toys.renamed()
    assert not torch.equal(renamed.labels["visible"].labels, toys.labels["visible"].labels)
    assert groups(renamed, "joint") == groups(toys, "joint")


@pytest.mark.parametrize("changed", [lambda toys: toys.reordered(), lambda toys: toys.renamed()])
def test_batches_show_the_same_images_whatever_rows_and_names(changed) -> None:
    toys = toy_people()
    for number in range(3):
        one, other = (each.batch(each.labels.draws[0], number) for each in (toys, changed(toys)))
        assert torch.equal(toys.image[one.index], changed(toys).image[other.index])


def test_the_order_of_people_tells_nothing() -> None:
    labels = toy_people(form="joint").labels["joint"].labels
    assert (labels.diff() != 0).float().mean() > 0.5


def test_hard_cases_are_as_named() -> None:
    assert toy_outliers().labels["visible"].num_clusters == 0
    assert toy_infrared_only().labels["visible"].num_clusters == 0
    assert toy_infrared_only().labels["infrared"].num_clusters > 2
    assert toy_one_cluster(form="joint").labels["joint"].num_clusters == 1
    assert int(toy_apart().labels.link("visible", "infrared").max()) == -1
    assert int(toy_singletons(form="joint").labels["joint"].sizes.max()) == 1


def test_epochs_of_a_toy_set_change_nothing_in_it() -> None:
    toys = toy_people()
    toys.epoch(0).features().zero_()
    assert bool(toys.features["main", "plain"].any())


def test_identities_of_the_rendered_set_are_decoys() -> None:
    tiny = tiny_rendered()
    assert len(tiny.pixels) == len(tiny.manifest) == len(tiny.train)
    assert len(np.unique(tiny.manifest.identity)) == 6
    assert float(tiny.pixels.float().std()) > 10
