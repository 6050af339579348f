"""The operations of a piece of work whose bits depend on the machine."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# ATen operations that copy, select, compare, or round each element once, as IEEE 754 says.
NAMES = """
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones
    ones_like new_ones full full_like new_full fill zero scalar_tensor arange eye
    alias view _unsafe_view view_as reshape _reshape_alias as_strided t transpose permute expand
    squeeze unsqueeze select slice narrow split split_with_sizes unbind chunk diagonal flatten
    unflatten movedim detach lift_fresh clone copy _to_copy contiguous resize set
    cat stack repeat flip roll index index_select gather take where masked_fill constant_pad_nd
    select_backward slice_backward slice_scatter select_scatter
    eq ne lt le gt ge equal isnan isinf isfinite logical_and logical_or logical_not logical_xor
    bitwise_and bitwise_or bitwise_not all any is_same_size _local_scalar_dense is_pinned
    relu threshold_backward clamp clamp_min clamp_max maximum minimum max min amax amin argmax
    argmin sort topk max_pool2d_with_indices max_pool2d_with_indices_backward
    neg abs sign floor ceil round trunc add sub rsub mul div sqrt
"""
EXACT = set(NAMES.split())


def inexact_operations(work: Callable[[], Any]) -> list[str]:
    """Run `work` and list the operations whose bits IEEE 754 does not decide, by their ATen names.

    Sums, products of matrices, exp, convolutions, fused multiply-adds, random numbers: PyTorch's
    own kernels choose how they round by the processor and the number of threads. What this package
    computes is not among them. Operations on whole numbers alone are exact.
    """
    with _Record() as record:
        work()
    return sorted(record.found)


class _Record(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        real = any(x.is_floating_point() or x.is_complex() for x in tensors)
        # With alpha, a sum is a fused multiply-add on some processors; complex products are sums.
        exact = name.rstrip("_") in EXACT and kwargs.get("alpha", 1) == 1
        # The gradients of windows that overlap are summed; those of others are copied.
        if name == "max_pool2d_with_indices_backward":
            kernel, stride, dilation = args[2], args[3] or args[2], args[5]
            exact = (max(kernel) - 1) * max(dilation) < min(stride)
        if real and not (exact and not any(x.is_complex() for x in tensors)):
            self.found.add(str(function))
        return result
