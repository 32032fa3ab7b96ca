"""One run from plan to record: prepare, train every epoch, evaluate, write."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.contracts import EpochContext, PseudoLabels, Setup, TrainIndex
from harness.data.cache import ImageCache, ImageFiles, build_cache, open_files
from harness.data.datasets import Dataset
from harness.data.manifest import Manifest
from harness.data.places import cache_root
from harness.engine.artefacts import pair_precisions, save_labels, save_start
from harness.engine.checkpoint import epochs_kept, fitting, load_latest, save_checkpoint, save_midway
from harness.engine.company import deaf, together
from harness.engine.compute import compiler_failed, is_compiler_failure, is_out_of_memory
from harness.engine.cost import Clock
from harness.engine.extraction import ImageTransform, extract_features, pixel_statistics, plain_module
from harness.engine.folder import RunFolder
from harness.engine.input import ImageSource
from harness.engine.objective import Working
from harness.engine.observers import Observed
from harness.engine.plan import Plan, plan_run
from harness.engine.processes import Processes
from harness.engine.profile import Profile, ProfileRow
from harness.engine.randomness import derive_seed
from harness.engine.reference import oracle_links, supervised_labels
from harness.engine.report import History, label_quality, make_record, weights_file
from harness.engine.stopping import Stopped, stoppable
from harness.engine.train import EpochReport, Parts, Trainer
from harness.errors import DataError, ProtocolError, RunError, RunStopped, SettingsError, TrainingError, WeightsError
from harness.evaluation import EvaluationResult, evaluate_all
from harness.evaluation import Protocol as EvaluationProtocol
from harness.files import file_sha256, replace_text, replacing
from harness.leaderboard.record import Record, write_record
from harness.machine import process_rank
from harness.progress import Listener, listening, progress_of
from harness.settings import read_settings, to_toml

__all__ = ["Show", "plan_run", "run_planned"]


class Show(Protocol):
    """What a run tells its user; :class:`harness.cli.show.Terminal` prints it."""

    def started(
        self, plan: Plan, dataset: Dataset, folder: Path, *, resumed_at: int | None, iterations: int
    ) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def work(self, what: str, done: int, total: int) -> None: ...
    def step(self, report_epoch: int, epochs: int, step: int, steps: int) -> None: ...
    def epoch(self, report: EpochReport, row: dict[str, Any], *, epochs: int, images_per_s: float) -> None: ...
    def warned(self, message: str) -> None: ...
    def finished(self, record: Record, folder: Path) -> None: ...
    def lost(self, message: str) -> None: ...
    def profiled(self, rows: list[ProfileRow], trace: Path) -> None: ...


class Quiet:
    """Tells nothing: the processes beside the first."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@dataclass
class _Run:
    """Everything a run holds while it runs."""

    plan: Plan
    folder: RunFolder
    show: Show
    fabric: Fabric
    dataset: Dataset
    test_cache: ImageCache | ImageFiles
    trainer: Trainer
    clock: Clock
    transforms: list[ImageTransform]
    midway: dict[str, Any] | None = None
    history: History = field(default_factory=History)
    observed: Observed | None = None
    profile: Profile | None = None

    @property
    def listener(self) -> Listener:
        """Who is told of the progress of long work."""
        return self.profile.hearing(self.show.work) if self.profile else self.show.work

    @property
    def processes(self) -> Processes:
        """This process among all of the run."""
        return self.trainer.processes


