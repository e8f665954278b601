"""Bad input of every kind for everything that reads files and settings: `python -m tests.fuzz --help`."""

import os
import sys
from pathlib import Path

# The tests' own modules by the names that pytest gives them, and no way to the network or an accelerator.
sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
