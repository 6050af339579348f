"""Put src/ on the import path, so that what is run from src/tools imports `vae` as the stages
do, and fix the surroundings first, as they do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import vae.environment  # noqa: F401
