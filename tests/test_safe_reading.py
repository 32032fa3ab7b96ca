"""Reading a file or listing plugins runs nobody's code; sizes are bounded before anything is read."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

import harness
from harness.engine.run import plan_run, run_planned
from harness.errors import DataError, HarnessError, SettingsError
from harness.plugins import Catalogue
from harness.reading import parse_json, printable, read_text, require_plain, shortened, unpacked_bound
from harness.recipe import Recipe, Stage
from harness.settings import apply_recipe, make_settings, parse_assignments, read_settings
from toy_parts import Silent, Toy, toy_settings

ROOT = Path(harness.__file__).parent.parent
SOURCES = sorted(path for folder in ("harness", "plugins", "scripts") for path in (ROOT / folder).rglob("*.py"))

RUNS_CODE = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads"),
    *("torch.jit.load", "torch.package.PackageImporter", "pandas.read_pickle", "numpy.lib.format.read_array"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    "scipy.io.loadmat",  # allocates what a header claims: harness/evaluation/matlab.py
}
RUN_CODE_WHOLLY = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
SAFE_WITH = {
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "torch.serialization.load": ("weights_only", True),
    "torch.hub.load_state_dict_from_url": ("weights_only", True),
    ".get_state_dict": ("weights_only", True),  # torchvision's weights, which torch.hub reads
}


def unsafe(source: str) -> list[str]:
    """What in ``source`` could run code that a file holds, as ``line: name``."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    safe = {id(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call) and _is_safe(call, names)}
    found = [(node.lineno, name) for node, name in _used(tree, names) if id(node) not in safe and _is_unsafe(name)]
    shells = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _has_shell(node)]
    return [f"{line}: {name}" for line, name in sorted({*found, *((node.lineno, "shell=True") for node in shells)})]


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What each imported name stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.split(".")[0], alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _used(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and not isinstance(node.ctx, ast.Store):
            yield node, _full_name(node, names)
        elif isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, str(node.module)


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return f"{_full_name(node.value, names)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def _is_unsafe(name: str) -> bool:
    ends = any(known.startswith(".") and name.endswith(known) for known in SAFE_WITH)
    return name in RUNS_CODE or name in SAFE_WITH or ends or name.split(".")[0] in RUN_CODE_WHOLLY


def _is_safe(call: ast.Call, names: dict[str, str]) -> bool:
    name = _full_name(call.func, names)
    rule = SAFE_WITH.get(name) or SAFE_WITH.get(f".{name.rpartition('.')[2]}")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    value = given.get(rule[0]) if rule else None
    return isinstance(value, ast.Constant) and value.value is rule[1]


def _has_shell(call: ast.Call) -> bool:
    return any(
        keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        for keyword in call.keywords
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_file_reads_what_could_run_code(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


def test_every_folder_of_sources_is_looked_through() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == {"harness", "plugins", "scripts"}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "import pickle as p\nread = p.loads",
        "from pickle import loads as read\nread(content)",
        "from pickle import Unpickler\nUnpickler(file).load()",
        "import joblib",
        "from joblib import load",
        "import shelve",
        "import marshal as m",
        "import dill",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "from numpy import load\nload(path)",
        "import numpy as np\nlist(map(np.load, paths))",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load as read\nread(path, map_location='cpu')",
        "import torch\ntorch.jit.load(path)",
        "import torch.hub\ntorch.hub.load_state_dict_from_url(url, check_hash=True)",
        "weights.get_state_dict(check_hash=True)",
        "import yaml\nyaml.load(text)",
        "import pandas as pd\npd.read_pickle(path)",
        "from scipy.io import loadmat\nloadmat(path)",
        "eval(text)",
        "def f():\n    exec(text)",
        "__import__(name)",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "from subprocess import Popen\nPopen(text, shell=flag)",
    ],
)
def test_planted_samples_are_found(source: str) -> None:
    assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\ntry:\n    pass\nexcept pickle.UnpicklingError:\n    pass",
        "import numpy as np\nnp.load(path, allow_pickle=False, mmap_mode='r')",
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "class Settings:\n    compile: bool = False",
        "encoder.eval()\nre.compile(text)\njson.loads(text)\nprovider.load()",
        "model.load_state_dict(state)",
        "import subprocess\nsubprocess.run(['git', 'status'], shell=False)",
    ],
)
def test_what_is_safe_is_not_found(source: str) -> None:
    assert unsafe(source) == []


