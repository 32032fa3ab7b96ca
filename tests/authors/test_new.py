"""``harness new``: what it writes, what it refuses, and that what it writes installs and trains."""

from __future__ import annotations

import ast
import errno
import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.cli import main
from harness.plugins import load
from harness.providers import HOOK_API_VERSION

WHOLE = "clusterer,refiner,memory,loss"
TINY = ("--set=data.size=tiny", "--epochs=2", "--iterations=2", "--set=evaluation.trials=1", "--threads=1",
        "--device=cpu", "--precision=fp32")  # fmt: skip


@pytest.fixture
def new(tmp_path: Path, monkeypatch, capsys):
    """``harness new ...`` in an empty folder: what it printed, with its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, answers: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "new", *words])
        monkeypatch.setattr("sys.stdin", io.StringIO(answers))
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
        shown = capsys.readouterr()
        return int(code), shown.out + shown.err

    yield call
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def plugin_in(folder: Path, monkeypatch) -> Any:
    """The plugin that a written package offers, as if the package were installed."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, target),) = project["entry-points"]["harness.plugins"].items()
    module, _, attribute = target.partition(":")
    monkeypatch.syspath_prepend(folder)
    return load(name, getattr(__import__(module), attribute))


def lines(folder: Path, *patterns: str) -> int:
    """Lines of all files that match."""
    return sum(len(path.read_text().splitlines()) for pattern in patterns for path in folder.glob(pattern))


