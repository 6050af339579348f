"""Tensors as arguments of the C library, and the choice of who computes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# The C library may read this many numbers beyond the end of a right factor or a bias.
ROOM = 128
ARITHMETICS = ("exact", "torch")
_arithmetic = "exact"


def set_arithmetic(name: str) -> None:
    """Choose who computes: "exact", this library, or "torch", PyTorch's own kernels.

    Raises ValueError for another name.
    """
    global _arithmetic
    if name not in ARITHMETICS:
        raise ValueError(f"arithmetic is {name!r}; it should be one of {', '.join(ARITHMETICS)}")
    _arithmetic = name


def computes(tensor: Tensor) -> bool:
    """Say whether this library computes with a tensor of any type."""
    return _arithmetic == "exact" and tensor.is_cpu


def computed_here(tensor: Tensor) -> bool:
    """Say whether this library computes with a tensor of floating-point values."""
    return computes(tensor) and tensor.dtype == torch.float32


def empty(*shape: int) -> Tensor:
    """Make an uninitialised float32 tensor with the room behind it that the C library reads."""
    return torch.empty(math.prod(shape) + ROOM)[: math.prod(shape)].view(shape)


def roomy(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor with room behind it: the tensor itself or a copy."""
    end = 4 * (tensor.storage_offset() + tensor.numel() + ROOM)
    if tensor.is_contiguous() and tensor.untyped_storage().nbytes() >= end:
        return tensor
    return empty(*tensor.shape).copy_(tensor)


def saved_tensors(ctx: Any) -> Sequence[Tensor]:
    """Return the tensors that forward saved. Raises RuntimeError under create_graph: C functions
    have no second derivatives."""
    if torch.is_grad_enabled():
        raise RuntimeError("exact operations can be differentiated once only (no create_graph)")
    return ctx.saved_tensors


def addresses(*tensors: Tensor | None) -> list[int]:
    """Return the addresses of tensors, 0 for None. The caller keeps the tensors alive."""
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
