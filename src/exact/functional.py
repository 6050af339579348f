"""Operations whose bits do not depend on the machine: an autograd function over C for each.

They compute float32 on the CPU. Tensors of another type or device, and all tensors after
`set_arithmetic("torch")`, go to PyTorch's own kernels, whose bits belong to the machine.
"""

import builtins
import math
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import binary_cross_entropy_with_logits

from exact.convolution import conv2d, conv_transpose2d
from exact.elementwise import exp, log, sigmoid, sum, weighted_sum
from exact.library import UNCHANGED, library
from exact.tensors import addresses, computed_here, empty, roomy, saved_tensors

__all__ = [
    "bernoulli_nll",
    "conv2d",
    "conv_transpose2d",
    "exp",
    "gaussian_kl",
    "gaussian_nll",
    "gaussian_sample",
    "gaussian_sample_and_kl",
    "linear",
    "linears",
    "log",
    "sigmoid",
    "sum",
    "weighted_sum",
]


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
    inputs, relus, tensors = x.shape[-1], [], []
    for weight, bias, relu in layers:
        if not computed_here(weight):
            return _torch_linears(x, layers)
        if weight.shape[1] != inputs:
            raise ValueError(f"linear: {inputs} inputs do not fit weight {tuple(weight.shape)}")
        inputs = weight.shape[0]
        if bias is not None and (bias.shape != (inputs,) or not computed_here(bias)):
            raise ValueError(f"linear: the bias should be float32 ({inputs},) on the CPU")
        relus.append(relu)
        tensors += weight, bias
    if not relus:
        return x
    if x.dtype not in (torch.float32, torch.uint8) or not x.is_cpu:
        raise ValueError(f"linear: x should be float32 or uint8 on the CPU, not {x.dtype}")
    if x.ndim == 2:
        return _Linears.apply(x, relus, *tensors)
    rows = x.reshape(-1, x.shape[-1])
    return _Linears.apply(rows, relus, *tensors).view(*x.shape[:-1], inputs)


def _torch_linears(x: Tensor, layers: Sequence[tuple[Tensor, Tensor | None, bool]]) -> Tensor:
    for weight, bias, relu in layers:
        x = torch.nn.functional.linear(x.to(weight.dtype), weight, bias)
        x = x.relu() if relu else x
    return x


class _Linears(torch.autograd.Function):
    """One call of C each way, whatever the number of layers: between two calls, what Python needs
    leaves the processor's caches."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, relus: Sequence[bool], *parameters: Tensor | None
    ) -> Tensor:
        x, (rows, inputs) = x.contiguous(), x.shape
        weights = [roomy(weight.t()) for weight in parameters[::2]]
        biases = [bias if bias is None else roomy(bias) for bias in parameters[1::2]]
        outputs = [weight.shape[1] for weight in weights]
        hidden, y = torch.empty(rows * builtins.sum(outputs[:-1])), torch.empty(rows, outputs[-1])
        none = [None] * len(weights)
        table = _table(weights, biases, none, none, outputs, relus)
        sizes = x.dtype == torch.uint8, rows, inputs, table.buffer_info()[0], len(weights)
        library().linears(x.data_ptr(), *sizes, hidden.data_ptr(), y.data_ptr())
        ctx.save_for_backward(x, hidden, y if relus[-1] else None, *weights)
        ctx.relus = relus
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, y, *weights = saved_tensors(ctx)
        by_y, (wanted, _, *others) = roomy(by_y), ctx.needs_input_grad
        by_x = torch.empty(x.shape) if wanted else None
        shapes = [shape for w in weights for shape in (w.shape, w.shape[1:])]
        by = [torch.empty(s) if w else None for s, w in zip(shapes, others, strict=True)]
        outputs, none = [weight.shape[1] for weight in weights], [None] * len(weights)
        table = _table(weights, none, by[::2], by[1::2], outputs, ctx.relus)
        sizes = x.dtype == torch.uint8, *x.shape, table.buffer_info()[0], len(weights)
        library().linears_backward(x.data_ptr(), *sizes, *addresses(hidden, y, by_y, by_x))
        by[::2] = [w if w is None else w.t() for w in by[::2]]
        return by_x, None, *by


def _table(*columns: Sequence[Any]) -> array:
    """Return a row of six numbers per layer, as exact.c's `Layer`; tensors are their addresses."""
    table = array("q")
    for *tensors, outputs, relu in zip(*columns, strict=True):
        table.extend([*addresses(*tensors), outputs, relu])
    return table


def bernoulli_nll(logits: Tensor, images: Tensor) -> Tensor:
    """Return -log p(x) of each image under independent pixels, `(..., batch)` nats, float64.

    `logits` `(..., batch, pixels)` are those of a pixel being 1, `images` `(batch, pixels)` uint8
    of zeros and ones. Each term is the sum over the pixels of log(1 + exp(l)) - l x, taken in 16
    interleaved parts.
    """
    if not computed_here(logits):
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
        gradient = empty(*logits.shape) if ctx.needs_input_grad[0] else None
        tensors = addresses(logits, images, terms, gradient)
        library().bernoulli_nll(*tensors, terms.numel(), *images.shape)
        ctx.save_for_backward(gradient)
        return terms

    @staticmethod
    def backward(ctx: Any, by_terms: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = saved_tensors(ctx)
        by_logits, by_terms = torch.empty_like(gradient), by_terms.contiguous()
        tensors = addresses(gradient, by_terms, by_logits)
        sizes = by_terms.numel(), gradient.shape[-1]
        status = library().bernoulli_nll_backward(*tensors, *sizes)
        return gradient if status == UNCHANGED else by_logits, None


def gaussian_sample_and_kl(posterior: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Sample diagonal Gaussians, and give their KL divergence to the standard normal distribution.

    `posterior` is `(batch, 2 latent)`: the mean beside the log-variance; `noise` is standard normal
    `(batch, latent)`. Returns mean + exp(log_variance / 2) noise, `(batch, latent)`, and the KL,
    `(batch,)` nats, float64 (Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.4
    and appendix B). One operation, since its gradient is one sum, rounded once.
    """
    if not computed_here(posterior):
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
    if not computed_here(posterior):
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
        library().gaussian(*addresses(posterior, noise, z, kl), *shape)
        ctx.save_for_backward(posterior, noise)
        return z, kl

    @staticmethod
    def backward(ctx: Any, by_z: Tensor | None, by_kl: Tensor) -> tuple[Tensor | None, ...]:
        posterior, noise = saved_tensors(ctx)
        by_z, by_kl = None if noise is None else by_z.contiguous(), by_kl.contiguous()
        by_posterior = torch.empty(posterior.shape)
        tensors = addresses(posterior, noise, by_z, by_kl, by_posterior)
        shape = posterior.shape[0], posterior.shape[1] // 2
        library().gaussian_backward(*tensors, *shape)
        return by_posterior, None


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
