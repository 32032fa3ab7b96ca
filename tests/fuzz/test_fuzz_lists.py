"""Identity lists of SYSU-MM01 and image lists of RegDB: read, with every image inside the tree, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.regdb import read_list, read_regdb
from harness.data.sysu_mm01 import read_identities, read_sysu_mm01
from tests.data.trees import write_regdb, write_sysu_mm01
from tests.fuzz.fuzzing import files_like, outcome

NUMBERS = [b",", b"9" * 5000, b"-1", b"0x10", "٣".encode(), b"..", b"10000", b"\xef\xbb\xbf", b"\xff\xfe"]
PATHS = [
    *(b"../", b"/etc/passwd 0", b"C:\\x 1", b"~/", b"\\..\\", b"\x00", b"\x1b]0;x\x07", b"x" * 5000, b"Visible/../"),
    *("\u2028".encode(), "\x85".encode(), b"\xed\xa0\x80", b" 999999999999", b"Visible/1/v0.bmp 0\n", b"\xef\xbb\xbf"),
]


@pytest.fixture(scope="module")
def sysu(tmp_path_factory) -> Path:
    return write_sysu_mm01(tmp_path_factory.mktemp("trees") / "sysu", images=1)


@pytest.fixture(scope="module")
def regdb(tmp_path_factory) -> Path:
    return write_regdb(tmp_path_factory.mktemp("trees") / "regdb", images=1)


def _inside(root: Path, manifest) -> None:
    for row in range(len(manifest)):
        assert manifest.file(row).resolve().is_relative_to(root.resolve())
        assert manifest.file(row).is_file()


def test_a_damaged_identity_list_is_read_or_refused(sysu, fuzz, refusing):
    path = sysu / "exp" / "train_id.txt"
    valid = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = refusing(path, lambda: read_identities(sysu, "train"))
        if found is None:
            return
        assert len(set(found)) == len(found)
        manifest, error = outcome(lambda: read_sysu_mm01(sysu, split="train"))
        if error is None:
            _inside(sysu, manifest)
        else:  # identities without images, or of another split
            assert "train_id.txt" in str(error)

    try:
        fuzz(files_like(valid, b"1,2,5\r\n", words=NUMBERS), check)
    finally:
        path.write_bytes(valid)


def test_a_damaged_image_list_is_read_or_refused(regdb, fuzz, refusing):
    path = regdb / "idx" / "train_visible_1.txt"
    valid = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = refusing(path, lambda: read_list(path, modality="visible"))
        if found is None:
            return
        assert all(not entry.path.startswith("/") and ".." not in entry.path.split("/") for entry in found)
        manifest, error = outcome(lambda: read_regdb(regdb, split="train", trial=1))
        if error is None:
            _inside(regdb, manifest)
        else:  # images that are not there, labels that do not fit the other lists
            assert str(regdb) in str(error)

    try:
        fuzz(files_like(valid, valid.replace(b"\n", b"\r\n"), words=PATHS), check)
    finally:
        path.write_bytes(valid)