def run_planned(
    plan: Plan, out: Path, *, resume: bool, force: bool, show: Show, profile: bool = False
) -> Record | None:
    """Run the plan in ``out/NAME``. Returns its record; None if ``resume`` finds it finished already. ``profile``: also
    tell where the time goes, and trace a few iterations.

    Raises HarnessError subclasses for everything a user can mend: settings, data, weights, plugins, the folder's state;
    RunStopped if the process was asked to stop.

    With several devices there is one process each. This function returns in all of them, but only the first one writes,
    talks and raises; the others return None, and exit when the first one does.
    """
    folder = RunFolder(out / str(plan.settings.name))
    if process_rank():
        if force or not (resume and folder.finished):
            _follow(plan, folder)
        return None
    with folder.claimed(), stoppable() as stop:
        if resume and folder.finished and not force:
            show.warned(f"{folder.path} is finished already; left alone.")
            return None
        if not force:
            folder.require_fresh(resume=resume)
            _require_same_settings(folder, plan)
        run: _Run | None = None
        try:
            with together(plan.settings.compute, lost=show.lost) as (fabric, processes):
                run = _prepare(plan, folder, show, fabric=fabric, processes=processes)
                run.trainer.stop = stop
                if force:  # only now: what cannot be prepared must not cost the earlier run
                    folder.clear()
                replace_text(folder.settings, to_toml(plan.settings))
                if profile:
                    run.profile = Profile(run.clock, folder.trace, device=fabric.device)
                return _train_from_here(run)
        except Stopped as stopped:
            where = f"after {epochs_kept(folder.checkpoints)} of {plan.recipe.epochs} epochs"
            end = RunStopped(stopped.number, where + _put_down(run))
            _tell_failure(run, end, stopped=True)
            raise end from stopped
        except Exception as error:
            _tell_failure(run, error)
            kept = f"{epochs_kept(folder.checkpoints)} of {plan.recipe.epochs} epochs are kept"
            if is_out_of_memory(error):
                raise _out_of_memory(run.fabric.device if run else "this machine", kept, error) from error
            if is_compiler_failure(error):
                raise compiler_failed(error) from error
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                raise _disk_failed(kept, error) from error
            raise


def _train_from_here(run: _Run) -> Record:
    run.trainer.on_note = lambda text: None if text in run.history.warnings else _warn(run, text)
    _embed_start(run)
    done = _restore(run)
    run.observed = Observed(run.plan, run.folder.path, warned=partial(_warn, run))
    run.observed.started(done)
    with fitting():
        iterations = run.midway["trainer"]["going"]["done"] if run.midway else 0
    run.processes.told(done)
    run.show.started(run.plan, run.dataset, run.folder.path, resumed_at=done or None, iterations=iterations)
    for index in range(done, run.plan.recipe.epochs):
        _epoch(run, index)
    return _finish(run)


def _follow(plan: Plan, folder: RunFolder) -> None:
    """What the processes beside the first do: compute as it does, from the same files, and write nothing."""
    deaf()
    with together(plan.settings.compute, lost=lambda message: None) as (fabric, processes):
        run = _prepare(plan, folder, Quiet(), fabric=fabric, processes=processes)
        if processes.told(0):
            _test_features(run)
        done = processes.told(0)
        found = load_latest(folder.checkpoints)  # which the first process has read, or cleared
        state = found.midway or found.epoch
        if (state["epochs_done"] if state else 0) != done:
            raise RunError(f"Process {processes.rank} finds other checkpoints in {folder.path}: share that folder.")
        with fitting():
            if found.epoch is not None:
                run.trainer.restore(found.epoch["trainer"])
            midway = found.midway["trainer"] if found.midway else None
        for index in range(done, plan.recipe.epochs):
            run.trainer.run_epoch(index, midway=midway)
            midway = run.trainer.going = None
            if _evaluated(plan, index):
                _test_features(run)
        _test_features(run)


def _tell_failure(run: _Run | None, error: Exception, *, stopped: bool = False) -> None:
    if run is not None and run.profile is not None:
        run.profile.close()
    if run is not None and run.observed is not None:
        run.observed.failed(error, epochs_done=epochs_kept(run.folder.checkpoints), stopped=stopped)


def _disk_failed(kept: str, error: OSError) -> RunError:
    what, why = error.filename or "a file", error.strerror or error
    return RunError(f"Cannot read or write {what}: {why}. {kept}: mend the disk and add --resume.")


def _out_of_memory(device: object, kept: str, error: Exception) -> TrainingError:
    return TrainingError(
        f"The memory of {device} ran out ({(str(error) or type(error).__name__).splitlines()[0]}). {kept}. "
        "Smaller batches need less (--set recipe.instances=..., --set recipe.visible_clusters=..., --set "
        "features.batch=...): that is another run (--force); more free memory goes on with this one (--resume)."
    )


def _put_down(run: _Run | None) -> str:
    """Save what an interrupted epoch has done so far. Returns how far that is, in words."""
    if run is None or run.trainer.going is None or not run.trainer.going.done:
        return ""
    done, iterations = len(run.history.rows), run.trainer.going.done
    undeclared = run.trainer.undeclared()
    if undeclared:
        return f" ({iterations} iterations of the next are lost: the {undeclared[0]} does not declare what it changes)"
    state = {**_progress_state(run), "trainer": run.trainer.midway(done)}
    save_midway(run.folder.checkpoints, done, iterations, state)
    return f" and {iterations} iterations of the next"


