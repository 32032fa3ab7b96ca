"""The settings of a run: typed, from a TOML file and ``--set``, saved fully resolved with each run.

Precedence, lowest first: a part's defaults, its preset for the dataset, the recipe, the settings file, the command
line. The resolved file (``runs/NAME/settings.toml``) names every value; running from it gives the same run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import SettingsError, suggest
from harness.machine import launched_processes, processes_here, usable_cores
from harness.plugins import SECTIONS, Chosen, Selection, explain
from harness.reading import read_text, require_plain, shortened
from harness.recipe import Recipe

Reference = Literal["pretrained", "supervised", "oracle-association"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureSettings(_Section):
    """How features of whole image sets are extracted."""

    flip_mean_renorm: bool = Field(
        True, description="L2-normalise the mean of image and mirror image for clustering (peers do not)."
    )
    batch: int = Field(256, ge=1, description="Images per forward pass.")


class ClusteringSettings(_Section):
    """How clusterers find the neighbours of an image."""

    search: Literal["exact", "approximate"] = Field(
        "exact",
        description="approximate: an inverted file, for more images than an exact search is worth (a million); may "
        "miss neighbours, and the recall measured in every epoch goes on record.",
    )
    probes: int = Field(16, ge=1, description="approximate: cells searched for an image; more for more recall.")


class EvaluationSettings(_Section):
    """How the run is evaluated."""

    every: int = Field(0, ge=0, description="Evaluate every n epochs as well as at the end; 0 = at the end only.")
    before: bool = Field(
        True, description="Also embed and score the test images before the first epoch, for the report."
    )
    trials: int = Field(10, ge=1, description="Galleries drawn.")
    flip: bool = Field(True, description="Average the features of image and mirror image, then L2-normalise.")
    resize: Literal["bicubic", "bilinear", "lanczos"] = Field(
        "bicubic", description="Filter for test images (peers: lanczos)."
    )


class ComputeSettings(_Section):
    """Where the run computes."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps, ...")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="auto: bf16 autocast where the hardware multiplies it (GPU; CPU with AMX or AVX-512 BF16), "
        "else fp32.",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of a process; 0 = its share of the cores that the run may use."
    )
    devices: int = Field(
        0, ge=0, description="Devices, with a process each; 0 = as many processes as torchrun has started, else one."
    )
    batch_norm: Literal["synchronised", "local"] = Field(
        "synchronised",
        description="Several devices: batch norm over the images of all of them, as one device would have it; or "
        "local, over each one's own.",
    )
    prefetch: Literal["auto", "on", "off"] = Field(
        "auto", description="Make the next batches while a step runs; auto: on a GPU. The batches are the same."
    )
    decode: Literal["once", "always"] = Field(
        "once",
        description="once: images are decoded into a memory-mapped cache; always: whenever one is needed, for datasets "
        "that no disk holds decoded. The pixels are the same.",
    )
    compile: bool = Field(False, description="Compile the encoder by torch.compile.")


