"""A plugin package to start from: ``harness new`` asks, this writes. Loads no torch.

What is written has the shape of the harness's own plugins: a module that says what there is and loads nothing heavy,
the options, one module per part that does the work, a card, a test. The templates are beside this file.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import harness
from harness.errors import SettingsError, suggest
from harness.providers import (
    HOOK_API_VERSION,
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Provider,
)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUMMARY = re.compile(r'[^"\\{}]{1,72}')
_LONGEST_NAME = 32
_LINE = 120


@dataclass(frozen=True, slots=True)
class Role:
    """A role as the templates see it: its word, its provider, its hook, and what the part written for it does.

    ``does`` is empty where nothing can be written, and parts of others can only be taken.
    """

    word: str
    provider: type[Provider]
    hook: str
    does: str = ""


ROLES = {
    role.word: role
    for role in (
        Role("transform", ImageTransformProvider, "harness_image_transforms"),
        Role("clusterer", ClustererProvider, "harness_clusterers", "DBSCAN, visible and infrared images apart."),
        Role("refiner", LabelRefinerProvider, "harness_label_refiners", "Drops images far from their cluster's mean."),
        Role("memory", MemoryProvider, "harness_memories", "One prototype per cluster, moved with momentum."),
        Role("loss", LossProvider, "harness_losses", "Draws images to the nearest prototype of their cluster."),
    )
}


@dataclass(frozen=True)
class Blueprint:
    """What to write.

    ``roles``: words of :data:`ROLES`, in that order, that the package has parts of its own for. ``taken``: for each
    word, the plugins whose parts of that role it uses. ``recipe``: the plugin whose recipe it uses. ``sources``: for
    each such plugin, where it is, as ``"module:Class"``.
    """

    name: str
    summary: str
    roles: tuple[str, ...]
    taken: Mapping[str, Sequence[str]]
    recipe: str | None
    sources: Mapping[str, str]

    @property
    def distribution(self) -> str:
        """Name of the distribution, and of the folder that it is written to."""
        return f"harness-{self.name}"

    @property
    def package(self) -> str:
        """Name of the import package."""
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        """Name of the plugin's class."""
        return "".join(word.capitalize() for word in self.name.split("-"))

    def part(self, word: str) -> str:
        """Name of its own part of a role: the plugin's, with the role's word if it has several."""
        return self.name if len(self.roles) == 1 else f"{self.name}-{word}"


