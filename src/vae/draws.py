"""Random numbers equal to those of PyTorch's CPU generator, bit for bit, on every processor.

PyTorch's integers are the same everywhere. But its `randn` and `uniform_` have other last bits on a
processor without AVX2, and fewer than sixteen normal numbers go through the C library's log, sin
and cos. draws.c makes all of them as PyTorch does with AVX2; and without the seconds that importing
PyTorch takes.
"""

import ctypes
from collections.abc import Sequence

import numpy as np

from vae.kernel import call

STATE_BYTES = 5056


class Generator:
    """What `torch.Generator().manual_seed(seed)` is, a Mersenne Twister.

    `state` is what PyTorch's `get_state` gives, `(5056,)` uint8, but for this: after an odd count
    of normals below sixteen it keeps the second one of a pair, as a float64 whose last bit is
    draws.c's and not the C library's. The float32 made of it is the same.
    """

    def __init__(self, seed: int) -> None:
        self.state = np.zeros(STATE_BYTES, np.uint8)
        call("seed_generator", self.state, seed)

    def normals(self, *shape: int) -> np.ndarray:
        """Standard normal numbers in this shape, float32, as `torch.randn` gives them."""
        numbers = np.empty(shape, np.float32)
        self.fill_normals([numbers])
        return numbers

    def fill_normals(self, arrays: Sequence[np.ndarray]) -> None:
        """Fill each float32 array in turn with standard normal numbers, as `normal_` does.

        The arrays may be parts of another one. It matters where one ends: PyTorch draws fewer than
        sixteen numbers in another way than more, and the last sixteen twice where sixteen does not
        divide the size. Raises ValueError unless they are contiguous float32.
        """
        for array in arrays:
            if array.dtype != np.float32 or not array.flags.c_contiguous:
                raise ValueError("draws go to contiguous float32 arrays only")
        places = np.array([array.ctypes.data for array in arrays], np.uintp)
        sizes = np.array([array.size for array in arrays], np.int64)
        call("fill_normals", self.state, places, sizes, len(arrays))

    def uniforms(self, bound: float, *shape: int) -> np.ndarray:
        """Numbers from -bound to bound in this shape, float32, as `uniform_` gives them."""
        numbers = np.empty(shape, np.float32)
        call("fill_uniform", self.state, numbers, numbers.size, ctypes.c_float(bound))
        return numbers

    def permutation(self, count: int) -> np.ndarray:
        """A permutation of 0 to count - 1, int64, as `torch.randperm` gives it."""
        order = np.empty(count, np.int64)
        call("permute", self.state, order, count)
        return order

    def integer(self) -> int:
        """A number of 64 bits, 63 of them random, as `random_` gives it to an int64 tensor."""
        return call("random_integer", self.state)
