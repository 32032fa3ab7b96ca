"""``python toy_processes.py OUT RESUME JSON``: a run of one or more processes that keeps every step's terms.

JSON holds the settings and beside them ``real`` (plugins of the repository instead of the toy one) and ``fail``
("RANK:STEP": that process fails there; "RANK:STEP:kill": is killed there; "RANK:STEP:stop": asks the group to stop).
"""

import json
import os
import signal
import sys
from pathlib import Path

from harness.cli.show import Terminal
from harness.engine import train
from harness.engine.run import plan_run, run_planned
from harness.errors import HarnessError
from harness.machine import process_rank
from harness.plugins import Catalogue
from toy_parts import toy_catalogue, toy_settings

out, values = Path(sys.argv[1]), json.loads(sys.argv[3])
real, fail = values.pop("real", False), values.pop("fail", "")
steps: list[dict[str, float]] = []
add = train.Going.add


def kept(going, terms) -> None:
    steps.append({name: float(value) for name, value in terms.items()})
    add(going, terms)
    rank, step, *how = fail.split(":") if fail else ("-1", "0")
    if process_rank() == int(rank) and len(steps) == int(step):
        if not how:
            raise MemoryError("no room")
        os.killpg(os.getpgid(0), signal.SIGINT) if how == ["stop"] else os.kill(os.getpid(), signal.SIGKILL)


train.Going.add = kept
try:
    plan = plan_run(toy_settings(**values), Catalogue() if real else toy_catalogue())
    run_planned(plan, out, resume=sys.argv[2] == "resume", force=False, show=Terminal())
except HarnessError as error:
    if process_rank() == 0:
        print(f"harness: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
finally:
    if process_rank() == 0:
        (out / "steps.json").write_text(json.dumps(steps))