class TestTexts:
    def read(self, path: Path, most_bytes: int = 100) -> str:
        return read_text(path, "list", most_bytes=most_bytes, error=DataError, hint="It has lines.")

    def test_is_utf_8_with_or_without_a_byte_order_mark(self, tmp_path: Path) -> None:
        for raw in ("ä\r\n".encode(), b"\xef\xbb\xbf" + "ä\r\n".encode()):
            (tmp_path / "a.txt").write_bytes(raw)
            assert self.read(tmp_path / "a.txt") == "ä\r\n"

    def test_of_the_largest_size_are_read_and_one_byte_more_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"x" * 100)
        assert len(self.read(tmp_path / "a.txt")) == 100
        (tmp_path / "a.txt").write_bytes(b"x" * 101)
        with pytest.raises(DataError, match=r"list .*a\.txt is larger than 100 bytes.*It has lines\."):
            self.read(tmp_path / "a.txt")

    def test_that_are_too_large_are_refused_before_they_are_read(self, tmp_path: Path) -> None:
        with (tmp_path / "a.txt").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(DataError, match="larger than"):
            self.read(tmp_path / "a.txt")

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no endless file here")
    def test_without_end_are_refused(self) -> None:
        with pytest.raises(DataError, match="larger than"):
            self.read(Path("/dev/zero"))

    @pytest.mark.parametrize("name", ["none.txt", ".", "x" * 400, "a\0b"])
    def test_that_cannot_be_opened_are_named(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match=r"Cannot read the list .*: .*It has lines\."):
            self.read(tmp_path / name)

    def test_that_are_none_say_which_byte(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"ab\xff")
        with pytest.raises(DataError, match=r"a\.txt is not text: byte 3 is 0xff"):
            self.read(tmp_path / "a.txt")


class TestJson:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("[" * 100_000, "nested more than 32 deep"),
            ('{"a":' * 40 + "1" + "}" * 40, "nested more than 32 deep"),
            ('{"a": {"b": 1, "c": 2, "b": 3}}', "'b' is there twice"),
            ('{"a": NaN}', "a is nan"),
            ('{"a": [1, -Infinity]}', "a is -inf"),
            ('{"a": 1e999}', "a is inf"),
            ('{"a": 9223372036854775808}', "more than 64 bits"),
            ("9" * 5000, "digits"),
            ('{"a": "\\ud800"}', "no character of Unicode"),
            ('{"\\udfff": 1}', "no character of Unicode"),
            ('{"a": 1', "delimiter"),
            ("", "Expecting value"),
        ],
        ids=lambda value: value[:20],
    )
    def test_that_readers_understand_differently_is_refused(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint) as caught:
            parse_json(text)
        assert len(str(caught.value)) < 300

    def test_of_honest_depth_and_size_is_read(self) -> None:
        value = {"a": [{"b": [1, 2.5, None, True, "ä\u2028"]}], "c": -(2**63), "d": 2**63 - 1}
        assert parse_json(json.dumps(value)) == value

    def test_a_value_that_no_file_can_hold_is_refused_by_its_place(self) -> None:
        with pytest.raises(ValueError, match="date is of type date"):
            require_plain({"recipe": {"date": date(2026, 1, 1)}})


class TestSettings:
    """Found by the fuzz tests, or thought of."""

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("x = " + "[" * 10_000, r"s\.toml is not a TOML file"),
            (".".join("a" * 5000) + " = 1", "nested more than 32 deep"),
            ("seed = " + "9" * 5000, r"s\.toml is not a TOML file"),
            ("seed = 0x" + "f" * 40, "seed is a whole number of more than 64 bits"),
            ("[recipe]\nlearning_rate = inf", "learning_rate is inf, where a finite number is expected"),
            ("[options.pgm]\nweight = nan", "weight is nan"),
            ("name = 2026-01-01", "name is of type date"),
            ("seed = 1\nseed = 2", "Cannot overwrite a value"),
        ],
        ids=lambda value: value[:20],
    )
    def test_of_a_file_that_no_run_could_keep_are_refused(self, tmp_path: Path, text: str, complaint: str) -> None:
        (tmp_path / "s.toml").write_text(text)
        with pytest.raises(SettingsError, match=complaint) as caught:
            read_settings(tmp_path / "s.toml")
        assert "s.toml" in str(caught.value)

    def test_of_a_file_larger_than_any_are_refused_before_they_are_read(self, tmp_path: Path) -> None:
        with (tmp_path / "s.toml").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(SettingsError, match=r"settings file .*s\.toml is larger than 1,048,576 bytes"):
            read_settings(tmp_path / "s.toml")

    @pytest.mark.parametrize(
        ("text", "value"),
        [("1\nseed = 5", "1\nseed = 5"), ("1\n[x]", "1\n[x]"), ("[" * 5000, "[" * 5000), ("9" * 5000, "9" * 5000)],
        ids=lambda value: value[:20],
    )
    def test_a_text_that_is_no_single_value_is_kept_as_text(self, text: str, value: str) -> None:
        assert parse_assignments([f"part.option={text}"]) == {"options": {"part": {"option": value}}}

    @pytest.mark.parametrize(
        "assignment",
        ["a.b=inf", "a.b=nan", "a.b=0x" + "f" * 40, "a.b=2026-01-01", ".".join("a" * 99) + "=1", "a.b=\ud800"],
        ids=lambda value: value[:20],
    )
    def test_an_assignment_that_no_run_could_keep_is_refused(self, assignment: str) -> None:
        with pytest.raises(SettingsError, match=r"^--set 'a\."):
            parse_assignments([assignment])

    def test_a_seed_that_no_file_could_keep_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="seed is a whole number of more than 64 bits"):
            make_settings({"seed": 2**63})

    def test_a_folder_whose_name_is_no_text_is_refused(self) -> None:
        with pytest.raises(SettingsError, match=r"data_root holds .*no character of Unicode"):
            make_settings({"data_root": Path("/data/\udcff")})

    def test_epochs_cannot_be_shared_among_no_stages(self) -> None:
        recipe = Recipe(stages=(Stage(name="only", epochs=1, iterations=1),))
        with pytest.raises(SettingsError, match=r"recipe\.epochs is 3, but recipe\.stages is empty"):
            apply_recipe(recipe, {"stages": [], "epochs": 3})


