"""The checks of the conformance kit: each a function, its name a sentence about a part that is as it should be.

A check returns if the sentence holds, raises an error that says why not, or NotTried if it says nothing about the part.
What roles promise beyond their contracts:

- the order of the images within a modality says nothing, and neither do the ids of clusters: what a part finds is the
  same under another order and under other ids. A part that draws from ``epoch.rng`` promises that on average only, and
  is not held to it;
- a part works, as well as it can, on any labels that keep the contract: only outliers, one cluster, clusters of one
  image, clusters of one modality; and whatever the cameras are.

A check with ``needs`` is not tried after a failure of those: what it would find is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import ValidationError

from harness.contracts import Modality
from harness.data.presets import PRESETS
from harness.engine.objective import blame
from harness.errors import HarnessError
from harness.plugins import HEAVY, PART_NAME, explain
from harness.providers import (
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
)
from harness.recipe import Recipe
from harness.settings import Settings
from harness.testing.cases import (
    CROSS,
    INTRA,
    LATE,
    toy_apart,
    toy_infrared_only,
    toy_one_cluster,
    toy_outliers,
    toy_people,
    toy_singletons,
)
from harness.testing.driving import SAME
from harness.testing.identities import Walk, watched_files
from harness.testing.sources import devices_named, prying, sources_of
from harness.testing.subject import CheckFailed, NotTried, Subject
from harness.testing.tiny import tiny_rendered
from harness.testing.trials import (
    forms,
    go_through,
    people,
    pictures,
    require_same_bits,
    require_same_result,
    train,
    transformed,
)

PLUGIN = "plugin"
CLUSTERER, REFINER, MEMORY, LOSS, TRANSFORM = (
    kind.role
    for kind in (ClustererProvider, LabelRefinerProvider, MemoryProvider, LossProvider, ImageTransformProvider)
)
ROLES = (CLUSTERER, REFINER, MEMORY, LOSS)
ALL_PARTS = "every part"
DATASETS = ("sysu-mm01", "regdb", "rendered", "a-dataset-of-your-own")


@dataclass(frozen=True)
class Check:
    """A sentence about a part, and the function that tries it."""

    name: str
    meaning: str
    roles: tuple[str, ...]
    needs: tuple[str, ...]
    run: Callable[[Subject], None]

    def concerns(self, role: str) -> bool:
        """Whether the check is about parts of this role (``"plugin"``: about plugins)."""
        return role in self.roles or (ALL_PARTS in self.roles and role != PLUGIN)


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they are tried."""


def check(*roles: str, needs: tuple[str, ...] = ()) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a check of parts of these roles."""

    def registered(run: Callable[[Subject], None]) -> Callable[[Subject], None]:
        meaning = " ".join((run.__doc__ or "").split())
        CHECKS[run.__name__] = Check(run.__name__, meaning, roles, needs, run)
        return run

    return registered


# ---- what a plugin says of itself


@check(PLUGIN)
def says_what_it_is(subject: Subject) -> None:
    """The card has a summary and a known kind, and every part has a summary of its own."""
    card = subject.plugin.card
    if card is None or not card.summary.strip():
        raise CheckFailed("the PluginCard has no summary; `harness plugins` prints it.")
    if card.kind not in ("method", "part"):
        raise CheckFailed(f"the PluginCard's kind is {card.kind!r}; it must be 'method' or 'part'.")
    silent = [provider.name for provider in subject.plugin.providers if not provider.summary.strip()]
    if silent:
        raise CheckFailed(f"the part {silent[0]!r} has no summary; `harness plugins` prints it.")


@check(PLUGIN)
def loads_nothing_heavy(subject: Subject) -> None:
    """Importing the plugin loads neither torch nor any other heavy library, so that `harness --help` stays quick."""
    code = (
        f"import sys, json; sys.path[:] = json.loads(sys.argv[1]); import {subject.module}; "
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    command = [sys.executable, "-c", code, json.dumps(sys.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise CheckFailed(f"{subject.module} cannot be imported on its own: {done.stderr.strip().splitlines()[-1]}")
    if done.stdout.strip() != "[]":
        raise CheckFailed(
            f"importing {subject.module} loads {done.stdout.strip()}. Name factories as 'module:attribute', and import "
            "heavy libraries in those modules only."
        )


@check(PLUGIN)
def has_a_recipe_that_can_be_used(subject: Subject) -> None:
    """Its recipe, if it has one, is a Recipe (or None) for any dataset, with augmentations that exist."""
    if not subject.plugin.has_recipe:
        raise NotTried("it has no recipe")
    for dataset in DATASETS:
        recipe = subject.plugin.recipe(dataset)
        if recipe is not None and not isinstance(recipe, Recipe):
            raise CheckFailed(f"harness_recipe({dataset!r}) returned a {type(recipe).__name__}; expected a Recipe.")
        unknown = sorted({*recipe.visible_views, *recipe.infrared_views} - set(PRESETS)) if recipe else []
        if unknown:
            raise CheckFailed(
                f"harness_recipe({dataset!r}) names the augmented view {unknown[0]!r}; there are {', '.join(PRESETS)}."
            )


@check(ALL_PARTS)
def has_a_name_of_its_own(subject: Subject) -> None:
    """The part's name can be used in settings, and stands for nothing else: no section, no part of another plugin."""
    name, kind = subject.part.name, type(subject.part)
    if not PART_NAME.fullmatch(name):
        raise CheckFailed(f"{name!r} cannot stand in --set NAME.OPTION=VALUE: use letters, digits, _ and -.")
    if name in Settings.model_fields:
        raise CheckFailed(f"{name!r} is a section of the settings, so --set {name}.OPTION would never reach the part.")
    for other in subject.catalogue.values():
        for provider in other.providers if other.name != subject.plugin.name else ():
            if provider.name == name and (type(provider) is not kind or provider.factory != subject.part.factory):
                raise CheckFailed(
                    f"the plugin {other.name!r} offers another part called {name!r} ({provider.role}), so the two "
                    "cannot be used together. Rename it."
                )