def _progress_state(run: _Run) -> dict[str, Any]:
    return {
        "epochs_done": len(run.history.rows),
        "history": json.dumps(run.history.to_json()),
        "clock": run.clock.state(),
    }


def _require_same_settings(folder: RunFolder, plan: Plan) -> None:
    if not folder.settings.exists():
        return
    before = folder.settings.read_text(encoding="utf-8")
    now = to_toml(plan.settings)
    if before == now or _but_for_observers(folder.settings) == tomllib.loads(now) | {"observers": None}:
        return
    changed = [new for new in now.splitlines() if new not in before.splitlines()][:3]
    devices = any(line.startswith("devices = ") for line in changed)
    why = "Another number of devices adds floats in another order: the run would not go on as it began. " * devices
    raise RunError(
        f"{folder.path} was begun with other settings (now different: {'; '.join(changed) or 'some were removed'}). "
        f"{why}Resume it with the settings it was begun with, or use --force to begin anew, or --name for another one."
    )


def _but_for_observers(path: Path) -> dict[str, Any] | None:
    """The settings in a file, whoever observed; None if they cannot be read."""
    try:
        return read_settings(path) | {"observers": None}
    except SettingsError:
        return None


def _prepare(plan: Plan, folder: RunFolder, show: Show, *, fabric: Fabric, processes: Processes) -> _Run:
    settings = plan.settings
    clock = Clock()
    with clock("data"):
        dataset: Dataset = plan.dataset.make(settings.data_root, lambda d, t: show.progress("rendering", d, t))
        encoder = plan.backbone.make(derive_seed(settings.seed, "encoder"))
        _check_encoder(encoder, plan)
        caches = [
            _cache(manifest, encoder, resize=resize, decode=settings.compute.decode, show=show)
            for manifest, resize in ((dataset.train, "bicubic"), (dataset.test, settings.evaluation.resize))
        ]
    train = TrainIndex(
        torch.as_tensor(dataset.train.modality).to(fabric.device),
        torch.as_tensor(dataset.train.camera).to(fabric.device),
    )
    setup = Setup(train=train, dataset=settings.dataset, embedding_dims=dict(encoder.embedding_dims))
    transforms = [chosen.make() for chosen in plan.selection.transforms]
    trainer = Trainer(
        fabric=fabric,
        encoder=encoder,
        parts=_parts(plan, setup),
        recipe=plan.recipe,
        source=ImageSource(caches[0].gather, transforms, train, fabric.device, *pixel_statistics(encoder), processes),
        dataset=settings.dataset,
        embedding_dims=setup.embedding_dims,
        seed=settings.seed,
        features=settings.features,
        clustering=settings.clustering,
        clock=clock,
        compute=settings.compute,
    )
    _refer(trainer, plan, dataset.train.identity)
    trainer.prepare(needs_teacher=any("teacher" in part.provider.needs for part in plan.selection.parts))
    run = _Run(plan, folder, show, fabric, dataset, caches[1], trainer, clock, transforms)
    run.history.dataset_fingerprints = (caches[0].fingerprint, caches[1].fingerprint)
    weights = weights_file(plan)
    run.history.weights_sha256 = file_sha256(weights) if weights else None
    return run


def _check_encoder(encoder: nn.Module, plan: Plan) -> None:
    for attribute in ("embedding_dims", "input_size"):
        if not hasattr(encoder, attribute):
            raise WeightsError(
                f"The encoder {plan.backbone.name!r} lacks the attribute {attribute!r}; see harness.models."
            )


def _cache(manifest: Manifest, encoder: nn.Module, *, resize: Any, decode: str, show: Show) -> ImageCache | ImageFiles:
    height, width = encoder.input_size  # type: ignore[misc]
    opened = build_cache if decode == "once" else open_files
    return opened(
        manifest,
        size=(int(height), int(width)),
        cache_dir=cache_root() / "images",
        interpolation=resize,
        progress=lambda done, total: show.progress("decoding", done, total),
    )