def require_name(name: str, *, taken: Mapping[str, str]) -> None:
    """Refuse a name that is none, or that something else has. ``taken``: names in use, and what has them.

    Raises:
        SettingsError: not lower case with hyphens, too long, in use by a plugin, a part, a section of the settings or
            an importable module.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise SettingsError(
            f"{name!r} cannot name a plugin: lower-case letters, digits and single hyphens were expected, beginning "
            f"with a letter, at most {_LONGEST_NAME} characters. For example: {_near(name)}."
        )
    if name in taken:
        raise SettingsError(f"The name {name!r} is in use: {taken[name]}. Choose another one, such as {name}-2.")
    blueprint = Blueprint(name, "", (), {}, None, {})
    if importlib.util.find_spec(blueprint.package) is not None:
        raise SettingsError(
            f"The package would be called {blueprint.package!r}, and a module of that name can be imported already. "
            "Choose another name, or uninstall the package."
        )
    if blueprint.class_name in harness.__all__:
        raise SettingsError(
            f"The plugin's class would be called {blueprint.class_name!r}, as something of the harness is. "
            "Choose another name."
        )


def require_parts(blueprint: Blueprint, *, taken: Mapping[str, str]) -> None:
    """Refuse names of its own parts that something else has. Raises SettingsError."""
    for word in blueprint.roles:
        if (part := blueprint.part(word)) in taken and part != blueprint.name:
            raise SettingsError(
                f"Its {ROLES[word].provider.role} would be called {part!r}, and that name is in use: {taken[part]}. "
                "Choose another name for the plugin."
            )


def _near(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:_LONGEST_NAME].strip("-")
    return words or "my-method"


def require_roles(words: Sequence[str]) -> tuple[str, ...]:
    """The roles named, each once, in the order of the pipeline. Raises SettingsError for an unknown word."""
    known = [word for word, role in ROLES.items() if role.does]
    for word in words:
        if word not in known:
            raise SettingsError(f"There is no role {word!r} to write a part for. {suggest(word, known)}")
    return tuple(word for word in known if word in words)


def require_summary(summary: str) -> None:
    """Refuse a summary that is not one short plain line. Raises SettingsError."""
    if not _SUMMARY.fullmatch(summary) or not summary.isprintable():
        raise SettingsError(
            f"The summary is {summary!r}; one line of at most 72 characters was expected, without double quotes, "
            "backslashes and braces."
        )


def write_package(blueprint: Blueprint, folder: Path) -> tuple[Path, ...]:
    """Write the package to ``folder``, which must not be there yet: all of it, or nothing. Returns its files, in order.

    Raises:
        SettingsError: there is something at ``folder``.
        OSError: a file cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise SettingsError(f"{folder} is there already, and nothing is overwritten. Name another folder with --out.")
    texts = rendered(blueprint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        whole = Path(scratch) / folder.name
        for name, text in texts.items():
            path = whole / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        whole.rename(folder)
    return tuple(folder / name for name in texts)


def rendered(blueprint: Blueprint) -> dict[str, str]:
    """The text of every file of the package, by path."""
    package, words = blueprint.package, blueprint.roles
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "__init__.py",
        **({f"{package}/options.py": "options.py"} if words else {}),
        **{f"{package}/{word}.py": f"{word}.py" for word in words},
        f"tests/test_{package.removeprefix('harness_')}.py": "test.py",
    }
    environment = Environment(
        loader=PackageLoader("harness.scaffold"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["importing"] = _importing
    values = _values(blueprint)
    return {path: environment.get_template(f"{name}.jinja").render(values) for path, name in templates.items()}


def _values(blueprint: Blueprint) -> dict[str, Any]:
    roles = [entry for role in ROLES.values() if (entry := _entry(blueprint, role))]
    own = {role["word"]: role for role in roles if role["part"]}
    recipe = _dotted(blueprint.sources[blueprint.recipe]) if blueprint.recipe else None
    used = {name for names in blueprint.taken.values() for name in names} | {blueprint.recipe} - {None}
    constants = {f"{role['class_name']}Options" for role in own.values()} | {role["presets"] for role in own.values()}
    imports = {"PluginCard", "hookimpl", *(role["provider"] for role in roles), *(["Recipe"] if recipe else [])}
    return {
        "name": blueprint.name,
        "summary": blueprint.summary,
        "distribution": blueprint.distribution,
        "package": blueprint.package,
        "class_name": blueprint.class_name,
        "api": HOOK_API_VERSION,
        "roles": roles,
        "own": own,
        "recipe": recipe,
        "modules": sorted({blueprint.sources[str(name)].partition(":")[0] for name in used}),
        "imports": sorted(imports, key=_import_order),
        "constants": sorted(constants - {None}, key=_import_order),
    }


def _entry(blueprint: Blueprint, role: Role) -> dict[str, Any] | None:
    """One role as the templates want it, or None if the method leaves it to the baseline."""
    taken, own = tuple(blueprint.taken.get(role.word, ())), role.word in blueprint.roles
    if not taken and not own:
        return None
    class_name = blueprint.class_name + role.word.capitalize()
    return {
        "word": role.word,
        "title": role.provider.role,
        "provider": role.provider.__name__,
        "hook": role.hook,
        "does": role.does,
        "taken": [_dotted(blueprint.sources[name]) for name in taken],
        "taken_names": taken,
        "part": blueprint.part(role.word) if own else None,
        "class_name": class_name,
        "presets": f"{blueprint.name.replace('-', '_').upper()}_PRESETS" if own and role.word == "clusterer" else None,
    }


def _dotted(source: str) -> str:
    return source.replace(":", ".")


def _import_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as import sorters have them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _importing(module: str, names: Sequence[str]) -> str:
    """The import of ``names`` from ``module``, broken as formatters do where it is too long for a line."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _LINE:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
