from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def harness(tiny: Path, tmp_path: Path, monkeypatch, capsys) -> Callable[..., Result]:
    """``harness("run", ...)`` as the console script runs it, in a folder of this test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        return Result(code, *capsys.readouterr())

    return call
