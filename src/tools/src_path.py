"""Put src/ on the import path: what is run from src/tools imports `vae` as the stages do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
