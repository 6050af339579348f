"""Convolutions, by products with copied patches (convolution.h)."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.utils import _pair

from exact.elementwise import sum
from exact.library import library
from exact.tensors import addresses, computed_here, empty, roomy, saved_tensors

Size = Sequence[int]
Pair = int | tuple[int, int]


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0
) -> Tensor:
    """Return the convolution that torch.nn.functional.conv2d defines, without groups or dilation.

    `x` is `(batch, channels, height, width)` float32, or uint8 of zeros and ones; `weight` is
    `(outputs, channels, kernel height, kernel width)`, `bias` `(outputs,)`. Each element is one
    chain of fused multiply-adds over rows, columns and channels of its patch, ascending, from the
    bias or 0; padding is zeros. What it returns has the memory format torch.channels_last, and an
    input of that format is fastest. Raises ValueError as `linear`, and where no patch fits.
    """
    if not computed_here(weight):
        return torch.nn.functional.conv2d(x.to(weight.dtype), weight, bias, stride, padding)
    x, stride, padding = _checked(x, weight, 1, bias), _pair(stride), _pair(padding)
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, strict=True)
    size = [(length + 2 * p - kernel) // s + 1 for length, kernel, s, p in sizes]
    if min(size) < 1:
        raise ValueError(f"conv2d: a patch {tuple(weight.shape[2:])} is larger than the images")
    return _Convolution.apply(False, x, weight, bias, size, stride, padding)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
) -> Tensor:
    """Return the transposed convolution, the gradient of `conv2d` by its input.

    `weight` is `(channels, outputs, kernel height, kernel width)`, all else as for `conv2d`. Each
    element is one chain of fused multiply-adds, over rows, columns and channels of the elements of
    `x` that contribute to it, ascending. Raises ValueError as `linear`.
    """
    if not computed_here(weight):
        return torch.nn.functional.conv_transpose2d(
            x.to(weight.dtype), weight, bias, stride, padding, output_padding
        )
    x, stride, padding = _checked(x, weight, 0, bias), _pair(stride), _pair(padding)
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, _pair(output_padding), strict=True)
    size = [(length - 1) * s - 2 * p + kernel + more for length, kernel, s, p, more in sizes]
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: images {tuple(size)} would be empty")
    return _Convolution.apply(True, x, weight, bias, size, stride, padding)


def _checked(x: Tensor, weight: Tensor, axis: int, bias: Tensor | None) -> Tensor:
    """Return images as float32. Raises ValueError unless they and the bias fit a weight, whose
    `axis` is that of the channels."""
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[axis]:
        raise ValueError(f"images {tuple(x.shape)} do not fit weight {tuple(weight.shape)}")
    if x.dtype not in (torch.float32, torch.uint8) or not x.is_cpu:
        raise ValueError(f"images should be float32 or uint8 on the CPU, not {x.dtype}")
    if bias is not None and (
        bias.shape != weight.shape[1 - axis : 2 - axis] or not computed_here(bias)
    ):
        raise ValueError(f"the bias should be float32 ({weight.shape[1 - axis]},) on the CPU")
    if x.dtype == torch.uint8 and (x > 1).any():
        raise ValueError("an input of uint8 should hold zeros and ones only")
    return x.float()


class _Convolution(torch.autograd.Function):
    """A convolution, `_gather`, or a transposed one, `_spread`: each is the other's gradient."""

    @staticmethod
    def forward(
        ctx: Any, transposed: bool, x: Tensor, w: Tensor, b: Tensor | None, size: Size, *steps: Size
    ) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.transposed, ctx.steps = transposed, steps
        return (_spread if transposed else _gather)(x, w, b, size, *steps)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        (x, w), (_, by_x, by_w, by_b, *_) = saved_tensors(ctx), ctx.needs_input_grad
        back = _gather if ctx.transposed else _spread
        images = (by_y, x) if ctx.transposed else (x, by_y)
        return (
            None,
            back(by_y, w, None, x.shape[2:], *ctx.steps) if by_x else None,
            _by_weight(*images, w.shape[2:], *ctx.steps) if by_w else None,
            # Sums over images, rows and columns, ascending, in float64, rounded once.
            sum(_channels_last(by_y).flatten(0, 2)).float() if by_b else None,
            *[None] * 3,
        )


def _gather(
    x: Tensor, w: Tensor, b: Tensor | None, size: Size, stride: Size, padding: Size
) -> Tensor:
    """Return the convolution of this size."""
    return _convolve(x, w.permute(2, 3, 1, 0), b, size, stride, [-p for p in padding])


def _spread(
    x: Tensor, w: Tensor, b: Tensor | None, size: Size, stride: Size, padding: Size
) -> Tensor:
    """Return the transposed convolution of this size.

    A row's and a column's remainder by the stride decide which part of the weight contributes to
    it, so it is a convolution with each part, reversed.
    """
    y = _channels_first(torch.empty(len(x), *size, w.shape[1]))
    for i, j in itertools.product(*map(range, stride)):
        part, first = w.permute(2, 3, 0, 1), []
        for axis, at in enumerate((i + padding[0], j + padding[1])):
            taps = range(at % stride[axis], part.shape[axis], stride[axis])
            part = part.index_select(axis, torch.tensor(taps[::-1], dtype=torch.int64))
            first.append(at // stride[axis] - max(len(taps) - 1, 0))
        place = y[:, :, i :: stride[0], j :: stride[1]]
        place.copy_(_convolve(x, part, b, place.shape[2:], (1, 1), first))
    return y


def _convolve(
    x: Tensor, w: Tensor, b: Tensor | None, size: Size, stride: Size, first: Size
) -> Tensor:
    """Return `(batch, outputs, *size)` for a weight `(height, width, channels, outputs)`.

    The first patch begins at `first`, the others `stride` apart.
    """
    x, y = _channels_last(x), torch.empty(len(x), *size, w.shape[3])
    w, b = roomy(w), None if b is None else roomy(b)
    numbers = *x.shape, *size, w.shape[3], *w.shape[:2], *stride, *first
    library().convolve(*addresses(x, w, b, y), *numbers)
    return _channels_first(y)


def _by_weight(x: Tensor, by_y: Tensor, kernel: Size, stride: Size, padding: Size) -> Tensor:
    """Return the gradient of a convolution by its weight: each element one chain over images, rows
    and columns of `by_y`, ascending."""
    x, by_y = _channels_last(x), roomy(_channels_last(by_y))
    by_w = empty(*kernel, x.shape[3], by_y.shape[3])
    numbers = *x.shape, *by_y.shape[1:], *kernel, *stride, *(-p for p in padding)
    library().convolve_by_weight(*addresses(x, by_y, by_w), *numbers)
    return by_w.permute(3, 2, 0, 1)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