def _parts(plan: Plan, setup: Setup) -> Parts:
    def made(chosen: Any) -> Working[Any]:
        return Working(chosen, chosen.make(setup))

    chosen = plan.selection
    return Parts(
        clusterer=made(chosen.clusterer),
        refiners=tuple(map(made, chosen.refiners)),
        memory=made(chosen.memory),
        losses=tuple(map(made, chosen.losses)),
    )


def _refer(trainer: Trainer, plan: Plan, identity: np.ndarray) -> None:
    """Put hidden identities in the labels' place, for reference rows only; parts still never see the identities."""
    if plan.settings.reference == "supervised":
        labels = supervised_labels(trainer.train, identity)

        def supervised(context: EpochContext) -> PseudoLabels:
            return labels

        trainer.override_labels = supervised
    elif plan.settings.reference == "oracle-association":
        trainer.after_labels = lambda labels: oracle_links(labels, identity)


def _embed_start(run: _Run) -> None:
    """Embed and score the test images with the encoder as it was before training, once; the report compares with it.

    It is made of the seed, so that a resumed run that has not done this yet still can. A start that cannot be scored is
    left to training to complain of.
    """
    wanted = run.plan.settings.evaluation.before and run.plan.recipe.epochs > 0
    if not run.processes.told(int(wanted and not run.folder.start.exists())):
        return
    with listening(run.listener):
        features = _test_features(run)
        if not all(bool(torch.isfinite(embedding).all()) for embedding in features.values()):
            return
        first = run.dataset.protocols[0]
        figures = _evaluate(run, features, protocols=1)[first.identifier].figures()
    test = run.dataset.test
    save_start(run.folder.start, _retrieval(features), test, protocol=first.identifier, figures=figures)


def _restore(run: _Run) -> int:
    """Epochs already done, after going back to the last good checkpoint."""
    found = load_latest(run.folder.checkpoints)
    state = found.midway or found.epoch
    for warning in found.warnings:
        _warn(run, warning)
    if found.warnings:
        _warn(run, "An older checkpoint is used." if state else "No readable checkpoint is left: the run begins anew.")
    if state is None:
        run.folder.write_metrics([])
        return 0
    with fitting():
        return _take_back(run, found.epoch, state, midway=found.midway)


def _take_back(run: _Run, epoch: dict[str, Any] | None, state: dict[str, Any], *, midway: dict[str, Any] | None) -> int:
    history = json.loads(state["history"])
    fingerprints = tuple(history["dataset_fingerprints"])
    if fingerprints != run.history.dataset_fingerprints:
        raise DataError(
            "The images on disk are not those this run was begun with (their fingerprint differs). Put the old "
            "dataset back, or begin anew with --force."
        )
    if epoch is not None:
        run.trainer.restore(epoch["trainer"])
    run.midway = midway
    kept = run.history.warnings
    run.history = History.from_json(history)
    run.history.warnings += kept
    run.clock.restore(state["clock"])
    run.folder.write_metrics(run.history.rows)
    return int(state["epochs_done"])


def _warn(run: _Run, message: str) -> None:
    run.history.warnings.append(message)
    run.show.warned(message)


def _epoch(run: _Run, index: int) -> None:
    with listening(run.listener):
        _train_and_record(run, index)


def _train_and_record(run: _Run, index: int) -> None:
    epochs = run.plan.recipe.epochs
    run.trainer.on_step = lambda step, steps: _step(run, index, step=step, steps=steps)
    midway, run.midway = run.midway, None
    report = run.trainer.run_epoch(index, midway=midway["trainer"] if midway else None)
    row: dict[str, Any] = {
        "epoch": index,
        "stage": report.stage,
        "learning_rate": report.learning_rate,
        "losses": {name: round(value, 6) for name, value in sorted(report.losses.items())},
    }
    if report.labels is not None:
        with run.clock("diagnostics"):
            row["labels"] = label_quality(report.labels, run.dataset.train)
            row["pairs"] = pair_precisions(report.labels, run.dataset.train)
    if report.recall is not None:
        row["search_recall"] = round(report.recall, 6)
    if report.skipped:
        row["skipped"] = report.skipped
        _warn(run, f"epoch {index + 1} skipped: {report.skipped}")
    if report.silent:
        _warn(run, f"epoch {index + 1}: {report.silent}")
    if _evaluated(run.plan, index):
        first = run.dataset.protocols[0]
        figures = _evaluate(run, _test_features(run), protocols=1)[first.identifier].figures()
        row["evaluation"] = {"protocol": first.identifier, "rank1": figures.rank1, "mAP": figures.mAP}
    with run.trainer.stop.whole(), run.clock("checkpoint"):
        if report.labels is not None:  # before the checkpoint: an epoch that is kept has its labels on disk
            save_labels(run.folder.labels, report.labels, run.dataset.train, epoch=index)
        run.history.rows.append(row)
        save_checkpoint(run.folder.checkpoints, index + 1, {**_progress_state(run), "trainer": run.trainer.state()})
        run.folder.write_metrics(run.history.rows)
        run.trainer.going = None
    run.show.epoch(report, row, epochs=epochs, images_per_s=run.clock.rate("training"))
    if run.observed is not None:
        run.observed.epoch(row)
    run.trainer.stop.now()


