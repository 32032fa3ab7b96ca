"""The tutorial, followed to the letter: its commands run, its files are written, its table has the row."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_OUTPUT = "```text\n"
_SMALL = ("--set", "data.size=tiny", "--epochs", "2", "--iterations", "2")
"""What makes a run of the tutorial one of seconds; nothing else in its commands is changed."""


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "first-method.md").read_text(encoding="utf-8")


def commands(block: str) -> list[list[str]]:
    """The commands of a console block, as words; every line of it is one."""
    lines = block.splitlines()
    assert all(line.startswith("$ ") for line in lines), block
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


def shortened(words: list[str]) -> list[str]:
    """A run on the smallest set, unless the tutorial itself says so."""
    return [*words, *_SMALL] if words[:2] == ["harness", "run"] and "data.size=tiny" not in words else words


def test_every_block_says_what_it_is(text: str) -> None:
    assert text.count("```") == 2 * (len(_BLOCK.findall(text)) + text.count(_OUTPUT))
    for kind, block in _BLOCK.findall(text):
        if kind == "python":
            assert re.fullmatch(r"# harness-align/\S+\.py", block.splitlines()[0])
            compile(block, "block", "exec")
        else:
            assert {words[0] for words in commands(block)} <= {"harness", "python"}


@pytest.mark.slow
def test_following_it_puts_a_new_loss_into_a_table(text: str, environment, tmp_path: Path) -> None:
    work = tmp_path / "empty"
    work.mkdir()
    shown = {}
    for kind, block in _BLOCK.findall(text):
        if kind == "python":
            path, _, code = block.removeprefix("# ").partition("\n")
            assert (work / path).exists(), f"{path} replaces nothing that `harness new` wrote"
            (work / path).write_text(code, encoding="utf-8")
            continue
        for words in commands(block):
            # As a user's shell does: answers to questions would be read from a terminal, and there are none.
            done = subprocess.run(
                shortened(words),
                cwd=work,
                env=environment.variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
            shown[" ".join(words)] = done.stdout
    assert "loss: align (align)" in shown[next(command for command in shown if "--name first-try" in command)]
    final = shown["harness run --plugins align --seeds 0,1"]
    assert re.search(r"^epoch 2/2 .* align \d+\.\d{3}", final, flags=re.MULTILINE)
    rows = [line for line in shown["harness leaderboard show runs/"].splitlines() if line.startswith("| align")]
    assert rows