def test_what_is_shown_stays_on_its_line_and_moves_no_cursor() -> None:
    assert printable("a\x1b[2J\r\n\u202eb\ud800\x9b") == r"a\x1b[2J\r\n\u202eb\ud800\x9b"
    assert printable("Körper 人物 ½") == "Körper 人物 ½"
    assert shortened("x" * 100, most=10) == "xxxxxxx..."


def test_a_small_file_may_hold_some_and_a_large_one_no_more_than_the_bound(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    bounds = []
    for size in (0, 1 << 20, 1 << 40):
        with file.open("wb") as opened:
            opened.truncate(size)
        bounds.append(unpacked_bound(file))
    assert bounds == [64 << 20, 100 << 20, 8 << 30]


PLUGIN = """
from pathlib import Path
from harness import LossProvider, PluginCard, Recipe, Stage, hookimpl

def note(what):
    with (Path(__file__).parent / "called").open("a") as file:
        file.write(what + "\\n")

note("imported")

class Plugin:
    @staticmethod
    @hookimpl
    def harness_plugin():
        note("harness_plugin")
        return PluginCard("Takes notes.", "part")

    @staticmethod
    @hookimpl
    def harness_losses():
        note("harness_losses")
        yield LossProvider("noted", "noting_heavy:Loss", "Is never made.")

    @staticmethod
    @hookimpl
    def harness_recipe(dataset):
        note("harness_recipe")
        return Recipe(stages=(Stage(name="only", epochs=1, iterations=1),))
"""


class TestInstalledPlugins:
    """Two distributions are installed beside the harness: one takes notes of its hooks, one raises when imported."""

    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "noting.py").write_text(PLUGIN)
        (tmp_path / "noting_heavy.py").write_text("raise RuntimeError('a heavy module was imported')")
        (tmp_path / "raising.py").write_text("raise RuntimeError('imported')")
        for name in ("noting", "raising"):
            about = tmp_path / f"harness_{name}-1.0.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: harness-{name}\nVersion: 1.0\n")
            (about / "entry_points.txt").write_text(f"[harness.plugins]\n{name} = {name}:Plugin\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return tmp_path

    def notes(self, site: Path) -> list[str]:
        return (site / "called").read_text().split() if (site / "called").exists() else []

    def command(self, *arguments: str) -> str:
        run = "import sys; from harness.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", run, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def test_are_found_by_their_entry_points(self, site: Path) -> None:
        assert {"noting", "raising"} <= set(Catalogue())
        assert self.notes(site) == []

    def test_are_listed_without_their_heavy_modules(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        shown = self.command("plugins")
        assert "harness-noting 1.0" in shown
        assert "RuntimeError: imported" in shown
        assert "a heavy module" not in shown
        assert self.notes(site) == ["imported", "harness_plugin", "harness_losses"]

    def test_that_are_not_named_run_no_hook_in_a_run(self, site: Path, tiny: Path, tmp_path: Path) -> None:
        catalogue = Catalogue(extra={"baseline": Toy})
        assert {"noting", "raising"} <= set(catalogue)
        run_planned(plan_run(toy_settings(), catalogue), tmp_path, resume=False, force=False, show=Silent())
        assert (tmp_path / "toy" / "record.json").exists()
        assert self.notes(site) == []

    def test_that_are_named_run_theirs(self, site: Path) -> None:
        plan = plan_run(toy_settings(plugins=("baseline", "noting")), Catalogue(extra={"baseline": Toy}))
        assert [part.name for part in plan.selection.losses] == ["plain", "noted"]
        assert self.notes(site) == ["imported", "harness_plugin", "harness_losses"]
        assert "noting_heavy" not in sys.modules

    def test_that_cannot_be_imported_stop_only_the_run_that_names_them(self, site: Path) -> None:
        assert plan_run(make_settings({})).settings.plugins == ("baseline",)
        with pytest.raises(HarnessError, match=r"'raising' \(harness-raising\).*RuntimeError: imported"):
            plan_run(make_settings({"plugins": ["raising"]}))
