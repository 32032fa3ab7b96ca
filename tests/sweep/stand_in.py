"""``python stand_in.py PARENT run --settings FILE --out RUNS --resume``: in the place of a run, for the sweep's logic.

It does what a file in the folder STAND_IN asks for by the cell's name: NAME.fail, NAME.hang; else it ends well.
"""

import os
import signal
import sys
from pathlib import Path

settings, out = Path(sys.argv[4]), Path(sys.argv[6])
name, asked = settings.stem, Path(os.environ["STAND_IN"])
with (asked / "begun").open("a") as file:
    file.write(f"{name} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")


def stop(number: int, frame: object) -> None:
    (asked / f"{name}.signal").write_text(str(number))
    sys.exit(128 + number)


if (asked / f"{name}.fail").exists():
    print("some words\n\nharness: broken on purpose\n", file=sys.stderr)
    sys.exit(3)
if (asked / f"{name}.kill").exists():
    print("harness: about to end", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if (asked / f"{name}.hang").exists():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    (asked / f"{name}.hangs").touch()
    while True:
        signal.pause()
(out / name / "record.json").write_text("{}")
