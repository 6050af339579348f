"""Import this first in a script of src/tools: it puts src/ on the import path and fixes the
environment variables."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import vae.environment  # noqa: F401
