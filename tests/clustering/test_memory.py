import re
import subprocess
import sys
import textwrap

import pytest
import torch

from harness.clustering import memory
from harness.clustering.jaccard import k_reciprocal_jaccard
from harness.clustering.neighbours import nearest_neighbours
from harness.errors import SettingsError


def test_the_estimate_grows_with_the_rows_and_not_with_their_square():
    one, hundred = (memory.clustering_bytes(rows, 256) for rows in (100_000, 10_000_000))
    assert 90 * one < hundred < 101 * one


def test_a_million_rows_fit_in_eight_gib():
    assert memory.clustering_bytes(1_000_000, 256) < 8 << 30


def test_an_input_that_cannot_fit_is_refused_with_the_figure_and_what_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    features = torch.zeros(200_000, 4)
    with pytest.raises(SettingsError, match=r"needs about \d+\.\d\d GiB .* 0\.10 GiB are available") as caught:
        k_reciprocal_jaccard(features)
    rows = int(re.search(r"About ([\d,]+) rows would fit", str(caught.value))[1].replace(",", ""))
    assert 1000 < rows < 200_000
    with pytest.raises(SettingsError, match="neighbour search"):
        nearest_neighbours(features, 30)


def test_what_the_system_does_not_tell_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    memory.require_memory(1 << 60, "A test", (1, 1))


def test_the_limit_of_a_control_group_counts(tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1200\n")
    assert memory._from_control_group(tmp_path) == 3800
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._from_control_group(tmp_path) is None
    assert memory._from_control_group(tmp_path / "absent") is None


@pytest.mark.slow
def test_fifty_thousand_rows_cluster_within_a_limit_that_a_square_array_would_break():
    """Even one byte per pair would take 2.5 GB; the process may take 1.5 GiB more than it has after a small run."""
    script = """
        import resource, torch
        from pathlib import Path
        from harness.clustering.dbscan import dbscan
        from harness.clustering.jaccard import k_reciprocal_jaccard
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(2500, 16, generator=generator)
        def labels(rows):
            noise = torch.randn(rows, 16, generator=generator)
            features = torch.nn.functional.normalize(centres[torch.arange(rows) % 2500] + 0.2 * noise, dim=1)
            return dbscan(k_reciprocal_jaccard(features, max_distance=0.6), eps=0.6)
        labels(5000)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + (3 << 29),) * 2)
        found = labels(50_000)
        print(found.max() + 1)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert 2300 <= int(run.stdout) <= 2700
