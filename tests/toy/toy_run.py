"""``python toy_run.py OUT RESUME JSON``: a toy run in a process of its own, so that it can be killed."""

import json
import sys
from pathlib import Path

from harness.engine.run import plan_run, run_planned
from toy_parts import Silent, toy_catalogue, toy_settings

plan = plan_run(toy_settings(**json.loads(sys.argv[3])), toy_catalogue())
run_planned(plan, Path(sys.argv[1]), resume=sys.argv[2] == "resume", force=False, show=Silent())
