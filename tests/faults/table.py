"""``python -m tests.faults.table`` meets every fault and writes what was observed to ``docs/reliability.md``."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TOYS = Path(__file__).parents[1] / "toy"
sys.path[:0] = [] if str(TOYS) in sys.path else [str(TOYS)]

from tests.faults import kills, machine_faults, part_faults  # noqa: E402
from tests.faults.workbench import EPOCHS, ITERATIONS, Bench, Fault, Outcome  # noqa: E402
from toy_runs import Ran  # noqa: E402

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
GROUPS = {"Parts and encoders": part_faults.FAULTS, "The machine": machine_faults.FAULTS}

NOTHING, AT_MOST = "nothing lost", "at most the current epoch, trained again"

PROSE = """\
# Reliability

Written by `make reliability`: the tables are what the tests observe.

## What is saved, and when

Every epoch ends with a checkpoint: weights, optimiser, teacher, the parts' state, history. It is written aside, synced
and renamed, and the last two are kept. Whatever else the next epoch depends on is a function of the seed and the
epoch's number.

Ctrl-C, `SIGTERM` and `SIGUSR1` let the iteration in progress end, save what its epoch has changed so far (with the
samplers' positions and every random state), and end the process with status 128 + the signal's number and one line that
says how to go on. A second signal does not wait.

`--resume` goes on from there to the bits of a run that was never stopped. It begins a run that is not there and leaves
a finished one alone, so a job script can always say it. A damaged checkpoint is passed over for the one before, with a
warning in the record. A run holds a lock on its folder; the file `owner` says who that is.

With Slurm, which repeats a job script from its start:

```bash
#!/bin/bash
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
srun harness run --plugins pgm --name pgm --resume
status=$?
if [ "$status" -eq 138 ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # 128 + SIGUSR1
exit "$status"
```

Two limits. Two checkpoints are kept: if both are damaged, the run begins anew. And within an epoch only a run whose
parts all declare what they change (`changing`) can be put down; with another part a signal costs the iterations of that
epoch, and the message names the part.

Training on one device has no worker processes that could be killed: images are decoded once, by threads. Rendering
the embedded dataset has, and without one of them it begins anew.

## Faults

A toy method on the rendered dataset meets each fault in the last of {epochs} epochs, {iterations} iterations each, or
where the row says. Then the fault is lifted and `--resume` goes on: figures, weights, embeddings and history must be,
byte for byte, those of a run without the fault, and no half-written file may be left. *Lost* is counted: iterations
that were trained and are not on disk after the fault.
"""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    fault: str
    where: str
    happened: str
    lost: str

    def __str__(self) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in vars(self).values()) + " |"


def row_of(fault: Fault, outcome: Outcome, straight: Ran) -> Row:
    """What was observed. Raises AssertionError if the run did not end, and go on, as it must."""
    found = re.search(fault.says, outcome.said, re.DOTALL)
    assert found, f"{outcome.said!r} does not say {fault.says!r}"
    assert type(outcome.error) is (fault.error or type(None)), repr(outcome.error)
    assert getattr(outcome.ran, fault.same) == getattr(straight, fault.same)
    assert outcome.torn == []
    assert outcome.lost <= ITERATIONS
    kind = "a warning, and it goes on" if fault.error is None else fault.error.__name__
    said = shown(found[0])
    return Row(fault.name, fault.where, kind if said == kind else f"{kind}: {said}", words(outcome))


def shown(said: str) -> str:
    """A text without what differs from machine to machine: folders, room on the disk, numbers of errors."""
    said = re.sub(r"/\S*/", "", said)
    said = re.sub(r"The disk had \d+ MiB left\. ", "", said)
    said = re.sub(r"\[enforce fail[^]]*\][^']*?(?=can't)", "", said)
    return re.sub(r"\(?\[Errno \d+\] ([\w /]+)\)?", r"(\1)", said)


def words(outcome: Outcome) -> str:
    """What was lost."""
    if not outcome.lost:
        return NOTHING
    if outcome.error is None:
        return "the last epoch that had ended, trained again"
    return f"{outcome.lost} of {ITERATIONS} iterations of the current epoch, trained again"


def document(groups: dict[str, list[Row]]) -> str:
    """The whole file."""
    head = "| fault | where injected | what happened | what was lost |\n|:--|:--|:--|:--|\n"
    tables = [f"\n### {name}\n\n{head}" + "".join(f"{row}\n" for row in rows) for name, rows in groups.items()]
    return prose() + "".join(tables)


def prose() -> str:
    """What stands before the tables."""
    return PROSE.replace("{epochs}", str(EPOCHS)).replace("{iterations}", str(ITERATIONS))


def observe(bench: Bench, root: Path) -> dict[str, list[Row]]:
    """Meet every fault, in folders of ``root``."""
    groups: dict[str, list[Row]] = {}
    for group, faults in GROUPS.items():
        outs = [root / f"{len(groups)}-{number}" / "runs" for number in range(len(faults))]
        met = [(fault, bench.suffer(fault, out)) for fault, out in zip(faults, outs, strict=True)]
        groups[group] = [row_of(fault, outcome, bench.straight) for fault, outcome in met]
    groups["A process that is killed"] = [
        killed(bench, stage, root / f"kills-{number}") for number, stage in enumerate(kills.STAGES)
    ]
    return groups


def killed(bench: Bench, stage: str, root: Path) -> Row:
    """Kill a run at every point of a stage. Raises AssertionError if one does not go on to the same bits."""
    lost = [loss_of_kill(bench, point, root / str(number)) for number, point in enumerate(kills.points(stage))]
    happened = f"{len(lost)} runs, each killed at a random point: each goes on to the same bits"
    return Row("SIGKILL", stage, happened, AT_MOST if any(lost) else NOTHING)


def loss_of_kill(bench: Bench, point: kills.Point, out: Path) -> int:
    """Kill a run; the iterations that it lost. Raises AssertionError if it does not go on to the same bits."""
    outcome = kills.kill_and_go_on(point, out)
    assert outcome.ran.bits == bench.straight.bits, point
    assert outcome.torn == [], point
    assert 0 <= outcome.lost <= ITERATIONS, point
    return outcome.lost


def main() -> None:
    import torch

    from harness.data.rendered import ensure_rendered

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARNESS_CACHE"] = str(Path(folder) / "cache")
        tiny = ensure_rendered(size="tiny", seed=0)
        DOCUMENT.write_text(document(observe(Bench(Path(folder), tiny), Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