# ---- options


@check(ALL_PARTS)
def describes_its_options(subject: Subject) -> None:
    """Every option has a description, which `harness plugins NAME` prints."""
    for name, field in subject.part.options.model_fields.items():
        if not (field.description or "").strip():
            raise CheckFailed(f"the option {subject.part.name}.{name} has no description: Field(..., description=...).")


@check(ALL_PARTS)
def refuses_unknown_options(subject: Subject) -> None:
    """An option that does not exist is an error."""
    try:
        subject.part.resolve_options("rendered", {"an_option_that_nobody_has": 1})
    except ValidationError:
        return
    raise CheckFailed(f"{subject.part.options.__name__} takes an unknown option; keep extra='forbid' of Options.")


@check(ALL_PARTS)
def refuses_options_of_a_wrong_type(subject: Subject) -> None:
    """A value of a type that an option cannot have is an error, for every option."""
    for name in subject.part.options.model_fields:
        try:
            subject.part.resolve_options("rendered", {name: object()})
        except ValidationError:
            continue
        raise CheckFailed(f"the option {subject.part.name}.{name} takes any object; annotate it with a type.")


@check(ALL_PARTS)
def has_valid_defaults_and_presets(subject: Subject) -> None:
    """Defaults and every dataset's preset keep the bounds that the options declare themselves."""
    provider = subject.part
    for dataset in dict.fromkeys((*DATASETS, *provider.presets)):
        try:
            options = provider.resolve_options(dataset, {})
            provider.options.model_validate(options.model_dump())  # pydantic does not look at defaults
        except ValidationError as error:
            raise CheckFailed(f"for the dataset {dataset!r}: {explain(error)}") from error


# ---- source


@check(*ROLES, TRANSFORM)
def names_no_device(subject: Subject) -> None:
    """No device is named in the part's source: devices and dtypes come from what a part is handed."""
    places = [place for source in sources_of(subject.part.factory) for place in devices_named(source)]
    if places:
        raise CheckFailed(f"it names a device ({places[0]}); take the device of a tensor that it was handed.")


@check(*ROLES, TRANSFORM)
def leaves_the_run_alone(subject: Subject) -> None:
    """The part's source reaches neither for the engine, its data and its figures, nor for other code's variables."""
    places = [place for source in sources_of(subject.part.factory) for place in prying(source)]
    if places:
        raise CheckFailed(f"it reaches for what a part must not see ({places[0]}): hidden identities are there.")


# ---- contracts


@check(*ROLES, TRANSFORM)
def keeps_its_contract(subject: Subject) -> None:
    """What it hands over is as its role says: with every form of labels and encoder, in every kind of epoch."""
    if subject.part.role == TRANSFORM:
        transformed(subject, pictures())
        return
    for toys in people(subject):
        driven = subject.on(toys)
        for index in (INTRA, CROSS, LATE):
            driven.epoch(index)


