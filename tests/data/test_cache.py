"""The decoded image cache."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import cache as cache_module
from harness.data.cache import build_cache
from harness.data.manifest import Manifest
from harness.errors import DataError

SIZE = (12, 6)


def photograph(seed: int, *, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (20, 14, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture
def manifest(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    paths = tuple(f"{number:02d}.jpg" for number in range(9))
    for number, path in enumerate(paths):
        photograph(number, mode="L" if number == 3 else "RGB").save(root / path)
    zeros = np.zeros(9, np.int64)
    return Manifest(root=root, paths=paths, modality=zeros, camera=zeros + 1, identity=zeros)


def build(manifest, tmp_path, **changes):
    return build_cache(manifest, **{"size": SIZE, "cache_dir": tmp_path / "cache", **changes})


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos", "bilinear"])
def test_cached_pixels_are_what_pillow_gives(manifest, tmp_path, interpolation):
    cache = build(manifest, tmp_path, interpolation=interpolation)
    assert len(cache) == 9
    assert cache.size == SIZE
    for row in range(9):
        image = Image.open(manifest.file(row)).convert("RGB")
        expected = image.resize((SIZE[1], SIZE[0]), Image.Resampling[interpolation.upper()])
        np.testing.assert_array_equal(cache.pixels[row].transpose(1, 2, 0), np.asarray(expected))


def test_gather_copies_rows_in_the_order_asked_for(manifest, tmp_path):
    cache = build(manifest, tmp_path)
    images = cache.gather(torch.tensor([7, 0, 7]))
    assert images.dtype == torch.uint8
    assert images.shape == (3, 3, *SIZE)
    assert torch.equal(images[0], images[2])
    np.testing.assert_array_equal(images[1].numpy(), cache.pixels[0])
    images.zero_()
    assert cache.pixels[7].any()


@pytest.mark.parametrize("index", [[-1], [9]])
def test_gather_refuses_rows_that_are_not_there(manifest, tmp_path, index):
    with pytest.raises(IndexError, match=r"outside 0\.\.8"):
        build(manifest, tmp_path).gather(torch.tensor(index))


def test_a_single_channel_image_becomes_three_equal_channels(manifest, tmp_path):
    pixels = build(manifest, tmp_path).pixels[3]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    np.testing.assert_array_equal(pixels[0], pixels[2])


def test_a_fitting_cache_is_reused_without_decoding(manifest, tmp_path):
    first = build(manifest, tmp_path)
    steps = []
    second = build(manifest, tmp_path, progress=lambda done, total: steps.append(done))
    assert steps == []
    assert second.fingerprint == first.fingerprint
    assert second.file == first.file


def test_progress_counts_every_image(manifest, tmp_path):
    steps = []
    build(manifest, tmp_path, progress=lambda done, total: steps.append((done, total)), workers=3)
    assert steps == [(done, 9) for done in range(1, 10)]


def test_a_changed_image_is_decoded_again_even_at_the_same_size_in_bytes(manifest, tmp_path):
    Image.new("RGB", (5, 5), (10, 20, 30)).save(manifest.root / "04.bmp")
    changed = manifest.take(range(9))
    changed = Manifest(
        root=changed.root,
        paths=("04.bmp", *changed.paths[1:]),
        modality=changed.modality,
        camera=changed.camera,
        identity=changed.identity,
    )
    first = build(changed, tmp_path)
    before = (manifest.root / "04.bmp").stat()
    Image.new("RGB", (5, 5), (99, 20, 30)).save(manifest.root / "04.bmp")
    os.utime(manifest.root / "04.bmp", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = build(changed, tmp_path)
    assert second.pixels[0, 0, 0, 0] == 99
    assert second.dataset_fingerprint == first.dataset_fingerprint
    assert second.fingerprint != first.fingerprint


def test_size_interpolation_and_order_have_caches_of_their_own(manifest, tmp_path):
    caches = [
        build(manifest, tmp_path),
        build(manifest, tmp_path, size=(6, 12)),
        build(manifest, tmp_path, interpolation="lanczos"),
        build(manifest.take(range(8, -1, -1)), tmp_path),
    ]
    assert len({cache.file for cache in caches}) == 4
    assert len({cache.fingerprint for cache in caches}) == 4
    np.testing.assert_array_equal(caches[3].pixels[0], caches[0].pixels[8])


def test_the_fingerprint_does_not_depend_on_where_images_or_cache_lie(manifest, tmp_path):
    first = build(manifest, tmp_path)
    moved = tmp_path / "moved"
    manifest.root.rename(moved)
    manifest = Manifest(
        root=moved,
        paths=manifest.paths,
        modality=manifest.modality,
        camera=manifest.camera,
        identity=manifest.identity,
    )
    assert build(manifest, tmp_path, cache_dir=tmp_path / "other").fingerprint == first.fingerprint


@pytest.mark.parametrize("harm", ["no description", "garbage description", "short array", "other version"])
def test_a_harmed_cache_is_built_again(manifest, tmp_path, harm):
    first = build(manifest, tmp_path)
    expected, sidecar = first.fingerprint, first.file.with_suffix(".json")
    if harm == "no description":
        sidecar.unlink()
    elif harm == "garbage description":
        sidecar.write_text("{")
    elif harm == "short array":
        first.file.unlink()
        np.save(first.file, np.zeros((2, 3, *SIZE), np.uint8))
    else:
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "version": -1}))
    steps = []
    again = build(manifest, tmp_path, progress=lambda done, total: steps.append(done))
    assert steps[-1] == 9
    assert again.fingerprint == expected


def test_every_damaged_image_is_named_at_once_and_no_cache_is_left(manifest, tmp_path):
    whole = manifest.file(1).read_bytes()
    manifest.file(1).write_bytes(whole[:-60])
    manifest.file(4).write_text("not an image")
    manifest.file(6).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        build(manifest, tmp_path)
    message = str(caught.value)
    assert message.startswith("3 of 9 images cannot be decoded")
    for row in (1, 4, 6):
        assert str(manifest.file(row)) in message
    assert str(manifest.file(0)) not in message
    assert "truncated" in message
    assert "not an image" in message
    assert "empty file" in message
    left = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert left <= {".lock"}


def test_a_long_list_of_damaged_images_is_cut_short(tmp_path):
    paths = tuple(f"{number:02d}.jpg" for number in range(27))
    for path in paths:
        (tmp_path / path).write_text("x")
    zeros = np.zeros(27, np.int64)
    manifest = Manifest(root=tmp_path, paths=paths, modality=zeros, camera=zeros, identity=zeros)
    with pytest.raises(DataError, match=r"27 of 27.*19\.jpg.*and 7 more") as caught:
        build(manifest, tmp_path)
    assert "20.jpg" not in str(caught.value)


def test_an_interrupted_build_leaves_nothing_that_is_taken_for_a_cache(manifest, tmp_path):
    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(manifest, tmp_path, progress=interrupt)
    steps = []
    assert len(build(manifest, tmp_path, progress=lambda done, total: steps.append(done))) == 9
    assert len(steps) == 9


def test_a_listed_file_that_is_gone_is_named(manifest, tmp_path):
    manifest.file(2).unlink()
    with pytest.raises(DataError, match=r"02\.jpg was listed but cannot be read"):
        build(manifest, tmp_path)


def test_an_empty_manifest_is_refused(manifest, tmp_path):
    with pytest.raises(DataError, match="empty"):
        build(manifest.take([]), tmp_path)


def test_a_full_disk_is_noticed_before_anything_is_written(manifest, tmp_path, monkeypatch):
    usage = cache_module.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match="Make room"):
        build(manifest, tmp_path)


def test_a_cache_folder_that_cannot_be_written_is_named(manifest, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="taken cannot be written to"):
        build(manifest, tmp_path, cache_dir=tmp_path / "taken")


class TestWithoutACache:
    def open(self, manifest, tmp_path, **changes):
        return cache_module.open_files(manifest, **{"size": SIZE, "cache_dir": tmp_path / "cache", **changes})

    @pytest.mark.parametrize("interpolation", ["bicubic", "lanczos", "bilinear"])
    def test_pixels_and_fingerprint_are_those_of_the_cache(self, manifest, tmp_path, interpolation):
        cache = build(manifest, tmp_path, interpolation=interpolation)
        files = self.open(manifest, tmp_path, interpolation=interpolation)
        index = torch.tensor([7, 0, 3, 7, 8])
        assert files.gather(index).equal(cache.gather(index))
        assert files.gather(index[:0]).shape == (0, 3, *SIZE)
        assert (len(files), files.size, files.fingerprint) == (len(cache), cache.size, cache.fingerprint)

    def test_images_are_decoded_once_for_the_fingerprint_and_not_again(self, manifest, tmp_path):
        steps = []
        first = self.open(manifest, tmp_path, progress=lambda done, total: steps.append((done, total)))
        assert steps == [(9, 9)]
        again = self.open(manifest, tmp_path, progress=lambda done, total: steps.append((done, total)))
        assert steps == [(9, 9)]
        assert again.fingerprint == first.fingerprint
        assert not list((tmp_path / "cache").glob("*.npy"))

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"pixel_digest": 3}', b"\xff"])
    def test_a_damaged_digest_is_made_again(self, manifest, tmp_path, content):
        first = self.open(manifest, tmp_path)
        (kept,) = (tmp_path / "cache").glob("*.digest.json")
        kept.write_bytes(content)
        assert self.open(manifest, tmp_path).fingerprint == first.fingerprint

    def test_damaged_images_are_refused_at_the_start_and_later(self, manifest, tmp_path):
        files = self.open(manifest, tmp_path)
        manifest.file(4).write_bytes(b"")
        with pytest.raises(DataError, match=r"04\.jpg \(empty file\)"):
            files.gather(torch.tensor([3, 4]))
        with pytest.raises(DataError, match=r"04\.jpg \(empty file\)"):
            self.open(manifest, tmp_path)

    @pytest.mark.parametrize("index", [[-1], [9]])
    def test_rows_that_are_not_there_are_refused(self, manifest, tmp_path, index):
        with pytest.raises(IndexError, match=r"outside 0\.\.8"):
            self.open(manifest, tmp_path).gather(torch.tensor(index))
