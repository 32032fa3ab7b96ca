"""Every hook a plugin may implement: the plugin author's manual in one file.

A plugin is an object (usually a class used as a namespace, or a module) named by an entry point in the group
``harness.plugins``. It implements any of the hooks below with :data:`hookimpl`; each yields frozen values of
:mod:`harness.providers` and does no work. The core chooses among them by name, never by the order of calls::

    from harness import hookimpl, LossProvider, Options

    class MyLossOptions(Options):
        weight: float = Field(1.0, description="Weight of the term.")

    class MyLoss:
        @hookimpl
        def harness_losses():
            yield LossProvider("my-loss", "my_package.loss:MyLoss", "One line on what it does.", MyLossOptions)

The four roles (:mod:`harness.contracts`) are clusterer, label refiner, memory and loss; exactly one clusterer and one
memory are used in a run, any number of refiners (a chain) and losses (a sum).

The last five hooks are for observers (``--observers NAME``), which follow runs in a process of their own and can change
nothing in them; they may do work, and are handed the plain values of :mod:`harness.observations`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from harness.observations import (
    ObservedEpoch,
    ObservedFailure,
    ObservedResult,
    ObservedRun,
    ReportedRun,
    ReportSection,
)
from harness.providers import (
    BackboneProvider,
    ClustererProvider,
    DatasetProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    PluginCard,
)
from harness.recipe import Recipe

PROJECT = "harness"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def harness_plugin() -> PluginCard:  # type: ignore[empty-body]
    """Say what this plugin is: one line, method or part, the paper, the hook API version. Required."""


@hookspec
def harness_clusterers() -> Iterable[ClustererProvider]:  # type: ignore[empty-body]
    """Offer clusterers: features of all training images in, pseudo-labels out, once per epoch."""


@hookspec
def harness_label_refiners() -> Iterable[LabelRefinerProvider]:  # type: ignore[empty-body]
    """Offer label refiners: pseudo-labels in, pseudo-labels out (dropped, linked or relabelled), once per epoch."""


@hookspec
def harness_memories() -> Iterable[MemoryProvider]:  # type: ignore[empty-body]
    """Offer memories: banks of prototypes, built every epoch and updated after every optimiser step."""


@hookspec
def harness_losses() -> Iterable[LossProvider]:  # type: ignore[empty-body]
    """Offer losses: named scalar terms from a batch's embeddings, its labels and the banks."""


@hookspec
def harness_recipe(dataset: str) -> Recipe:  # type: ignore[empty-body]
    """The training protocol of this method on ``dataset`` ("sysu-mm01", "regdb", "rendered", ...).

    The recipe of the first-named plugin that has one rules the run; ``--recipe NAME`` chooses another.
    """


@hookspec
def harness_image_transforms() -> Iterable[ImageTransformProvider]:  # type: ignore[empty-body]
    """Offer image transforms, applied to training and test images alike before augmentation, in the order named."""


@hookspec
def harness_backbones() -> Iterable[BackboneProvider]:  # type: ignore[empty-body]
    """Offer encoders. Which one is used is said by the recipe or by ``--set model.backbone=NAME``."""


@hookspec
def harness_datasets() -> Iterable[DatasetProvider]:  # type: ignore[empty-body]
    """Offer datasets for ``--dataset NAME``."""


@hookspec
def harness_run_started(run: ObservedRun) -> None:
    """Observe: a run begins, or goes on after it was interrupted."""


@hookspec
def harness_epoch_ended(run: ObservedRun, epoch: ObservedEpoch) -> None:
    """Observe: an epoch has ended and is kept."""


@hookspec
def harness_run_finished(run: ObservedRun, result: ObservedResult) -> None:
    """Observe: the run has ended and was scored."""


@hookspec
def harness_run_failed(run: ObservedRun, failure: ObservedFailure) -> None:
    """Observe: the run was stopped or failed; what was kept can be gone on with."""


@hookspec
def harness_report_sections(runs: tuple[ReportedRun, ...]) -> Iterable[ReportSection]:  # type: ignore[empty-body]
    """Observe: a report is made of these runs. Yield the sections to add to it."""