class TestWritten:
    def test_existing_parts_under_one_name_are_two_files_of_at_most_sixty_lines(self, new, tmp_path: Path) -> None:
        assert new("mixed", "--roles", "none", "--use", "pgm,tsmem")[0] == 0
        folder = tmp_path / "harness-mixed"
        assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
            "pyproject.toml", "harness_mixed/__init__.py", "README.md", "tests/test_mixed.py",
        }  # fmt: skip
        assert lines(folder, "pyproject.toml", "harness_mixed/*.py") <= 60

    def test_a_new_memory_and_loss_are_at_most_two_hundred_lines(self, new, tmp_path: Path) -> None:
        assert new("both", "--roles", "memory,loss")[0] == 0
        assert lines(tmp_path / "harness-both", "pyproject.toml", "*/*.py") <= 200

    @pytest.mark.parametrize(
        ("roles", "use", "offers"),
        [
            ("none", "pgm,tsmem", {"pgm", "tsmem", "contrast", "cross-contrast"}),
            ("none", "chcr,tsmem", {"tone", "chc", "ipr", "tsmem", "contrast", "modality-contrast"}),
            ("none", "baseline,pgm", {"modality-dbscan", "cluster-memory", "pgm", "contrast", "cross-contrast"}),
            ("loss", "baseline", {"modality-dbscan", "cluster-memory", "contrast", "odd-one"}),
            ("memory,loss", "pgm", {"pgm", "odd-one-memory", "contrast", "cross-contrast", "odd-one-loss"}),
            (WHOLE, "none", {"odd-one-clusterer", "odd-one-refiner", "odd-one-memory", "odd-one-loss"}),
        ],
    )  # fmt: skip
    def test_the_plugin_offers_its_own_parts_and_those_it_takes(
        self, new, tmp_path: Path, monkeypatch, roles: str, use: str, offers: set[str]
    ) -> None:
        out = tmp_path / "out"
        code, shown = new("odd-one", "--roles", roles, "--use", use, "--out", str(out), "--summary", "It's odd.")
        assert code == 0, shown
        found = plugin_in(out, monkeypatch)
        assert found.problem is None
        assert {provider.name for provider in found.providers} == offers
        assert found.card.summary == "It's odd."
        assert found.card.api == HOOK_API_VERSION
        assert f"api={HOOK_API_VERSION})" in (out / "harness_odd_one" / "__init__.py").read_text()
        for provider in found.providers:
            assert callable(provider.load())
            assert all(field.description for field in provider.options.model_fields.values())
            card = (out / "README.md").read_text()
            for option, field in provider.options.model_fields.items() if "odd-one" in provider.name else ():
                assert f"| `{provider.name}.{option}` | {field.default}" in card

    def test_it_takes_the_recipe_of_the_first_plugin_that_it_uses(self, new, tmp_path: Path, monkeypatch) -> None:
        new("recipe-of-pgm", "--use", "tsmem,pgm,baseline")
        found = plugin_in(tmp_path / "harness-recipe-of-pgm", monkeypatch)
        assert [stage.name for stage in found.recipe("rendered").stages] == ["intra", "cross"]

    def test_one_slot_that_two_used_plugins_fill_is_chosen_by_name(self, new, tmp_path: Path, monkeypatch) -> None:
        words = ("chosen", "--roles", "loss", "--use", "baseline,chcr")
        code, shown = new(*words)
        assert (code, "--clusterer baseline or --clusterer chcr" in shown) == (2, True)
        assert not (tmp_path / "harness-chosen").exists()
        assert new(*words, "--clusterer", "chcr", "--memory", "baseline")[0] == 0
        names = {provider.name for provider in plugin_in(tmp_path / "harness-chosen", monkeypatch).providers}
        assert {"chc", "cluster-memory"} <= names
        assert not {"modality-dbscan", "joint-memory"} & names

    @pytest.mark.parametrize("roles", ["none", "loss", "memory,loss", WHOLE])
    def test_what_is_written_is_formatted_and_imports_only_public_names(self, new, tmp_path: Path, roles: str) -> None:
        new("tidy", "--roles", roles, "--use", "pgm,chcr")
        folder = tmp_path / "harness-tidy"
        ruff = [sys.executable, "-m", "ruff"]
        for command in (["format", "--check"], ["check", "--select=E,F,I,B,UP,C4,SIM,RUF"]):
            whole = [*ruff, *command, "--isolated", "--no-cache", "--line-length=120", "."]
            done = subprocess.run(whole, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "harness":
                    assert node.module in ("harness", "harness.testing")
                    public = harness.__all__ if node.module == "harness" else ["parametrize_with_checks"]
                    assert {alias.name for alias in node.names} <= set(public)

    def test_the_module_that_says_what_there_is_loads_nothing_heavy(self, new, tmp_path: Path) -> None:
        new("light", "--roles", WHOLE)
        code = "import sys, harness_light; sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "harness-light", check=False)
        assert done.returncode == 0


class TestAsked:
    def test_without_flags_it_asks_and_takes_the_answers(self, new, tmp_path: Path, monkeypatch) -> None:
        code, shown = new("asked", answers="memory\npgm\nA memory of mine.\n")
        assert code == 0
        assert "Roles to write parts of its own for" in shown
        found = plugin_in(tmp_path / "harness-asked", monkeypatch)
        assert found.card.summary == "A memory of mine."
        assert {"asked", "pgm", "cross-contrast"} <= {provider.name for provider in found.providers}

    def test_no_answer_is_told_and_nothing_is_written(self, new, tmp_path: Path) -> None:
        code, shown = new("unanswered", answers="memory\n")
        assert (code, "nothing was written. --no-input takes the defaults" in shown) == (2, True)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("flags", [("--no-input",), ("--roles", "loss"), ("--use", "baseline")])
    def test_with_a_flag_it_asks_nothing(self, new, flags: tuple[str, ...]) -> None:
        code, shown = new("unasked", *flags)
        assert (code, "Roles" in shown) == (0, False)

    def test_it_says_what_to_do_next(self, new) -> None:
        shown = new("next-steps", "--no-input")[1]
        for command in ("pip install -e harness-next-steps", "harness plugins next-steps", "--plugins next-steps"):
            assert command in shown


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("My-Method",), "cannot name a plugin.*For example: my-method"),
            (("my_method",), "cannot name a plugin.*For example: my-method"),
            (("my--method",), "cannot name a plugin"),
            (("-mine",), "No such option"),
            (("2stage",), "cannot name a plugin.*For example: stage"),
            (("../mine",), "cannot name a plugin.*For example: mine"),
            (("méthode",), "cannot name a plugin"),
            (("m" * 33,), "at most 32 characters"),
            (("pgm",), "'pgm' is in use: it is a plugin of vireid-harness"),
            (("modality-dbscan",), "in use: the plugin 'baseline' has a clusterer of that name"),
            (("recipe",), "in use: it is a section of the settings"),
            (("plugin-card",), "class would be called 'PluginCard'"),
            (("cluster", "--roles", "memory,loss"), "memory would be called 'cluster-memory'.*in use.*'baseline'"),
            (("baseline2", "--roles", "looss"), "no role 'looss' to write a part for. Did you mean 'loss'"),
            (("baseline2", "--roles", "transform"), "no role 'transform'"),
            (("baseline2", "--roles", "none", "--use", "none"), "nothing to write: name --roles"),
            (("baseline2", "--use", "pgmm"), "no plugin 'pgmm'. Did you mean 'pgm'"),
            (("baseline2", "--summary", 'A "quoted" one.'), "one line of at most 72 characters"),
            (("baseline2", "--summary", "Two\nlines."), "one line of at most 72 characters"),
            (("baseline2", "--summary", "{{ 7 * 7 }}"), "one line of at most 72 characters"),
            (("baseline2", "--summary", "x" * 73), "one line of at most 72 characters"),
            (("baseline2", "--summary", ""), "one line of at most 72 characters"),
        ],
    )
    def test_bad_input_is_one_paragraph_and_nothing_is_written(
        self, new, tmp_path: Path, words: tuple[str, ...], complaint: str
    ) -> None:
        code, shown = new(*words, "--no-input")
        assert code == 2
        assert re.search(complaint, shown, flags=re.DOTALL), shown
        assert list(tmp_path.iterdir()) == []

    def test_a_name_that_can_be_imported_already(self, new, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "harness_taken.py").touch()
        monkeypatch.syspath_prepend(tmp_path / "elsewhere")
        code, shown = new("taken", "--no-input")
        assert (code, "'harness_taken', and a module of that name can be imported" in shown) == (2, True)

    def test_a_disk_that_fills_leaves_no_half_of_a_package(self, new, tmp_path: Path, monkeypatch) -> None:
        written: list[Path] = []

        def until_full(path: Path, *_: object, **__: object) -> None:
            if len(written) == 2:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            written.append(path)

        monkeypatch.setattr(Path, "write_text", until_full)
        code, shown = new("mine", "--no-input")
        assert (code, "No space left on device" in shown, len(written)) == (1, True, 2)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("what", ["folder", "file", "broken link"])
    def test_what_is_there_already_is_never_overwritten(self, new, tmp_path: Path, what: str) -> None:
        there = tmp_path / "harness-mine"
        if what == "folder":
            there.mkdir()
            (there / "notes.txt").write_text("mine")
        elif what == "file":
            there.write_text("mine")
        else:
            there.symlink_to(tmp_path / "nowhere")
        code, shown = new("mine", "--no-input")
        assert (code, "is there already, and nothing is overwritten" in shown) == (2, True)
        if what == "folder":
            assert [path.name for path in there.iterdir()] == ["notes.txt"]
        assert new("mine", "--no-input", "--out", "other")[0] == 0


