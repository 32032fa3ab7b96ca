"""The training loop, top to bottom: features, labels, banks, batches, losses, step, update; then evaluate and save."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.sgd import SGD

from harness.contracts import (
    Clusterer,
    Embeddings,
    EpochContext,
    LabelRefiner,
    Loss,
    Memory,
    PseudoLabels,
    TrainIndex,
)
from harness.engine.checkpoint import fitting
from harness.engine.compute import batches_ahead
from harness.engine.cost import Clock
from harness.engine.embedding import Embedder
from harness.engine.epoch import Epoch, Extract, FeatureStore
from harness.engine.extraction import extract_features, plain_module
from harness.engine.input import DrawnBatch, DrawStream, ImageSource
from harness.engine.midway import put_back, random_states, seed_all, set_random_states, snapshot
from harness.engine.objective import Working, blame, objective, require_finite
from harness.engine.prefetch import Batches
from harness.engine.processes import Processes
from harness.engine.randomness import derive_seed
from harness.engine.seam import check_features, check_memory, check_state, checked_labels
from harness.engine.search import NeighbourSearch
from harness.engine.stopping import Stop
from harness.engine.teacher import TeacherPass, make_teacher, update_teacher
from harness.errors import SettingsError, TrainingError
from harness.recipe import Recipe, Stage
from harness.settings import ClusteringSettings, ComputeSettings, FeatureSettings

MOST_EPOCHS_WITHOUT_CLUSTERS = 3
LOOKED_AT_EVERY = 50
"""Iterations on a GPU between two looks at whether the terms are finite: each look waits for the GPU."""


@dataclass
class Parts:
    """The parts of a run, made."""

    clusterer: Working[Clusterer]
    refiners: tuple[Working[LabelRefiner], ...]
    memory: Working[Memory]
    losses: tuple[Working[Loss], ...]

    def __iter__(self) -> Iterator[Working[Any]]:
        return iter((self.clusterer, *self.refiners, self.memory, *self.losses))


@dataclass
class EpochReport:
    """What happened in one epoch. ``skipped``, ``silent``: why nothing was trained (no cluster; no term).

    ``recall``: of an approximate neighbour search, the lowest of the epoch; None if the search was exact.
    """

    epoch: int
    stage: str
    learning_rate: float
    losses: dict[str, float] = field(default_factory=dict)
    labels: PseudoLabels | None = None
    recall: float | None = None
    skipped: str | None = None
    silent: str | None = None


@dataclass
class Going:
    """How far the iterations of an epoch are: batches drawn, ``done`` of them trained on, losses added up by name."""

    batches: Batches
    device: torch.device
    done: int = 0
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    origins: dict[str, Working[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One more iteration, with its terms."""
        for name, value in values.items():
            self.sums[name] += value
            self.counts[name] += 1
        self.done += 1

    def require_finite(self) -> None:
        """Raise TrainingError if a term was NaN or infinite (terms on the CPU are looked at one by one)."""
        if self.device.type != "cpu":
            require_finite(self.sums, self.origins)

    @property
    def losses(self) -> dict[str, float]:
        """The mean of every term over the iterations that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint in the middle of the epoch keeps."""
        streams = self.batches.states()
        return {"done": self.done, "sums": dict(self.sums), "counts": dict(self.counts), "streams": streams}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.done = state["done"]
        self.sums.update({name: total.to(self.device) for name, total in state["sums"].items()})
        self.counts.update(state["counts"])
        self.batches.restore(state["streams"])


