"""Where a run computes: device, precision, threads."""

from __future__ import annotations

import logging

import torch
from lightning_fabric import Fabric

from harness.errors import SettingsError
from harness.machine import usable_cores
from harness.settings import ComputeSettings

# Fabric announces the precision on its own; the run's summary says it.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: a GPU, or a CPU with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    queries = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public question for it
    return device.type == "cpu" and any(getattr(torch.cpu, query, lambda: False)() for query in queries)


def make_fabric(settings: ComputeSettings) -> Fabric:
    """A Fabric for one process. Raises SettingsError for a device that is not there."""
    threads = settings.threads or usable_cores()
    torch.set_num_threads(threads)
    device = _device(settings.device)
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_fast_bf16(device))
    devices: list[int] | int = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, precision="bf16-mixed" if bf16 else "32-true")


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host refused memory. The host's allocator says it in the text of a RuntimeError only."""
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return refused or isinstance(error, (MemoryError, torch.OutOfMemoryError))
