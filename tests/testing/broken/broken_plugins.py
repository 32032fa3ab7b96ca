"""Plugins that break one rule each, by the check that must find it; and one that is as it should be.

This file loads nothing heavy, as a plugin must not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from harness import (
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Options,
    PluginCard,
    Recipe,
    Stage,
    hookimpl,
)
from harness.providers import Provider

HOOKS = {
    ClustererProvider: "harness_clusterers",
    LabelRefinerProvider: "harness_label_refiners",
    MemoryProvider: "harness_memories",
    LossProvider: "harness_losses",
    ImageTransformProvider: "harness_image_transforms",
}


def offering(
    *providers: Provider,
    summary: str = "Made for a test.",
    recipe: Any = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Any:
    """A plugin object that offers these parts."""

    def of(kind: type[Provider], hook: str) -> Any:
        def offer():
            return [provider for provider in providers if type(provider) is kind]

        offer.__name__ = hook
        return hookimpl(offer)

    @hookimpl
    def harness_plugin():
        return PluginCard(summary, "part", expected_failures=expected_failures or {})

    members = {hook: of(kind, hook) for kind, hook in HOOKS.items()}
    members["harness_plugin"] = harness_plugin
    if recipe is not None:

        @hookimpl
        def harness_recipe(dataset):
            return recipe(dataset)

        members["harness_recipe"] = harness_recipe
    return type("Tried", (), {"__module__": __name__, **members})


def part(kind: type[Provider], factory: str, **values: Any) -> Provider:
    """A part of one role, of ``broken_parts`` unless another module is named."""
    found = factory if ":" in factory else f"broken_parts:{factory}"
    return kind(values.pop("name", "tried"), found, values.pop("summary", "Tried."), **values)


def loss(factory: str = "SoundLoss", **values: Any) -> Any:
    return offering(part(LossProvider, factory, **values))


def clusterer(factory: str) -> Any:
    return offering(part(ClustererProvider, factory))


def refiner(factory: str) -> Any:
    return offering(part(LabelRefinerProvider, factory))


def memory(factory: str) -> Any:
    return offering(part(MemoryProvider, factory))


def transform(factory: str) -> Any:
    return offering(part(ImageTransformProvider, factory))


class SoundOptions(Options):
    weight: float = Field(1.0, ge=0, description="Weight of the term.")


class Undescribed(Options):
    weight: float = Field(1.0, ge=0)


class Lax(SoundOptions):
    model_config = ConfigDict(extra="allow")


class Untyped(Options):
    weight: Any = Field(1.0, description="Weight of the term.")


class OutOfBounds(Options):
    weight: float = Field(-1.0, ge=0, description="Weight of the term.")


def usable_recipe(dataset: str) -> Recipe:
    return Recipe(stages=(Stage(name="only", epochs=1, iterations=1),))


def recipe_of_known_datasets(dataset: str) -> Recipe:
    return {"sysu-mm01": usable_recipe(dataset), "regdb": usable_recipe(dataset)}[dataset]


def recipe_of_unknown_views(dataset: str) -> Recipe:
    return usable_recipe(dataset).model_copy(update={"visible_views": ("sepia",)})


SOUND_PARTS = (
    part(ClustererProvider, "SoundClusterer", name="sound-clusterer"),
    part(LabelRefinerProvider, "SoundRefiner", name="sound-refiner"),
    part(MemoryProvider, "SoundMemory", name="sound-memory"),
    part(LossProvider, "SoundLoss", name="sound-loss", options=SoundOptions, presets={"regdb": {"weight": 2.0}}),
    part(ImageTransformProvider, "sound_transform", name="sound-transform"),
)
SOUND = offering(*SOUND_PARTS, recipe=usable_recipe)

BROKEN: list[tuple[str, str, Any]] = [
    ("says_what_it_is", "no summary", offering(part(LossProvider, "SoundLoss"), summary=" ")),
    ("says_what_it_is", "a part without summary", loss(summary="")),
    (
        "has_a_recipe_that_can_be_used",
        "a recipe of some datasets",
        offering(part(LossProvider, "SoundLoss"), recipe=recipe_of_known_datasets),
    ),
    (
        "has_a_recipe_that_can_be_used",
        "an unknown view",
        offering(part(LossProvider, "SoundLoss"), recipe=recipe_of_unknown_views),
    ),
    ("has_a_name_of_its_own", "a section's name", loss(name="compute")),
    ("has_a_name_of_its_own", "the name of an in-tree part", loss(name="contrast")),
    ("has_a_name_of_its_own", "a name with a dot", loss(name="my.loss")),
    ("describes_its_options", "no description", loss(options=Undescribed)),
    ("refuses_unknown_options", "extra options", loss(options=Lax)),
    ("refuses_options_of_a_wrong_type", "any type", loss(options=Untyped)),
    ("has_valid_defaults_and_presets", "a default out of bounds", loss(options=OutOfBounds)),
    (
        "has_valid_defaults_and_presets",
        "a preset of an option that is not there",
        loss(options=SoundOptions, presets={"sysu-mm01": {"wieght": 2.0}}),
    ),
    ("names_no_device", "cuda", loss("broken_device:CudaLoss")),
    ("leaves_the_run_alone", "the harness's data", loss("broken_reach:ReachingLoss")),
    ("keeps_its_contract", "labels of another type", clusterer("ListClusterer")),
    ("keeps_its_contract", "an endless gradient", loss("EndlessGradientLoss")),
    ("keeps_its_contract", "images of another type", transform("float_transform")),
    ("finds_people_who_stand_apart", "nothing found", clusterer("BlindClusterer")),
    ("says_something", "no terms", loss("WordlessLoss")),
    ("changes_nothing_that_it_is_handed", "embeddings scaled", loss("ScalingLoss")),
    ("changes_nothing_that_it_is_handed", "images drawn upon", transform("scribbling_transform")),
    ("repeats_itself_under_a_seed", "an unseeded clusterer", clusterer("UnseededClusterer")),
    ("repeats_itself_under_a_seed", "an unseeded transform", transform("restless_transform")),
    ("goes_on_after_an_epoch", "no state", clusterer("ForgetfulClusterer")),
    ("says_what_changes_within_an_epoch", "nothing said", memory("SilentMemory")),
    ("goes_on_within_an_epoch", "nothing saved", memory("UntrueMemory")),
    ("does_not_depend_on_the_order_of_images", "clusters by row", clusterer("RowClusterer")),
    ("does_not_depend_on_names_of_clusters", "weights by id", loss("NumberedLoss")),
    ("treats_every_image_alone", "the batch's mean", transform("mean_transform")),
    ("works_without_camera_ids", "cameras counted", clusterer("CameraClusterer")),
    ("works_when_all_are_outliers", "the smallest of no clusters", refiner("HopefulRefiner")),
    ("works_with_one_cluster", "the second of one cluster", clusterer("TwoClusterClusterer")),
    ("works_with_clusters_of_one_modality", "the smallest of no mixed clusters", clusterer("MixedClusterer")),
    ("works_with_clusters_of_one_image", "the smallest of no companies", refiner("CompanionRefiner")),
    ("gets_at_no_identity", "callers' variables", clusterer("PeepingClusterer")),
    ("gets_at_no_identity", "images on the disk", clusterer("ReadingClusterer")),
    ("trains_beside_every_partner", "no rows of images", loss("LonelyLoss")),
]
