"""Where a run computes: what cannot be is said before anything is begun."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from harness.engine import compute
from harness.engine.compute import batches_ahead, compiler_failed, is_compiler_failure, make_fabric
from harness.errors import SettingsError
from harness.machine import launched_processes, process_rank, processes_here
from harness.settings import ComputeSettings, _computed


def settings(**values) -> ComputeSettings:
    return ComputeSettings(**{"device": "cpu", "threads": 1, **values})


@pytest.mark.parametrize("device", ["mps", "cpu:0"])
def test_several_devices_are_gpus_or_processes_on_the_cpu(device: str) -> None:
    with pytest.raises(SettingsError, match=r"2 devices were asked for.*use auto, cuda or cpu"):
        make_fabric(settings(devices=2, device=device))


def test_compiling_is_refused_with_batch_norm_over_several_devices() -> None:
    with pytest.raises(SettingsError, match=r"compute\.batch_norm=local"):
        make_fabric(settings(devices=2, compile=True))


def test_a_compiler_that_is_missing_is_noticed_before_the_run(monkeypatch) -> None:
    def missing(function):
        raise RuntimeError("InvalidCxxCompiler: no compiler\nand more")

    monkeypatch.setattr(compute.torch, "compile", missing)
    with pytest.raises(SettingsError, match=r"cannot compile for cpu here \(InvalidCxxCompiler: no compiler\)"):
        make_fabric(settings(compile=True))


def test_a_compiler_that_fails_later_is_told_apart() -> None:
    class TorchDynamoException(RuntimeError):
        pass

    class CompileError(TorchDynamoException):
        pass

    assert is_compiler_failure(CompileError("no"))
    assert not is_compiler_failure(RuntimeError("no"))
    assert "CompileError: no" in str(compiler_failed(CompileError("no")))


def test_the_compilers_errors_are_those_that_are_told_apart() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    assert any(kind.__name__ == "TorchDynamoException" for kind in BackendCompilerFailed.__mro__)


def test_batches_are_made_ahead_on_a_gpu_or_on_request() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    ahead = {
        (way, device.type): batches_ahead(settings(prefetch=way), device)
        for way in ("auto", "on", "off")
        for device in (cpu, gpu)
    }
    assert {key for key, count in ahead.items() if count} == {("auto", "cuda"), ("on", "cpu"), ("on", "cuda")}


class TestProcesses:
    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch) -> None:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("harness.settings.usable_cores", lambda: 8)

    def started(self, monkeypatch, **values: int) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    def test_one_process_has_all_cores(self) -> None:
        assert (launched_processes(), processes_here(), process_rank()) == (1, 1, 0)
        assert _computed(ComputeSettings()) == {"devices": 1, "threads": 8}

    def test_processes_of_one_machine_share_its_cores(self, monkeypatch) -> None:
        assert _computed(ComputeSettings(devices=3)) == {"devices": 3, "threads": 2}
        assert _computed(ComputeSettings(devices=3, threads=5))["threads"] == 5
        assert _computed(ComputeSettings(devices=20))["threads"] == 1
        self.started(monkeypatch, RANK=5, LOCAL_RANK=1, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4)
        assert (launched_processes(), processes_here(), process_rank()) == (8, 4, 5)
        assert _computed(ComputeSettings()) == {"devices": 8, "threads": 2}

    def test_a_number_that_was_not_started_is_refused(self, monkeypatch) -> None:
        self.started(monkeypatch, RANK=0, LOCAL_RANK=0, WORLD_SIZE=4, LOCAL_WORLD_SIZE=4)
        assert _computed(ComputeSettings(devices=4))["devices"] == 4
        with pytest.raises(SettingsError, match=r"torchrun has started 4 processes.*--nproc-per-node"):
            _computed(ComputeSettings(devices=2))

    def test_variables_of_another_launcher_are_not_taken_for_torchruns(self, monkeypatch) -> None:
        self.started(monkeypatch, RANK=3, WORLD_SIZE=4)
        assert (launched_processes(), process_rank()) == (1, 0)


@pytest.mark.slow
def test_a_compiled_run_is_recorded_as_such(run) -> None:
    plain, compiled = run("plain"), run("compiled", compute={"compile": True})
    assert (plain.record.cost.compiled, compiled.record.cost.compiled) == (False, True)
    first = plain.show.rows[0]["losses"]
    assert compiled.show.rows[0]["losses"] == pytest.approx(first, rel=1e-3)


_FAULTS = """
import resource, sys
import numpy as np
from harness.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(8 << 20)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str, **environment: str) -> int:
    """Of twenty arrays of 64 MiB, one after another, in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    told = {"NUMPY_MADVISE_HUGEPAGE": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], env=kept | told, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")
def test_freed_memory_is_kept_for_the_next_tensor_unless_the_environment_sets_the_allocator() -> None:
    usual = page_faults("leave")
    assert usual > 10 * page_faults("keep")
    assert page_faults("keep", MALLOC_MMAP_MAX_="65536") == pytest.approx(usual, rel=0.1)
