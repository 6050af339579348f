"""What the last bits of the results depend on: the processor, PyTorch's version and these
settings."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

# Settings under which any x86-64 processor with AVX2 should round alike: matrix products in MKL's
# one code path for all processors, the rest in AVX2, and a number of threads that the machine does
# not choose.
PORTABLE = {
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
}


def pin(arithmetic: str) -> None:
    """With "portable", start this script anew under `PORTABLE`; with "native", do nothing.

    A new process, because some of the settings are read once, when torch is loaded.
    """
    if arithmetic == "portable" and any(
        os.environ.get(key) != value for key, value in PORTABLE.items()
    ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **PORTABLE})


def owner() -> dict[str, Any]:
    """What native results' bits belong to: processor, vector instructions, MKL's mode, PyTorch's
    version."""
    import torch

    return {
        "cpu": _cpu(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "mkl": os.environ["MKL_CBWR"],
        "torch": torch.__version__,
    }


def _cpu() -> dict[str, str]:
    """Maker, family and model of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {"machine": platform.machine(), "processor": platform.processor()}
    fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    names = {"vendor": "vendor_id", "family": "cpu family", "model": "model"}
    return {key: fields.get(name, "unknown") for key, name in names.items()}
