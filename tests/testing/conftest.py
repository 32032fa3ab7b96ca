"""The broken plugins are found by name, as installed ones are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "broken"))
