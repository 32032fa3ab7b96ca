import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.clustering.centring import centre_by_camera
from harness.clustering.centroids import cluster_means
from harness.errors import HarnessError


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-1, 4), max_size=30), st.integers(0, 1000))
def test_means_equal_a_loop_over_the_clusters(labels, seed):
    features = np.random.default_rng(seed).normal(size=(len(labels), 3))
    labels = np.array(labels, dtype=np.int64)
    found = cluster_means(torch.from_numpy(features), torch.from_numpy(labels), 5).numpy()
    for k in range(5):
        members = features[labels == k]
        np.testing.assert_allclose(found[k], members.mean(axis=0) if len(members) else np.zeros(3), atol=1e-12)


def test_means_are_not_normalised_and_outliers_do_not_count():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    assert cluster_means(features, torch.tensor([0, 0, -1]), 1).tolist() == [[0.5, 0.5]]


def test_labels_that_do_not_fit_are_errors():
    with pytest.raises(HarnessError, match=r"Label 2 .* 2 clusters"):
        cluster_means(torch.zeros(2, 3), torch.tensor([0, 2]), 2)
    with pytest.raises(HarnessError, match="one label per row"):
        cluster_means(torch.zeros(2, 3), torch.tensor([0]), 2)


def test_centring_removes_what_a_camera_adds():
    generator = torch.Generator().manual_seed(0)
    people = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    shift = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    features = torch.cat([people + shift[0], people + shift[1]])
    centred = centre_by_camera(features, torch.tensor([3] * 6 + [7] * 6))
    torch.testing.assert_close(centred[:6], centred[6:])
    torch.testing.assert_close(centred.norm(dim=1), torch.ones(12, dtype=torch.float64))
    expected = people - people.mean(dim=0)
    torch.testing.assert_close(centred[:6], expected / expected.norm(dim=1, keepdim=True))


def test_the_only_image_of_a_camera_becomes_zero():
    centred = centre_by_camera(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), torch.tensor([0, 0, 1]))
    assert centred[2].tolist() == [0.0, 0.0]
    assert torch.isfinite(centred).all()


def test_centring_no_images():
    assert centre_by_camera(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0, 4)
