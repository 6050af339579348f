"""Operations whose bits do not depend on the machine: an autograd function over C for each.

They compute float32 on the CPU. Tensors of another type or device, and all tensors after
`set_arithmetic("torch")`, go to PyTorch's own kernels, whose bits belong to the machine.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from exact.library import library

# The C library may read so many numbers beyond the end of a right factor or a bias.
ROOM = 128
ARITHMETICS = ("exact", "torch")
_arithmetic = "exact"


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

    `x` is `(..., inputs)` float32, or uint8 of zeros and ones, which is summed by its ones; `weight`
    is `(outputs, inputs)` as torch.nn.Linear has it, `bias` `(outputs,)`. Each element is one chain
    of fused multiply-adds over the inputs, ascending, from the bias. It is fastest for a weight
    whose transpose is contiguous, as `exact.nn.Linear` makes it. Raises ValueError where a shape
    does not fit or a uint8 is not 0 or 1.
    """
    if not is_exact(weight):
        y = torch.nn.functional.linear(x.to(weight.dtype), weight, bias)
        return y.relu() if relu else y
    inputs = weight.shape[-1]
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != inputs:
        raise ValueError(f"linear: x {tuple(x.shape)} does not fit weight {tuple(weight.shape)}")
    if bias is not None and (bias.shape != weight.shape[:1] or not is_exact(bias)):
        raise ValueError(f"linear: the bias should be float32 {tuple(weight.shape[:1])}")
    if x.dtype not in (torch.float32, torch.uint8) or not x.is_cpu:
        raise ValueError(f"linear: x should be float32 or uint8 on the CPU, not {x.dtype}")
    rows = x if x.ndim == 2 else x.reshape(-1, inputs)
    y = _Linear.apply(rows, weight, bias, relu)
    return y if x.ndim == 2 else y.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool
    ) -> Tensor:
        x, w = x.contiguous(), roomy(weight.t())
        b = None if bias is None else roomy(bias)
        rows, (inputs, outputs) = len(x), w.shape
        y = empty(rows, outputs)
        product = library().linear_of_bytes if x.dtype == torch.uint8 else library().linear
        product(*_pointers(x, w, b, y), rows, inputs, outputs, relu)
        ctx.save_for_backward(x, w, y if relu else None)
        ctx.has_bias = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        x, w, y = ctx.saved_tensors
        rows, (inputs, outputs) = len(x), w.shape
        by_x = empty(*x.shape) if ctx.needs_input_grad[0] else None
        by_w = empty(*w.shape) if ctx.needs_input_grad[1] else None
        by_b = empty(outputs) if ctx.has_bias and ctx.needs_input_grad[2] else None
        by_y = by_y.contiguous()
        if x.dtype == torch.uint8:
            tensors = _pointers(x, y, by_y, by_w, by_b)
            library().linear_of_bytes_backward(*tensors, rows, inputs, outputs)
        else:
            tensors = _pointers(x, w, y, by_y, by_x, by_w, by_b)
            library().linear_backward(*tensors, rows, inputs, outputs)
        return by_x, None if by_w is None else by_w.t(), by_b, None


def bernoulli_nll(logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(x) of each image under independent pixels, `(..., batch)` nats, float64.

    `logits` `(..., batch, pixels)` are those of a pixel being 1, `images` `(batch, pixels)` uint8 of
    zeros and ones. Each is the sum over the pixels of log(1 + exp(l)) - l x, in 16 interleaved parts.
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
    @once_differentiable
    def backward(ctx: Any, by_terms: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        if by_terms.eq(1).all():  # as for a sum of terms: a product by 1 changes nothing
            return gradient, None
        by_logits = torch.empty_like(gradient)
        tensors = _pointers(gradient, by_terms.contiguous(), by_logits)
        library().bernoulli_nll_backward(*tensors, by_terms.numel(), gradient.shape[-1])
        return by_logits, None


def gaussian_sample_and_kl(
    mean: Tensor, log_variance: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Sample diagonal Gaussians, and give their KL divergence to the standard normal distribution.

    `mean` and `log_variance` are `(batch, latent)`, `noise` is standard normal `(batch, latent)`.
    Returns mean + exp(log_variance / 2) noise, `(batch, latent)`, and the KL, `(batch,)` nats,
    float64 (Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4 and appendix B).
    One operation, since the gradient by the posterior is one sum, rounded once.
    """
    if not is_exact(mean):
        return mean + torch.exp(0.5 * log_variance) * noise, gaussian_kl(mean, log_variance)
    if not mean.shape == log_variance.shape == noise.shape or mean.ndim != 2:
        raise ValueError(
            f"mean {tuple(mean.shape)}, log_variance {tuple(log_variance.shape)} and noise "
            f"{tuple(noise.shape)} should have one shape, (batch, latent)"
        )
    return _Gaussian.apply(mean, log_variance, noise)


def gaussian_sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return mean + exp(log_variance / 2) noise, `(..., batch, latent)`, for noise of that shape."""
    rows = (each.expand_as(noise).reshape(-1, noise.shape[-1]) for each in (mean, log_variance))
    return gaussian_sample_and_kl(*rows, noise.reshape(-1, noise.shape[-1]))[0].view(noise.shape)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence alone, as `gaussian_sample_and_kl`."""
    if not is_exact(mean):
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1)
        return kl.double()
    return _Gaussian.apply(mean, log_variance, None)[1]


class _Gaussian(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, mean: Tensor, log_variance: Tensor, noise: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        if mean.stride() != log_variance.stride() or mean.stride(1) != 1:
            mean, log_variance = mean.contiguous(), log_variance.contiguous()
        noise = None if noise is None else noise.contiguous()
        z = None if noise is None else torch.empty_like(noise)
        kl = torch.empty(len(mean), dtype=torch.float64)
        tensors = _pointers(noise, z, kl)
        posterior = *_pointers(mean, log_variance), mean.stride(0)
        library().gaussian(*posterior, *tensors, *mean.shape)
        ctx.save_for_backward(mean, log_variance, noise)
        return z, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_z: Tensor | None, by_kl: Tensor) -> tuple[Tensor | None, ...]:
        mean, log_variance, noise = ctx.saved_tensors
        by_mean, by_log_variance = torch.empty(mean.shape), torch.empty(mean.shape)
        by_z = None if noise is None else by_z.contiguous()
        posterior = *_pointers(mean, log_variance), mean.stride(0)
        tensors = _pointers(noise, by_z, by_kl.contiguous(), by_mean, by_log_variance)
        library().gaussian_backward(*posterior, *tensors, *mean.shape)
        return by_mean, by_log_variance, None


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
    @once_differentiable
    def backward(ctx: Any, by_shares: Tensor) -> Tensor:
        (shares,) = ctx.saved_tensors
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
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
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
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
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
    @once_differentiable
    def backward(ctx: Any, by_sums: Tensor) -> Tensor:
        return by_sums.expand(ctx.shape)


def _computes(x: Tensor) -> bool:
    return _arithmetic == "exact" and x.is_cpu


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    """Return the addresses of tensors, None for None."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]
