"""Random numbers equal to torch's, bit for bit, that do not depend on the processor.

torch's generator gives the same integers everywhere, and so the same `rand` and `randperm`. But
`randn` and `uniform_` have other last bits on a processor without AVX2, and fewer than sixteen
normal numbers go through the C library's log, sin and cos. draws.c makes the numbers from the
integers as torch does with AVX2.

Each function leaves the generator in the state in which torch's own leaves it, but for this: after
an odd count of normals below sixteen, the state keeps the second one of a pair, as a float64 whose
last bit is draws.c's and not the C library's. The float32 made of it is the same.
"""

from collections.abc import Sequence

from vae.kernel import library

import numpy as np
import torch
from torch import Tensor


def normals(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal numbers in this shape, float32, as `torch.randn` gives them."""
    tensor = torch.empty(*shape, dtype=torch.float32)
    fill_normals([tensor], generator)
    return tensor


def fill_normals(tensors: Sequence[Tensor], generator: torch.Generator) -> None:
    """Fill each tensor in turn with standard normal numbers, as its `normal_` does.

    The tensors may be parts of another one. It matters where one ends: torch draws fewer than
    sixteen numbers in another way than more, and the last sixteen twice where sixteen does not
    divide the size. Raises ValueError unless they are contiguous float32 on the CPU.
    """
    places = np.array([_address(tensor) for tensor in tensors], dtype=np.uintp)
    sizes = np.array([tensor.numel() for tensor in tensors], dtype=np.int64)
    state = generator.get_state()
    library().fill_normals(state.data_ptr(), places.ctypes.data, sizes.ctypes.data, len(tensors))
    generator.set_state(state)


def fill_uniform(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a tensor with numbers from -bound to bound, as its `uniform_` does. Raises ValueError as
    above."""
    place = _address(tensor)
    state = generator.get_state()
    library().fill_uniform(state.data_ptr(), place, tensor.numel(), bound)
    generator.set_state(state)


def _address(tensor: Tensor) -> int:
    if not (tensor.is_cpu and tensor.dtype == torch.float32 and tensor.is_contiguous()):
        raise ValueError("draws go to contiguous float32 tensors on the CPU only")
    return tensor.data_ptr()
