"""Random numbers equal to those of PyTorch's CPU generator, bit for bit, on every processor.

PyTorch's integers are the same everywhere; NumPy's RandomState, which is frozen, has them too. But
PyTorch's `randn` and `uniform_` have other last bits on a processor without AVX2, and fewer than
sixteen normal numbers go through the C library's log, sin and cos. draws.c makes all of them as
PyTorch does with AVX2; and without the seconds that importing PyTorch takes.
"""

import math
from collections.abc import Sequence

import numpy as np

from vae.kernel import call


class Generator:
    """What `torch.Generator().manual_seed(seed)` is, a Mersenne Twister."""

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed % 2**32)
        self._spare: list[float] = []  # a pair's second normal, not yet handed out

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
        for array in arrays:
            if array.size < 16:
                array[...] = np.reshape(self._few_normals(array.size), array.shape)
            else:
                words = self._words(array.size + (16 if array.size % 16 else 0))
                call("many_normals", words, array, array.size)

    def uniforms(self, bound: float, *shape: int) -> np.ndarray:
        """Numbers from -bound to bound in this shape, float32, as `uniform_` gives them."""
        steps = (self._words(math.prod(shape)) & 0xFFFFFF).reshape(shape) * 2.0**-24
        # In float64 both operations are exact, so it rounds once, as a fused multiply-add does.
        exact = steps * (2 * np.float64(np.float32(bound))) - np.float64(np.float32(bound))
        return exact.astype(np.float32)

    def permutation(self, count: int) -> np.ndarray:
        """A permutation of 0 to count - 1, int64, as `torch.randperm` gives it."""
        order = np.empty(count, np.int64)
        words = self._words(max(0, count - 1))
        call("permute", words, order, count)
        return order

    def integer(self) -> int:
        """A number of 64 bits, 63 of them random, as `random_` gives it to an int64 tensor."""
        high, low = self._words(2).tolist()
        return (high << 32 | low) & (2**63 - 1)

    def state(self) -> np.ndarray:
        """All that the next draws depend on: the Mersenne Twister's 624 words, how many of them are
        used, and the spare normal number, if any; float64."""
        _, key, used, *_ = self._twister.get_state()
        return np.array([*key, used, *self._spare])

    def restore(self, state: np.ndarray) -> None:
        """Go on from what `state` gave."""
        self._twister.set_state(("MT19937", state[:624].astype(np.uint32), int(state[624])))
        self._spare = state[625:].tolist()

    def _words(self, count: int) -> np.ndarray:
        """The next words of 32 random bits."""
        return self._twister.randint(0, 2**32, count, dtype=np.uint32)

    def _few_normals(self, count: int) -> list[float]:
        """Fewer than sixteen come in pairs, whose second number may wait for the next call."""
        pairs = (count + 1 - len(self._spare)) // 2
        drawn = np.empty(2 * pairs)
        call("normal_pairs", self._words(4 * pairs), drawn, pairs)
        numbers = [*self._spare, *drawn.tolist()]
        self._spare = numbers[count:]
        return numbers[:count]
