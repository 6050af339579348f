"""Operations whose bits do not depend on the machine: an autograd function over C for each.

They compute float32 on the CPU. Tensors of another type or device, and all tensors after
`set_arithmetic("torch")`, go to PyTorch's own kernels, whose bits belong to the machine.
"""

import ctypes
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.modules.utils import _pair

from exact.library import UNCHANGED, library

# The C library may read so many numbers beyond the end of a right factor or a bias.
ROOM = 128
ARITHMETICS = ("exact", "torch")
_arithmetic = "exact"
Size = Sequence[int]
Pair = int | tuple[int, int]


def set_arithmetic(name: str) -> None:
    """Choose who computes from now on: "exact", this library, or "torch", PyTorch's own kernels.

    Raises ValueError for another name.
    """
    global _arithmetic
    if name not in ARITHMETICS:
        raise ValueError(f"arithmetic is {name!r}; it should be one of {', '.join(ARITHMETICS)}")
    _arithmetic = name


def is_exact(tensor: Tensor) -> bool:
    """Say whether this library computes what a tensor of values is an input of."""
    return _arithmetic == "exact" and tensor.dtype == torch.float32 and tensor.is_cpu


def empty(*shape: int) -> Tensor:
    """Make an uninitialised float32 tensor with the room behind it that the C library reads."""
    return torch.empty(math.prod(shape) + ROOM)[: math.prod(shape)].view(shape)


def roomy(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor with room behind it: the tensor itself or a copy."""
    end = 4 * (tensor.storage_offset() + tensor.numel() + ROOM)
    if tensor.is_contiguous() and tensor.untyped_storage().nbytes() >= end:
        return tensor
    return empty(*tensor.shape).copy_(tensor)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """Return x W' + b, `(..., outputs)`, with negatives as 0 where `relu` is set.

    `x` is `(..., inputs)`, float32, or uint8 of zeros and ones, which is summed by its ones.
    `weight` is `(outputs, inputs)` as torch.nn.Linear has it, `bias` `(outputs,)`. Each element is
    one chain of fused multiply-adds over the inputs, ascending, from the bias or 0. A weight whose
    transpose is contiguous, as `exact.nn.Linear` makes it, is the fastest. Raises ValueError where
    a shape or a type does not fit, or a uint8 is not 0 or 1.
    """
    return linears(x, [(weight, bias, relu)])


def linears(x: Tensor, layers: Sequence[tuple[Tensor, Tensor | None, bool]]) -> Tensor:
    """Apply layers of `weight, bias, relu` one after the other, each as `linear`.

    They are one autograd function, since a step's time outside C is mostly autograd's.
    """
    if not all(is_exact(weight) for weight, _, _ in layers):
        for weight, bias, relu in layers:
            x = torch.nn.functional.linear(x.to(weight.dtype), weight, bias)
            x = x.relu() if relu else x
        return x
    if not layers:
        return x
    if x.dtype not in (torch.float32, torch.uint8) or not x.is_cpu:
        raise ValueError(f"linear: x should be float32 or uint8 on the CPU, not {x.dtype}")
    inputs, tensors = x.shape[-1], []
    for weight, bias, _ in layers:
        if weight.shape[1:] != (inputs,):
            raise ValueError(f"linear: {inputs} inputs do not fit weight {tuple(weight.shape)}")
        inputs = weight.shape[0]
        if bias is not None and (bias.shape != (inputs,) or not is_exact(bias)):
            raise ValueError(f"linear: the bias should be float32 ({inputs},) on the CPU")
        tensors += weight, bias
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    y = _Linears.apply(rows, [relu for _, _, relu in layers], *tensors)
    return y if x.ndim == 2 else y.view(*x.shape[:-1], inputs)


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, relus: Sequence[bool], *parameters: Tensor | None
    ) -> Tensor:
        rows, saved = x.shape[0], []
        x = x.contiguous()
        for relu, weight, bias in zip(relus, parameters[::2], parameters[1::2], strict=True):
            w, b = roomy(weight.t()), None if bias is None else roomy(bias)
            y = torch.empty(rows, w.shape[1])
            product = library().linear_of_bytes if x.dtype == torch.uint8 else library().linear
            product(*_pointers(x, w, b, y), rows, *w.shape, relu)
            saved += x, w
            x = y
        ctx.save_for_backward(*saved, y)
        ctx.relus = relus
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        saved = _saved(ctx)
        by_y, found = by_y.contiguous(), []
        for number in reversed(range(len(ctx.relus))):
            x, w, y = saved[2 * number : 2 * number + 3]
            wanted = ctx.needs_input_grad[2 + 2 * number : 4 + 2 * number]
            by_w = torch.empty(w.shape) if wanted[0] else None
            by_b = torch.empty(w.shape[1]) if wanted[1] else None
            by_x = torch.empty(x.shape) if number or ctx.needs_input_grad[0] else None
            y = y if ctx.relus[number] else None
            if x.dtype == torch.uint8:
                tensors = _pointers(x, y, by_y, by_w, by_b)
                library().linear_of_bytes_backward(*tensors, x.shape[0], *w.shape)
            else:
                tensors = _pointers(x, w, y, by_y, by_x, by_w, by_b)
                library().linear_backward(*tensors, x.shape[0], *w.shape)
            found += by_b, None if by_w is None else by_w.t()
            by_y = by_x
        return by_y, None, *reversed(found)


def bernoulli_nll(logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(x) of each image under independent pixels, `(..., batch)` nats, float64.

    `logits` `(..., batch, pixels)` are those of a pixel being 1, `images` `(batch, pixels)` uint8
    of zeros and ones. Each term is the sum over the pixels of log(1 + exp(l)) - l x, taken in 16
    interleaved parts.
    """
    if not is_exact(logits):
        pixels = images.to(logits.dtype).expand_as(logits)
        return binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1).double()
    if logits.shape[-2:] != images.shape or images.dtype != torch.uint8:
        raise ValueError(
            f"bernoulli_nll: logits {tuple(logits.shape)} do not fit images {images.dtype} "
            f"{tuple(images.shape)}"
        )
    return _BernoulliNLL.apply(logits, images)


