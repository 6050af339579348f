"""Random numbers equal to those of PyTorch's CPU generator, bit for bit, on every processor.

PyTorch's integers are the same everywhere; NumPy's RandomState, which is frozen, has them too. But
PyTorch's `randn` and `uniform_` have other last bits on a processor without AVX2, and fewer than
sixteen normal numbers go through the C library's log, sin and cos. draws.c makes all of them as
PyTorch does with AVX2.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from exact.library import library


class Generator:
    """What `torch.Generator().manual_seed(seed)` is: a Mersenne Twister."""

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed % 2**32)
        self._spare: list[float] = []  # a pair's second normal number, for the next call

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers of this shape, float32, as `torch.randn` does."""
        numbers = torch.empty(shape)
        self.fill_normal([numbers])
        return numbers

    def fill_normal(self, tensors: Sequence[Tensor]) -> None:
        """Fill each float32 tensor in turn with standard normal numbers, as `normal_` does.

        The tensors may be parts of another one. It matters where one ends: PyTorch draws fewer than
        sixteen numbers in another way than more, and the last sixteen twice where sixteen does not
        divide the size. Raises ValueError unless they are contiguous float32 on the CPU.
        """
        for tensor in tensors:
            if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.is_cuda:
                raise ValueError("draws go to contiguous float32 tensors on the CPU only")
        for tensor in tensors:
            count = tensor.numel()
            if count < 16:
                tensor.copy_(torch.tensor(self._few_normals(count)).view(tensor.shape))
            else:
                words = self._words(count + (16 if count % 16 else 0))
                library().many_normals(words.ctypes.data, tensor.data_ptr(), count)

    def uniform(self, bound: float, *shape: int) -> Tensor:
        """Draw numbers from -bound to bound of this shape, float32, as `uniform_` does."""
        steps = (self._words(math.prod(shape)) & 0xFFFFFF).reshape(shape) * 2.0**-24
        # In float64 both operations are exact, so it rounds once, as a fused multiply-add does.
        exact = steps * (2 * np.float64(np.float32(bound))) - np.float64(np.float32(bound))
        return torch.from_numpy(exact.astype(np.float32))

    def permutation(self, count: int) -> Tensor:
        """Draw a permutation of 0 to count - 1, int64, as `torch.randperm` does."""
        order = torch.empty(count, dtype=torch.int64)
        words = self._words(max(0, count - 1))
        library().permute(words.ctypes.data, order.data_ptr(), count)
        return order

    def integer(self) -> int:
        """Draw a number of 64 bits, 63 of them random, as `random_` does for an int64 tensor."""
        high, low = self._words(2).tolist()
        return (high << 32 | low) & (2**63 - 1)

    def get_state(self) -> Tensor:
        """Return all that the next draws depend on: the Mersenne Twister's 624 words, how many of
        them are used, and the spare normal number, if any; float64."""
        _, key, used, *_ = self._twister.get_state()
        return torch.from_numpy(np.array([*key, used, *self._spare], np.float64))

    def set_state(self, state: Tensor) -> None:
        """Continue from what `get_state` returned."""
        values = state.numpy()
        self._twister.set_state(("MT19937", values[:624].astype(np.uint32), int(values[624])))
        self._spare = values[625:].tolist()

    def _words(self, count: int) -> np.ndarray:
        """Draw words of 32 random bits."""
        return self._twister.randint(0, 2**32, count, dtype=np.uint32)

    def _few_normals(self, count: int) -> list[float]:
        """Draw fewer than sixteen: they come in pairs, whose second number may wait."""
        pairs = (count + 1 - len(self._spare)) // 2
        drawn = np.empty(2 * pairs)
        words = self._words(4 * pairs)
        library().normal_pairs(words.ctypes.data, drawn.ctypes.data, pairs)
        numbers = [*self._spare, *drawn.tolist()]
        self._spare = numbers[count:]
        return numbers[:count]
