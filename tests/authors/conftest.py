"""A virtual environment beside this one, as an author of a plugin has it."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@dataclass(frozen=True)
class Environment:
    """It sees the harness and all that this environment has; what is installed into it is in its own folder."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """Those of an activated environment, in which pip asks no index and tests load no plugins of other projects."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return {**os.environ, **_OFFLINE, "PATH": path, "VIRTUAL_ENV": str(self.folder), "COLUMNS": "200"}

    def run(self, *command: object, at: Path) -> str:
        """What the command prints; it must succeed."""
        done = self.attempt(*command, at=at)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(self, *command: object, at: Path) -> subprocess.CompletedProcess[str]:
        """The finished command, whether it succeeded or not."""
        words = [str(self.folder / "bin" / str(command[0])), *map(str, command[1:])]
        return subprocess.run(words, cwd=at, env=self.variables, capture_output=True, text=True, check=False)


@pytest.fixture
def environment(tiny: Path, tmp_path: Path) -> Environment:
    """A fresh one, with ``python``, ``python -m pip`` and ``harness``; the tiny dataset is drawn already."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    own = next(folder.glob("lib/python*/site-packages"))
    # The harness may be installed as an editable: addsitedir reads its .pth files too, which PYTHONPATH would not.
    (own / "beside.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    script = folder / "bin" / "harness"
    script.write_text(f"#!{folder / 'bin' / 'python'}\nfrom harness.cli import main\n\nmain()\n")
    script.chmod(0o755)
    return Environment(folder)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY
