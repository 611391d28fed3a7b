"""`python -m benchmarks` is `python benchmarks/run.py`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
runpy.run_module("run", run_name="__main__")