class Settings(_Section):
    """A run's settings. Sections ``model``, ``data``, ``recipe`` and ``options`` hold what the chosen parts define."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=,-]*$",
        description="Name of the run and of its folder: letters, digits and . _ + = , -; "
        "default: dataset-plugins-sN (RegDB: dataset-plugins-tN-sN).",
    )
    plugins: tuple[str, ...] = Field(("baseline",), description="Plugins, in order.")
    dataset: str = Field("rendered", description="Name of the dataset.")
    data_root: Path | None = Field(None, description="Folder of the dataset; the rendered one is made when absent.")
    seed: int = Field(0, ge=0, description="Seed of everything random in the run.")
    clusterer: str | None = Field(None, description="Which clusterer, if several are offered.")
    memory: str | None = Field(None, description="Which memory, if several are offered.")
    recipe_of: str | None = Field(None, description="Whose recipe, if not the first-named plugin's.")
    reference: Reference | None = Field(
        None,
        description="Make a reference row instead of a method's: pretrained (no training), supervised (true labels), "
        "oracle-association (clusters linked by hidden identities).",
    )
    observers: tuple[str, ...] = Field(
        (), description="Plugins that follow the run (TensorBoard); they cannot change it, and may differ on --resume."
    )
    model: dict[str, Any] = Field(default_factory=dict, description="backbone = NAME, and that encoder's options.")
    data: dict[str, Any] = Field(default_factory=dict, description="Options of the dataset.")
    recipe: dict[str, Any] = Field(default_factory=dict, description="Values that replace the recipe's.")
    features: FeatureSettings = FeatureSettings()
    clustering: ClusteringSettings = ClusteringSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    compute: ComputeSettings = ComputeSettings()
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Options of parts, by part name.")

    @property
    def run_name(self) -> str:
        """The name given, or one made of what the run is."""
        if self.name:
            return self.name
        what = self.reference if self.reference else "+".join(self.plugins)
        trial = f"-t{self.data['trial']}" if "trial" in self.data else ""
        return f"{self.dataset}-{what}{trial}-s{self.seed}"


_MOST_BYTES = 1 << 20  # every option of every plugin of this repository: 10 kB


def read_settings(path: Path) -> dict[str, Any]:
    """The values of a settings file.

    Raises:
        SettingsError: it cannot be read, is far too large, is not TOML, or holds what no setting is: dates, infinite
            numbers, whole numbers of more than 64 bits, deep nesting.
    """
    return read_toml(path, "settings file", holds="settings")


def read_toml(path: Path, kind: str, *, holds: str) -> dict[str, Any]:
    """The values of a TOML file. ``kind`` and ``holds`` name the file and its content in errors.

    Raises:
        SettingsError: as :func:`read_settings`.
    """
    text = read_text(path, kind, most_bytes=_MOST_BYTES, error=SettingsError, form="a TOML file")
    try:
        values = tomllib.loads(text)
        require_plain(values)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not a TOML file with {holds}: {error}.") from error
    return values


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``--set a.b=value`` entries as nested values. Values are TOML (``0.2``, ``true``, ``[1, 2]``), else strings.

    ``section.field`` for the sections of :class:`Settings`, ``part.option`` for a part's option.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        path = key.strip().split(".")
        if not separator or not all(path):
            raise SettingsError(f"--set takes NAME.OPTION=VALUE; got {assignment!r}.")
        if len(path) == 1:
            if path[0] not in Settings.model_fields:
                raise SettingsError(f"There is no setting {path[0]!r}. {suggest(path[0], Settings.model_fields)}")
        elif path[0] not in SECTIONS:
            path = ["options", *(path if path[0] != "options" else path[1:])]
        target = nested
        for step in path[:-1]:
            target = target.setdefault(step, {})
            if not isinstance(target, dict):
                raise SettingsError(f"--set {assignment!r} goes into {step!r}, which another --set gave a plain value.")
        target[path[-1]] = _value(text.strip())
        _require_plain(nested, where=f"--set {shortened(assignment)!r}")
    return nested


def _require_plain(values: Mapping[str, Any], *, where: str) -> None:
    try:
        require_plain(values)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}.") from error


def _value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if len(found) == 1 else text  # more: a text of several lines


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Validated settings. Raises SettingsError naming the field, what was expected and what was given."""
    for key in values:
        if key not in Settings.model_fields:
            raise SettingsError(f"There is no setting {key!r}. {suggest(key, Settings.model_fields)}")
    _require_plain(values, where="Settings")
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(f"Settings: {explain(error)}") from error


def apply_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """``recipe`` with values replaced; ``epochs`` and ``iterations`` shorten its stages. Raises SettingsError."""
    rest = dict(changes)
    epochs, iterations = rest.pop("epochs", None), rest.pop("iterations", None)
    for name, value in (("epochs", epochs), ("iterations", iterations)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise SettingsError(f"recipe.{name} must be a whole number from 1; got {value!r}.")
    for key in rest:
        if key not in Recipe.model_fields:
            known = [*Recipe.model_fields, "epochs", "iterations"]
            raise SettingsError(f"A recipe has no field {key!r}. {suggest(key, known)}")
    try:
        changed = Recipe(**{**recipe.model_dump(), **rest})
    except ValidationError as error:
        raise SettingsError(f"Recipe: {explain(error)}") from error
    if epochs is not None and not changed.stages:
        raise SettingsError(f"recipe.epochs is {epochs}, but recipe.stages is empty: there is no stage to train in.")
    return changed.shortened(epochs=epochs, iterations=iterations)


def resolve_backbone(settings: Settings, recipe: Recipe) -> str:
    """The encoder's name: the settings', else the recipe's."""
    return str(settings.model.get("backbone", recipe.backbone))


def resolved(settings: Settings, selection: Selection, recipe: Recipe, backbone: Chosen, dataset: Chosen) -> Settings:
    """Settings in which nothing is left to a default."""
    data = dataset.options.model_dump(mode="json")
    return settings.model_copy(
        update={
            "name": settings.model_copy(update={"data": data}).run_name,
            "clusterer": selection.clusterer.name,
            "memory": selection.memory.name,
            "recipe_of": selection.recipe_plugin.name,
            "model": {"backbone": backbone.name, **backbone.options.model_dump(mode="json")},
            "data": data,
            "recipe": recipe.model_dump(mode="json"),
            "compute": settings.compute.model_copy(update=_computed(settings.compute)),
            "options": {part.name: part.options.model_dump(mode="json") for part in selection.parts},
        }
    )


def _computed(compute: ComputeSettings) -> dict[str, int]:
    """Processes, and threads of each. Raises SettingsError if torchrun has started another number."""
    launched = launched_processes()
    if compute.devices and launched > 1 and compute.devices != launched:
        raise SettingsError(
            f"torchrun has started {launched} processes, but compute.devices is {compute.devices}. Leave --devices "
            "out, or give torchrun as many (--nproc-per-node)."
        )
    devices = compute.devices or launched
    here = processes_here() if launched > 1 else devices
    return {"devices": devices, "threads": compute.threads or max(1, usable_cores() // here)}


def to_toml(settings: Settings) -> str:
    """The settings as TOML, keys sorted within sections, byte-stable."""
    return tomli_w.dumps(_without_none(settings.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value