class _BernoulliNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, images: Tensor) -> Tensor:
        logits, images = logits.contiguous(), images.contiguous()
        terms = torch.empty(logits.shape[:-1], dtype=torch.float64)
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        tensors = _pointers(logits, images, terms, gradient)
        library().bernoulli_nll(*tensors, terms.numel(), *images.shape)
        ctx.save_for_backward(gradient)
        return terms

    @staticmethod
    def backward(ctx: Any, by_terms: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = _saved(ctx)
        by_logits, shape = torch.empty_like(gradient), (by_terms.numel(), gradient.shape[-1])
        tensors = _pointers(gradient, by_terms.contiguous(), by_logits)
        status = library().bernoulli_nll_backward(*tensors, *shape)
        return gradient if status == UNCHANGED else by_logits, None


def gaussian_sample_and_kl(posterior: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Sample diagonal Gaussians, and give their KL divergence to the standard normal distribution.

    `posterior` is `(batch, 2 latent)`: the mean beside the log-variance; `noise` is standard normal
    `(batch, latent)`. Returns mean + exp(log_variance / 2) noise, `(batch, latent)`, and the KL,
    `(batch,)` nats, float64 (Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4
    and appendix B). One operation, since its gradient is one sum, rounded once.
    """
    if not is_exact(posterior):
        mean, log_variance = posterior.chunk(2, dim=1)
        return mean + torch.exp(0.5 * log_variance) * noise, gaussian_kl(posterior)
    batch, latent = noise.shape
    if posterior.shape != (batch, 2 * latent):
        raise ValueError(
            f"the posterior {tuple(posterior.shape)} should be {(batch, 2 * latent)}, as the noise "
            f"is {(batch, latent)}"
        )
    return _Gaussian.apply(posterior, noise)


def gaussian_sample(posterior: Tensor, noise: Tensor) -> Tensor:
    """Return the samples `(..., batch, latent)` alone, for noise of that shape."""
    rows = posterior.expand(*noise.shape[:-1], -1).reshape(-1, posterior.shape[-1])
    return gaussian_sample_and_kl(rows, noise.reshape(-1, noise.shape[-1]))[0].view(noise.shape)


def gaussian_kl(posterior: Tensor) -> Tensor:
    """Return the KL divergence alone, `(batch,)` nats, float64."""
    if not is_exact(posterior):
        mean, log_variance = posterior.chunk(2, dim=1)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)
        return kl.double()
    return _Gaussian.apply(posterior, None)[1]


class _Gaussian(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, posterior: Tensor, noise: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        posterior, noise = posterior.contiguous(), None if noise is None else noise.contiguous()
        z = None if noise is None else torch.empty(noise.shape)
        kl = torch.empty(posterior.shape[0], dtype=torch.float64)
        shape = kl.shape[0], posterior.shape[1] // 2
        library().gaussian(*_pointers(posterior, noise, z, kl), *shape)
        ctx.save_for_backward(posterior, noise)
        return z, kl

    @staticmethod
    def backward(ctx: Any, by_z: Tensor | None, by_kl: Tensor) -> tuple[Tensor | None, ...]:
        posterior, noise = _saved(ctx)
        by_z = None if noise is None else by_z.contiguous()
        by_posterior = torch.empty(posterior.shape)
        tensors = _pointers(posterior, noise, by_z, by_kl.contiguous(), by_posterior)
        shape = posterior.shape[0], posterior.shape[1] // 2
        library().gaussian_backward(*tensors, *shape)
        return by_posterior, None


def sigmoid(logits: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-logits)), in their shape."""
    return _Sigmoid.apply(logits) if is_exact(logits) else logits.sigmoid()


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor) -> Tensor:
        logits = logits.contiguous()
        shares = torch.empty_like(logits)
        library().sigmoid(*_pointers(logits, shares), logits.numel())
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    def backward(ctx: Any, by_shares: Tensor) -> Tensor:
        (shares,) = _saved(ctx)
        return by_shares * (shares * (1 - shares))


def exp(x: Tensor) -> Tensor:
    """Return exp(x), computed in float64; 0 below -700, infinite where float32's is."""
    return _Exp.apply(x.double()).to(x.dtype) if _computes(x) else x.exp()


class _Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        library().exponentials(y.data_ptr(), y.numel())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        (y,) = _saved(ctx)
        return by_y * y


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of normal positive numbers, computed in float64."""
    return _Log.apply(x.double()).to(x.dtype) if _computes(x) else x.log()


class _Log(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        library().logarithms(y.data_ptr(), y.numel())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        (x,) = _saved(ctx)
        return by_y / x


def sum(x: Tensor) -> Tensor:
    """Return the sum over the first axis, one row after the other, in float64."""
    return _Sum.apply(x.double()) if _computes(x) else x.double().sum(0)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        x = x.contiguous()
        sums = torch.empty(x.shape[1:], dtype=torch.float64)
        library().sum_over_rows(*_pointers(x, sums), len(x), sums.numel())
        ctx.shape = x.shape
        return sums

    @staticmethod
    def backward(ctx: Any, by_sums: Tensor) -> Tensor:
        return by_sums.expand(ctx.shape)


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum over all elements of `terms`, each tensor times its weight, in float64."""
    if not all(_computes(term) for term in terms):
        return torch.stack(
            [w * x.double().sum() for x, w in zip(terms, weights, strict=True)]
        ).sum()
    return _WeightedSum.apply(weights, *terms)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weights: Sequence[float], *terms: Tensor) -> Tensor:
        ctx.weights, ctx.shapes = weights, [term.shape for term in terms]
        total, part = 0.0, torch.empty((), dtype=torch.float64)
        for weight, term in zip(weights, terms, strict=True):
            values = term.double().contiguous()
            library().sum_over_rows(*_pointers(values, part), values.numel(), 1)
            total += weight * part.item()
        return part.fill_(total)

    @staticmethod
    def backward(ctx: Any, by_total: Tensor) -> tuple[Tensor | None, ...]:
        _saved(ctx)
        by = by_total.item()
        pairs = zip(ctx.shapes, ctx.weights, strict=True)
        return None, *(torch.full(shape, by * w, dtype=torch.float64) for shape, w in pairs)


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
    if not is_exact(weight):
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
    if not is_exact(weight):
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
    if bias is not None and (bias.shape != weight.shape[1 - axis : 2 - axis] or not is_exact(bias)):
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
        (x, w), (_, by_x, by_w, by_b, *_) = _saved(ctx), ctx.needs_input_grad
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
    tensors = _pointers(x, roomy(w), None if b is None else roomy(b), y)
    library().convolve(*tensors, *x.shape, *size, w.shape[3], *w.shape[:2], *stride, *first)
    return _channels_first(y)