@pytest.mark.parametrize(("words", "loaded"), [(["--help"], []), (["light", "--no-input"], ["jinja2"])])
def test_it_loads_nothing_heavy(tmp_path: Path, words: list[str], loaded: list[str]) -> None:
    code = (
        "import sys; from harness.cli import cli\n"
        "cli.main(['new', *sys.argv[1:]], standalone_mode=False)\n"
        "print('LOADED', sorted({'torch', 'jinja2', 'numpy', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"LOADED {loaded}"


@pytest.mark.slow
def test_what_is_written_installs_keeps_the_contracts_and_trains_at_once(environment, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    packages = {
        "just-loss": ("loss", "baseline", {"just-loss", "contrast"}),
        "mixed": ("none", "pgm,tsmem", {"pgm", "tsmem", "cross-contrast"}),
        "all-own": (WHOLE, "baseline", {"all-own-clusterer", "all-own-refiner", "all-own-memory", "all-own-loss"}),
    }
    for name, (roles, use, _) in packages.items():
        environment.run("harness", "new", name, "--roles", roles, "--use", use, at=work)
        environment.run("python", "-m", "pip", "install", f"./harness-{name}", at=work)
    listed = environment.run("harness", "plugins", at=work)
    for name, (_, _, own) in packages.items():
        assert name in listed
        environment.run("harness", "run", "--plugins", name, "--name", name, *TINY, at=work)
        record = json.loads((work / "runs" / name / "record.json").read_text())
        assert own <= {part["name"] for part in record["parts"]}
        assert {part["plugin"] for part in record["parts"]} <= {name, "baseline"}
        tested = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"harness-{name}", at=work)
        assert " passed" in tested
    assert "broken" not in listed
