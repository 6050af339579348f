"""What the stage scripts share: model, objective, random stream, training loop, figures, tracking.

Scripts import from here before any other library: what is set below has to be set by then.
"""

import os
import sys

# MKL splits small matrix products by the number of threads, and the last bits differ with the split. Its
# strict reproducible mode does not, at the same speed here. MKL reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

_tell = sys.excepthook


def _tell_interrupts_in_a_line(kind, error, traceback) -> None:
    """Ctrl-C is no mistake: no traceback for it from within the import of PyTorch, before `run_stage`."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        _tell(kind, error, traceback)


sys.excepthook = _tell_interrupts_in_a_line