def _by_weight(x: Tensor, by_y: Tensor, kernel: Size, stride: Size, padding: Size) -> Tensor:
    """Return the gradient of a convolution by its weight: each element one chain over images, rows
    and columns of `by_y`, ascending."""
    x, by_y = _channels_last(x), roomy(_channels_last(by_y))
    by_w = empty(*kernel, x.shape[3], by_y.shape[3])
    numbers = *x.shape, *by_y.shape[1:], *kernel, *stride, *(-p for p in padding)
    library().convolve_by_weight(*_pointers(x, by_y, by_w), *numbers)
    return by_w.permute(3, 2, 0, 1)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def gaussian_nll(mean: Tensor, images: Tensor, log_variance: Tensor | float = 0.0) -> Tensor:
    """Return -log p(x) of each grey image under normal pixels, `(..., batch)` nats, float64.

    `mean` is `(..., batch, pixels)`, `images` `(batch, pixels)`: uint8 of 0 to 255, which counts as
    x / 255, or floating-point numbers as they are. `log_variance` is a number, or has the mean's
    shape. Each is half the sum over the pixels, ascending, of (x - mean)^2 / variance +
    log_variance + log(2 pi), in float64.
    """
    if mean.shape[-2:] != images.shape:
        raise ValueError(
            f"gaussian_nll: means {tuple(mean.shape)} do not fit images {tuple(images.shape)}"
        )
    if isinstance(log_variance, Tensor) and log_variance.shape != mean.shape:
        raise ValueError(f"gaussian_nll: log_variance should be a number or {tuple(mean.shape)}")
    x = images.double() / 255 if images.dtype == torch.uint8 else images.double()
    v = torch.as_tensor(log_variance).double()
    distance = x - mean.double()
    terms = distance * distance * exp(-v) + v + math.log(2 * math.pi)
    return 0.5 * sum(terms.movedim(-1, 0))


def _computes(x: Tensor) -> bool:
    return _arithmetic == "exact" and x.is_cpu


def _saved(ctx: Any) -> Sequence[Tensor]:
    """Return what forward saved. Raises RuntimeError where backward itself is to be differentiated,
    which its C function cannot be."""
    if torch.is_grad_enabled():
        raise RuntimeError("exact operations can be differentiated once only (no create_graph)")
    return ctx.saved_tensors


class _Address(ctypes.c_void_p):
    """A tensor's address, which keeps the tensor alive: it may be a copy made for one call."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor.data_ptr())
        self.tensor = tensor


def _pointers(*tensors: Tensor | None) -> list[_Address | None]:
    """Return the addresses of tensors, None for None."""
    return [tensor if tensor is None else _Address(tensor) for tensor in tensors]
