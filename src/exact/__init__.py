"""PyTorch layers, losses, Adam and random numbers whose bits do not depend on the machine."""

from exact import functional, nn, optim, random
from exact.guard import inexact_operations
from exact.library import BuildError, default_threads, set_threads
from exact.tensors import set_arithmetic

__all__ = [
    "BuildError",
    "default_threads",
    "functional",
    "inexact_operations",
    "nn",
    "optim",
    "random",
    "set_arithmetic",
    "set_threads",
]
