"""Manifests compared with the published counts; the oracle is the table of baseline.md 1.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.data.manifest import Manifest
from harness.data.published import Count, count, regdb_differences, sysu_mm01_differences

SYSU = {  # images and identities of each camera; identities in all
    "train + val": ([4721, 5753, 7909, 5811, 5973, 4000], [194, 195, 392, 382, 390, 200], 395, 22258, 11909),
    "test": ([1374, 1565, 1883, 1918, 1918, 1920], [56, 56, 93, 94, 95, 96], 96, 6775, 3803),
}


def make(images: list[int], identities: list[int], *, infrared: tuple[int, ...]) -> Manifest:
    """A manifest of these counts; cameras alternate between the first and the last identities."""
    most = max(identities)
    camera = np.repeat(np.arange(1, len(images) + 1), images)
    identity = [
        np.arange(n) % present + (0 if place % 2 else most - present)
        for place, (n, present) in enumerate(zip(images, identities, strict=True))
    ]
    return Manifest(
        root=Path("nowhere"),
        paths=tuple(map(str, range(len(camera)))),
        modality=np.isin(camera, infrared).astype(np.int64),
        camera=camera,
        identity=np.concatenate(identity).astype(np.int64),
    )


@pytest.mark.parametrize("part", SYSU)
def test_the_published_counts_of_sysu_mm01_show_no_difference(part):
    images, identities, _, visible, infrared = SYSU[part]
    manifest = make(images, identities, infrared=(3, 6))
    assert (manifest.modality == 0).sum() == visible
    assert (manifest.modality == 1).sum() == infrared
    assert sysu_mm01_differences(manifest, part=part) == ()


def test_train_and_val_apart_add_up_to_train_and_val():
    train = make([4721, 5753, 5929, 4821, 4989, 4000], [194, 195, 293, 283, 291, 200], infrared=(3, 6))
    assert sysu_mm01_differences(train, part="train") == ()
    val = make([1980, 990, 984], [99, 99, 99], infrared=(1,))
    val = Manifest(val.root, val.paths, val.modality, val.camera + 2, val.identity)
    assert sysu_mm01_differences(val, part="val") == ()


def test_one_image_less_is_one_sentence():
    images, identities, *_ = SYSU["test"]
    manifest = make([images[0] - 1, *images[1:]], identities, infrared=(3, 6))
    assert sysu_mm01_differences(manifest, part="test") == (
        "cam1: 1373 test images of 56 identities, published 1374 of 56",
    )


def test_one_identity_less_is_told_even_if_the_images_add_up():
    images, identities, *_ = SYSU["test"]
    manifest = make(images, [*identities[:4], identities[4] - 1, identities[5]], infrared=(3, 6))
    assert sysu_mm01_differences(manifest, part="test") == (
        "cam5: 1918 test images of 94 identities, published 1918 of 95",
    )


def test_identities_that_are_not_published_are_not_compared():
    images = [4721, 5753, 5930, 4821, 4989, 4000]
    manifest = make(images, [194, 195, 290, 280, 290, 200], infrared=(3, 6))
    assert sysu_mm01_differences(manifest, part="train") == ("cam3: 5930 train images, published 5929",)


def test_quite_another_dataset_is_one_sentence():
    manifest = make([10, 10, 20, 10, 10, 20], [5] * 6, infrared=(3, 6))
    assert sysu_mm01_differences(manifest, part="test") == (
        "every camera: 40 visible and 40 infrared test images of 5 identities, published 6775 and 3803 of 96",
    )


@pytest.mark.parametrize("part", ["train", "test"])
def test_regdb_has_206_identities_of_ten_images_in_each_list(part):
    assert regdb_differences(make([2060, 2060], [206, 206], infrared=(2,)), part=part) == ()
    assert regdb_differences(make([2060, 2059], [206, 206], infrared=(2,)), part=part) == (
        f"thermal: 2059 {part} images of 206 identities, published 2060 of 206",
    )
    assert regdb_differences(make([18, 18], [6, 6], infrared=(2,)), part=part) == (
        f"every camera: 18 visible and 18 infrared {part} images of 6 identities, published 2060 and 2060 of 206",
    )


def test_a_camera_without_images_counts_nothing():
    assert count(make([4], [2], infrared=()), 2) == Count(0, 0)