@check(CLUSTERER, needs=("keeps_its_contract",))
def finds_people_who_stand_apart(subject: Subject) -> None:
    """It finds clusters among people who are well apart, by the time of the last epoch."""
    driven = subject.on(toy_people())
    for index in (CROSS, LATE):
        driven.epoch(index)
    if not any(bool((labels >= 0).any()) for name, labels in driven.found.items() if "/labels/" in name):
        raise CheckFailed("every image is an outlier, though twelve people are well apart.")


@check(LOSS, needs=("keeps_its_contract",))
def says_something(subject: Subject) -> None:
    """It gives a term in some epoch, for some form of labels and encoder."""
    for toys in people(subject):
        driven = subject.on(toys)
        driven.epoch(INTRA)
        driven.epoch(LATE)
        if any(f"{SAME}terms/" in name for name in driven.found):
            return
    raise CheckFailed("it never gives a term, whatever the labels and the epoch.")


@check(*ROLES, needs=("keeps_its_contract",))
def computes_on_an_accelerator(subject: Subject) -> None:
    """It works on an accelerator, and what it hands over is there."""
    if not torch.cuda.is_available():
        raise NotTried("this machine has no accelerator that torch can use")
    device = torch.device("cuda", torch.cuda.current_device())
    for toys in forms(subject, toy_people):
        driven = subject.on(toys.to(device))
        driven.epoch(INTRA)
        driven.epoch(CROSS)


@check(*ROLES, TRANSFORM, needs=("keeps_its_contract",))
def changes_nothing_that_it_is_handed(subject: Subject) -> None:
    """Labels, batches, embeddings, banks and images that it is handed are the same afterwards."""
    if subject.part.role == TRANSFORM:
        images = pictures()
        before = images.clone()
        transformed(subject, images)
        if not torch.equal(images, before):
            raise CheckFailed("it changed the images in place; work on a copy.")
        return
    for toys in forms(subject, toy_people):
        driven = subject.on(toys, guarded=True)
        driven.epoch(INTRA)
        driven.epoch(CROSS)


# ---- repetition and resumption


@check(*ROLES, TRANSFORM, needs=("keeps_its_contract",))
def repeats_itself_under_a_seed(subject: Subject) -> None:
    """The same seed gives the same bits: randomness comes from `epoch.rng`, or from what is seeded by it."""
    if subject.part.role == TRANSFORM:
        if not torch.equal(transformed(subject, pictures()), transformed(subject, pictures())):
            raise CheckFailed("the same images came out differently.")
        return
    one, other = (subject.on(toy_people()) for _ in range(2))
    for driven in (one, other):
        driven.epoch(INTRA)
        driven.epoch(CROSS)
    require_same_bits(one, other, "a repetition with the same seed")


@check(*ROLES, needs=("keeps_its_contract", "repeats_itself_under_a_seed"))
def goes_on_after_an_epoch(subject: Subject) -> None:
    """Put back from its `state_dict`, it goes on with the next epoch to the same bits."""
    one, other = (subject.on(toy_people()) for _ in range(2))
    one.epoch(CROSS)
    state = one.state()
    one.epoch(CROSS + 1)
    with blame(other.working, "load_state_dict"):
        other.working.part.load_state_dict(state)
    other.epoch(CROSS + 1)
    require_same_bits(one, other, "a resumption from its state_dict", prefix=f"epoch {CROSS + 1}")


@check(*ROLES, needs=("keeps_its_contract",))
def says_what_changes_within_an_epoch(subject: Subject) -> None:
    """Its attribute `changing` is declared, so that a run can be stopped in the middle of an epoch."""
    if subject.on(toy_people()).working.part.changing is None:
        raise CheckFailed(
            "it does not declare `changing`, so an interrupted epoch is begun anew. Name the attributes that change "
            "between two batches: changing = ('_banks',), or () if none does."
        )


@check(MEMORY, LOSS, needs=("keeps_its_contract", "repeats_itself_under_a_seed", "says_what_changes_within_an_epoch"))
def goes_on_within_an_epoch(subject: Subject) -> None:
    """Stopped between two iterations and put back from what it declares in `changing`, it goes on to the same bits."""
    one, other = (subject.on(toy_people()) for _ in range(2))
    one.begin(CROSS)
    one.step(0)
    taken = one.midway()
    one.step(1)
    other.begin(CROSS)
    other.go_on(taken)
    other.step(1)
    require_same_bits(one, other, "a resumption within the epoch", prefix=f"epoch {CROSS}/step 1")