@dataclass
class Trainer:
    """Trains one encoder with one set of parts. ``after_labels`` may replace the labels (reference rows)."""

    fabric: Fabric
    encoder: nn.Module
    parts: Parts
    recipe: Recipe
    source: ImageSource
    dataset: str
    embedding_dims: Mapping[str, int]
    seed: int
    features: FeatureSettings
    clustering: ClusteringSettings
    clock: Clock
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    teacher: Any = None
    optimiser: Optimizer | None = None
    epochs_without_clusters: int = 0
    override_labels: Callable[[EpochContext], PseudoLabels] | None = None
    after_labels: Callable[[PseudoLabels], PseudoLabels] | None = None
    going: Going | None = None
    stop: Stop = field(default_factory=Stop)
    on_step: Callable[[int, int], None] = lambda step, steps: None
    on_note: Callable[[str], None] = lambda text: None

    @property
    def train(self) -> TrainIndex:
        """The training images as parts know them."""
        return self.source.train

    @property
    def processes(self) -> Processes:
        """This process among all of the run."""
        return self.source.processes

    def evaluated_encoder(self) -> nn.Module:
        """The encoder whose figures are reported."""
        return self.teacher.module if self.recipe.evaluate_encoder == "teacher" and self.teacher else self.encoder

    def run_epoch(self, index: int, *, midway: Mapping[str, Any] | None = None) -> EpochReport:
        """One epoch: cluster, refine, build, train. ``midway``: what :meth:`midway` gave in this epoch, to go on from.

        Raises TrainingError when training cannot go on, Stopped between two iterations if the run was asked to stop.
        """
        self.going = None
        seed_all(derive_seed(self.seed, "torch", index))
        stage_number, epoch_in_stage = self.recipe.at(index)
        stage = self.recipe.stages[stage_number]
        if epoch_in_stage == 0 or self.optimiser is None:
            self.optimiser = self._new_optimiser()
        context = self._context(index, stage_number, epoch_in_stage)
        report = EpochReport(index, stage.name, self._rate(index, 0))
        report.labels = labels = self._labels(context)
        self.processes.require_equal("pseudo-labels", content_of(labels) if not self.processes.alone else b"")
        report.recall = context.search.recall
        streams = self._streams(labels, index, stage=stage)
        if not streams:
            return self._skip(report)
        self.epochs_without_clusters = 0
        with self.clock("memory"), self.clock.part("build"), blame(self.parts.memory, "build"):
            self._memory.build(context.bound_to(self.parts.memory.chosen.name), labels)
            check_memory(self._memory, labels, self.embedding_dims)
        for working in self.parts.losses:
            with self.clock("memory"), self.clock.part("begin of losses"), blame(working, "begin"):
                working.part.begin(context.bound_to(working.chosen.name), labels, self._memory)
        context.store.close()
        self._tell(context)
        going = Going(Batches(streams, ahead=batches_ahead(self.compute, self.fabric.device)), self.fabric.device)
        if midway is not None:
            with fitting():
                self._go_on(going, midway)
        self.going = going
        with going.batches.running(stage.iterations - going.done):
            while going.done < stage.iterations:
                with self.stop.whole():
                    self._set_rate(self._rate(index, going.done))
                    going.add(self._iteration(going, context))
                if going.done % LOOKED_AT_EVERY == 0:
                    self._wait(going)
                self.on_step(going.done, stage.iterations)
                self.stop.now()
        self._wait(going)
        self._tell(context)
        self._require_finite_weights(index)
        with blame(self.parts.memory, "update"):
            check_memory(self._memory, labels, self.embedding_dims)
        report.losses = going.losses
        if not report.losses:
            report.silent = "no loss had a term: the encoder was not trained"
        return report

    def _wait(self, going: Going) -> None:
        """Look at the terms so far, which waits for a GPU: that time is training's."""
        with self.clock("training"):
            going.require_finite()

    def _tell(self, context: Epoch) -> None:
        for note in context.notes:
            self.on_note(note)

    def _require_finite_weights(self, index: int) -> None:
        largest = torch._foreach_norm([parameter.detach() for parameter in self.encoder.parameters()], math.inf)
        if not bool(torch.isfinite(torch.stack(largest)).all()):
            raise TrainingError(
                f"The weights of the encoder became NaN or infinite in epoch {index + 1}, though every term was "
                "finite: a gradient was not. Training stopped; the last checkpoint is kept. A lower learning rate "
                "(--set recipe.learning_rate=...) often helps."
            )

    @property
    def _memory(self) -> Memory:
        return self.parts.memory.part

    def _context(self, index: int, stage_number: int, epoch_in_stage: int) -> Epoch:
        stage = self.recipe.stages[stage_number]
        encoders: dict[str, nn.Module] = {"online": self.encoder}
        if self.teacher is not None:
            encoders["teacher"] = self.teacher.module
        notes: list[str] = []
        return Epoch(
            index=index,
            epochs=self.recipe.epochs,
            stage=stage.name,
            stage_number=stage_number,
            stages=len(self.recipe.stages),
            epoch=epoch_in_stage,
            stage_epochs=stage.epochs,
            cross=stage.cross,
            dataset=self.dataset,
            train=self.train,
            seed=self.seed,
            store=FeatureStore(self._extract(encoders, notes), encoders=tuple(encoders)),
            search=NeighbourSearch(self.clustering),
            notes=notes,
        )

    def _extract(self, encoders: Mapping[str, nn.Module], notes: list[str]) -> Extract:
        if self.compute.batch_norm == "local":
            for encoder in encoders.values():
                self.processes.follow_first(encoder)
        return make_extract(
            encoders,
            self.source,
            settings=self.features,
            clock=self.clock,
            device=self.fabric.device,
            notes=notes,
        )

    def _labels(self, context: Epoch) -> PseudoLabels:
        if self.override_labels is not None:
            return self.override_labels(context)
        with self.clock("clustering"), blame(self.parts.clusterer, "cluster"):
            clusterer = self.parts.clusterer
            labels = checked_labels(clusterer.part.cluster(context.bound_to(clusterer.chosen.name)), self.train)
        for refiner in self.parts.refiners:
            with self.clock("refinement"), blame(refiner, "refine"):
                labels = checked_labels(refiner.part.refine(context.bound_to(refiner.chosen.name), labels), self.train)
        return self.after_labels(labels) if self.after_labels and context.cross else labels

    def _streams(self, labels: PseudoLabels, index: int, *, stage: Stage) -> list[DrawStream]:
        streams = [
            DrawStream(
                self.source,
                labels,
                draw=draw,
                recipe=self.recipe,
                stage=stage,
                seed=self.seed,
                epoch=index,
            )
            for draw in labels.draws
        ]
        return [stream for stream in streams if stream]

    def _skip(self, report: EpochReport) -> EpochReport:
        self.epochs_without_clusters += 1
        report.skipped = "every image is an outlier: no cluster to train on"
        if self.epochs_without_clusters >= MOST_EPOCHS_WITHOUT_CLUSTERS:
            raise TrainingError(
                f"In {self.epochs_without_clusters} epochs in a row every image was an outlier, so there was nothing "
                "to train on. The encoder is kept. Try a larger eps or fewer min_samples "
                f"(--set {self.parts.clusterer.chosen.name}.eps=0.7), or pre-trained weights."
            )
        return report

    def _iteration(self, going: Going, context: Epoch) -> dict[str, Tensor]:
        stepped = False
        taught: list[TeacherPass] = []
        total: Tensor | None = None
        values: dict[str, Tensor] = {}
        taken = []
        for number in range(len(going.batches)):
            with self.clock("input"):
                batch, images = going.batches.next(number)
            with self.clock("training", images=len(batch)):
                embeddings = self._embeddings(batch, images, moment=(context.index, going.done, number), taught=taught)
                with self.clock.part("losses"):
                    loss, terms = objective(
                        self.parts.losses, batch, embeddings, self._memory, context, origins=going.origins
                    )
                for name, value in terms.items():
                    values[name] = values[name] + value if name in values else value
                taken.append((batch, embeddings))
                if loss is not None:
                    total = loss if total is None else total + loss
                if self.recipe.step == "draw":
                    stepped |= self._step(total)
                    self._update(taken)
                    total, taken = None, []
        with self.clock("training"):
            if taken:
                stepped |= self._step(total)
                self._update(taken)
            if stepped and self.teacher is not None:
                follow = self.recipe.stages[context.stage_number].teacher == "follow"
                ran = any(teacher_pass.ran for teacher_pass in taught)
                with self.clock.part("teacher"):
                    update_teacher(self.teacher, self.encoder, buffers=not ran, follow=follow)
        return values

    def _embeddings(
        self, batch: DrawnBatch, images: Tensor, *, moment: tuple[int, ...], taught: list[TeacherPass]
    ) -> Embeddings:
        """The embeddings of a batch, and on request the teacher's, from this process's share of the images."""
        on_host = getattr(plain_module(self.encoder), "modality_on_host", False)
        modality = batch.modality_on_host if on_host else batch.modality
        if self.teacher is not None:
            embed = partial(self.embedder, moment=("teacher", *moment))
            taught.append(TeacherPass(self.teacher, images, modality, embed=embed))
        with self.clock.part("forward"):
            found = self.embedder(self.encoder, images, modality, moment=moment)
        return Embeddings(found, teacher=taught[-1] if taught else None)

    def _step(self, loss: Tensor | None) -> bool:
        """Whether a step was made."""
        if loss is None or self.optimiser is None:
            return False
        self.optimiser.zero_grad(set_to_none=True)
        with self.clock.part("backward"):
            self.fabric.backward(loss)
        with self.clock.part("gradients between processes"):
            self.processes.add_up([p.grad for p in self.encoder.parameters() if p.grad is not None])
        with self.clock.part("optimiser step"):
            self.optimiser.step()
        return True

    def _update(self, taken: list[tuple[Any, Embeddings]]) -> None:
        with torch.no_grad(), self.clock("memory"), self.clock.part("update"):
            for batch, embeddings in taken:
                detached = embeddings.detach()
                with blame(self.parts.memory, "update"):
                    self._memory.update(batch, detached)
                for working in self.parts.losses:
                    with blame(working, "update"):
                        working.part.update(batch, detached)

    def _new_optimiser(self) -> Optimizer:
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
        # Fused: one kernel for all parameters. On a CPU it would only round differently.
        how: dict[str, Any] = {"fused": True} if self.fabric.device.type == "cuda" else {}
        optimiser: Optimizer
        if self.recipe.optimiser == "adam":
            optimiser = Adam(trained, lr=rate, weight_decay=decay, **how)
        else:
            optimiser = SGD(trained, lr=rate, weight_decay=decay, momentum=0.9, **how)
        return self.fabric.setup_optimizers(optimiser)  # type: ignore[return-value]

    def _set_rate(self, rate: float) -> None:
        if self.optimiser is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = rate

    def _rate(self, index: int, iteration: int) -> float:
        return learning_rate(self.recipe, index, iteration)

    def prepare(self, *, needs_teacher: bool) -> None:
        """Set up the encoder on the device, and the teacher if a part or the recipe wants one.

        Raises SettingsError if a batch has fewer images of a modality than there are processes.
        """
        require_shares(self.recipe, self.processes)
        if getattr(self.encoder, "channels_last", False):
            self.encoder = self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder = self.fabric.setup_module(self.encoder)
        self.encoder.train()
        synchronised = self.compute.batch_norm == "synchronised"
        self.embedder = Embedder(dict(self.embedding_dims), self.processes, synchronised, self.seed)
        if needs_teacher or self.recipe.evaluate_encoder == "teacher":
            self.teacher = make_teacher(self.encoder, decay=self.recipe.teacher_decay)
        if self.compute.compile:
            for encoder in (self.encoder, *([self.teacher.module] if self.teacher is not None else [])):
                plain_module(encoder).compile()

    def undeclared(self) -> list[str]:
        """Parts that do not say what they change within an epoch, so that it cannot be gone on with, by name."""
        return [working.label for working in self.parts if working.part.changing is None]

    def midway(self, index: int) -> dict[str, Any]:
        """All that the next iteration of this epoch depends on, beside :meth:`state` at its start.

        Raises TrainingError if the weights are not finite.
        """
        if self.going is None:
            raise TrainingError("No epoch is going on.")
        self._require_finite_weights(index)
        parts = {}
        for working in self.parts:
            with blame(working, "changing"):
                parts[working.chosen.name] = snapshot(working.part)
        return {**self._training_state(), "parts": parts, "random": random_states(), "going": self.going.state()}

    def _go_on(self, going: Going, midway: Mapping[str, Any]) -> None:
        self._restore_training(midway)
        for working in self.parts:
            with blame(working, "changing"), torch.no_grad():
                put_back(working.part, midway["parts"][working.chosen.name])
        going.restore(midway["going"])
        set_random_states(midway["random"])

    def _training_state(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.state_dict(),
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "teacher": self._teacher_state() if self.teacher is not None else None,
        }

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on: everything else is a function of the seed and the epoch's number."""
        parts = {}
        for working in self.parts:
            with blame(working, "state_dict"):
                parts[working.chosen.name] = state = working.part.state_dict()
                check_state(state)
        return {
            **self._training_state(),
            "parts": parts,
            "epochs_without_clusters": self.epochs_without_clusters,
        }

    def _teacher_state(self) -> dict[str, Any]:
        # Part by part: the averaged model cannot read back what its own state_dict gives for a Fabric module.
        return {"encoder": self.teacher.module.state_dict(), "steps": self.teacher.n_averaged}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._restore_training(state)
        for working in self.parts:
            with blame(working, "load_state_dict"):
                working.part.load_state_dict(state["parts"].get(working.chosen.name, {}))
        self.epochs_without_clusters = state["epochs_without_clusters"]

    def _restore_training(self, state: Mapping[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        if state["optimiser"] is not None:
            self.optimiser = self._new_optimiser()
            self.optimiser.load_state_dict(state["optimiser"])
        if state["teacher"] is not None and self.teacher is not None:
            self.teacher.module.load_state_dict(state["teacher"]["encoder"])
            self.teacher.n_averaged.copy_(state["teacher"]["steps"])


def require_shares(recipe: Recipe, processes: Processes) -> None:
    """Raise SettingsError unless every process gets an image of each modality: all must go through all layers."""
    visible = recipe.visible_clusters * recipe.instances * len(recipe.visible_views)
    infrared = recipe.infrared_clusters * recipe.instances * len(recipe.infrared_views)
    if not processes.alone and min(visible, infrared) < processes.count:
        raise SettingsError(
            f"A batch of {visible} visible and {infrared} infrared images cannot be shared by {processes.count} "
            "processes: each needs at least one of either. Use fewer devices, or larger batches "
            "(--set recipe.instances=...)."
        )


def content_of(labels: PseudoLabels) -> bytes:
    """All of an epoch's labels and links, as bytes that are equal where they are."""
    found = [(name, labels[name].labels) for name in labels.given]
    found += [(f"{source}>{target}", link) for (source, target), link in sorted(labels.links.items())]
    return repr(labels.draws).encode() + b"".join(name.encode() + t.cpu().numpy().tobytes() for name, t in found)


def make_extract(
    encoders: Mapping[str, nn.Module],
    source: ImageSource,
    *,
    settings: FeatureSettings,
    clock: Clock,
    device: torch.device,
    notes: list[str],
) -> Extract:
    """The function by which an epoch extracts features; it reaches encoders and pixels, and nothing else of the run."""
    train = source.train
    plain: dict[str, dict[str, Tensor]] = {}

    def extract(encoder: str, view: str) -> dict[str, Tensor]:
        if view != "plain" and encoder not in plain:
            extract(encoder, "plain")
        rows = None if view == "plain" else torch.nonzero(train.visible).squeeze(1)
        with clock("extraction", images=len(train) if rows is None else len(rows)):
            found = extract_features(
                encoders[encoder],
                source.gather,
                modality=train.modality,
                transforms=source.transforms,
                device=device,
                batch=settings.batch,
                flip=True,
                renorm=settings.flip_mean_renorm,
                view=view,
                rows=rows,
                processes=source.processes,
                noted=notes.append,
            )
        check_features(found, encoder=encoder, view=view)
        if view == "plain":
            plain[encoder] = found
            return found
        infrared = train.infrared[:, None]
        return {name: torch.where(infrared, plain[encoder][name], found[name]) for name in found}

    return extract


def learning_rate(recipe: Recipe, index: int, iteration: int) -> float:
    """The learning rate of one iteration: schedule of the stage (step) or of the run (cosine), times the warm-up."""
    number, epoch_in_stage = recipe.at(index)
    stage = recipe.stages[number]
    rate = stage.learning_rate or recipe.learning_rate
    before = sum(s.epochs * s.iterations for s in recipe.stages[:number])
    step = before + epoch_in_stage * stage.iterations + iteration
    if recipe.schedule == "step":
        rate *= recipe.step_factor ** (epoch_in_stage // (stage.step_epochs or recipe.step_epochs))
    elif recipe.schedule == "cosine":
        steps = sum(s.epochs * s.iterations for s in recipe.stages)
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    return rate * min(1.0, (step + 1) / recipe.warm_up_steps) if recipe.warm_up_steps else rate
