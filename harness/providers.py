"""The values by which a plugin offers its parts. Importing this module loads neither torch nor any plugin.

A provider is small and frozen: a name, where to find the factory (``"module:attribute"``, imported only when the part
is used), the model of its options, and presets of those options per dataset. The hooks of :mod:`harness.hookspecs`
yield them; :mod:`harness.plugins` resolves them by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

HOOK_API_VERSION = 1


class Options(BaseModel):
    """Base of every part's options: frozen, and an unknown option is an error.

    Subclass it with annotated fields; give each ``Field(default, description=...)``;
    ``harness plugins NAME`` prints them. A field that makes the part use information beside pixels and modality says so
    with ``json_schema_extra=USES_CAMERAS``; the leaderboard shows it.

    >>> from pydantic import Field
    >>> class DistanceOptions(Options):
    ...     eps: float = 0.6
    ...     centre_cameras: bool = Field(False, json_schema_extra=USES_CAMERAS)
    >>> DistanceOptions(centre_cameras=True).uses()
    {'camera labels'}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def uses(self) -> set[str]:
        """The extra information that these values make the part use: what the fields that are set name."""
        fields = type(self).model_fields.items()
        extras = [field.json_schema_extra for name, field in fields if getattr(self, name)]
        return {str(extra["uses"]) for extra in extras if isinstance(extra, dict) and "uses" in extra}


CAMERA_LABELS = "camera labels"
USES_CAMERAS: dict[str, Any] = {"uses": CAMERA_LABELS}


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a method was published."""

    title: str
    venue: str
    year: int
    url: str = ""


@dataclass(frozen=True, slots=True)
class PluginCard:
    """What ``harness plugins`` prints of a plugin.

    ``kind``: ``"method"`` for a paper's whole method, ``"part"`` for something used beside others. A part that is named
    takes a slot from a method that brings its own (``--plugins chcr,tsmem``: CHCR with TSMem as its memory).

    ``expected_failures``: checks of the conformance kit (``harness check NAME``) that the plugin is known to fail, each
    with the reason, by ``"check"`` (of any part) or ``"part.check"``. ``api``: the hook API that it is written for; a
    card that says nothing is of version 1.
    """

    summary: str
    kind: Literal["method", "part"]
    paper: Paper | None = None
    api: int = 1
    expected_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provider:
    """A part on offer.

    ``factory`` is ``"module:attribute"``; it is called as ``factory(options, setup)`` (see the subclasses).
    ``presets`` maps a dataset's name to option values that differ from the defaults there. ``needs`` names what the
    core must prepare: ``"teacher"`` (an EMA copy of the encoder). ``uses``: extra information that the part always
    uses, beside pixels and modality (``CAMERA_LABELS``).
    """

    name: str
    factory: str
    summary: str
    options: type[Options] = Options
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    role: ClassVar[str] = ""

    def load(self) -> Callable[..., Any]:
        """Import the factory. Raises whatever the import raises; ``harness.plugins`` adds the plugin's name."""
        module, _, attribute = self.factory.partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return loaded

    def resolve_options(self, dataset: str, chosen: Mapping[str, Any]) -> Options:
        """Defaults under the preset of ``dataset`` under ``chosen``. Raises pydantic's ValidationError."""
        return self.options(**{**self.presets.get(dataset, {}), **chosen})


class ClustererProvider(Provider):
    """``factory(options, setup) -> harness.contracts.Clusterer``."""

    role = "clusterer"


class LabelRefinerProvider(Provider):
    """``factory(options, setup) -> harness.contracts.LabelRefiner``."""

    role = "label refiner"


class MemoryProvider(Provider):
    """``factory(options, setup) -> harness.contracts.Memory``."""

    role = "memory"


class LossProvider(Provider):
    """``factory(options, setup) -> harness.contracts.Loss``."""

    role = "loss"


class ImageTransformProvider(Provider):
    """``factory(options) -> transform``; ``transform(images_B3HW uint8, modality_B int64) -> uint8`` of the same shape.

    Applied to every image, training and test, before augmentation and normalisation.
    """

    role = "image transform"


class BackboneProvider(Provider):
    """``factory(options, seed) -> Module`` with ``embedding_dims`` and ``input_size``; see ``harness.models``."""

    role = "backbone"


class DatasetProvider(Provider):
    """``factory(options, data: Path | None, progress) -> harness.data.Dataset``."""

    role = "dataset"


PROVIDER_TYPES: tuple[type[Provider], ...] = (
    ClustererProvider,
    LabelRefinerProvider,
    MemoryProvider,
    LossProvider,
    ImageTransformProvider,
    BackboneProvider,
    DatasetProvider,
)