def _step(run: _Run, index: int, *, step: int, steps: int) -> None:
    if run.profile is not None:
        run.profile.step()
    run.show.step(index, run.plan.recipe.epochs, step, steps)


def _evaluated(plan: Plan, index: int) -> bool:
    """Whether the test images are scored after epoch ``index``, from 0, which is not the last."""
    every = plan.settings.evaluation.every
    return bool(every) and (index + 1) % every == 0 and index + 1 < plan.recipe.epochs


def _test_features(run: _Run) -> dict[str, Tensor]:
    with run.clock("test extraction", images=len(run.dataset.test)):
        encoder = run.trainer.evaluated_encoder()
        if run.plan.settings.compute.batch_norm == "local":
            run.processes.follow_first(encoder)
        return extract_features(
            encoder,
            run.test_cache.gather,
            modality=torch.as_tensor(run.dataset.test.modality),
            transforms=run.transforms,
            device=run.fabric.device,
            batch=run.plan.settings.features.batch,
            flip=run.plan.settings.evaluation.flip,
            renorm=True,
            processes=run.processes,
            noted=run.trainer.on_note,
        )


def _retrieval(features: dict[str, Tensor]) -> Tensor:
    """The embedding that is ranked: "main" (an encoder with several embeddings makes it of them)."""
    return features["main"]


def _evaluate(run: _Run, features: dict[str, Tensor], *, protocols: int | None = None) -> dict[str, EvaluationResult]:
    def not_defined(protocol: EvaluationProtocol, error: ProtocolError) -> None:
        if protocol == run.dataset.protocols[0]:
            raise error
        _warn(run, f"{protocol.identifier} was not evaluated: {error}")

    with run.clock("evaluation"):
        return evaluate_all(
            _retrieval(features),
            run.dataset.test_set,
            run.dataset.protocols[:protocols],
            trials=run.plan.settings.evaluation.trials,
            permutations=run.dataset.permutations,
            threads=run.plan.settings.compute.threads,
            not_defined=not_defined,
            progress=progress_of("scoring"),
        )


def _finish(run: _Run) -> Record:
    with listening(run.listener):
        features = _test_features(run)
        results = _evaluate(run, features)
    test, primary = run.dataset.test, run.dataset.protocols[0].identifier
    tensors = {
        "features": _retrieval(features).float().cpu().contiguous(),
        "identity": torch.as_tensor(test.identity),
        "camera": torch.as_tensor(test.camera),
    }
    # One key: safetensors writes several in no fixed order.
    about = {"paths": list(test.paths), "protocol": primary}
    _save(run.folder.embeddings, tensors, {"harness": json.dumps(about, sort_keys=True)})
    weights = {
        name: t.detach().cpu().contiguous()
        for name, t in plain_module(run.trainer.evaluated_encoder()).state_dict().items()
    }
    _save(run.folder.weights, weights, {"backbone": run.plan.backbone.name})
    if run.observed is not None:
        run.observed.settle()
    record = make_record(
        run.plan,
        run.dataset,
        run.trainer,
        run.clock,
        run.history,
        results,
        embeddings_sha256=file_sha256(run.folder.embeddings),
    )
    write_record(run.folder.record, record)
    run.show.finished(record, run.folder.path)
    if run.profile is not None:
        run.profile.close()
        run.show.profiled(run.profile.rows(), run.folder.trace)
    if run.observed is not None:
        run.observed.finished(record)
    return record


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        with replacing(path) as aside:
            save_file(tensors, aside, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot write {path}: {error}. The checkpoint is kept: mend the disk and add --resume."
        ) from error
