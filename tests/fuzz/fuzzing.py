"""Damaged copies of valid files: bytes flipped, cut, repeated, inserted, numbers replaced by extreme ones; and what
comes of reading them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from harness.errors import HarnessError

_EXTREMES = [
    *(bytes([value]) * width for value in (0, 0x7F, 0x80, 0xFF) for width in (1, 2, 4, 8)),
    b"\x00\x00\x00\x7f",
    b"\x00\x00\xc0\x7f",  # NaN as float32
    b"\x1b[31m",
    b"\r\n",
    b"\xe2\x80\xae",  # right-to-left override
]


def outcome(attempt: Callable[[], Any]) -> tuple[Any, HarnessError | None]:
    """What ``attempt`` gives, or the error that a user is meant to read; any other one is a bug and passes."""
    try:
        return attempt(), None
    except HarnessError as error:
        return None, error


_CHANGES = ["overwrite", "flip", "insert", "cut", "repeat", "end"]

# Small numbers are drawn most often; their digests lie all over the file.
_anywhere = st.integers(0, 2**16 - 1).map(lambda number: zlib.crc32(number.to_bytes(2, "little")))


@st.composite
def mutations_of(draw: st.DrawFn, valid: bytes, *, words: Sequence[bytes] = (), resized: bool = True) -> bytes:
    """``valid`` after one to five changes, of its length too if ``resized``; ``words`` are used beside the extremes."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 5))):
        start = draw(_anywhere) % (len(content) + 1)
        length = draw(st.integers(0, 16))
        piece = draw(st.one_of(st.sampled_from([*_EXTREMES, *words]), st.binary(max_size=8)))
        match draw(st.sampled_from(_CHANGES if resized else _CHANGES[:2])):
            case "overwrite":
                content[start : start + len(piece)] = piece
            case "insert":
                content[start:start] = piece
            case "cut":
                del content[start : start + length]
            case "repeat":
                content[start:start] = content[start : start + length]
            case "end":
                del content[start:]
            case "flip" if start < len(content):
                content[start] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def files_like(*valid: bytes, words: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Mutations of one of the valid files, mostly, and arbitrary bytes."""
    mutated = [mutations_of(content, words=words) for content in valid]
    return st.one_of(*mutated, *mutated, *mutated, st.binary(max_size=200))
