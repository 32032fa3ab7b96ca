"""The rendered dataset in the layout of RegDB: what it holds, how it looks, and that it is always the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.regdb import TRIALS, read_regdb
from harness.data.rendered import PAIRED_SIZES, RENDERER_VERSION, ensure_rendered, render_image, write_rendered
from harness.data.rendered.cameras import REGDB_THERMAL_CAMERA, REGDB_VISIBLE_CAMERA
from harness.data.rendered.halves import plan_regdb, training_half
from harness.data.rendered.people import draw_person, wardrobe_in
from harness.errors import SettingsError

TINY = PAIRED_SIZES["tiny"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered") / "Reg DB"
    write_rendered(root, layout="regdb", size="tiny", seed=3)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# the tree


def test_the_tree_is_the_layout_of_regdb(tiny):
    assert sorted(path.name for path in tiny.iterdir()) == ["Thermal", "Visible", "idx"]
    assert len(list((tiny / "idx").glob("*.txt"))) == 40
    assert len(list((tiny / "Visible").glob("*/*.bmp"))) == len(list((tiny / "Thermal").glob("*/*.bmp"))) == 36
    line = (tiny / "idx" / "train_thermal_1.txt").read_text().splitlines()[0]
    path, label = line.split(" ")
    assert (tiny / path).is_file()
    assert label == "0"


@pytest.mark.parametrize("trial", TRIALS)
def test_the_reader_finds_two_disjoint_halves_in_every_trial(tiny, trial):
    halves = []
    for split in ("train", "test"):
        manifest = read_regdb(tiny, split=split, trial=trial)
        assert len(manifest) == 36
        assert (manifest.modality == 0).sum() == 18
        assert np.bincount(manifest.identity).tolist() == [6] * 6
        people = [int(path.split("/")[1]) for path in manifest.paths]
        # A label stands for one person, in both modalities.
        assert len(set(zip(manifest.identity.tolist(), people, strict=True))) == 6
        halves.append(set(people))
    assert halves[0] | halves[1] == set(range(1, 13))
    assert not halves[0] & halves[1]
    assert halves[0] == training_half(TINY, seed=3, trial=trial)


@pytest.mark.parametrize("size", PAIRED_SIZES)
def test_trials_and_seeds_draw_different_halves(size):
    halves = [training_half(PAIRED_SIZES[size], seed=seed, trial=trial) for seed in (0, 1) for trial in TRIALS]
    assert len(set(halves)) >= 18
    assert {len(half) for half in halves} == {PAIRED_SIZES[size].identities // 2}


def test_the_full_size_has_the_published_counts_of_regdb():
    plan = plan_regdb(size="full", seed=0)
    assert plan.images == 8240
    assert len({cell.identity for cell in plan.cells}) == 412
    assert {cell.images for cell in plan.cells} == {10}


def test_images_on_disk_are_those_rendered(tiny):
    for folder, letter, camera in (("Visible", "v", REGDB_VISIBLE_CAMERA), ("Thermal", "t", REGDB_THERMAL_CAMERA)):
        with Image.open(tiny / folder / "5" / f"{letter}_00002_5.bmp") as image:
            assert image.mode == ("RGB" if folder == "Visible" else "L")
            stored = np.asarray(image.convert("RGB"))
        expected = render_image(3, identity=5, camera=camera, number=2, size=TINY.image_size)
        assert np.array_equal(stored, expected)


def test_rendering_twice_gives_the_same_bytes_with_any_number_of_workers(tiny, tmp_path):
    for workers in (1, 2):
        root = tmp_path / str(workers)
        write_rendered(root, layout="regdb", size="tiny", seed=3, workers=workers)
        assert contents(root) == contents(tiny)


def test_it_is_cached_beside_the_other_layout(tiny, tmp_path):
    root = ensure_rendered(size="tiny", seed=3, layout="regdb", cache_root=tmp_path)
    other = ensure_rendered(size="tiny", seed=3, cache_root=tmp_path)
    assert root != other
    assert (other / "cam1").is_dir()
    assert contents(root) == contents(tiny)
    assert ensure_rendered(size="tiny", seed=3, layout="regdb", cache_root=tmp_path) == root
    described = json.loads((root / "idx" / "rendered.json").read_text())
    assert described == {"layout": "regdb", "renderer_version": RENDERER_VERSION, "seed": 3, "size": "tiny"}


def test_an_unknown_layout_is_named(tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'regdb'"):
        write_rendered(tmp_path / "d", layout="regdp", size="tiny")


# how it looks


def test_the_person_is_warmer_than_what_is_around():
    for identity in range(1, 13):
        image = render_image(0, identity=identity, camera=REGDB_THERMAL_CAMERA, number=1, size=(64, 32))[..., 0]
        around = np.concatenate([image[:8, :4].ravel(), image[:8, -4:].ravel()])
        assert image[24:32, 14:18].mean() > around.mean() + 40


def test_thermal_images_are_grey_and_hold_less_texture_than_near_infrared_ones():
    def texture(camera: int) -> float:
        images = [render_image(0, identity=i, camera=camera, number=1, size=(128, 64))[..., 0] for i in range(1, 25)]
        inside = np.stack(images).astype(float)[:, 45:65, 28:36]
        return float(inside.mean(axis=2).std(axis=1).mean())

    assert texture(REGDB_THERMAL_CAMERA) < 0.6 * min(texture(3), texture(6))
    image = render_image(0, identity=1, camera=REGDB_THERMAL_CAMERA, number=1, size=(64, 32))
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_skin_is_warmest_then_cloth_then_what_is_carried(seed):
    person = draw_person(np.random.default_rng(seed))
    warmth = wardrobe_in("thermal", person)
    cloths = np.concatenate([warmth.upper, warmth.lower])
    assert warmth.skin > warmth.hair
    assert warmth.skin > cloths.max()
    assert cloths.min() > warmth.bag
    for name in ("upper", "lower"):
        printed = np.ptp(getattr(warmth, name))
        assert printed <= 0.3 * np.ptp(getattr(person.infrared, name)) + 1e-6


def test_a_thermal_picture_draws_the_same_person_every_time():
    person = draw_person(np.random.default_rng(0))
    first, again = (wardrobe_in("thermal", person) for _ in range(2))
    assert np.array_equal(first.upper, again.upper)
    assert wardrobe_in("infrared", person) is person.infrared
    assert wardrobe_in("visible", person) is person.visible


def test_the_other_layouts_images_are_those_of_renderer_version_1():
    """Coarse on purpose: another processor may round single pixels differently."""
    assert RENDERER_VERSION == 1
    images = [
        render_image(seed, identity=identity, camera=camera, number=2, size=(64, 32)).astype(int) // 64
        for seed, identity, camera in ((0, 1, 1), (0, 7, 3), (9, 4, 5), (9, 30, 6))
    ]
    assert [int(image.sum()) for image in images] == pytest.approx([10706, 5970, 5889, 7134], abs=3)


def test_halves_are_always_the_same():
    listed = ",".join(map(str, sorted(training_half(PAIRED_SIZES["full"], seed=0, trial=1))))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == "6a268620c281a6cf"
