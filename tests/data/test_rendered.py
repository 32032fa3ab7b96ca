"""The embedded rendered dataset: what it holds, and that it is always the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import rendered
from harness.data.cues import (
    CUES,
    colour_histogram,
    grey_histogram,
    grey_thumbnail,
    hog,
    mean_colour,
    standardise_by_modality,
)
from harness.data.rendered import SIZES, ensure_rendered, render_image, write_rendered
from harness.data.rendered.layout import list_cells, split_identities
from harness.data.rendered.people import draw_person
from harness.data.sysu_mm01 import read_sysu_mm01
from harness.errors import DataError, SettingsError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered") / "tiny"
    write_rendered(root, size="tiny", seed=3)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def render(identity: int = 1, camera: int = 1, number: int = 1, *, seed: int = 0) -> np.ndarray:
    return render_image(seed, identity=identity, camera=camera, number=number, size=(64, 32))


# one image


def test_an_image_is_the_same_whatever_was_rendered_before() -> None:
    first = render(5, 3, 2)
    for other in range(6):
        render(other + 1, 4, 1, seed=8)
    assert np.array_equal(render(5, 3, 2), first)


def test_every_part_of_an_images_address_changes_it() -> None:
    base = render(1, 1, 1)
    for other in (render(2, 1, 1), render(1, 2, 1), render(1, 1, 2), render(1, 1, 1, seed=1)):
        assert not np.array_equal(other, base)


def test_images_are_bytes_of_the_size_asked_for() -> None:
    image = render_image(0, identity=1, camera=1, number=1, size=(288, 144))
    assert image.shape == (288, 144, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("camera", [3, 6])
def test_infrared_images_have_three_equal_channels(camera: int) -> None:
    image = render(1, camera)
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("camera", [1, 2, 4, 5])
def test_visible_images_have_colour(camera: int) -> None:
    assert np.ptp(render(1, camera).astype(int), axis=2).mean() > 2


def test_a_garments_two_cloths_differ_in_visible_luminance() -> None:
    for seed in range(50):
        person = draw_person(np.random.default_rng(seed))
        for garment in (person.visible.upper, person.visible.lower):
            assert abs((garment[0] - garment[1]) @ (0.299, 0.587, 0.114)) >= 0.29


def test_infrared_mostly_keeps_the_order_of_a_garments_cloths() -> None:
    kept = []
    for seed in range(600):
        person = draw_person(np.random.default_rng(seed))
        visible = (person.visible.upper[1] - person.visible.upper[0]) @ (0.299, 0.587, 0.114)
        infrared = float(person.infrared.upper[1, 0] - person.infrared.upper[0, 0])
        if infrared:
            kept.append(visible * infrared > 0)
    assert 0.85 < np.mean(kept) < 0.95


# the tree


def test_the_tree_is_the_layout_of_sysu_mm01(tiny: Path) -> None:
    assert sorted(path.name for path in tiny.iterdir()) == ["cam1", "cam2", "cam3", "cam4", "cam5", "cam6", "exp"]
    for name in ("train", "val", "test", "available"):
        line, end = (tiny / "exp" / f"{name}_id.txt").read_text().split("\n")
        assert end == ""
        assert all(token == str(int(token)) for token in line.split(","))
    assert {path.name for path in (tiny / "cam3").glob("*/*")} == {"0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg"}


def test_the_sysu_reader_finds_every_image(tiny: Path) -> None:
    train, test = read_sysu_mm01(tiny, split="train"), read_sysu_mm01(tiny, split="test")
    assert len(train) + len(test) == SIZES["tiny"].images == len(list(tiny.rglob("*.jpg")))
    assert not set(train.identity.tolist()) & set(test.identity.tolist())
    assert Counter(train.camera.tolist()) == {1: 16, 2: 16, 3: 32, 4: 16, 5: 16, 6: 32}


def test_images_on_disk_are_nearly_those_rendered(tiny: Path) -> None:
    path = next(iter(sorted((tiny / "cam1").glob("*/0002.jpg"))))
    with Image.open(path) as image:
        stored = np.asarray(image).astype(int)
    exact = render_image(3, identity=int(path.parent.name), camera=1, number=2, size=SIZES["tiny"].image_size)
    assert np.abs(stored - exact).mean() < 4


def test_rendering_twice_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    write_rendered(tmp_path / "again", size="tiny", seed=3)
    assert contents(tmp_path / "again") == contents(tiny)


def test_bytes_do_not_depend_on_the_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    write_rendered(tmp_path / "parallel", size="tiny", seed=3, workers=2)
    assert contents(tmp_path / "parallel") == contents(tiny)


def test_seeds_give_different_people_and_splits() -> None:
    assert not np.array_equal(render(seed=0), render(seed=1))
    assert split_identities(SIZES["small"], seed=0) != split_identities(SIZES["small"], seed=1)


@pytest.mark.parametrize("size", SIZES)
def test_splits_are_disjoint_and_cover_all_identities(size: str) -> None:
    splits = split_identities(SIZES[size], seed=0)
    everyone = sorted(identity for listed in splits.values() for identity in listed)
    assert everyone == list(range(1, sum(SIZES[size].identities.values()) + 1))


def test_the_small_size_has_twelve_images_per_identity_and_modality() -> None:
    per_identity = Counter()
    for cell in list_cells(SIZES["small"], seed=0):
        per_identity[cell.identity, cell.camera in (3, 6)] += cell.images
    assert set(per_identity.values()) == {12}
    assert len(per_identity) == 2 * (64 + 40)


def test_the_full_size_has_the_published_counts_of_sysu_mm01() -> None:
    splits = split_identities(SIZES["full"], seed=0)
    assert {name: len(listed) for name, listed in splits.items()} == {"train": 296, "val": 99, "test": 96}
    images, present = Counter(), Counter()
    owner = {identity: name for name, listed in splits.items() for identity in listed}
    for cell in list_cells(SIZES["full"], seed=0):
        part = "test" if owner[cell.identity] == "test" else "train"
        images[part, cell.camera] += cell.images
        present[part, cell.camera] += 1
    assert [images["train", camera] for camera in range(1, 7)] == [4721, 5753, 7909, 5811, 5973, 4000]
    assert [present["train", camera] for camera in range(1, 7)] == [194, 195, 392, 382, 390, 200]
    assert [images["test", camera] for camera in range(1, 7)] == [1374, 1565, 1883, 1918, 1918, 1920]
    assert [present["test", camera] for camera in range(1, 7)] == [56, 56, 93, 94, 95, 96]


def test_everyone_in_the_full_size_is_seen_in_both_modalities() -> None:
    seen = {(cell.identity, cell.camera in (3, 6)) for cell in list_cells(SIZES["full"], seed=0)}
    assert len(seen) == 2 * 491


def test_progress_ends_at_the_number_of_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_rendered(tmp_path / "d", size="tiny", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (224, 224)
    assert calls == sorted(calls)


def test_an_interrupted_render_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rendered(tmp_path / "d", size="tiny", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match="exists already"):
        write_rendered(tmp_path, size="tiny")


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'small'"):
        write_rendered(tmp_path / "d", size="smal")
    with pytest.raises(SettingsError, match="seed"):
        write_rendered(tmp_path / "d", size="tiny", seed=-1)
    with pytest.raises(SettingsError, match="workers"):
        write_rendered(tmp_path / "d", size="tiny", workers=0)


# the cache


def test_a_cached_dataset_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = ensure_rendered(size="tiny", seed=3, cache_root=tmp_path)
    monkeypatch.setattr(rendered.writer, "write_rendered", None)
    assert ensure_rendered(size="tiny", seed=3, cache_root=tmp_path) == root
    described = json.loads((root / "exp" / "rendered.json").read_text())
    assert described == {"renderer_version": rendered.RENDERER_VERSION, "seed": 3, "size": "tiny"}


def test_the_cache_can_be_moved_by_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "elsewhere"))
    assert ensure_rendered(size="tiny", seed=0).is_relative_to(tmp_path / "elsewhere")


def test_something_else_in_the_datasets_place_is_refused(tmp_path: Path) -> None:
    root = ensure_rendered(size="tiny", seed=0, cache_root=tmp_path)
    (root / "exp" / "rendered.json").unlink()
    with pytest.raises(DataError, match="Remove the folder"):
        ensure_rendered(size="tiny", seed=0, cache_root=tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "rendered" / f"v{rendered.RENDERER_VERSION}"
    (folder / ".tiny-seed0.abc.part" / "cam1").mkdir(parents=True)
    ensure_rendered(size="tiny", seed=0, cache_root=tmp_path)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["tiny-seed0"]


def test_two_processes_may_ask_at_once(tiny: Path, tmp_path: Path) -> None:
    code = "from harness.data.rendered import ensure_rendered; print(ensure_rendered(size='tiny', seed=3))"
    environment = {**os.environ, "HARNESS_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    roots = {process.communicate(timeout=600)[0].strip() for process in processes}
    assert len(roots) == 1
    assert contents(Path(roots.pop())) == contents(tiny)


# cues


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([render(identity, camera) for identity in (1, 2, 3) for camera in (1, 3)])


@pytest.mark.parametrize("name", CUES)
def test_a_cue_describes_each_image_by_itself(name: str, images: np.ndarray) -> None:
    features = CUES[name](images)
    assert features.dtype == np.float32
    assert features.ndim == 2
    assert np.isfinite(features).all()
    alone = np.concatenate([CUES[name](images[row : row + 1]) for row in range(len(images))])
    np.testing.assert_allclose(features, alone, atol=1e-5)


def test_mean_colour_is_the_mean_of_each_channel(images: np.ndarray) -> None:
    np.testing.assert_allclose(mean_colour(images), images.astype(float).mean((1, 2)) / 255, rtol=1e-5)


def test_histograms_agree_with_numpy(images: np.ndarray) -> None:
    for row, image in enumerate(images):
        expected = [np.histogram(image[..., c], bins=8, range=(0, 256))[0] / 2048 for c in range(3)]
        np.testing.assert_allclose(colour_histogram(images)[row], np.concatenate(expected), atol=1e-6)
    np.testing.assert_allclose(grey_histogram(images).sum(1), 1, atol=1e-5)


def test_a_thumbnail_does_not_see_brightness_or_contrast() -> None:
    image = np.random.default_rng(0).integers(0, 100, (1, 64, 32, 3))
    np.testing.assert_allclose(
        grey_thumbnail(image.astype(np.uint8)), grey_thumbnail((2 * image + 30).astype(np.uint8)), atol=1e-3
    )


def test_hog_agrees_with_a_plain_loop(images: np.ndarray) -> None:
    np.testing.assert_allclose(hog(images[:1])[0], _plain_hog(images[0]), atol=2e-4)


def _plain_hog(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    height, width = grey.shape
    cells = np.zeros((16, 8, 9))
    for i in range(height):
        for j in range(width):
            down = grey[min(i + 1, height - 1), j] - grey[max(i - 1, 0), j]
            right = grey[i, min(j + 1, width - 1)] - grey[i, max(j - 1, 0)]
            place = (np.arctan2(down, right) % np.pi) / np.pi * 9
            low, share = int(place), place - int(place)
            strength = np.hypot(down, right)
            cells[i // 4, j // 4, low % 9] += strength * (1 - share)
            cells[i // 4, j // 4, (low + 1) % 9] += strength * share
    blocks = []
    for i in range(15):
        for j in range(7):
            block = cells[i : i + 2, j : j + 2].ravel()
            block = np.minimum(block / (np.linalg.norm(block) + 1e-3), 0.2)
            blocks.append(block / (np.linalg.norm(block) + 1e-3))
    return np.concatenate(blocks)


def test_standardising_is_done_within_each_modality() -> None:
    features = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    modality = np.arange(40) % 2
    features[modality == 1] += 100
    standardised = standardise_by_modality(features, modality)
    for code in (0, 1):
        np.testing.assert_allclose(standardised[modality == code].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(standardised[modality == code].std(0), 1, atol=1e-4)
