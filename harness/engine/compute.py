"""Where a run computes: device, precision, threads, memory."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from harness.errors import SettingsError, TrainingError
from harness.machine import keep_freed_memory, launched_processes, processes_here, usable_cores
from harness.settings import ComputeSettings

# Fabric announces the precision on its own; the run's summary says it.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: a GPU, or a CPU with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    queries = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public question for it
    return device.type == "cpu" and any(getattr(torch.cpu, query, lambda: False)() for query in queries)


def make_fabric(settings: ComputeSettings) -> Fabric:
    """A Fabric for this process, and with several devices for the others, which it starts unless torchrun has.

    Raises SettingsError for a device that is not there.
    """
    device = _device(settings.device)
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_fast_bf16(device))
    how: dict[str, Any] = {"accelerator": device.type, "precision": "bf16-mixed" if bf16 else "32-true"}
    if settings.devices > 1:
        fabric = _several(settings, device, how)
    else:
        devices: list[int] | int = [device.index or 0] if device.type == "cuda" else 1
        fabric = Fabric(devices=devices, **how)
    torch.set_num_threads(settings.threads or usable_cores())
    keep_freed_memory()
    if settings.compile:
        _require_compiler(fabric.device)
    return fabric


def _several(settings: ComputeSettings, device: torch.device, how: dict[str, Any]) -> Fabric:
    here = processes_here() if launched_processes() > 1 else settings.devices
    if device.type not in ("cpu", "cuda") or ":" in settings.device:
        raise SettingsError(
            f"{settings.devices} devices were asked for, but the device is {settings.device!r}: use auto, cuda or cpu, "
            "and CUDA_VISIBLE_DEVICES to choose among GPUs."
        )
    if device.type == "cuda" and torch.cuda.device_count() < here:
        raise SettingsError(f"{here} GPUs were asked for; torch sees {torch.cuda.device_count()} here.")
    if settings.compile and settings.batch_norm == "synchronised":
        raise SettingsError(
            "compute.compile cannot be combined with synchronised batch norm on several devices: give up one of them "
            "(--set compute.batch_norm=local)."
        )
    strategy = Replicas(process_group_backend="cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    # Said outright: within a Slurm job Fabric would take the job's tasks for the processes of this run.
    environment = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    nodes = settings.devices // here
    fabric = Fabric(devices=here, num_nodes=nodes, strategy=strategy, plugins=[environment], **how)
    fabric.launch()
    return fabric


class Replicas(DDPStrategy):
    """A process per device, which the engine lets talk: nothing is wrapped around the encoder."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """The module as it is."""
        return module

    def __deepcopy__(self, memo: object) -> Replicas:
        """Itself: a copy of the encoder, the teacher, belongs to the same processes."""
        return self


def _require_compiler(device: torch.device) -> None:
    """Raise SettingsError unless torch can compile for ``device``: here, and not at the first batch."""
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except Exception as error:
        raise SettingsError(
            f"compute.compile was asked for, but torch cannot compile for {device} here "
            f"({str(error).splitlines()[0][:200]}). Install a C++ compiler, or leave it off."
        ) from error


def batches_ahead(settings: ComputeSettings, device: torch.device) -> int:
    """Batches that a thread makes before they are asked for. On a CPU it would take its core from the step."""
    wanted = settings.prefetch == "on" or (settings.prefetch == "auto" and device.type == "cuda")
    return 2 if wanted else 0


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"There is no device {name!r}: use auto, cpu, cuda, cuda:0, mps.") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise SettingsError(f"The device {name!r} is not available here; torch sees {torch.cuda.device_count()} GPUs.")
    return device


def is_compiler_failure(error: BaseException) -> bool:
    """Whether torch.compile gave up on an encoder. Asked by name: the compiler takes a second to import."""
    return any(kind.__name__ == "TorchDynamoException" for kind in type(error).__mro__)


def compiler_failed(error: BaseException) -> TrainingError:
    """What a user is told of it."""
    return TrainingError(
        f"torch.compile failed on the encoder ({type(error).__name__}: {str(error).splitlines()[0][:200]}). Leave "
        "compute.compile off (that is another run: --force), or try another compiler; --debug shows what it said."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host refused memory. The host's allocator says it in the text of a RuntimeError only."""
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return refused or isinstance(error, (MemoryError, torch.OutOfMemoryError))