# ---- independence


@check(*ROLES, needs=("keeps_its_contract", "repeats_itself_under_a_seed"))
def does_not_depend_on_the_order_of_images(subject: Subject) -> None:
    """The same images in another order give the same result: rows tell nothing about who is on them."""
    for toys in forms(subject, toy_people):
        require_same_result(subject, toys, toys.reordered(), "the images in another order")


@check(REFINER, MEMORY, LOSS, needs=("keeps_its_contract", "repeats_itself_under_a_seed"))
def does_not_depend_on_names_of_clusters(subject: Subject) -> None:
    """The same clusters under other ids give the same result."""
    for toys in forms(subject, toy_people):
        require_same_result(subject, toys, toys.renamed(), "the clusters under other ids")


@check(TRANSFORM, needs=("keeps_its_contract", "repeats_itself_under_a_seed"))
def treats_every_image_alone(subject: Subject) -> None:
    """An image comes out the same whatever images are beside it: training and test batches are cut differently."""
    images, kinds = pictures(), tiny_rendered().train.modality
    transform = subject.make()
    whole = transform(images.clone(), kinds)
    for rows in torch.randperm(len(images), generator=torch.Generator().manual_seed(2)).split(7):
        if not torch.equal(transform(images[rows], kinds[rows]), whole[rows]):
            raise CheckFailed("an image comes out differently when other images are beside it.")


# ---- hard cases


@check(*ROLES, needs=("keeps_its_contract",))
def works_without_camera_ids(subject: Subject) -> None:
    """It works when no camera is known (all −1), and when all images are of one camera."""
    go_through(subject, [toys.with_cameras(camera) for toys in forms(subject, toy_people) for camera in (-1, 0)])


@check(*ROLES, needs=("keeps_its_contract",))
def works_when_all_are_outliers(subject: Subject) -> None:
    """It works when every image is an outlier, and when every visible one is."""
    go_through(subject, [*forms(subject, toy_outliers), *forms(subject, toy_infrared_only)])


@check(*ROLES, needs=("keeps_its_contract",))
def works_with_one_cluster(subject: Subject) -> None:
    """It works when all images are of one person, in one cluster."""
    go_through(subject, forms(subject, toy_one_cluster))


@check(*ROLES, needs=("keeps_its_contract",))
def works_with_clusters_of_one_modality(subject: Subject) -> None:
    """It works when no cluster has images of both modalities, and no cluster is linked."""
    go_through(subject, forms(subject, toy_apart))


@check(REFINER, MEMORY, LOSS, needs=("keeps_its_contract",))
def works_with_clusters_of_one_image(subject: Subject) -> None:
    """It works when every image is a cluster of its own."""
    go_through(subject, forms(subject, toy_singletons))


# ---- in a run


@check(*ROLES, TRANSFORM, needs=("keeps_its_contract",))
def gets_at_no_identity(subject: Subject) -> None:
    """In a run it opens no image, hands over no hidden identities and holds nothing that leads to them."""
    manifest = tiny_rendered().manifest
    secrets = [manifest.identity, *(manifest.identity[manifest.modality == kind] for kind in Modality)]
    walk = Walk(secrets)
    with watched_files() as opened:
        parts, labels = train(subject.team())
    if opened:
        raise CheckFailed(f"it reads images or lists their folders by itself: {opened[0]}.")
    for found in labels:
        for name in found.available:
            ids = found[name].labels
            walk(
                {"all": ids, **{kind.name: ids[found.train.modality == kind] for kind in Modality}}, f"labels[{name!r}]"
            )
    for working in parts:
        if working.chosen.provider == subject.part:
            walk(working.part, working.chosen.name)
    if walk.leaks:
        raise CheckFailed(f"hidden identities can be read off {walk.leaks[0]}.")


@check(*ROLES, TRANSFORM, needs=("keeps_its_contract",))
def trains_beside_every_partner(subject: Subject) -> None:
    """It trains a tiny epoch with every in-tree part of the other roles."""
    for team in subject.teams():
        try:
            train(team)
        except HarnessError as error:
            raise CheckFailed(f"in a run of {team}: {error}") from error
